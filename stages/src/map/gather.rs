//! Results put together.

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Field, Schema, SchemaRef};
use ropeway_framework::data::Frame;
use ropeway_framework::stage::Stored;
use ropeway_framework::{Context, Error, Result};
use std::sync::Arc;

/// One frame of the rows of all, in order. Their columns must have the same names, types and order; one that has nulls
/// anywhere may have them everywhere.
///
/// # Errors
/// No frames at all, something that is no frame, or frames whose columns differ.
pub(super) fn concat(parts: &[Stored]) -> Result<Frame> {
    let load = |(index, part): (usize, &Stored)| part.load_as::<Frame>().context(format!("item {index}"));
    let frames = parts.iter().enumerate().map(load).collect::<Result<Vec<_>>>()?;
    let Some((first, others)) = frames.split_first() else {
        return Err(Error::new("there are no items, and so no columns for a frame")
            .help("leave `gather` out: the result is an empty list then"));
    };
    let mut fields: Vec<Field> = first.schema().fields().iter().map(|field| field.as_ref().clone()).collect();
    for (index, other) in others.iter().enumerate() {
        let columns = |schema: &SchemaRef| -> Vec<String> {
            schema.fields().iter().map(|field| format!("{:?} {}", field.name(), field.data_type())).collect()
        };
        let (one, other_columns) = (columns(first.schema()), columns(other.schema()));
        if one != other_columns {
            return Err(Error::new(format!(
                "items 0 and {} have different columns: {} and {}",
                index + 1,
                one.join(", "),
                other_columns.join(", ")
            )));
        }
        for (field, other) in fields.iter_mut().zip(other.schema().fields()) {
            let nullable = field.is_nullable() || other.is_nullable();
            field.set_nullable(nullable);
        }
    }
    let schema = Arc::new(Schema::new(fields));
    let under = |batch: &RecordBatch| {
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        Ok(RecordBatch::try_new_with_options(schema.clone(), batch.columns().to_vec(), &options)?)
    };
    let batches = frames.iter().flat_map(Frame::batches).map(under).collect::<Result<Vec<_>>>()?;
    Frame::new(schema, batches)
}
