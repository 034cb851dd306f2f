//! Words of a text, counted by a hash.
//!
//! Each run of one to `ngrams` words adds 1 or -1 to the place that its hash says; the sign, a bit of the hash too, makes
//! collisions cancel on average (Weinberger et al., "Feature hashing for large scale multitask learning", 2009). The
//! vector is then brought to length 1.

use super::column::Text;
use super::fixed_hash::hash;
use arrow::array::{ArrayRef, FixedSizeListArray, Float32Array};
use arrow::datatypes::{DataType, Field};
use ropeway_framework::Result;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The type of the vectors.
pub(super) fn vector_type(buckets: usize) -> Result<DataType> {
    let item = Arc::new(Field::new_list_field(DataType::Float32, true));
    Ok(DataType::FixedSizeList(item, i32::try_from(buckets)?))
}

/// The vector of every text; a missing text has no words.
pub(super) fn vectors(text: &Text, buckets: usize, ngrams: usize) -> Result<ArrayRef> {
    let sparse: Vec<Vec<(usize, f32)>> = text.values.iter().map(|value| vector(value, buckets, ngrams)).collect();
    let mut dense = vec![0.0f32; text.codes.len() * buckets];
    for (row, code) in dense.chunks_exact_mut(buckets.max(1)).zip(&text.codes) {
        for (place, value) in sparse.get(*code as usize).into_iter().flatten() {
            row[*place] = *value;
        }
    }
    let item = Arc::new(Field::new_list_field(DataType::Float32, true));
    let values = Arc::new(Float32Array::from(dense));
    Ok(Arc::new(FixedSizeListArray::try_new(item, i32::try_from(buckets)?, values, None)?))
}

/// The places that are not 0.
fn vector(text: &str, buckets: usize, ngrams: usize) -> Vec<(usize, f32)> {
    let lower = text.to_lowercase();
    let words: Vec<&str> =
        lower.split(|letter: char| !letter.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
    let mut counts: BTreeMap<usize, i64> = BTreeMap::new();
    for length in 1..=ngrams {
        for run in words.windows(length) {
            let bits = hash(run.join(" ").as_bytes());
            let place = (bits % buckets.max(1) as u64) as usize;
            *counts.entry(place).or_default() += if bits >> 63 == 0 { 1 } else { -1 };
        }
    }
    let squares: i64 = counts.values().map(|count| count * count).sum();
    let norm = (squares as f64).sqrt();
    counts
        .into_iter()
        .filter(|(_, count)| *count != 0)
        .map(|(place, count)| (place, (count as f64 / norm) as f32))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_counted_whatever_their_case_and_marks() {
        assert_eq!(vector("Good, GOOD dog!", 4096, 1), vector("dog good good", 4096, 1));
        assert_ne!(vector("good dog", 4096, 2), vector("dog good", 4096, 2));
        let length: f32 = vector("a b c d e f", 64, 2).iter().map(|(_, value)| value * value).sum();
        assert!((length - 1.0).abs() < 1e-6);
        assert!(vector(" ,.! ", 64, 2).is_empty());
    }
}
