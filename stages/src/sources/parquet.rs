//! `read.parquet`: Parquet files, row group by row group, only the columns that are asked for.

use super::files::{Paths, RangeReader, Ranges, Source, fingerprint};
use super::parallel::ordered;
use super::sniff::wrong_kind;
use super::table::{Layout, Selection, first_rows, plain};
use super::types::ColumnType;
use arrow::array::RecordBatch;
use arrow::datatypes::{Field, Schema, SchemaRef};
use bytes::Bytes;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::errors::ParquetError;
use parquet::file::reader::{ChunkReader, Length};
use ropeway_framework::data::{BATCH_ROWS, Frame};
use ropeway_framework::stage::{Cancel, FnStage, Params, Progress, Threads};
use ropeway_framework::{Context, Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{BufReader, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The parameters of `read.parquet`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ParquetParams {
    /// The files: a path, glob or URL, or a list of them.
    pub path: Paths,
    /// Only these columns, in this order; no others are read.
    #[serde(default)]
    pub columns: Option<Vec<String>>,
    /// Types of columns; the others keep theirs.
    #[serde(default)]
    pub types: BTreeMap<String, ColumnType>,
    /// Only the first so many rows.
    #[serde(default)]
    pub limit: Option<u64>,
}

pub(super) fn stage() -> FnStage {
    ropeway_framework::stage::stage(read_parquet)
        .version(1)
        .about("Reads Parquet files: paths, globs or object-store URLs; only the columns that are asked for.")
        .fingerprint(|params: ParquetParams| fingerprint(&params.path.find()?))
        .reads_anywhere(|params: ParquetParams| params.path.are_remote())
}

impl Length for Ranges {
    fn len(&self) -> u64 {
        self.size()
    }
}

impl ChunkReader for Ranges {
    type T = BufReader<RangeReader>;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        Ok(BufReader::new(self.reader(start)))
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        // A damaged file may claim any length: nothing is reserved beyond what the file has.
        let mut bytes = Vec::with_capacity(length.min(usize::try_from(self.size()).unwrap_or(usize::MAX)));
        self.reader(start).take(length as u64).read_to_end(&mut bytes)?;
        match bytes.len() == length {
            true => Ok(bytes.into()),
            false => Err(ParquetError::EOF(format!("{length} bytes are missing at {start}"))),
        }
    }
}

/// One file: what it is called, how to read it, and what it says of itself.
struct Table<'a> {
    name: &'a str,
    ranges: Ranges,
    metadata: ArrowReaderMetadata,
}

fn read_parquet(
    Params(params): Params<ParquetParams>,
    threads: Threads,
    cancel: Cancel,
    progress: Progress,
) -> Result<Frame> {
    let sources = params.path.find()?;
    let selection = Selection { columns: params.columns, types: params.types, limit: params.limit };
    let mut left = sources.iter();
    let opened = ordered(threads, None, || Ok(left.next()), open, |_| 0);
    let tables = opened.into_iter().collect::<Result<Vec<Table<'_>>>>()?;
    let schemas: Vec<(&str, SchemaRef)> =
        tables.iter().map(|table| (table.name, table.metadata.schema().clone())).collect();
    let layout = Layout::new(&schemas, &selection)?;
    let total: u64 = tables
        .iter()
        .map(|table| u64::try_from(table.metadata.metadata().file_metadata().num_rows()).unwrap_or(0))
        .sum();
    let total = selection.limit.map_or(total, |limit| limit.min(total));
    let mut units = units(&tables, &layout, threads.0).into_iter();
    let done = AtomicU64::new(0);
    let results = ordered(
        threads,
        selection.limit,
        || cancel.check().map(|()| units.next()),
        |unit: Unit<'_>| {
            let batches = unit.read(selection.limit)?;
            if unit.last {
                let rows = count(&batches);
                let before = done.fetch_add(rows, Ordering::Relaxed);
                progress.step((before + rows).min(total), Some(total), "row", &[]);
            }
            Ok((unit, batches))
        },
        |(unit, batches)| if unit.last { count(batches) } else { 0 },
    );
    let mut batches = Vec::new();
    let mut rows = 0;
    let mut wide: Vec<RecordBatch> = Vec::new();
    for part in results {
        if selection.limit.is_some_and(|limit| rows >= limit) {
            break;
        }
        let (unit, part) = part?;
        wide = if wide.is_empty() {
            part
        } else {
            beside(&wide, &part).context(format!("{} is damaged", unit.table.name))?
        };
        if unit.last {
            rows += count(&wide);
            for batch in std::mem::take(&mut wide) {
                batches.push(layout.conform(&batch, unit.table.name)?);
            }
        }
    }
    Frame::new(layout.schema().clone(), first_rows(batches, selection.limit))
}

fn open(source: &Source) -> Result<Table<'_>> {
    let ranges = source.ranges()?;
    let mut head = Vec::new();
    ranges.reader(0).take(32).read_to_end(&mut head).map_err(|error| super::files::broken(source.name(), error))?;
    if !head.starts_with(b"PAR1") {
        return Err(wrong_kind(source.name(), "Parquet file", &head));
    }
    let metadata = guarded(source.name(), || ArrowReaderMetadata::load(&ranges, ArrowReaderOptions::new()))?;
    // Decoded straight to the plain layout, text needs no cast; where the reader can't do that, the layout casts.
    let fields: Vec<Field> = metadata
        .schema()
        .fields()
        .iter()
        .map(|field| Field::new(field.name(), plain(field.data_type()), field.is_nullable()))
        .collect();
    let options = ArrowReaderOptions::new().with_schema(Arc::new(Schema::new(fields)));
    let metadata = ArrowReaderMetadata::try_new(metadata.metadata().clone(), options).unwrap_or(metadata);
    Ok(Table { name: source.name(), ranges, metadata })
}

/// Some columns of a row group.
struct Unit<'a> {
    table: &'a Table<'a>,
    group: usize,
    /// Their positions in the file.
    roots: Vec<usize>,
    /// Whether they are the last of the group.
    last: bool,
}

/// What is read at a time: row groups, or if there are few, parts of their columns, so that no thread is idle.
fn units<'a>(tables: &'a [Table<'a>], layout: &Layout, threads: usize) -> Vec<Unit<'a>> {
    /// A thread gets about so many, since some take longer than others.
    const EACH: usize = 4;

    let groups: usize = tables.iter().map(|table| table.metadata.metadata().num_row_groups()).sum();
    let parts = if threads > 1 { (EACH * threads).div_ceil(groups.max(1)) } else { 1 };
    let mut units = Vec::with_capacity(groups * parts);
    for table in tables {
        let roots = layout.positions(table.metadata.schema());
        let width = roots.len().div_ceil(parts).max(1);
        for group in 0..table.metadata.metadata().num_row_groups() {
            let mut left = roots.as_slice();
            loop {
                let (some, rest) = left.split_at(width.min(left.len()));
                units.push(Unit { table, group, roots: some.to_vec(), last: rest.is_empty() });
                left = rest;
                if left.is_empty() {
                    break;
                }
            }
        }
    }
    units
}

impl Unit<'_> {
    fn read(&self, limit: Option<u64>) -> Result<Vec<RecordBatch>> {
        let Table { name, ranges, metadata } = self.table;
        guarded(name, || {
            let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(ranges.clone(), metadata.clone());
            let mask = ProjectionMask::roots(builder.parquet_schema(), self.roots.iter().copied());
            let builder = builder.with_row_groups(vec![self.group]).with_projection(mask).with_batch_size(BATCH_ROWS);
            let builder = match limit.map(usize::try_from) {
                Some(Ok(limit)) => builder.with_limit(limit),
                _ => builder,
            };
            builder.build()?.map(|batch| Ok(batch?)).collect()
        })
    }
}

fn count(batches: &[RecordBatch]) -> u64 {
    batches.iter().map(|batch| batch.num_rows() as u64).sum()
}

/// The columns of both.
fn beside(left: &[RecordBatch], right: &[RecordBatch]) -> Result<Vec<RecordBatch>> {
    if left.len() != right.len() {
        return Err(Error::new("its columns differ in length"));
    }
    let join = |(left, right): (&RecordBatch, &RecordBatch)| {
        let (one, two) = (left.schema(), right.schema());
        let fields: Vec<_> = one.fields().iter().chain(two.fields()).cloned().collect();
        let columns = left.columns().iter().chain(right.columns()).cloned().collect();
        Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
    };
    left.iter().zip(right).map(join).collect()
}

/// Says which file is damaged. Readers of formats like this one panic on some damaged files.
fn guarded<T>(name: &str, read: impl FnOnce() -> Result<T, ParquetError>) -> Result<T> {
    let help = "the file is truncated or damaged: copy or download it again";
    match catch_unwind(AssertUnwindSafe(read)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(ParquetError::NYI(what))) => Err(Error::new(format!("{name}: {what} is not read here"))),
        Ok(Err(error)) => Err(Error::from(error).context(format!("{name} can't be read to its end")).help(help)),
        Err(_) => Err(Error::new(format!("{name} can't be read to its end")).help(help)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, AsArray, DictionaryArray, Int64Array, LargeStringArray};
    use arrow::datatypes::{DataType, Float32Type, Int32Type};
    use parquet::arrow::ArrowWriter;
    use parquet::file::properties::WriterProperties;
    use serde_json::json;
    use std::path::Path;

    fn run(params: serde_json::Value, threads: usize) -> Result<Frame> {
        let params = serde_json::from_value(params).unwrap();
        read_parquet(Params(params), Threads(threads), Cancel::default(), Progress::default())
    }

    fn packed(rows: i64) -> Vec<u8> {
        let text: Vec<String> = (0..rows).map(|row| format!("text {}", row % 10)).collect();
        let words: DictionaryArray<Int32Type> = text.iter().map(String::as_str).collect();
        let columns: [(&str, ArrayRef); 3] = [
            ("n", Arc::new(Int64Array::from_iter_values(0..rows))),
            ("text", Arc::new(LargeStringArray::from(text.clone()))),
            ("word", Arc::new(words)),
        ];
        let batch = Frame::from_columns(columns).unwrap().to_batch().unwrap();
        let properties = WriterProperties::builder().set_max_row_group_row_count(Some(700)).build();
        let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties)).unwrap();
        writer.write(&batch).unwrap();
        writer.into_inner().unwrap()
    }

    fn at(folder: &Path, name: &str, content: &[u8]) -> String {
        let path = folder.join(name);
        std::fs::write(&path, content).unwrap();
        path.display().to_string()
    }

    #[test]
    fn row_groups_come_in_order_as_plain_types() {
        let folder = tempfile::tempdir().unwrap();
        let path = at(folder.path(), "x.parquet", &packed(5000));
        let frames: Vec<Frame> = (1..4).map(|threads| run(json!({ "path": path }), threads).unwrap()).collect();
        assert!(frames.iter().all(|frame| frame.batches() == frames[0].batches()));
        assert_eq!((frames[0].rows(), frames[0].batches().len()), (5000, 8));
        assert_eq!(frames[0].schema().field(1).data_type(), &DataType::Utf8);
        assert_eq!(frames[0].schema().field(2).data_type(), &DataType::Utf8);
        let some =
            run(json!({ "path": path, "columns": ["word", "n"], "limit": 1000, "types": { "n": "float32" } }), 2);
        let some = some.unwrap();
        assert_eq!((some.rows(), some.schema().field(0).name().as_str()), (1000, "word"));
        assert_eq!(some.column("n").unwrap().as_primitive::<Float32Type>().value(999), 999.0);
        let error = run(json!({ "path": path, "types": { "text": "int64" } }), 2).unwrap_err();
        assert!(error.to_string().contains("column \"text\" is not all int64"), "{error}");
        let error = run(json!({ "path": path, "columns": ["nn"] }), 2).unwrap_err();
        assert_eq!(error.advice(), Some("did you mean \"n\"?"));
    }

    #[test]
    fn what_is_no_parquet_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let fail = |content: &[u8]| {
            let path = at(folder.path(), "x.parquet", content);
            format!("{:?}", run(json!({ "path": path }), 2).unwrap_err()).replace(&path, "x.parquet")
        };
        assert!(fail(b"").contains("x.parquet is empty (0 bytes)"));
        assert!(fail(b"\x89PNG\r\n\x1a\n....").contains("x.parquet is no Parquet file (help: it is a PNG image)"));
        assert!(fail(b"a,b\n1,2\n").contains("it begins with \"a,b"));
        let whole = packed(2000);
        for length in [4, 9, 1000, whole.len() - 1] {
            let error = fail(&whole[..length]);
            assert!(error.contains("x.parquet can't be read") && error.contains("truncated"), "{error}");
        }
    }

    #[test]
    fn damage_is_an_error_or_other_values_but_no_panic() {
        let folder = tempfile::tempdir().unwrap();
        let whole = packed(900);
        for place in (0..whole.len()).step_by(7) {
            let mut damaged = whole.clone();
            damaged[place] ^= 0x55;
            let _ = run(json!({ "path": at(folder.path(), "x.parquet", &damaged) }), 1);
        }
    }

    #[test]
    fn files_must_agree() {
        let folder = tempfile::tempdir().unwrap();
        let one = at(folder.path(), "one.parquet", &packed(10));
        let batch = Frame::from_columns([("n", Arc::new(Int64Array::from(vec![1])) as ArrayRef)]).unwrap();
        let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema().clone(), None).unwrap();
        writer.write(&batch.to_batch().unwrap()).unwrap();
        let two = at(folder.path(), "two.parquet", &writer.into_inner().unwrap());
        let error = run(json!({ "path": [one, two] }), 2).unwrap_err().to_string();
        assert!(error.contains("two.parquet lacks \"text\", \"word\""), "{error}");
    }
}
