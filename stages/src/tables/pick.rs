//! Rows by chance and by number: what `split` and `sample` share.

use arrow::array::{ArrayRef, UInt64Array};
use arrow::compute::take_record_batch;
use arrow::row::{RowConverter, SortField};
use arrow::util::display::array_value_to_string;
use rand::Rng;
use ropeway_framework::Result;
use ropeway_framework::data::Frame;
use std::collections::HashMap;

/// The rows at these positions, which must ascend (a position may come again). The frame's batches stay apart, so
/// nothing is copied but what is taken.
pub(super) fn take_rows(frame: &Frame, positions: &[usize]) -> Result<Frame> {
    let mut batches = Vec::with_capacity(frame.batches().len());
    let (mut start, mut rest) = (0, positions);
    for batch in frame.batches() {
        let end = start + batch.num_rows();
        let (here, later) = rest.split_at(rest.partition_point(|position| *position < end));
        if !here.is_empty() {
            let local = UInt64Array::from_iter_values(here.iter().map(|position| (position - start) as u64));
            batches.push(take_record_batch(batch, &local)?);
        }
        (start, rest) = (end, later);
    }
    Frame::new(frame.schema().clone(), batches)
}

/// The rows of each distinct value of a column.
pub(super) struct Classes {
    /// The rows of each class, ascending; classes in the order in which they first appear.
    pub(super) rows: Vec<Vec<usize>>,
    column: ArrayRef,
}

impl Classes {
    /// Sorts the rows of a column by value; null is a value.
    pub(super) fn of(column: ArrayRef) -> Result<Self> {
        let converter = RowConverter::new(vec![SortField::new(column.data_type().clone())])?;
        let keys = converter.convert_columns(std::slice::from_ref(&column))?;
        let mut known: HashMap<&[u8], usize> = HashMap::new();
        let mut rows: Vec<Vec<usize>> = Vec::new();
        for (row, key) in keys.iter().enumerate() {
            let class = *known.entry(key.data()).or_insert(rows.len());
            if class == rows.len() {
                rows.push(Vec::new());
            }
            rows[class].push(row);
        }
        Ok(Self { rows, column })
    }

    /// What a class is called.
    pub(super) fn label(&self, class: usize) -> String {
        let first = self.rows.get(class).and_then(|rows| rows.first());
        match first {
            Some(row) if self.column.is_valid(*row) => {
                array_value_to_string(&self.column, *row).map_or_else(|_| "?".to_owned(), |text| format!("{text:?}"))
            }
            _ => "null".to_owned(),
        }
    }
}

/// A number below `limit`, from 64 random bits by multiplication (Lemire, "Fast random integer generation in an
/// interval", 2019; without the rejection step, whose effect is below 2⁻³² for every table that fits in memory).
pub(super) fn below(random: &mut impl Rng, limit: usize) -> usize {
    ((u128::from(random.next_u64()) * limit as u128) >> 64) as usize
}

/// Brings the first `count` items into random order, drawn from all of them (Fisher and Yates).
pub(super) fn shuffle<T>(items: &mut [T], count: usize, random: &mut impl Rng) {
    for at in 0..count.min(items.len()) {
        let other = at + below(random, items.len() - at);
        items.swap(at, other);
    }
}

/// Whole numbers that add up to `total` and are nearest to its shares by `weights` (largest remainder, Hamilton's
/// method; of equal remainders the first wins).
pub(super) fn apportion(total: usize, weights: &[f64]) -> Vec<usize> {
    let sum: f64 = weights.iter().sum();
    let ideal = |weight: f64| if sum > 0.0 { weight / sum * total as f64 } else { 0.0 };
    let mut counts: Vec<usize> = weights.iter().map(|weight| ideal(*weight).floor() as usize).collect();
    let mut order: Vec<usize> = (0..weights.len()).filter(|index| weights[*index] > 0.0).collect();
    let remainder = |index: &usize| ideal(weights[*index]).fract();
    order.sort_by(|a, b| remainder(b).total_cmp(&remainder(a)));
    let missing = total.saturating_sub(counts.iter().sum());
    for index in order.into_iter().take(missing) {
        counts[index] += 1;
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{AsArray, Int64Array};
    use arrow::datatypes::Int64Type;
    use proptest::prelude::*;
    use ropeway_framework::stage::Seed;
    use std::sync::Arc;

    #[test]
    fn rows_are_taken_across_batches() {
        let column = |values: std::ops::Range<i64>| Arc::new(Int64Array::from_iter_values(values)) as ArrayRef;
        let first = Frame::from_columns([("x", column(0..4))]).unwrap();
        let second = Frame::from_columns([("x", column(4..10))]).unwrap();
        let batches = vec![first.to_batch().unwrap(), second.to_batch().unwrap()];
        let frame = Frame::new(first.schema().clone(), batches).unwrap();
        let got = take_rows(&frame, &[0, 3, 3, 4, 9]).unwrap().column("x").unwrap();
        assert_eq!(got.as_primitive::<Int64Type>().values().to_vec(), [0, 3, 3, 4, 9]);
        assert_eq!(take_rows(&frame, &[]).unwrap().rows(), 0);
    }

    #[test]
    fn shuffling_draws_each_item_evenly() {
        let mut first = [0usize; 5];
        let mut random = Seed::new(1, "test").rng("shuffle");
        for _ in 0..10_000 {
            let mut items = [0, 1, 2, 3, 4];
            shuffle(&mut items, 1, &mut random);
            first[items[0]] += 1;
        }
        assert!(first.iter().all(|count| (1800..2200).contains(count)), "{first:?}");
    }

    proptest! {
        #[test]
        fn shares_add_up_and_are_near(total in 0usize..100_000, weights in proptest::collection::vec(0.001f64..1.0, 1..8)) {
            let counts = apportion(total, &weights);
            prop_assert_eq!(counts.iter().sum::<usize>(), total);
            let sum: f64 = weights.iter().sum();
            for (count, weight) in counts.iter().zip(&weights) {
                prop_assert!((*count as f64 - total as f64 * weight / sum).abs() < 1.0 + 1e-6);
            }
        }
    }
}
