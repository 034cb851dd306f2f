//! `read.arrow`: Arrow IPC files (Feather version 2) and streams.

use super::files::{Paths, Ranges, Source, broken, fingerprint};
use super::ipc::{Fault, normalise, read_stream};
use super::parallel::ordered;
use super::sniff::wrong_kind;
use super::table::{Layout, Selection, first_rows};
use super::types::ColumnType;
use ::arrow::array::RecordBatch;
use ::arrow::buffer::Buffer;
use ::arrow::datatypes::{Schema, SchemaRef};
use ::arrow::error::ArrowError;
use ::arrow::ipc::convert::fb_to_schema;
use ::arrow::ipc::reader::{FileDecoder, read_footer_length};
use ::arrow::ipc::{Block, root_as_footer};
use ropeway_framework::data::Frame;
use ropeway_framework::stage::{Cancel, FnStage, Params, Progress, Threads};
use ropeway_framework::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

/// The parameters of `read.arrow`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ArrowParams {
    /// The files: a path, glob or URL, or a list of them.
    pub path: Paths,
    /// Only these columns, in this order.
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
    ropeway_framework::stage::stage(read_arrow)
        .version(1)
        .about("Reads Arrow IPC files and streams: paths, globs or object-store URLs.")
        .fingerprint(|params: ArrowParams| fingerprint(&params.path.find()?))
        .reads_anywhere(|params: ArrowParams| params.path.are_remote())
}

fn read_arrow(
    Params(params): Params<ArrowParams>,
    threads: Threads,
    cancel: Cancel,
    progress: Progress,
) -> Result<Frame> {
    let sources = params.path.find()?;
    let selection = Selection { columns: params.columns, types: params.types, limit: params.limit };
    let mut left = sources.iter();
    let read = ordered(
        threads,
        None,
        || cancel.check().map(|()| left.next()),
        |source: &Source| {
            let frame = read_one(source)?;
            progress.step(frame.rows() as u64, None, "row", &[]);
            Ok(frame)
        },
        |_| 0,
    );
    let frames = read.into_iter().collect::<Result<Vec<Frame>>>()?;
    let named = || sources.iter().map(Source::name).zip(&frames);
    let schemas: Vec<(&str, SchemaRef)> = named().map(|(name, frame)| (name, frame.schema().clone())).collect();
    let layout = Layout::new(&schemas, &selection)?;
    let batches = named()
        .flat_map(|(name, frame)| frame.batches().iter().map(move |batch| (name, batch)))
        .map(|(name, batch)| layout.conform(batch, name))
        .collect::<Result<Vec<RecordBatch>>>()?;
    Frame::new(layout.schema().clone(), first_rows(batches, selection.limit))
}

/// Reads a file of this machine, or a stream in one.
pub(crate) fn read_path(path: &Path) -> Result<Frame> {
    read_one(&Source::local(path)?)
}

fn read_one(source: &Source) -> Result<Frame> {
    let name = source.name();
    let mut head = Vec::new();
    source.open()?.take(32).read_to_end(&mut head).map_err(|error| broken(name, error))?;
    if head.starts_with(b"ARROW1") {
        return read_file(source);
    }
    if !head.starts_with(&[0xff; 4]) {
        return Err(wrong_kind(name, "Arrow IPC file or stream", &head));
    }
    read_stream(source.open()?).map_err(|fault| match fault {
        Fault::Io(error) => broken(name, error),
        Fault::Damaged(message) => damaged(name, &message),
        Fault::Trailing => damaged(name, "there are bytes after the end of the stream"),
        Fault::Cut { rows } => damaged(name, &format!("the stream ends in the middle, after {rows} rows")),
        Fault::Nothing | Fault::Other(_) | Fault::Endless(_) => damaged(name, "it is no stream"),
    })
}

fn read_file(source: &Source) -> Result<Frame> {
    let ranges = source.ranges()?;
    // The decoder panics on some damaged parts.
    match catch_unwind(AssertUnwindSafe(|| decode_file(&ranges))) {
        Ok(Ok((schema, batches))) => normalise(&schema, batches).map_err(|error| error.context(source.name())),
        Ok(Err(error)) => Err(damaged(source.name(), &error.to_string())),
        Err(_) => Err(damaged(source.name(), "a part is damaged")),
    }
}

/// Reads the parts that the footer names. Arrow's own reader would reserve whatever a damaged footer claims.
fn decode_file(ranges: &Ranges) -> Result<(Schema, Vec<RecordBatch>), ArrowError> {
    let size = ranges.size();
    let part = |offset: u64, length: u64| -> Result<Vec<u8>, ArrowError> {
        if offset.checked_add(length).is_none_or(|end| end > size) {
            return Err(ArrowError::IpcError("a part is missing".into()));
        }
        let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or_default());
        ranges.reader(offset).take(length).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let tail = part(size.saturating_sub(10), 10)?;
    let tail = tail.try_into().map_err(|_| ArrowError::IpcError("there is no footer".into()))?;
    let length = read_footer_length(tail)? as u64;
    let start = size.checked_sub(10 + length).ok_or_else(|| ArrowError::IpcError("the footer is cut off".into()))?;
    let footer = part(start, length)?;
    let footer = root_as_footer(&footer).map_err(|error| ArrowError::IpcError(format!("the footer: {error}")))?;
    let schema = footer.schema().map(fb_to_schema).ok_or_else(|| ArrowError::IpcError("there is no schema".into()))?;
    let block = |block: &Block| -> Result<Buffer, ArrowError> {
        let claimed = (block.offset(), i64::from(block.metaDataLength()), block.bodyLength());
        let (Ok(offset), Ok(head), Ok(body)) =
            (u64::try_from(claimed.0), u64::try_from(claimed.1), u64::try_from(claimed.2))
        else {
            return Err(ArrowError::IpcError("a part has no place".into()));
        };
        let length = head.checked_add(body).ok_or_else(|| ArrowError::IpcError("a part has no end".into()))?;
        Ok(Buffer::from_vec(part(offset, length)?))
    };
    let mut decoder = FileDecoder::new(Arc::new(schema.clone()), footer.version());
    for dictionary in footer.dictionaries().iter().flatten() {
        decoder.read_dictionary(dictionary, &block(dictionary)?)?;
    }
    let mut batches = Vec::new();
    for batch in footer.recordBatches().iter().flatten() {
        batches.extend(decoder.read_record_batch(batch, &block(batch)?)?);
    }
    Ok((schema, batches))
}

fn damaged(name: &str, why: &str) -> Error {
    Error::new(format!("{name} can't be read to its end: {why}"))
        .help("the file is truncated or damaged: copy or download it again")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::ipc::tests::{frame, stream};
    use ::arrow::datatypes::DataType;
    use ::arrow::ipc::writer::FileWriter;
    use serde_json::json;

    fn run(params: serde_json::Value) -> Result<Frame> {
        let params = serde_json::from_value(params).unwrap();
        read_arrow(Params(params), Threads(2), Cancel::default(), Progress::default())
    }

    fn file(frame: &Frame) -> Vec<u8> {
        let mut writer = FileWriter::try_new(Vec::new(), frame.schema()).unwrap();
        frame.batches().iter().for_each(|batch| writer.write(batch).unwrap());
        writer.finish().unwrap();
        writer.into_inner().unwrap()
    }

    #[test]
    fn files_and_streams_are_read_as_one() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.arrow"), file(&frame(100))).unwrap();
        std::fs::write(folder.path().join("b.arrow"), stream(&frame(50))).unwrap();
        let path = format!("{}/*.arrow", folder.path().display());
        assert_eq!(run(json!({ "path": path })).unwrap().rows(), 150);
        let some = run(json!({ "path": path, "limit": 120, "columns": ["n"], "types": { "n": "string" } })).unwrap();
        assert_eq!((some.rows(), some.schema().field(0).data_type()), (120, &DataType::Utf8));
    }

    #[test]
    fn files_whose_columns_differ_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let name = |file: &str| folder.path().join(file).display().to_string();
        std::fs::write(name("a.arrow"), file(&frame(10))).unwrap();
        let fail = |other: &[u8]| {
            std::fs::write(name("b.arrow"), other).unwrap();
            run(json!({ "path": name("*.arrow") })).unwrap_err()
        };
        let (a, b) = (name("a.arrow"), name("b.arrow"));
        let text = frame(10).column("text").unwrap();
        let number = frame(10).column("n").unwrap();
        let columns = |columns: [(&str, ::arrow::array::ArrayRef); 2]| Frame::from_columns(columns).unwrap();

        let other = columns([("n", number.clone()), ("words", text.clone())]);
        // A file and a stream are refused alike.
        for other in [file(&other), stream(&other)] {
            let error = fail(&other);
            let differ = format!("the columns of {a} and {b} differ: {b} lacks \"text\" and has \"words\"");
            assert_eq!(error.to_string(), differ);
            let help = "files that are read together need equal columns; read them in two stages and join them";
            assert_eq!(error.advice(), Some(help));
        }
        let less = frame(10).select(&["n"]).unwrap();
        let differ = format!("the columns of {a} and {b} differ: {b} lacks \"text\"");
        assert_eq!(fail(&file(&less)).to_string(), differ);
        let more = frame(10).with_column("more", number.clone()).unwrap();
        let differ = format!("the columns of {a} and {b} differ: only {b} has \"more\"");
        assert_eq!(fail(&file(&more)).to_string(), differ);

        let number = ::arrow::compute::cast(&number, &DataType::Float64).unwrap();
        let error = fail(&file(&columns([("n", number), ("text", text.clone())])));
        assert_eq!(error.to_string(), format!("column \"n\" is int64 in {a}, but float64 in {b}"));
        assert_eq!(error.advice(), Some("say which it is: types = { n = \"int64\" }"));
        // The order of the columns is no difference.
        let number = frame(10).column("n").unwrap();
        std::fs::write(&b, file(&columns([("text", text), ("n", number)]))).unwrap();
        assert_eq!(run(json!({ "path": name("*.arrow") })).unwrap().rows(), 20);
    }

    #[test]
    fn what_is_no_arrow_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.arrow");
        let fail = |content: &[u8]| {
            std::fs::write(&path, content).unwrap();
            format!("{:?}", run(json!({ "path": path.display().to_string() })).unwrap_err())
        };
        assert!(fail(b"").contains("is empty"));
        assert!(fail(b"PAR1....").contains("is no Arrow IPC file or stream (help: it is a Parquet file)"));
        assert!(fail(b"FEA1....").contains("Feather version 1"));
        for whole in [file(&frame(100)), stream(&frame(100))] {
            for length in [8, 100, whole.len() / 2, whole.len() - 1] {
                let error = fail(&whole[..length]);
                assert!(error.contains("x.arrow can't be read to its end") && error.contains("truncated"), "{error}");
            }
        }
    }

    #[test]
    fn damage_is_no_panic() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.arrow");
        let whole = file(&frame(20));
        for place in (0..whole.len()).step_by(3) {
            let mut damaged = whole.clone();
            damaged[place] ^= 0x55;
            std::fs::write(&path, &damaged).unwrap();
            let _ = run(json!({ "path": path.display().to_string() }));
        }
    }
}
