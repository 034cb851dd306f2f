//! What all tabular sources share: which columns, of which types, how many rows; and that the files agree.

use super::types::{ColumnType, declare, name_of};
use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use ropeway_framework::{Context, Error, Result, nearest};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Which part of the files is wanted.
#[derive(Clone, Debug, Default)]
pub(super) struct Selection {
    /// These columns, in this order; all if `None`.
    pub(super) columns: Option<Vec<String>>,
    /// Types that the user states.
    pub(super) types: BTreeMap<String, ColumnType>,
    /// The first so many rows.
    pub(super) limit: Option<u64>,
}

impl Selection {
    /// The wanted ones of a file's columns, in the wanted order.
    pub(super) fn wanted(&self, names: &[String], file: &str) -> Result<Vec<String>> {
        unique(names).map_err(|error| error.context(file))?;
        for column in self.types.keys() {
            known(names, column).map_err(|error| error.context(format!("{file}: `types`")))?;
        }
        let Some(columns) = &self.columns else { return Ok(names.to_vec()) };
        if columns.is_empty() {
            return Err(Error::usage("`columns` names no column").help("leave it out to read all columns"));
        }
        unique(columns).map_err(|error| error.context("`columns`"))?;
        for column in columns {
            known(names, column).map_err(|error| error.context(file))?;
        }
        Ok(columns.clone())
    }

    /// The type that the user states for a column, or else this one.
    pub(super) fn data_type(&self, column: &str, otherwise: DataType) -> DataType {
        self.types.get(column).map_or(otherwise, |stated| stated.arrow())
    }
}

fn unique(names: &[String]) -> Result<()> {
    let mut sorted: Vec<&String> = names.iter().collect();
    sorted.sort_unstable();
    match sorted.array_windows::<2>().find(|[a, b]| a == b) {
        Some([twice, _]) => Err(Error::usage(format!("column {twice:?} occurs twice"))),
        None => Ok(()),
    }
}

fn known(names: &[String], wanted: &str) -> Result<()> {
    if names.iter().any(|name| name == wanted) {
        return Ok(());
    }
    let error = Error::usage(format!("there is no column {wanted:?}"));
    Err(match nearest(wanted, names.iter().map(String::as_str)) {
        Some(near) => error.help(format!("did you mean {near:?}?")),
        None => error.help(format!("the columns are {}", names.join(", "))),
    })
}

/// Checks that two files have the same columns, in any order.
pub(super) fn same_columns(first: (&str, &[String]), other: (&str, &[String])) -> Result<()> {
    let lacking = |a: &[String], b: &[String]| -> Vec<String> {
        a.iter().filter(|name| !b.contains(name)).map(|name| format!("{name:?}")).collect()
    };
    let (missing, extra) = (lacking(first.1, other.1), lacking(other.1, first.1));
    let difference = match (missing.is_empty(), extra.is_empty()) {
        (true, true) => return Ok(()),
        (false, true) => format!("{} lacks {}", other.0, missing.join(", ")),
        (true, false) => format!("only {} has {}", other.0, extra.join(", ")),
        (false, false) => format!("{} lacks {} and has {}", other.0, missing.join(", "), extra.join(", ")),
    };
    Err(Error::new(format!("the columns of {} and {} differ: {difference}", first.0, other.0))
        .help("files that are read together need equal columns; read them in two stages and join them"))
}

/// The one layout in which text and bytes come, whatever the file chose.
pub(crate) fn plain(data_type: &DataType) -> DataType {
    match data_type {
        DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
        DataType::LargeBinary | DataType::BinaryView => DataType::Binary,
        DataType::Dictionary(_, values) => plain(values),
        other => other.clone(),
    }
}

/// How the batches of typed files become those of one frame.
pub(super) struct Layout {
    schema: SchemaRef,
}

impl Layout {
    /// The layout for files of these names and schemas.
    ///
    /// # Errors
    /// Files whose columns or types differ, or a selection of columns that are not there.
    pub(super) fn new(files: &[(&str, SchemaRef)], selection: &Selection) -> Result<Self> {
        let names =
            |schema: &Schema| -> Vec<String> { schema.fields().iter().map(|field| field.name().clone()).collect() };
        let Some(((first, schema), others)) = files.split_first() else {
            return Ok(Self { schema: Arc::new(Schema::empty()) });
        };
        let columns = names(schema);
        for (name, other) in others {
            same_columns((first, &columns), (name, &names(other)))?;
        }
        let mut fields = Vec::new();
        for column in selection.wanted(&columns, first)? {
            let field = schema.field_with_name(&column)?;
            let found = plain(field.data_type());
            let mut nullable = field.is_nullable();
            for (name, other) in others {
                let other = other.field_with_name(&column)?;
                nullable |= other.is_nullable();
                if plain(other.data_type()) != found && !selection.types.contains_key(&column) {
                    let (a, b) = (name_of(&found), name_of(&plain(other.data_type())));
                    return Err(Error::new(format!("column {column:?} is {a} in {first}, but {b} in {name}"))
                        .help(format!("say which it is: {}", declare(&column, &a))));
                }
            }
            let data_type = selection.data_type(&column, found);
            // Parsing can make nulls of values that are there.
            nullable |= selection.types.contains_key(&column);
            fields.push(Field::new(column, data_type, nullable));
        }
        Ok(Self { schema: Arc::new(Schema::new(fields)) })
    }

    /// The frame's schema.
    pub(super) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Where the frame's columns stand in a file, in the file's order.
    pub(super) fn positions(&self, schema: &Schema) -> Vec<usize> {
        let mut positions: Vec<usize> =
            self.schema.fields().iter().filter_map(|field| schema.index_of(field.name()).ok()).collect();
        positions.sort_unstable();
        positions
    }

    /// A batch of a file, as a batch of the frame.
    ///
    /// # Errors
    /// A value that does not fit the type that the user states.
    pub(super) fn conform(&self, batch: &RecordBatch, file: &str) -> Result<RecordBatch> {
        let options = CastOptions { safe: false, ..CastOptions::default() };
        let columns = self
            .schema
            .fields()
            .iter()
            .map(|field| -> Result<ArrayRef> {
                let array =
                    batch.column_by_name(field.name()).context(format!("column {:?} is missing", field.name()))?;
                match array.data_type() == field.data_type() {
                    true => Ok(array.clone()),
                    false => cast_with_options(array, field.data_type(), &options).context(format!(
                        "{file}: column {:?} is not all {}",
                        field.name(),
                        name_of(field.data_type())
                    )),
                }
            })
            .collect::<Result<Vec<_>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        Ok(RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?)
    }
}

/// The first `limit` rows of batches.
pub(super) fn first_rows(batches: Vec<RecordBatch>, limit: Option<u64>) -> Vec<RecordBatch> {
    let mut left = limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    let mut kept = Vec::with_capacity(batches.len());
    for batch in batches {
        let rows = batch.num_rows().min(left);
        if rows > 0 {
            kept.push(if rows < batch.num_rows() { batch.slice(0, rows) } else { batch });
        }
        left -= rows;
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema(fields: &[(&str, DataType)]) -> SchemaRef {
        Arc::new(Schema::new(
            fields.iter().map(|(name, kind)| Field::new(*name, kind.clone(), true)).collect::<Vec<_>>(),
        ))
    }

    fn message(result: Result<Layout>) -> String {
        format!("{:?}", result.err().unwrap())
    }

    #[test]
    fn files_must_agree() {
        let one = ("one", schema(&[("a", DataType::Int64), ("b", DataType::Utf8)]));
        let other = ("two", schema(&[("a", DataType::Int64), ("c", DataType::Utf8)]));
        let error = message(Layout::new(&[one.clone(), other], &Selection::default()));
        assert!(error.contains("the columns of one and two differ: two lacks \"b\" and has \"c\""), "{error}");
        let other = ("two", schema(&[("b", DataType::LargeUtf8), ("a", DataType::Float64)]));
        let error = message(Layout::new(&[one.clone(), other.clone()], &Selection::default()));
        assert!(error.contains("column \"a\" is int64 in one, but float64 in two"), "{error}");
        assert!(error.contains("types = { a = \"int64\" }"), "{error}");
        let types = BTreeMap::from([("a".to_owned(), ColumnType::Float32)]);
        let layout = Layout::new(&[one, other], &Selection { types, ..Selection::default() }).unwrap();
        assert_eq!(layout.schema().field(0).data_type(), &DataType::Float32);
        assert_eq!(layout.schema().field(1).data_type(), &DataType::Utf8);
    }

    #[test]
    fn columns_that_are_not_there_are_said() {
        let one = ("one", schema(&[("age", DataType::Int64), ("name", DataType::Utf8)]));
        let wanted = |names: &[&str]| {
            let columns = Some(names.iter().map(|name| (*name).to_owned()).collect());
            Layout::new(std::slice::from_ref(&one), &Selection { columns, ..Selection::default() })
        };
        assert!(message(wanted(&["aeg"])).contains("did you mean \"age\"?"));
        assert!(message(wanted(&[])).contains("names no column"));
        assert!(message(wanted(&["age", "age"])).contains("occurs twice"));
        assert_eq!(wanted(&["name", "age"]).unwrap().schema().field(0).name(), "name");
    }
}
