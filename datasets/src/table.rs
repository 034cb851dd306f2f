//! Bundled text files as columns.

use arrow::array::{ArrayRef, RecordBatch, new_empty_array};
use arrow::compute::concat;
use arrow::datatypes::{DataType, Field, Schema};
use arrow_csv::ReaderBuilder;
use flate2::read::GzDecoder;
use ropeway_framework::{Context, Error, Result};
use std::io::Read;
use std::sync::Arc;

/// A text file of numbers, packed with gzip.
pub(crate) struct Table {
    /// The packed file.
    pub(crate) file: &'static [u8],
    /// What stands between the numbers.
    pub(crate) delimiter: u8,
    /// Lines before the first row.
    pub(crate) skip: usize,
}

impl Table {
    /// Reads the columns, which have these names and types.
    pub(crate) fn read(&self, columns: &[(String, DataType)]) -> Result<Vec<(String, ArrayRef)>> {
        let mut text = String::new();
        GzDecoder::new(self.file).read_to_string(&mut text).context("a bundled file is damaged")?;
        let rows = text.splitn(self.skip + 1, '\n').nth(self.skip).unwrap_or_default();
        let fields = columns.iter().map(|(name, data_type)| Field::new(name, data_type.clone(), false));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let reader = ReaderBuilder::new(schema).with_delimiter(self.delimiter).build(rows.as_bytes())?;
        let batches: Vec<RecordBatch> = reader.collect::<Result<_, _>>()?;
        let column = |(position, (name, data_type)): (usize, &(String, DataType))| {
            let parts: Vec<_> = batches.iter().map(|batch| batch.column(position).as_ref()).collect();
            let whole = if parts.is_empty() { new_empty_array(data_type) } else { concat(&parts)? };
            Ok::<_, Error>((name.clone(), whole))
        };
        columns.iter().enumerate().map(column).collect()
    }
}
