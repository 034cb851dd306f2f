//! Rows that are mostly zeros, such as one-hot columns give: kept without them.

use super::columns::{Column, fill};
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::UInt8Type;
use ropeway_framework::Result;

/// How many values there must be for each that is not zero, so that rows are kept without their zeros.
const WORTH: usize = 4;

/// The values of rows that are not zero, and their places.
#[derive(Clone, Debug, Default)]
pub(super) struct Sparse {
    /// Where each row's values end.
    ends: Vec<usize>,
    places: Vec<u32>,
    values: Vec<f32>,
}

/// A value that is not zero.
struct Found {
    row: u32,
    place: u32,
    value: f32,
}

impl Sparse {
    /// Whether rows of so many zeros are worth it.
    pub(super) fn worth(rows: &[f32]) -> bool {
        WORTH * rows.iter().filter(|value| !zero(**value)).count() <= rows.len()
    }

    /// Reads columns of a part of a frame, whose first row is row `first`.
    ///
    /// # Errors
    /// As [`fill`].
    pub(super) fn read(part: &RecordBatch, columns: &[(&Column, usize)], first: usize) -> Result<Self> {
        let (mut found, mut room, mut offset) = (Vec::new(), Vec::new(), 0);
        for (column, position) in columns {
            let array = part.column(*position);
            let mut keep = |row: usize, place: usize, value: f32| {
                if !zero(value) {
                    found.push(Found { row: row as u32, place: (offset + place) as u32, value });
                }
            };
            match marks(array, column) {
                Some(marks) => each_mark(marks, |row, mark| keep(row, 0, f32::from(mark))),
                None => {
                    let width = column.width();
                    room.clear();
                    room.resize(part.num_rows() * width, 0.0);
                    fill(array, column, first, &mut room, (0, width))?;
                    room.iter().enumerate().for_each(|(index, value)| keep(index / width, index % width, *value));
                }
            }
            offset += column.width();
        }
        Ok(Self::by_row(part.num_rows(), &found))
    }

    /// Values that come in the order of their places.
    fn by_row(rows: usize, found: &[Found]) -> Self {
        let mut ends = vec![0; rows];
        found.iter().for_each(|one| ends[one.row as usize] += 1);
        let mut all = 0;
        // At first they say where a row begins, and move on with every value that it gets.
        ends.iter_mut().for_each(|end| all += std::mem::replace(end, all));
        let (mut places, mut values) = (vec![0; found.len()], vec![0.0; found.len()]);
        for one in found {
            let end = &mut ends[one.row as usize];
            (places[*end], values[*end]) = (one.place, one.value);
            *end += 1;
        }
        Self { ends, places, values }
    }

    /// The rows of several parts, one after the other.
    pub(super) fn join(parts: impl IntoIterator<Item = Self>) -> Self {
        let mut all = Self::default();
        for part in parts {
            let before = all.values.len();
            all.ends.extend(part.ends.iter().map(|end| before + end));
            all.places.extend(part.places);
            all.values.extend(part.values);
        }
        all
    }

    pub(super) fn gather(&self, row: usize, out: &mut [f32]) {
        let start = row.checked_sub(1).map_or(0, |before| self.ends[before]);
        let place = start..self.ends[row];
        out.fill(0.0);
        for (place, value) in self.places[place.clone()].iter().zip(&self.values[place]) {
            out[*place as usize] = *value;
        }
    }
}

/// Whether a value is the zero that memory begins with: not the negative one, whose bit would be lost.
fn zero(value: f32) -> bool {
    value.to_bits() == 0
}

/// The values of a column of small numbers without a null.
fn marks<'a>(array: &'a ArrayRef, column: &Column) -> Option<&'a [u8]> {
    let plain = column.is_plain() && array.null_count() == 0;
    plain.then(|| array.as_primitive_opt::<UInt8Type>()).flatten().map(|bytes| bytes.values().as_ref())
}

/// Looks at bytes that are not zero; at eight that are at once.
fn each_mark(bytes: &[u8], mut work: impl FnMut(usize, u8)) {
    let (words, _) = bytes.as_chunks::<8>();
    for (index, word) in words.iter().enumerate().filter(|(_, word)| u64::from_ne_bytes(**word) != 0) {
        word.iter().enumerate().filter(|(_, byte)| **byte != 0).for_each(|(at, byte)| work(index * 8 + at, *byte));
    }
    let rest = words.len() * 8;
    bytes[rest..].iter().enumerate().filter(|(_, byte)| **byte != 0).for_each(|(at, byte)| work(rest + at, *byte));
}
