use super::*;
use crate::sources::rows::BLOCK;
use crate::sources::sniff::tests::gzip;
use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Int64Type, TimeUnit};
use ropeway_framework::stage::Parameters;
use serde_json::json;
use std::path::Path;

fn run<P: Parameters>(
    params: serde_json::Value,
    threads: usize,
    stage: fn(Params<P>, Threads, Cancel, Progress) -> Result<Frame>,
) -> Result<Frame> {
    stage(Params(serde_json::from_value(params).unwrap()), Threads(threads), Cancel::default(), Progress::default())
}

fn at(folder: &Path, name: &str, content: impl AsRef<[u8]>) -> String {
    let path = folder.join(name);
    std::fs::write(&path, content).unwrap();
    path.display().to_string()
}

fn fail(content: impl AsRef<[u8]>) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = at(folder.path(), "x.csv", content);
    format!("{:?}", run(json!({ "path": path }), 2, read_csv).unwrap_err()).replace(&*path, "x.csv")
}

#[test]
fn a_table_with_everything_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let text = "\u{feff}id, name ,,when\r\n1,\"a, b\",1.5,2013-01-01T10:00:00Z\r\n2,NA,NA,\r\n\r\n3,\"NA\",-1e3,2013-01-02T10:00:00Z";
    let path = at(folder.path(), "x.csv", text);
    let frame = run(json!({ "path": path }), 1, read_csv).unwrap();
    let types: Vec<(&str, &DataType)> =
        frame.schema().fields().iter().map(|f| (f.name().as_str(), f.data_type())).collect();
    let utc = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    assert_eq!(
        types,
        [("id", &DataType::Int64), ("name", &DataType::Utf8), ("column_3", &DataType::Float64), ("when", &utc)]
    );
    let names = frame.column("name").unwrap();
    assert_eq!(names.as_string::<i32>().iter().collect::<Vec<_>>(), [Some("a, b"), None, Some("NA")]);
    assert_eq!(frame.column("when").unwrap().null_count(), 1);
}

#[test]
fn columns_types_limit_delimiter_and_no_header() {
    let folder = tempfile::tempdir().unwrap();
    let path = at(folder.path(), "x.tsv", "007\t1\tx\n008\t2\ty\n009\t3\tz\n");
    let params = json!({ "path": path, "header": false, "delimiter": "\t", "limit": 2,
        "columns": ["column_2", "column_1"], "types": { "column_1": "string", "column_2": "float32" } });
    let frame = run(params, 2, read_csv).unwrap();
    assert_eq!((frame.rows(), frame.columns()), (2, 2));
    assert_eq!(frame.schema().field(0).data_type(), &DataType::Float32);
    assert_eq!(frame.column("column_1").unwrap().as_string::<i32>().value(1), "008");
}

#[test]
fn the_same_for_any_number_of_threads_packed_or_plain() {
    let folder = tempfile::tempdir().unwrap();
    let mut text = String::from("n,text\n");
    for row in 0..60_000 {
        text.push_str(&format!("{row},\"row, \"\"{row}\"\"\nmore\"\n"));
    }
    assert!(text.len() > 8 * BLOCK, "several blocks, which threads take in turn");
    let paths = json!([at(folder.path(), "a.csv", &text), at(folder.path(), "b.csv.gz", gzip(text.as_bytes()))]);
    let frames: Vec<Frame> = (1..4).map(|threads| run(json!({ "path": paths }), threads, read_csv).unwrap()).collect();
    for frame in &frames {
        assert_eq!(frame.rows(), 120_000);
        assert_eq!(frame.batches().len(), 2, "as a frame keeps them");
        assert_eq!(frame.batches(), frames[0].batches());
        let limited = run(json!({ "path": paths, "limit": 70_001 }), 3, read_csv).unwrap();
        assert_eq!(limited.to_batch().unwrap(), frame.to_batch().unwrap().slice(0, 70_001));
    }
    let numbers = frames[0].column("n").unwrap();
    assert!(numbers.as_primitive::<Int64Type>().values().iter().enumerate().all(|(row, n)| *n == row as i64 % 60_000));
}

#[test]
fn a_late_misfit_says_where_it_is_and_what_to_do() {
    let mut text = String::from("dep time,y\n");
    for row in 0..80_000 {
        text.push_str(&format!("{row},1\n"));
    }
    let late = text.clone() + "3.5,1\n1,1\n";
    let error = fail(&late);
    assert!(error.contains("x.csv, line 80002: column \"dep time\": \"3.5\" is no int64"), "{error}");
    assert!(error.contains("types = { \"dep time\" = \"float64\" }"), "{error}");
    let folder = tempfile::tempdir().unwrap();
    let paths = json!([at(folder.path(), "a.csv", &text), at(folder.path(), "b.csv", &late)]);
    let error = run(json!({ "path": paths }), 2, read_csv).unwrap_err();
    assert!(error.to_string().contains("b.csv, line 80002:"), "{error}");
    // Rows that are not wanted can't be wrong.
    assert_eq!(run(json!({ "path": paths, "limit": 100_000 }), 2, read_csv).unwrap().rows(), 100_000);
}

#[test]
fn what_is_no_csv_is_said() {
    assert!(fail("a,b\n1,2\n3\n").contains("x.csv, line 3: 1 fields, but there are 2 columns"));
    assert!(fail("a,b\n1,2,3\n").contains("x.csv, line 2: 3 fields, but there are 2 columns"));
    assert!(fail("").contains("x.csv is empty (0 bytes)"));
    assert!(fail("\n\n").contains("nothing but blank lines"));
    assert!(fail("a,a\n1,2\n").contains("x.csv: column \"a\" occurs twice"));
    let error = fail(b"name\nJos\xe9\n");
    assert!(error.contains("x.csv, line 2: the text is not UTF-8 (byte 0xe9)") && error.contains("iconv"), "{error}");
    assert!(fail(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR").contains("x.csv is no CSV file (help: it is a PNG image)"));
    assert!(fail(b"PK\x03\x04rest").contains("unpack it first"));
    let packed = gzip("a,b\n1,2\n".repeat(1000).as_bytes());
    let error = fail(&packed[..packed.len() - 20]);
    assert!(error.contains("x.csv ends in the middle") && error.contains("truncated"), "{error}");
    assert!(fail(gzip(b"")).contains("is empty"));
}

#[test]
fn files_must_have_equal_columns() {
    let folder = tempfile::tempdir().unwrap();
    let one = at(folder.path(), "one.csv", "a,b\n1,2\n");
    let two = at(folder.path(), "two.csv", "a,c\n1,2\n");
    let error = run(json!({ "path": [one, two] }), 2, read_csv).unwrap_err().to_string();
    assert!(error.contains("one.csv and ") && error.contains("two.csv lacks \"b\" and has \"c\""), "{error}");
    let three = at(folder.path(), "three.csv", "b,a\n1,2\n");
    let error = run(json!({ "path": [one, three] }), 2, read_csv).unwrap_err().to_string();
    assert!(error.contains("in another order"), "{error}");
    // Types are those of all files together.
    let four = at(folder.path(), "four.csv", "a,b\n1.5,x\n");
    let frame = run(json!({ "path": [one, four] }), 2, read_csv).unwrap();
    assert_eq!(frame.schema().field(0).data_type(), &DataType::Float64);
    assert_eq!(frame.schema().field(1).data_type(), &DataType::Utf8);
    let error = run(json!({ "path": one, "types": { "aa": "string" } }), 1, read_csv).unwrap_err();
    assert_eq!(error.advice(), Some("did you mean \"a\"?"));
}

#[test]
fn an_empty_table_is_a_table() {
    let folder = tempfile::tempdir().unwrap();
    let frame = run(json!({ "path": at(folder.path(), "x.csv", "a,b\n") }), 2, read_csv).unwrap();
    assert_eq!((frame.rows(), frame.columns()), (0, 2));
}

#[test]
fn parameters_are_checked() {
    let parse = |value| serde_json::from_value::<CsvParams>(value).map_err(|error| error.to_string());
    assert!(parse(json!({ "path": "x", "delimiter": "ab" })).unwrap_err().contains("one ASCII character"));
    assert!(parse(json!({ "path": "x", "types": { "a": "str" } })).unwrap_err().contains("unknown variant `str`"));
    assert!(parse(json!({ "path": "x", "separator": ";" })).unwrap_err().contains("unknown field `separator`"));
    assert_eq!(serde_json::to_value(parse(json!({ "path": "x" })).unwrap()).unwrap()["quote"], "\"");
}
