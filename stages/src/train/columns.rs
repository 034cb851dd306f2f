//! Which columns a model reads, and their values as rows of `f32`.

use super::encoding::encode;
use super::sparse::Sparse;
use super::target::Classes;
use crate::parallel::in_order;
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, UInt8Array};
use arrow::buffer::ScalarBuffer;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Float32Type, Schema, SchemaRef, UInt8Type};
use ropeway_framework::data::Frame;
use ropeway_framework::{Context, Error, Result};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// A column that a model reads: a number, a list of numbers of one length, a category, or a text's bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Column {
    pub(crate) name: String,
    /// Arrow's name of the number's type: `Float64`.
    #[serde(rename = "type")]
    pub(super) kind: String,
    /// The length of the list.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) length: Option<usize>,
    /// Its categories, if it is read as their places: the first is 1, and what is none of them 0.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) categories: Option<Classes>,
    /// Bytes of a text that are read, if it is read as its bytes.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) bytes: Option<usize>,
    /// How many tokens there are, if its list is one of token numbers.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) vocabulary: Option<usize>,
}

/// Rows of features.
#[derive(Clone, Debug)]
pub(crate) struct Features {
    rows: usize,
    width: usize,
    values: Values,
}

#[derive(Clone, Debug)]
enum Values {
    Numbers(Vec<f32>),
    Sparse(Sparse),
    /// One list of bytes a row: pixels, divided by 255 when read. Kept as they are, shared with the frame.
    Pixels(ScalarBuffer<u8>),
}

/// Rows that are turned into numbers at once.
const PART: usize = 4096;

const WHITE: f32 = 255.0;

/// The columns of a frame but the target, as a model reads them.
///
/// # Errors
/// A column that is no number and no list of numbers, or none at all.
pub(crate) fn columns(frame: &Frame, target: &str) -> Result<Vec<Column>> {
    let fields = frame.schema().fields().iter().filter(|field| field.name() != target);
    let columns = fields.map(|field| column(field)).collect::<Result<Vec<_>>>()?;
    if columns.is_empty() {
        return Err(Error::new(format!("there is no feature column: {target:?} is the only column")));
    }
    Ok(columns)
}

fn number(kind: &DataType) -> bool {
    kind.is_integer() || kind.is_floating() || matches!(kind, DataType::Boolean)
}

/// A column of numbers.
///
/// # Errors
/// It has none.
pub(super) fn column(field: &Field) -> Result<Column> {
    let name = field.name().clone();
    match field.data_type() {
        kind if number(kind) => Ok(Column::new(name, kind, None)),
        DataType::FixedSizeList(item, length) if number(item.data_type()) && *length > 0 => {
            Ok(Column::new(name, item.data_type(), usize::try_from(*length).ok()))
        }
        kind => Err(Error::new(format!("column {name:?} is of type {kind}; a model reads numbers only"))
            .help("turn it into numbers with a `features.fit` stage (input `features`), or leave it out with `sql`")),
    }
}

impl Column {
    pub(super) fn new(name: String, kind: &DataType, length: Option<usize>) -> Self {
        Self { name, kind: kind.to_string(), length, categories: None, bytes: None, vocabulary: None }
    }

    pub(crate) fn width(&self) -> usize {
        self.bytes.or(self.length).unwrap_or(1)
    }

    /// Whether it is one number a row, read as it is.
    pub(super) fn is_plain(&self) -> bool {
        self.length.is_none() && self.categories.is_none() && self.bytes.is_none()
    }

    fn check_tokens(&self, tokens: &[f32], row: usize) -> Result<()> {
        let strange = |token: &&f32| self.vocabulary.is_some_and(|vocabulary| **token >= vocabulary as f32);
        let mut after = tokens.iter().skip_while(|token| **token >= 0.0);
        if self.vocabulary.is_some() && after.any(|token| *token >= 0.0) {
            return Err(Error::new(format!(
                "column {:?} has tokens after a negative number in row {row} (the first is row 0)",
                self.name
            ))
            .help("a sequence ends at its first negative number: put those that fill it up at the end"));
        }
        match (tokens.iter().find(strange), self.vocabulary) {
            (Some(token), Some(vocabulary)) => Err(Error::new(format!(
                "column {:?} has the token {token} in row {row} (the first is row 0), but `vocabulary` is {vocabulary}",
                self.name
            ))
            .help("tokens are numbered from 0; give the transformer a larger `vocabulary`")),
            _ => Ok(()),
        }
    }

    /// Whether it is a list of whole numbers.
    pub(super) fn is_integers(&self) -> bool {
        self.length.is_some() && self.kind.contains("Int")
    }

    fn pixels(&self) -> bool {
        self.length.is_some() && self.kind == "UInt8" && self.vocabulary.is_none()
    }

    fn field(&self) -> Result<Field> {
        let kind: DataType = self.kind.parse().context(format!("the type of column {:?}", self.name))?;
        let kind = match self.length {
            None => kind,
            Some(length) => {
                DataType::FixedSizeList(Arc::new(Field::new_list_field(kind, true)), i32::try_from(length)?)
            }
        };
        // A null is a category like any other that was not seen.
        Ok(Field::new(&self.name, kind, self.categories.is_some()))
    }
}

/// The schema of columns.
pub(crate) fn schema(columns: &[Column]) -> Result<SchemaRef> {
    Ok(Arc::new(Schema::new(columns.iter().map(Column::field).collect::<Result<Vec<_>>>()?)))
}

impl Features {
    /// Reads columns from a frame, on so many threads.
    ///
    /// # Errors
    /// A column that is missing or of another type; a null, NaN or infinite value, with its row.
    pub(crate) fn read(frame: &Frame, columns: &[Column], threads: usize) -> Result<Self> {
        let (rows, width) = (frame.rows(), columns.iter().map(Column::width).sum());
        if let [only] = columns
            && only.pixels()
        {
            let bytes = list(&frame.column(&only.name)?, only, 0)?;
            let bytes = bytes.as_primitive_opt::<UInt8Type>().context("pixels are bytes")?;
            return Ok(Self { rows, width, values: Values::Pixels(bytes.values().clone()) });
        }
        let places = columns.iter().map(|column| Ok((column, frame.position(&column.name)?)));
        let columns = places.collect::<Result<Vec<_>>>()?;
        let parts = parts(frame);
        // Memory that nobody writes to costs nothing: of sparse rows only the first part's place is ever written.
        let mut values = vec![0.0f32; rows * width];
        let mut rest = values.as_mut_slice();
        for (first, part) in &parts {
            let (out, others) = rest.split_at_mut(part.num_rows() * width);
            let mut offset = 0;
            for (column, position) in &columns {
                fill(part.column(*position), column, *first, out, (offset, width))?;
                offset += column.width();
            }
            if *first == 0 && Sparse::worth(out) {
                let read = |index: usize| Sparse::read(&parts[index].1, &columns, parts[index].0);
                let sparse = in_order(threads, parts.len(), read).into_iter().collect::<Result<Vec<_>>>()?;
                return Ok(Self { rows, width, values: Values::Sparse(Sparse::join(sparse)) });
            }
            rest = others;
        }
        Ok(Self { rows, width, values: Values::Numbers(values) })
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    pub(crate) fn width(&self) -> usize {
        self.width
    }

    /// The same, sharing no memory with the frame that it was read from.
    pub(super) fn detached(self) -> Self {
        match self.values {
            Values::Pixels(bytes) => Self { values: Values::Pixels(bytes.to_vec().into()), ..self },
            _ => self,
        }
    }

    /// Writes one row after the other; `out` has room for them.
    pub(crate) fn gather(&self, rows: impl Iterator<Item = usize>, out: &mut [f32]) {
        for (row, out) in rows.zip(out.chunks_exact_mut(self.width)) {
            let place = row * self.width..(row + 1) * self.width;
            match &self.values {
                Values::Numbers(values) => out.copy_from_slice(&values[place]),
                Values::Sparse(sparse) => sparse.gather(row, out),
                Values::Pixels(bytes) => {
                    for (out, byte) in out.iter_mut().zip(&bytes[place]) {
                        *out = f32::from(*byte) / WHITE;
                    }
                }
            }
        }
    }
}

/// The rows of a frame, some at a time, with the number of the first.
fn parts(frame: &Frame) -> Vec<(usize, RecordBatch)> {
    let (mut parts, mut first) = (Vec::new(), 0);
    for batch in frame.batches() {
        for start in (0..batch.num_rows()).step_by(PART) {
            parts.push((first + start, batch.slice(start, PART.min(batch.num_rows() - start))));
        }
        first += batch.num_rows();
    }
    parts
}

/// The values of a list column, one row after the other.
fn list(array: &ArrayRef, column: &Column, first: usize) -> Result<ArrayRef> {
    let misfit = || {
        Error::usage(format!(
            "column {:?} is of type {}, not a list of {} {} values",
            column.name,
            array.data_type(),
            column.width(),
            column.kind
        ))
    };
    let list = array.as_fixed_size_list_opt().ok_or_else(misfit)?;
    if list.value_length() as usize != column.width() {
        return Err(misfit());
    }
    no_nulls(list, &column.name, first, 1)?;
    let start = list.value_offset(0) as usize;
    let values = list.values().slice(start, list.len() * column.width());
    no_nulls(&values, &column.name, first, column.width())?;
    Ok(values)
}

pub(super) fn no_nulls(array: &dyn Array, name: &str, first: usize, width: usize) -> Result<()> {
    match array
        .nulls()
        .filter(|nulls| nulls.null_count() > 0)
        .and_then(|_| (0..array.len()).find(|i| array.is_null(*i)))
    {
        None => Ok(()),
        Some(place) => Err(bad_value(name, first + place / width, "null")),
    }
}

/// A value that no model can read; rows are counted from 0.
pub(crate) fn bad_value(name: &str, row: usize, value: impl std::fmt::Display) -> Error {
    Error::usage(format!("column {name:?} is {value} in row {row} (the first is row 0)"))
        .help("fill or drop such rows: `features.fit` has the step `impute`, `sql` a WHERE")
}

/// Writes a column's values of some rows, the first of which is row `first`, into rows of `stride` values from `offset` on.
///
/// # Errors
/// Another type; a null, NaN or infinite value, or a token that is none, with its row.
pub(super) fn fill(
    array: &ArrayRef,
    column: &Column,
    first: usize,
    out: &mut [f32],
    (offset, stride): (usize, usize),
) -> Result<()> {
    if column.categories.is_some() || column.bytes.is_some() {
        return encode(array, column, first, out, (offset, stride));
    }
    let width = column.width();
    let values = match column.length {
        Some(_) => list(array, column, first)?,
        None if number(array.data_type()) => array.clone(),
        None => {
            let found = array.data_type();
            return Err(Error::usage(format!("column {:?} is of type {found}, not {}", column.name, column.kind)));
        }
    };
    no_nulls(&values, &column.name, first, width)?;
    let bytes = column.pixels().then(|| values.as_primitive_opt::<UInt8Type>()).flatten();
    if let Some(bytes) = bytes {
        copy_rows(bytes, width, out, offset, stride);
        return Ok(());
    }
    let numbers = cast(&values, &DataType::Float32)?;
    let numbers = numbers.as_primitive::<Float32Type>().values();
    for (row, (from, to)) in numbers.chunks_exact(width).zip(out.chunks_exact_mut(stride)).enumerate() {
        to[offset..offset + width].copy_from_slice(from);
        if let Some(bad) = from.iter().find(|value| !value.is_finite()) {
            return Err(bad_value(&column.name, first + row, bad));
        }
        column.check_tokens(from, first + row)?;
    }
    Ok(())
}

fn copy_rows(bytes: &UInt8Array, width: usize, out: &mut [f32], offset: usize, stride: usize) {
    for (from, to) in bytes.values().chunks_exact(width).zip(out.chunks_exact_mut(stride)) {
        for (to, from) in to[offset..offset + width].iter_mut().zip(from) {
            *to = f32::from(*from) / WHITE;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{FixedSizeListArray, Float64Array, Int32Array, StringArray};

    fn frame(columns: Vec<(&str, ArrayRef)>) -> Frame {
        Frame::from_columns(columns).unwrap()
    }

    fn images(bytes: Vec<u8>, length: i32) -> ArrayRef {
        let item = Arc::new(Field::new_list_field(DataType::UInt8, false));
        Arc::new(FixedSizeListArray::new(item, length, Arc::new(UInt8Array::from(bytes)), None))
    }

    #[test]
    fn numbers_and_lists_become_rows() {
        let label: ArrayRef = Arc::new(StringArray::from(vec!["a", "b"]));
        let x: ArrayRef = Arc::new(Float64Array::from(vec![1.5, 2.5]));
        let n: ArrayRef = Arc::new(Int32Array::from(vec![3, 4]));
        let frame = frame(vec![("x", x), ("label", label), ("image", images(vec![0, 255, 51, 0], 2)), ("n", n)]);
        let columns = columns(&frame, "label").unwrap();
        let features = Features::read(&frame, &columns, 1).unwrap();
        let mut rows = vec![0.0; 8];
        features.gather([1, 0].into_iter(), &mut rows);
        assert_eq!(rows, [2.5, 0.2, 0.0, 4.0, 1.5, 0.0, 1.0, 3.0]);
        assert_eq!(
            schema(&columns).unwrap().field(1).data_type(),
            &DataType::new_fixed_size_list(DataType::UInt8, 2, true)
        );
    }

    #[test]
    fn pixels_are_shared_and_scaled() {
        let frame = frame(vec![("image", images(vec![0, 255, 51, 102, 0, 0], 2))]);
        let sliced = Frame::new(frame.schema().clone(), vec![frame.to_batch().unwrap().slice(1, 2)]).unwrap();
        let columns = columns(&sliced, "label").unwrap();
        let features = Features::read(&sliced, &columns, 1).unwrap();
        let mut row = vec![0.0; 2];
        features.gather([0].into_iter(), &mut row);
        assert_eq!(row, [0.2, 0.4]);
    }

    #[test]
    fn rows_of_zeros_are_kept_without_them() {
        let rows = 2 * PART + 5;
        let mark = |column: usize, row: usize| if row % 5 == column { row as f64 - 3.0 } else { 0.0 };
        let column = |column: usize| -> ArrayRef {
            Arc::new(Float64Array::from_iter_values((0..rows).map(|row| mark(column, row))))
        };
        let frame = frame(vec![("a", column(0)), ("b", column(1)), ("c", column(2)), ("d", column(3))]);
        let features = Features::read(&frame, &columns(&frame, "label").unwrap(), 2).unwrap();
        assert!(matches!(&features.values, Values::Sparse(_)));
        for row in [0, 4, PART - 1, PART, rows - 1] {
            let mut found = [f32::NAN; 4];
            features.gather([row].into_iter(), &mut found);
            assert_eq!(found, [0, 1, 2, 3].map(|column| mark(column, row) as f32), "{row}");
        }
    }

    #[test]
    fn what_no_model_can_read_is_named() {
        let text: ArrayRef = Arc::new(StringArray::from(vec!["a"]));
        let error = columns(&frame(vec![("city", text)]), "label").unwrap_err();
        assert!(error.to_string().contains("\"city\"") && error.advice().unwrap().contains("features.fit"));
        for (bad, said) in [
            (None, "null"),
            (Some(f64::NAN), "NaN"),
            (Some(f64::INFINITY), "inf"),
            (Some(f64::NEG_INFINITY), "-inf"),
            // Weights and rows are numbers of 32 bits.
            (Some(1e39), "inf"),
        ] {
            let x: ArrayRef = Arc::new(Float64Array::from(vec![Some(1.0), bad, bad]));
            let frame = frame(vec![("x", x)]);
            let columns = columns(&frame, "label").unwrap();
            let error = Features::read(&frame, &columns, 1).unwrap_err();
            assert_eq!(error.to_string(), format!("column \"x\" is {said} in row 1 (the first is row 0)"));
            let help = "fill or drop such rows: `features.fit` has the step `impute`, `sql` a WHERE";
            assert_eq!(error.advice(), Some(help));
        }
        let only: ArrayRef = Arc::new(Float64Array::from(vec![1.0]));
        assert!(columns(&frame(vec![("label", only)]), "label").is_err());
    }
}
