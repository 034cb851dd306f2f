//! What a frame keeps alive: memory that is counted by canonical bytes must not hide much larger allocations.

use crate::Result;
use arrow::array::{Array, ArrayData, RecordBatch, RecordBatchOptions, make_array};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer};
use std::collections::{HashMap, HashSet};

/// The same canonical batches, in allocations that are at most a quarter larger than what is used of them, but for
/// small ones: parts of others are copied. So a few rows of a large table do not keep all of it.
pub(super) fn light(batches: Vec<RecordBatch>) -> Result<Vec<RecordBatch>> {
    /// What an allocation may waste in any case.
    const SLACK: usize = 4096;

    let mut used: HashMap<usize, (usize, usize)> = HashMap::new();
    for column in batches.iter().flat_map(RecordBatch::columns) {
        count(&column.to_data(), &mut used);
    }
    let heavy = used.into_iter().filter(|(_, (used, capacity))| *capacity > used + used / 4 + SLACK);
    let heavy: HashSet<usize> = heavy.map(|(address, _)| address).collect();
    if heavy.is_empty() {
        return Ok(batches);
    }
    let copy = |buffer: &Buffer| match heavy.contains(&address(buffer)) {
        true => Buffer::from_slice_ref(buffer.as_slice()),
        false => buffer.clone(),
    };
    batches.iter().map(|batch| with_buffers(batch, &copy)).collect()
}

/// The same batch in other buffers, of the same contents.
pub(super) fn with_buffers(batch: &RecordBatch, other: &dyn Fn(&Buffer) -> Buffer) -> Result<RecordBatch> {
    let columns = batch.columns().iter().map(|column| make_array(data_with(&column.to_data(), other))).collect();
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(batch.schema(), columns, &options)?)
}

fn data_with(data: &ArrayData, other: &dyn Fn(&Buffer) -> Buffer) -> ArrayData {
    let nulls = data.nulls().map(|nulls| {
        let bits = nulls.inner();
        NullBuffer::new(BooleanBuffer::new(other(bits.inner()), bits.offset(), bits.len()))
    });
    let children = data.child_data().iter().map(|child| data_with(child, other)).collect();
    let builder = data.clone().into_builder().buffers(data.buffers().iter().map(other).collect());
    // SAFETY: it is the data of a valid array but for where its buffers lie; their contents are the same, and an
    // allocation of Arrow's, as the buffer that it stands for, is aligned for every type.
    unsafe { builder.nulls(nulls).child_data(children).build_unchecked() }
}

fn address(buffer: &Buffer) -> usize {
    buffer.data_ptr().as_ptr() as usize
}

/// Adds up the used bytes of each allocation, beside its size.
fn count(data: &ArrayData, used: &mut HashMap<usize, (usize, usize)>) {
    let validity = data.nulls().map(NullBuffer::buffer);
    for buffer in data.buffers().iter().chain(validity) {
        used.entry(address(buffer)).or_insert((0, buffer.capacity())).0 += buffer.len();
    }
    data.child_data().iter().for_each(|child| count(child, used));
}

#[cfg(test)]
mod tests {
    use super::super::canonical;
    use super::*;
    use arrow::array::{ArrayRef, Int64Array, StringArray};
    use std::sync::Arc;

    fn batch(rows: usize) -> RecordBatch {
        let numbers: ArrayRef = Arc::new((0..rows as i64).map(|n| (n % 3 > 0).then_some(n)).collect::<Int64Array>());
        let words: ArrayRef = Arc::new((0..rows).map(|n| Some(format!("word {n}"))).collect::<StringArray>());
        RecordBatch::try_from_iter([("n", numbers), ("w", words)]).unwrap()
    }

    fn part(batch: &RecordBatch, start: usize, rows: usize) -> RecordBatch {
        canonical::batch(&batch.schema(), &[batch.slice(start, rows)]).unwrap()
    }

    fn alive(batches: &[RecordBatch]) -> usize {
        let mut used = HashMap::new();
        batches.iter().flat_map(RecordBatch::columns).for_each(|column| count(&column.to_data(), &mut used));
        used.values().map(|(_, capacity)| capacity).sum()
    }

    #[test]
    fn a_small_part_of_a_large_table_is_copied() {
        let large = batch(100_000);
        let part = vec![part(&large, 500, 100)];
        let light = light(part.clone()).unwrap();
        assert_eq!(light, part);
        assert!(alive(&part) > 1_000_000 && alive(&light) < 30_000, "{} {}", alive(&part), alive(&light));
    }

    #[test]
    fn parts_that_make_up_the_whole_are_shared() {
        let large = batch(100_000);
        let parts: Vec<RecordBatch> = (0..10).map(|place| part(&large, place * 10_000, 10_000)).collect();
        let light = light(parts.clone()).unwrap();
        for (light, part) in light.iter().zip(&parts) {
            let start = |batch: &RecordBatch| batch.column(0).to_data().buffers()[0].as_ptr();
            assert_eq!(start(light), start(part));
        }
    }
}
