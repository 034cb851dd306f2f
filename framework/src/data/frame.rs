//! Tables.

use super::held::{Owner, hold};
use super::weight::with_buffers;
use crate::{Error, Result};
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::buffer::Buffer;
use arrow::compute::{cast, concat, concat_batches};
use arrow::datatypes::{DataType, Field, Float64Type, Schema, SchemaRef};
use std::sync::Arc;

/// Rows in every record batch of a canonical frame but the last.
pub const BATCH_ROWS: usize = 65_536;

/// A table: Arrow record batches that share one schema. Column names are unique.
///
/// ```
/// use ropeway_framework::data::Frame;
/// use arrow::array::{ArrayRef, Float64Array};
/// use std::sync::Arc;
///
/// let ages: ArrayRef = Arc::new(Float64Array::from(vec![31.0, 47.0]));
/// let frame = Frame::from_columns([("age", ages)])?;
/// assert_eq!((frame.rows(), frame.columns()), (2, 1));
/// # Ok::<_, ropeway_framework::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Frame {
    schema: SchemaRef,
    batches: Arc<[RecordBatch]>,
    rows: usize,
}

impl Frame {
    /// A frame of batches.
    ///
    /// # Errors
    /// A batch of another schema, or a column name that occurs twice.
    pub fn new(schema: SchemaRef, batches: Vec<RecordBatch>) -> Result<Self> {
        for (index, field) in schema.fields().iter().enumerate() {
            if schema.fields()[..index].iter().any(|other| other.name() == field.name()) {
                return Err(Error::new(format!("column {:?} occurs twice", field.name())));
            }
        }
        if let Some(batch) = batches.iter().find(|batch| batch.schema().fields() != schema.fields()) {
            let found = batch.schema();
            return Err(Error::new(format!("batches differ in schema: {schema} and {found}")));
        }
        let rows = batches.iter().map(RecordBatch::num_rows).sum();
        Ok(Self { schema, batches: batches.into(), rows })
    }

    /// A frame of whole columns of equal length; each is nullable if it has nulls.
    ///
    /// # Errors
    /// Columns of different lengths, or a name that occurs twice.
    pub fn from_columns<N: Into<String>>(columns: impl IntoIterator<Item = (N, ArrayRef)>) -> Result<Self> {
        let (fields, arrays): (Vec<_>, Vec<_>) = columns
            .into_iter()
            .map(|(name, array)| (Field::new(name, array.data_type().clone(), array.null_count() > 0), array))
            .unzip();
        let schema = Arc::new(Schema::new(fields));
        if arrays.is_empty() {
            return Self::new(schema, Vec::new());
        }
        let batch = RecordBatch::try_new(schema.clone(), arrays)?;
        Self::new(schema, vec![batch])
    }

    /// The schema.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The record batches, in row order; their sizes are not part of the frame's value.
    pub fn batches(&self) -> &[RecordBatch] {
        &self.batches
    }

    /// The record batches of a frame that is needed no more: if nobody else has it, each can be let go of by itself.
    pub(super) fn into_batches(mut self) -> Vec<RecordBatch> {
        match Arc::get_mut(&mut self.batches) {
            Some(own) => {
                let empty = RecordBatch::new_empty(self.schema);
                own.iter_mut().map(|batch| std::mem::replace(batch, empty.clone())).collect()
            }
            None => self.batches.to_vec(),
        }
    }

    /// The same frame, whose columns keep `owner` alive as long as anybody has them.
    pub(super) fn held_by(&self, owner: &Owner) -> Result<Self> {
        let hold = |buffer: &Buffer| hold(buffer, owner);
        let batches = self.batches.iter().map(|batch| with_buffers(batch, &hold)).collect::<Result<_>>()?;
        Ok(Self { schema: self.schema.clone(), batches, rows: self.rows })
    }

    /// How many rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// How many columns.
    pub fn columns(&self) -> usize {
        self.schema.fields().len()
    }

    /// The rows from `start` on, at most `rows` of them; they are shared, not copied.
    pub fn slice(&self, start: usize, rows: usize) -> Self {
        let (mut skip, mut left) = (start, rows);
        let mut batches = Vec::new();
        for batch in self.batches.iter() {
            let from = skip.min(batch.num_rows());
            let taken = left.min(batch.num_rows() - from);
            if taken > 0 {
                batches.push(batch.slice(from, taken));
            }
            skip -= from;
            left -= taken;
        }
        Self { schema: self.schema.clone(), batches: batches.into(), rows: rows - left }
    }

    /// The whole frame as one batch: shared when it is one already, else copied.
    ///
    /// # Errors
    /// A string column of more than 2 GiB.
    pub fn to_batch(&self) -> Result<RecordBatch> {
        match &*self.batches {
            [batch] => Ok(batch.clone()),
            batches => Ok(concat_batches(&self.schema, batches)?),
        }
    }

    /// Where a column stands.
    ///
    /// # Errors
    /// No such column; the message names the one that was probably meant.
    pub fn position(&self, name: &str) -> Result<usize> {
        self.schema.index_of(name).map_err(|_| {
            let names: Vec<&str> = self.schema.fields().iter().map(|field| field.name().as_str()).collect();
            let error = Error::new(format!("there is no column {name:?}"));
            match crate::nearest(name, names.iter().copied()) {
                Some(near) => error.help(format!("did you mean {near:?}?")),
                None if names.is_empty() => error.help("there are no columns at all"),
                None => error.help(format!("the columns are {}", names.join(", "))),
            }
        })
    }

    /// A column as one array: shared when the frame is one batch, else copied.
    ///
    /// # Errors
    /// No such column.
    pub fn column(&self, name: &str) -> Result<ArrayRef> {
        let position = self.position(name)?;
        match &*self.batches {
            [] => Ok(arrow::array::new_empty_array(self.schema.field(position).data_type())),
            [batch] => Ok(batch.column(position).clone()),
            batches => {
                let parts: Vec<&dyn Array> = batches.iter().map(|batch| batch.column(position).as_ref()).collect();
                Ok(concat(&parts)?)
            }
        }
    }

    /// A frame with only these columns, in this order.
    ///
    /// # Errors
    /// No such column.
    pub fn select<S: AsRef<str>>(&self, names: &[S]) -> Result<Self> {
        let positions = names.iter().map(|name| self.position(name.as_ref())).collect::<Result<Vec<_>>>()?;
        let schema = Arc::new(self.schema.project(&positions)?);
        let batches = self.batches.iter().map(|batch| Ok(batch.project(&positions)?)).collect::<Result<Vec<_>>>()?;
        Self::new(schema, batches)
    }

    /// A frame with a column put in the place of the one of that name, or at the end.
    ///
    /// # Errors
    /// A column whose length is not the frame's.
    pub fn with_column(&self, name: &str, column: ArrayRef) -> Result<Self> {
        let batch = self.to_batch()?;
        let mut columns: Vec<(String, ArrayRef)> = Vec::with_capacity(self.columns() + 1);
        let mut column = Some(column);
        for (field, array) in self.schema.fields().iter().zip(batch.columns()) {
            let array = if field.name() == name { column.take() } else { None }.unwrap_or_else(|| array.clone());
            columns.push((field.name().clone(), array));
        }
        columns.extend(column.map(|column| (name.to_owned(), column)));
        Self::from_columns(columns)
    }

    /// Maps every value of every numeric column; nulls stay. The columns become `f64`.
    ///
    /// # Errors
    /// None of its own; those of Arrow's casts.
    pub fn map_numeric(&self, map: impl Fn(f64) -> f64) -> Result<Self> {
        let batches = self
            .batches
            .iter()
            .map(|batch| {
                let columns = batch
                    .columns()
                    .iter()
                    .map(|column| {
                        if !column.data_type().is_numeric() {
                            return Ok(column.clone());
                        }
                        let values = cast(column, &DataType::Float64)?;
                        Ok(Arc::new(values.as_primitive::<Float64Type>().unary::<_, Float64Type>(&map)) as ArrayRef)
                    })
                    .collect::<Result<Vec<_>>>()?;
                Ok(columns)
            })
            .collect::<Result<Vec<_>>>()?;
        let fields: Vec<Field> = self
            .schema
            .fields()
            .iter()
            .map(|field| match field.data_type().is_numeric() {
                true => field.as_ref().clone().with_data_type(DataType::Float64),
                false => field.as_ref().clone(),
            })
            .collect();
        let schema = Arc::new(Schema::new(fields));
        let batches = batches
            .into_iter()
            .map(|columns| Ok(RecordBatch::try_new(schema.clone(), columns)?))
            .collect::<Result<Vec<_>>>()?;
        Self::new(schema, batches)
    }
}
