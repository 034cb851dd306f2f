//! Rows in and out of files: CSV, JSON, Parquet, Arrow.

use crate::data::{Frame, Tensors};
use crate::{Context, Error, Result};
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use std::io::{BufReader, Read, Write};
use std::sync::Arc;

/// How an artifact is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum FileFormat {
    /// Text, with a header
    Csv,
    /// JSON: one row a line, or one value
    Json,
    /// Parquet
    Parquet,
    /// An Arrow IPC file
    Arrow,
    /// Tensors and models
    Safetensors,
}

impl FileFormat {
    /// What a file's name says.
    pub(crate) fn of(path: &str) -> Option<Self> {
        match path.rsplit_once('.')?.1.to_ascii_lowercase().as_str() {
            "csv" => Some(Self::Csv),
            "json" | "jsonl" | "ndjson" => Some(Self::Json),
            "parquet" => Some(Self::Parquet),
            "arrow" | "feather" => Some(Self::Arrow),
            "safetensors" => Some(Self::Safetensors),
            _ => None,
        }
    }
}

/// Reads rows whose columns have the types of `schema`; other columns are read as text.
pub(crate) fn read(input: impl Read, format: FileFormat, schema: &SchemaRef) -> Result<Frame> {
    match format {
        FileFormat::Csv => read_csv(input, schema),
        FileFormat::Json => read_json(input, schema),
        _ => Err(Error::usage("rows are read from CSV or JSON")),
    }
}

fn read_csv(input: impl Read, schema: &SchemaRef) -> Result<Frame> {
    let mut text = Vec::new();
    BufReader::new(input).read_to_end(&mut text).context("can't read the rows")?;
    let (header, _) = arrow_csv::reader::Format::default()
        .with_header(true)
        .infer_schema(text.as_slice(), Some(0))
        .context("the rows are no CSV")?;
    let fields: Vec<Field> = header
        .fields()
        .iter()
        .map(|field| {
            let known = schema.field_with_name(field.name()).map_or(DataType::Utf8, |known| known.data_type().clone());
            Field::new(field.name(), known, true)
        })
        .collect();
    if let Some(nested) = fields.iter().find(|field| field.data_type().is_nested()) {
        return Err(Error::usage(format!("column {:?} holds lists, which CSV can't carry", nested.name()))
            .help("give the rows as JSON"));
    }
    let types = Arc::new(Schema::new(fields));
    let reader = arrow_csv::ReaderBuilder::new(types.clone()).with_header(true).build(text.as_slice())?;
    let batches = reader.collect::<Result<Vec<_>, _>>().map_err(|error| Error::usage(error).context("the rows"))?;
    Frame::new(types, batches)
}

/// JSON lines, or one array of objects.
fn read_json(input: impl Read, schema: &SchemaRef) -> Result<Frame> {
    let values = serde_json::Deserializer::from_reader(BufReader::new(input)).into_iter::<serde_json::Value>();
    let mut rows = Vec::new();
    for value in values {
        match value.map_err(|error| Error::usage(error).context("the rows are no JSON"))? {
            serde_json::Value::Array(items) => rows.extend(items),
            row => rows.push(row),
        }
    }
    if let Some(position) = rows.iter().position(|row| !row.is_object()) {
        return Err(Error::usage(format!("row {} is no object", position + 1))
            .help(r#"write each row as {"column": value, …}"#));
    }
    let nullable = schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
    let types = Arc::new(Schema::new(nullable.collect::<Vec<_>>()));
    let mut decoder =
        arrow_json::ReaderBuilder::new(types.clone()).with_batch_size(rows.len().max(1)).build_decoder()?;
    decoder.serialize(&rows).map_err(|error| Error::usage(error).context("the rows"))?;
    let batches = decoder.flush().map_err(|error| Error::usage(error).context("the rows"))?;
    Frame::new(types, batches.into_iter().collect())
}

/// Writes a frame.
pub(crate) fn write_frame(mut output: impl Write + Send, frame: &Frame, format: FileFormat) -> Result<()> {
    match format {
        // Text is made batch by batch and then written, so that an error of the output is told as what it is.
        FileFormat::Csv => {
            let flat = flatten(frame)?;
            let empty = [RecordBatch::new_empty(flat.schema().clone())];
            let batches = if flat.batches().is_empty() { &empty } else { flat.batches() };
            for (index, batch) in batches.iter().enumerate() {
                let mut text = Vec::new();
                arrow_csv::WriterBuilder::new().with_header(index == 0).build(&mut text).write(batch)?;
                output.write_all(&text)?;
            }
        }
        FileFormat::Json => {
            for batch in frame.batches() {
                let mut text = Vec::new();
                arrow_json::LineDelimitedWriter::new(&mut text).write(batch)?;
                output.write_all(&text)?;
            }
        }
        FileFormat::Parquet => {
            let mut writer = parquet::arrow::ArrowWriter::try_new(output, frame.schema().clone(), None)?;
            frame.batches().iter().try_for_each(|batch| writer.write(batch))?;
            writer.close()?;
            return Ok(());
        }
        FileFormat::Arrow => {
            let mut writer = arrow::ipc::writer::FileWriter::try_new(&mut output, frame.schema())?;
            frame.batches().iter().try_for_each(|batch| writer.write(batch))?;
            writer.finish()?;
        }
        FileFormat::Safetensors => {
            return Err(
                Error::usage("a frame can't be written as safetensors").help("choose csv, json, parquet or arrow")
            );
        }
    }
    Ok(output.flush()?)
}

/// Columns of lists of fixed length become one column an item: `probability.0`, `probability.1`, …
fn flatten(frame: &Frame) -> Result<Frame> {
    let batch = frame.to_batch()?;
    let mut columns: Vec<(String, ArrayRef)> = Vec::new();
    for (field, column) in frame.schema().fields().iter().zip(batch.columns()) {
        let DataType::FixedSizeList(_, length) = field.data_type() else {
            columns.push((field.name().clone(), column.clone()));
            continue;
        };
        let (list, length) = (column.as_fixed_size_list(), *length as usize);
        for item in 0..length {
            let positions = (0..list.len()).map(|row| ((row + list.offset()) * length + item) as u64);
            let positions = arrow::array::UInt64Array::from_iter_values(positions);
            let values = arrow::compute::take(list.values(), &positions, None)?;
            columns.push((format!("{}.{item}", field.name()), values));
        }
    }
    Frame::from_columns(columns)
}

/// Writes tensors as JSON: shape, type and values by name.
pub(crate) fn tensors_as_json(tensors: &Tensors) -> Result<serde_json::Value> {
    let mut all = serde_json::Map::new();
    for (name, tensor) in tensors.iter() {
        let values = match tensor.dtype() {
            crate::data::Dtype::F32 => serde_json::to_value(tensor.values::<f32>()?)?,
            crate::data::Dtype::F64 => serde_json::to_value(tensor.values::<f64>()?)?,
            crate::data::Dtype::I64 => serde_json::to_value(tensor.values::<i64>()?)?,
            crate::data::Dtype::U64 => serde_json::to_value(tensor.values::<u64>()?)?,
            crate::data::Dtype::U32 => serde_json::to_value(tensor.values::<u32>()?)?,
            crate::data::Dtype::U8 => serde_json::to_value(tensor.values::<u8>()?)?,
            other => return Err(Error::usage(format!("tensor {name:?} is {other:?}, which JSON can't carry"))),
        };
        let dtype = format!("{:?}", tensor.dtype());
        all.insert(name.to_owned(), serde_json::json!({ "shape": tensor.shape(), "dtype": dtype, "values": values }));
    }
    Ok(all.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Float64Array, Int64Array};

    fn schema() -> SchemaRef {
        Arc::new(Schema::new(vec![
            Field::new("age", DataType::Float64, false),
            Field::new("city", DataType::Utf8, false),
        ]))
    }

    #[test]
    fn rows_are_read_as_the_model_wants_them() {
        let csv = read("city,age,extra\nUlm,3,x\n\"a,b\",4.5,y\n".as_bytes(), FileFormat::Csv, &schema()).unwrap();
        assert_eq!(csv.column("age").unwrap().as_ref(), &Float64Array::from(vec![3.0, 4.5]) as &dyn Array);
        for json in
            ["{\"age\": 3, \"city\": \"Ulm\"}\n{\"age\": 4.5, \"city\": \"a,b\"}", "[{\"age\":3},{\"age\":4.5}]"]
        {
            let rows = read(json.as_bytes(), FileFormat::Json, &schema()).unwrap();
            assert_eq!(rows.column("age").unwrap().as_ref(), &Float64Array::from(vec![3.0, 4.5]) as &dyn Array);
        }
    }

    #[test]
    fn wrong_rows_are_refused_with_the_place() {
        let csv = read("age\n1\nx\n".as_bytes(), FileFormat::Csv, &schema()).unwrap_err().to_string();
        assert!(csv.contains("'x'") && csv.contains("line 2"), "{csv}");
        let json = read("[1]".as_bytes(), FileFormat::Json, &schema()).unwrap_err().to_string();
        assert_eq!(json, "row 1 is no object");
        assert!(read("{".as_bytes(), FileFormat::Json, &schema()).is_err());
    }

    #[test]
    fn what_is_written_reads_back() {
        let age: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
        let frame = Frame::from_columns([("age", age)]).unwrap();
        let mut text = Vec::new();
        write_frame(&mut text, &frame, FileFormat::Csv).unwrap();
        assert_eq!(String::from_utf8(text).unwrap(), "age\n1\n2\n");
        let mut lines = Vec::new();
        write_frame(&mut lines, &frame, FileFormat::Json).unwrap();
        assert_eq!(String::from_utf8(lines).unwrap(), "{\"age\":1}\n{\"age\":2}\n");
    }
}
