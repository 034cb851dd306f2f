//! `read.json`: JSON lines, one object a line.

use super::files::{Paths, Source, fingerprint};
use super::parallel::ordered;
use super::rows::{Block, Blocks, HEAD_ROWS, RecordError, Records, read};
use super::sniff::{kind, wrong_kind};
use super::table::{Selection, same_columns};
use super::types::{ColumnType, declare, name_of};
use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow_json::ReaderBuilder;
use arrow_json::reader::infer_json_schema_from_iterator;
use ropeway_framework::data::Frame;
use ropeway_framework::stage::{Cancel, FnStage, Params, Progress, Threads};
use ropeway_framework::{Error, Result};
use schemars::JsonSchema;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// The parameters of `read.json`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JsonParams {
    /// The files: a path, glob or URL, or a list of them.
    pub path: Paths,
    /// Only these columns, in this order.
    #[serde(default)]
    pub columns: Option<Vec<String>>,
    /// Types of columns; those of the others are found out from the first 10,000 lines of each file. A column that
    /// only some files have must be named here.
    #[serde(default)]
    pub types: BTreeMap<String, ColumnType>,
    /// Only the first so many rows.
    #[serde(default)]
    pub limit: Option<u64>,
}

pub(super) fn stage() -> FnStage {
    ropeway_framework::stage::stage(read_json)
        .version(1)
        .about("Reads JSON lines, one object a line: paths, globs or object-store URLs, gzip or plain.")
        .fingerprint(|params: JsonParams| fingerprint(&params.path.find()?))
        .reads_anywhere(|params: JsonParams| params.path.are_remote())
}

fn read_json(
    Params(params): Params<JsonParams>,
    threads: Threads,
    cancel: Cancel,
    progress: Progress,
) -> Result<Frame> {
    let sources = params.path.find()?;
    let selection = Selection { columns: params.columns, types: params.types, limit: params.limit };
    let schema = schema(&sources, &selection, threads)?;
    let lines = Lines { schema: schema.clone(), all: selection.columns.is_none() };
    read(&sources, &lines, schema, &selection, (threads, cancel, progress))
}

/// The schema of all files, from the first lines of each.
fn schema(sources: &[Source], selection: &Selection, threads: Threads) -> Result<SchemaRef> {
    let mut left = sources.iter();
    let heads = ordered(threads, None, || Ok(left.next()), |source: &Source| head(source, selection), |_| 0);
    let mut whole: Vec<(String, DataType)> = Vec::new();
    for (place, (fields, source)) in heads.into_iter().zip(sources).enumerate() {
        let fields = fields?;
        if place == 0 {
            whole = fields;
            continue;
        }
        let names = |fields: &[(String, DataType)]| -> Vec<String> {
            let stated = |name: &&String| !selection.types.contains_key(*name);
            fields.iter().map(|(name, _)| name).filter(stated).cloned().collect()
        };
        let first = sources.first().map_or("", Source::name);
        same_columns((first, &names(&whole)), (source.name(), &names(&fields)))
            .map_err(|error| error.help("missing values may be left out of a line; name such a column in `types`"))?;
        for (name, data_type) in fields {
            match whole.iter_mut().find(|(other, _)| *other == name) {
                None => whole.push((name, data_type)),
                Some((_, joined)) => {
                    *joined = join(joined, &data_type).ok_or_else(|| {
                        let (a, b) = (name_of(joined), name_of(&data_type));
                        Error::new(format!("column {name:?} is {a} in {first}, but {b} in {}", source.name()))
                            .help(format!("say which it is: {}", declare(&name, "string")))
                    })?;
                }
            }
        }
    }
    for (name, stated) in &selection.types {
        if !whole.iter().any(|(other, _)| other == name) {
            whole.push((name.clone(), stated.arrow()));
        }
    }
    let names: Vec<String> = whole.iter().map(|(name, _)| name.clone()).collect();
    let mut fields = Vec::new();
    for name in selection.wanted(&names, sources.first().map_or("", Source::name))? {
        let found = whole.iter().find(|(other, _)| *other == name).map(|(_, data_type)| settle(data_type));
        fields.push(Field::new(&name, selection.data_type(&name, found.unwrap_or(DataType::Utf8)), true));
    }
    Ok(Arc::new(Schema::new(fields)))
}

/// What two files' types have in common.
fn join(one: &DataType, other: &DataType) -> Option<DataType> {
    Some(match (one, other) {
        (one, other) if one == other => one.clone(),
        (DataType::Null, one) | (one, DataType::Null) => one.clone(),
        (DataType::Int64, DataType::Float64) | (DataType::Float64, DataType::Int64) => DataType::Float64,
        (one, other) if !one.is_nested() && !other.is_nested() => DataType::Utf8,
        _ => return None,
    })
}

/// A type without nulls in it: what never had a value is text, so that whatever comes later can be read.
fn settle(data_type: &DataType) -> DataType {
    let field = |field: &Field| field.clone().with_data_type(settle(field.data_type()));
    match data_type {
        DataType::Null => DataType::Utf8,
        DataType::List(item) => DataType::List(Arc::new(field(item))),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(|one| field(one)).collect::<Fields>()),
        other => other.clone(),
    }
}

/// The columns of one file in the order in which they first occur, and their types, from its first lines.
fn head(source: &Source, selection: &Selection) -> Result<Vec<(String, DataType)>> {
    let mut blocks = Blocks::open(source)?;
    let mut order: Vec<String> = Vec::new();
    let mut values: Vec<Value> = Vec::new();
    let mut before = 0;
    while values.len() < HEAD_ROWS {
        let Some(text) = blocks.next(whole)? else { break };
        if before == 0 && (kind(&text).is_some() || text.contains(&0)) {
            return Err(wrong_kind(source.name(), "JSON lines file", &text));
        }
        for (place, line) in text.split(|byte| *byte == b'\n').enumerate() {
            if values.len() == HEAD_ROWS || line.trim_ascii().is_empty() {
                continue;
            }
            let parsed = serde_json::from_slice::<Keys>(line)
                .and_then(|keys| Ok((keys, serde_json::from_slice::<Value>(line)?)));
            let (Keys(keys), value) =
                parsed.map_err(|error| unreadable(line, place + 1, &error).at(source.name(), before))?;
            for key in keys {
                if !order.contains(&key) {
                    order.push(key);
                }
            }
            values.push(value);
        }
        before += text.iter().filter(|byte| **byte == b'\n').count();
    }
    if values.is_empty() {
        return Err(Error::new(format!("{} has no line with an object", source.name())));
    }
    let mut fields = Vec::new();
    for name in order {
        // Column by column, so that a conflict names its column, and one whose type is stated has none.
        let found = match selection.types.get(&name) {
            Some(stated) => stated.arrow(),
            None => {
                let column = values.iter().filter_map(|value| {
                    let only = value.get(&name)?.clone();
                    Some(Ok(Value::Object([(name.clone(), only)].into_iter().collect())))
                });
                let inferred = infer_json_schema_from_iterator::<_, Value>(column).map_err(|_| {
                    Error::new(format!("{}: column {name:?} has values of different kinds", source.name())).help(
                        format!(
                            "objects, lists and plain values do not mix; if it is text: {}",
                            declare(&name, "string")
                        ),
                    )
                })?;
                inferred.fields().first().map_or(DataType::Null, |field| field.data_type().clone())
            }
        };
        fields.push((name, found));
    }
    Ok(fields)
}

/// The keys of an object, in their order.
struct Keys(Vec<String>);

impl<'de> Deserialize<'de> for Keys {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visit;
        impl<'de> Visitor<'de> for Visit {
            type Value = Keys;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Keys, A::Error> {
                let mut keys = Vec::new();
                while let Some((key, IgnoredAny)) = map.next_entry::<String, IgnoredAny>()? {
                    keys.push(key);
                }
                Ok(Keys(keys))
            }
        }
        deserializer.deserialize_map(Visit)
    }
}

/// The error for a line that is no JSON object.
fn unreadable(line: &[u8], place: usize, error: &serde_json::Error) -> RecordError {
    if std::str::from_utf8(line).is_err() {
        return RecordError::new(place, "the text is not UTF-8").help("convert it with `iconv -f latin1 -t utf-8`");
    }
    match line.trim_ascii().first() {
        Some(b'[') => RecordError::new(place, "a list stands here, where a line with one object is expected")
            .help("`jq -c '.[]' old.json > new.jsonl` makes lines of a list"),
        _ if error.is_eof() => RecordError::new(place, "the object ends in the middle")
            .help("each object must be on one line; or the file is truncated (`jq -c . old.json > new.jsonl`)"),
        _ => RecordError::new(place, format!("this is no JSON object: {error}"))
            .help("each line must have one object: {\"column\": value, ...}"),
    }
}

fn whole(text: &[u8]) -> usize {
    text.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1)
}

/// Lines of objects with columns of known types.
struct Lines {
    schema: SchemaRef,
    /// Whether all columns are read; then a column that is not in the schema is an error, not a loss.
    all: bool,
}

impl Lines {
    fn decode(&self, text: &[u8], schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
        let rows = 1 + text.iter().filter(|byte| **byte == b'\n').count();
        let mut decoder = ReaderBuilder::new(schema.clone())
            .with_batch_size(rows)
            .with_coerce_primitive(true)
            .with_strict_mode(self.all)
            .build_decoder()?;
        let read = decoder.decode(text)?;
        if read < text.len() {
            return Err(ArrowError::JsonError("several objects on one line".into()));
        }
        Ok(decoder.flush()?.unwrap_or_else(|| RecordBatch::new_empty(schema.clone())))
    }

    /// What is wrong with a line that can't be decoded.
    fn explain(&self, line: &[u8], place: usize, error: &ArrowError) -> RecordError {
        let value = match serde_json::from_slice::<Value>(line) {
            Ok(Value::Object(value)) => value,
            Ok(_) => return RecordError::new(place, "this is no JSON object"),
            Err(error) => return unreadable(line, place, &error),
        };
        for (name, value) in value {
            let Ok(field) = self.schema.field_with_name(&name) else {
                if self.all {
                    let error = RecordError::new(place, format!("column {name:?} is not among the first 10,000 lines"));
                    return error.help(format!("say that it is there: {}", declare(&name, "string")));
                }
                continue;
            };
            let only = Arc::new(Schema::new(vec![field.clone()]));
            let object = Value::Object([(name.clone(), value.clone())].into_iter().collect());
            if self.decode(object.to_string().as_bytes(), &only).is_err() {
                let shown: String = value.to_string().chars().take(60).collect();
                let wanted = name_of(field.data_type());
                let fitting = if value.is_number() && wanted.contains("int") { "float64" } else { "string" };
                return RecordError::new(place, format!("column {name:?}: {shown} is no {wanted}"))
                    .help(format!("say what the column is: {}", declare(&name, fitting)));
            }
        }
        RecordError::new(place, error.to_string())
    }
}

impl Records for Lines {
    fn whole(&self, text: &[u8]) -> usize {
        whole(text)
    }

    fn parse(&self, block: &Block) -> Result<RecordBatch, RecordError> {
        self.decode(&block.text, &self.schema).map_err(|error| {
            // Decoded one by one, the lines show which of them it is.
            for (place, line) in block.text.split(|byte| *byte == b'\n').enumerate() {
                if let Err(error) = self.decode(line, &self.schema) {
                    return self.explain(line, place + 1, &error);
                }
            }
            RecordError::new(1, error.to_string())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::sniff::tests::gzip;
    use arrow::array::{Array, AsArray};
    use arrow::datatypes::{Float64Type, Int64Type};
    use serde_json::json;
    use std::path::Path;

    fn run(params: Value, threads: usize) -> Result<Frame> {
        let params = serde_json::from_value(params).unwrap();
        read_json(Params(params), Threads(threads), Cancel::default(), Progress::default())
    }

    fn at(folder: &Path, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = folder.join(name);
        std::fs::write(&path, content).unwrap();
        path.display().to_string()
    }

    fn fail(content: impl AsRef<[u8]>) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = at(folder.path(), "x.jsonl", content);
        format!("{:?}", run(json!({ "path": path }), 2).unwrap_err()).replace(&path, "x.jsonl")
    }

    #[test]
    fn objects_become_rows() {
        let folder = tempfile::tempdir().unwrap();
        let text = "{\"z\": 1, \"a\": \"x\", \"l\": [1, 2]}\n\n{\"z\": 2.5, \"b\": true}\n{\"z\": null, \"a\": 7}";
        let path = at(folder.path(), "x.jsonl", text);
        let frame = run(json!({ "path": path }), 2).unwrap();
        let names: Vec<&str> = frame.schema().fields().iter().map(|field| field.name().as_str()).collect();
        assert_eq!(names, ["z", "a", "l", "b"]);
        let z: Vec<Option<f64>> = frame.column("z").unwrap().as_primitive::<Float64Type>().iter().collect();
        assert_eq!(z, [Some(1.0), Some(2.5), None]);
        let a: Vec<Option<String>> =
            frame.column("a").unwrap().as_string::<i32>().iter().map(|a| a.map(str::to_owned)).collect();
        assert_eq!(a, [Some("x".into()), None, Some("7".into())]);
        assert_eq!(frame.column("l").unwrap().null_count(), 2);
        let some =
            run(json!({ "path": path, "columns": ["b", "z"], "limit": 2, "types": {"z": "string"} }), 1).unwrap();
        assert_eq!((some.rows(), some.columns(), some.schema().field(1).data_type()), (2, 2, &DataType::Utf8));
    }

    #[test]
    fn the_same_for_any_number_of_threads() {
        let folder = tempfile::tempdir().unwrap();
        let text: String = (0..50_000).map(|row| format!("{{\"n\": {row}, \"t\": \"a\\nb{row}\"}}\n")).collect();
        let paths = json!([at(folder.path(), "a.jsonl", &text), at(folder.path(), "b.json.gz", gzip(text.as_bytes()))]);
        let frames: Vec<Frame> = (1..4).map(|threads| run(json!({ "path": paths }), threads).unwrap()).collect();
        assert_eq!(frames[0].rows(), 100_000);
        assert!(frames.iter().all(|frame| frame.batches() == frames[0].batches()));
        let column = frames[0].column("n").unwrap();
        assert!(
            column.as_primitive::<Int64Type>().values().iter().enumerate().all(|(row, n)| *n == row as i64 % 50_000)
        );
    }

    #[test]
    fn mistakes_say_where_they_are() {
        let many = "{\"n\": 1, \"t\": \"x\"}\n".repeat(60_000);
        let error = fail(format!("{many}{{\"n\": \"many\", \"t\": \"x\"}}\n"));
        assert!(error.contains("x.jsonl, line 60001: column \"n\": \"many\" is no int64"), "{error}");
        assert!(error.contains("types = { n = \"string\" }"), "{error}");
        let error = fail(format!("{many}{{\"n\": 1, \"late\": 2}}\n"));
        assert!(error.contains("line 60001: column \"late\" is not among the first 10,000 lines"), "{error}");
        let error = fail(format!("{many}{{\"n\": 1,"));
        assert!(error.contains("line 60001: the object ends in the middle"), "{error}");
        assert!(fail("[{\"a\": 1}]").contains("jq -c '.[]'"));
        assert!(fail("{\n\"a\": 1}\n").contains("line 1: the object ends in the middle"));
        assert!(fail("{\"a\": 1}\n7\n").contains("line 2: this is no JSON object"));
        assert!(fail("{\"a\": 1}\n{\"a\": {\"b\": 1}}\n").contains("column \"a\" has values of different kinds"));
        assert!(fail(b"{\"a\": \"\xe9\"}\n").contains("line 1: the text is not UTF-8"));
        assert!(fail(b"\x89PNG\r\n\x1a\n\n").contains("is no JSON lines file (help: it is a PNG image)"));
        assert!(fail("\n \n").contains("has no line with an object"));
        let packed = gzip(many.as_bytes());
        assert!(fail(&packed[..packed.len() - 9]).contains("ends in the middle"));
    }

    #[test]
    fn files_must_have_equal_columns_unless_stated() {
        let folder = tempfile::tempdir().unwrap();
        let one = at(folder.path(), "one.jsonl", "{\"a\": 1}\n");
        let two = at(folder.path(), "two.jsonl", "{\"a\": 1.5, \"b\": 2}\n");
        let error = run(json!({ "path": [one, two] }), 2).unwrap_err();
        assert!(error.to_string().contains("two.jsonl has \"b\""), "{error}");
        let frame = run(json!({ "path": [one, two], "types": { "b": "int8" } }), 2).unwrap();
        let a: Vec<Option<f64>> = frame.column("a").unwrap().as_primitive::<Float64Type>().iter().collect();
        assert_eq!(a, [Some(1.0), Some(1.5)]);
        assert_eq!(frame.column("b").unwrap().data_type(), &DataType::Int8);
        let three = at(folder.path(), "three.jsonl", "{\"a\": {\"c\": 1}}\n");
        let error = run(json!({ "path": [one, three] }), 2).unwrap_err().to_string();
        assert!(error.contains("column \"a\" is int64 in") && error.contains("but struct"), "{error}");
    }
}
