//! `read.csv`: separated text.
//!
//! The text is cut into blocks at record ends, whatever the number of threads, and several threads parse them; so the
//! frame is the same for any number of threads.

mod column;
mod infer;
mod marks;
mod record;
mod value;

use self::column::{Cells, Nulls};
use self::infer::Guess;
use self::record::{Dialect, Field};
use super::files::{Paths, Source, fingerprint};
use super::parallel::ordered;
use super::rows::{Block, Blocks, HEAD_ROWS, RecordError, Records, read};
use super::sniff::{kind, wrong_kind};
use super::table::{Selection, same_columns};
use super::types::{ColumnType, declare, name_of};
use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Field as Column, Schema, SchemaRef};
use ropeway_framework::data::Frame;
use ropeway_framework::stage::{Cancel, FnStage, Params, Progress, Threads};
use ropeway_framework::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The parameters of `read.csv`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CsvParams {
    /// The files: a path, glob or URL, or a list of them.
    pub path: Paths,
    /// Only these columns, in this order.
    #[serde(default)]
    pub columns: Option<Vec<String>>,
    /// Types of columns; those of the others are found out from the first 10,000 rows of each file.
    #[serde(default)]
    pub types: BTreeMap<String, ColumnType>,
    /// Only the first so many rows.
    #[serde(default)]
    pub limit: Option<u64>,
    /// Whether the first record names the columns; else they are `column_1`, `column_2` and so on.
    #[serde(default = "yes")]
    pub header: bool,
    /// What stands between fields: one ASCII character.
    #[serde(default = "comma")]
    pub delimiter: Mark,
    /// What encloses fields that have delimiters or line ends in them: one ASCII character, or `""` for none.
    #[serde(default = "quote")]
    pub quote: Mark,
    /// What stands for a missing value. Text in quotes is never missing.
    #[serde(default = "nulls")]
    pub null: Vec<String>,
}

fn yes() -> bool {
    true
}

fn comma() -> Mark {
    Mark(Some(b','))
}

fn quote() -> Mark {
    Mark(Some(b'"'))
}

fn nulls() -> Vec<String> {
    ["", "NA", "N/A", "NaN", "nan", "null", "NULL"].map(str::to_owned).to_vec()
}

/// One ASCII character, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct Mark(Option<u8>);

impl TryFrom<String> for Mark {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.as_bytes() {
            [] => Ok(Self(None)),
            [b'\n' | b'\r'] => Err("a line end can't separate or enclose fields".into()),
            [byte] if byte.is_ascii() => Ok(Self(Some(*byte))),
            _ => Err(format!("expected one ASCII character, found {text:?}")),
        }
    }
}

impl From<Mark> for String {
    fn from(mark: Mark) -> Self {
        mark.0.map(|byte| char::from(byte).to_string()).unwrap_or_default()
    }
}

pub(super) fn stage() -> FnStage {
    ropeway_framework::stage::stage(read_csv)
        .version(1)
        .about("Reads CSV files: paths, globs or object-store URLs, gzip or plain; types are inferred.")
        .fingerprint(|params: CsvParams| fingerprint(&params.path.find()?))
        .reads_anywhere(|params: CsvParams| params.path.are_remote())
}

fn read_csv(Params(params): Params<CsvParams>, threads: Threads, cancel: Cancel, progress: Progress) -> Result<Frame> {
    let sources = params.path.find()?;
    let Some(delimiter) = params.delimiter.0 else {
        return Err(Error::usage("`delimiter` is empty").help("delimiter = \",\" or \"\\t\", for example"));
    };
    if params.quote.0 == Some(delimiter) {
        return Err(Error::usage("`delimiter` and `quote` are the same character"));
    }
    let selection = Selection { columns: params.columns, types: params.types, limit: params.limit };
    let dialect = Dialect { delimiter, quote: params.quote.0 };
    let mut format = Format {
        dialect,
        header: params.header,
        nulls: Nulls::new(&params.null),
        names: Vec::new(),
        wanted: Vec::new(),
    };
    let (names, guesses) = format.infer(&sources, threads)?;
    let wanted = selection.wanted(&names, sources.first().map_or("", Source::name))?;
    let mut columns = Vec::new();
    for name in wanted {
        let place = names.iter().position(|other| *other == name).unwrap_or_default();
        let guess = guesses.get(place).copied().unwrap_or_default();
        columns.push(Column::new(&name, selection.data_type(&name, guess.arrow()), true));
        format.wanted.push(place);
    }
    format.names = names;
    let schema = Arc::new(Schema::new(columns));
    read(&sources, &Typed { format, schema: schema.clone() }, schema, &selection, (threads, cancel, progress))
}

/// How the files are written.
struct Format {
    dialect: Dialect,
    header: bool,
    nulls: Nulls,
    names: Vec<String>,
    /// Which columns are read.
    wanted: Vec<usize>,
}

/// Names and inferred types of a file's columns.
type Head = (Vec<String>, Vec<Guess>);

impl Format {
    /// The columns of all files, from the first rows of each.
    fn infer(&self, sources: &[Source], threads: Threads) -> Result<Head> {
        let mut left = sources.iter();
        let heads = ordered(threads, None, || Ok(left.next()), |source: &Source| self.head(source), |_| 0);
        let mut whole: Option<Head> = None;
        for (head, source) in heads.into_iter().zip(sources) {
            let (names, guesses) = head?;
            let Some((known, joined)) = &mut whole else {
                whole = Some((names, guesses));
                continue;
            };
            let first = sources.first().map_or("", Source::name);
            same_columns((first, known), (source.name(), &names))?;
            if *known != names {
                return Err(Error::new(format!(
                    "{first} and {} have the same columns in another order",
                    source.name()
                ))
                .help("put them in one order; rows of both would be mixed up"));
            }
            for (joined, guess) in joined.iter_mut().zip(guesses) {
                *joined = joined.join(guess);
            }
        }
        Ok(whole.unwrap_or_default())
    }

    /// The columns of one file, from its first rows.
    fn head(&self, source: &Source) -> Result<Head> {
        let mut blocks = Blocks::open(source)?;
        let mut head: Option<Head> = None;
        let (mut rows, mut before) = (0, 0);
        while rows < HEAD_ROWS {
            let Some(bytes) = blocks.next(|text| self.dialect.whole(text))? else { break };
            if head.is_none() && kind(&bytes).is_some() {
                return Err(wrong_kind(source.name(), "CSV file", &bytes));
            }
            let at = |error: RecordError| error.at(source.name(), before);
            let text = utf8(&bytes).map_err(at)?;
            let (names, start) = match &head {
                None => self.header(text).map_err(at)?,
                Some((names, _)) => (names.clone(), 0),
            };
            let fields = self.dialect.records(text.as_bytes(), start, names.len()).map_err(at)?;
            let width = names.len().max(1);
            let seen = fields.get(..width * (HEAD_ROWS - rows)).unwrap_or(&fields);
            let guesses = match head {
                Some((_, guesses)) => guesses,
                None => vec![Guess::default(); names.len()],
            };
            let guesses = guesses.into_iter().enumerate().map(|(column, mut guess)| {
                guess.see(text, seen.iter().skip(column).step_by(width).copied(), &self.nulls);
                guess
            });
            head = Some((names, guesses.collect()));
            rows += fields.len() / width;
            before += bytes.iter().filter(|byte| **byte == b'\n').count();
        }
        head.ok_or_else(|| Error::new(format!("{} is empty", source.name())))
    }

    /// The names of the columns, and where the first row begins.
    fn header(&self, text: &str) -> Result<(Vec<String>, usize), RecordError> {
        let begin = bom(text);
        let (mut at, mut fields) = (begin, Vec::new());
        if !self.dialect.record(text.as_bytes(), &mut at, &mut fields)? {
            return Err(RecordError::new(1, "there is nothing but blank lines"));
        }
        let names = fields.iter().enumerate().map(|(place, field)| {
            let name = self.dialect.single(field.raw(text).trim());
            if self.header && !name.is_empty() { name } else { format!("column_{}", place + 1) }
        });
        Ok((names.collect(), if self.header { at } else { begin }))
    }
}

/// A format whose columns have types.
struct Typed {
    format: Format,
    schema: SchemaRef,
}

impl Records for Typed {
    fn whole(&self, text: &[u8]) -> usize {
        self.format.dialect.whole(text)
    }

    fn parse(&self, block: &Block) -> Result<RecordBatch, RecordError> {
        let format = &self.format;
        let text = utf8(&block.text)?;
        let start = if block.first { format.header(text)?.1 } else { 0 };
        let width = format.names.len();
        let fields = format.dialect.records(text.as_bytes(), start, width)?;
        let mut columns = Vec::with_capacity(format.wanted.len());
        for (column, target) in format.wanted.iter().zip(self.schema.fields()) {
            let cells =
                Cells { text, fields: &fields, width, column: *column, nulls: &format.nulls, dialect: format.dialect };
            columns.push(cells.parse(target.data_type()).map_err(|row| {
                let field = fields.get(row * width + column);
                self.misfit(text, target, field.copied())
            })?);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(fields.len() / width.max(1)));
        RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)
            .map_err(|error| RecordError::new(1, error.to_string()))
    }
}

impl Typed {
    /// The error for a value that is not of its column's type.
    fn misfit(&self, text: &str, column: &Column, field: Option<Field>) -> RecordError {
        let (value, start) = field.map_or(("", 0), |field| (field.raw(text), field.start()));
        let line = 1 + text.bytes().take(start).filter(|byte| *byte == b'\n').count();
        let shown: String = value.chars().take(60).collect();
        let wanted = name_of(column.data_type());
        let message = format!("column {:?}: {shown:?} is no {wanted}", column.name());
        let fitting = match (Guess::of(value), wanted.as_str()) {
            (Guess::Float, "int8" | "int16" | "int32" | "int64" | "uint8" | "uint16" | "uint32" | "uint64") => {
                "float64"
            }
            (Guess::Int, "int8" | "int16" | "int32" | "uint8" | "uint16" | "uint32") => "int64",
            (Guess::Moment { zoned: false, .. }, "date") => "timestamp",
            _ => "string",
        };
        RecordError::new(line, message)
            .help(format!("say what the column is: {}; or add {shown:?} to `null`", declare(column.name(), fitting)))
    }
}

/// The bytes of a byte-order mark at the head of a text.
fn bom(text: &str) -> usize {
    if text.starts_with('\u{feff}') { 3 } else { 0 }
}

fn utf8(text: &[u8]) -> Result<&str, RecordError> {
    std::str::from_utf8(text).map_err(|error| {
        let before = text.get(..error.valid_up_to()).unwrap_or_default();
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        let byte = text.get(error.valid_up_to()).copied().unwrap_or_default();
        RecordError::new(line, format!("the text is not UTF-8 (byte 0x{byte:02x})"))
            .help("convert it: `iconv -f latin1 -t utf-8 old.csv > new.csv`, if it is Western European text")
    })
}

#[cfg(test)]
mod tests;
