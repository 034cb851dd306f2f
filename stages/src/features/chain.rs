//! What was learnt for one column of the table: its operations in order, and how it becomes features.

use super::categories::{OneHot, hashed};
use super::column::{Column, NO_TIME, Text};
use super::date::Part;
use super::operation::{At, Operation};
use super::params::Step;
use super::plan::{self, Track};
use super::words;
use arrow::array::{Array, ArrayRef, AsArray, Float32Array};
use arrow::datatypes::{DataType, Field, Float32Type, Float64Type};
use ropeway_framework::{Error, Result};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// What was learnt for one column.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Chain {
    /// The column.
    pub(super) name: String,
    operations: Vec<Operation>,
    end: End,
}

/// How a column becomes features.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum End {
    Number,
    Vector,
    OneHot(OneHot),
    Hash { buckets: usize },
    Text { buckets: usize, ngrams: usize },
    Date(Vec<DatePart>),
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct DatePart {
    part: Part,
    /// What becomes of its number; nothing for a part that became a point on a circle.
    chain: Option<Chain>,
}

impl Chain {
    /// Learns the way of a column from all its values.
    ///
    /// # Errors
    /// A step that can't be learnt, or missing or infinite values that are left at the end.
    pub(super) fn learn(track: &Track, mut column: Column, steps: &[Step]) -> Result<Self> {
        let name = track.name.clone();
        let mut operations = Vec::with_capacity(track.steps.len());
        for step in track.steps.iter().filter_map(|index| steps.get(*index)) {
            if let Some(operation) = Operation::learn(step, &column, &name)? {
                column = operation.apply(column, At { column: &name, first: 0 })?;
                operations.push(operation);
            }
        }
        let end = match (&track.end, column) {
            (plan::End::Parts(parts), Column::Times(seconds)) => End::Date(learn_parts(parts, &seconds, &name, steps)?),
            (plan::End::Encoded(index), column) => encoding(steps.get(*index), column, &name)?,
            (_, Column::Numbers(values)) => {
                whole(&values, &name)?;
                End::Number
            }
            (_, Column::Vectors(vectors)) => {
                check_vectors(&vectors, At { column: &name, first: 0 })?;
                End::Vector
            }
            _ => return Err(Error::new(format!("column {name:?} became no feature"))),
        };
        Ok(Self { name, operations, end })
    }

    /// Whether a missing value has features.
    pub(super) fn takes_missing(&self) -> bool {
        self.operations.iter().any(Operation::fills)
            || match &self.end {
                End::OneHot(categories) => categories.takes_missing(),
                End::Hash { .. } | End::Text { .. } => true,
                End::Date(parts) => parts.iter().all(|part| part.chain.as_ref().is_some_and(Chain::takes_missing)),
                End::Number | End::Vector => false,
            }
    }

    /// The features that it gives for a column of type `data_type`.
    pub(super) fn fields(&self, data_type: &DataType, out: &mut Vec<Field>) -> Result<()> {
        let number = |name: String| Field::new(name, DataType::Float32, false);
        let flag = |name: String| Field::new(name, DataType::UInt8, false);
        match &self.end {
            End::Number => out.push(number(self.name.clone())),
            End::Vector => out.push(Field::new(&self.name, data_type.clone(), false)),
            End::OneHot(categories) => out.extend(categories.names(&self.name).into_iter().map(flag)),
            End::Hash { buckets } => out.extend((0..*buckets).map(|bucket| flag(format!("{}#{bucket}", self.name)))),
            End::Text { buckets, .. } => out.push(Field::new(&self.name, words::vector_type(*buckets)?, false)),
            End::Date(parts) => {
                for DatePart { part, chain } in parts {
                    match chain {
                        Some(chain) => chain.fields(data_type, out)?,
                        None => out
                            .extend(["sin", "cos"].map(|side| number(format!("{}.{}.{side}", self.name, part.name())))),
                    }
                }
            }
        }
        Ok(())
    }

    /// Appends the features of some rows, in the order of [`Chain::fields`]. `first` is the number of the first row.
    ///
    /// # Errors
    /// A value that has no feature; the message names row and column.
    pub(super) fn apply(&self, mut column: Column, first: usize, out: &mut Vec<ArrayRef>) -> Result<()> {
        let at = At { column: &self.name, first };
        for operation in &self.operations {
            column = operation.apply(column, at)?;
        }
        match (&self.end, column) {
            (End::Number, Column::Numbers(values)) => out.push(finished(&values, at)?),
            (End::Vector, Column::Vectors(vectors)) => {
                check_vectors(&vectors, at)?;
                out.push(vectors);
            }
            (End::OneHot(categories), column) => categories.apply(&text(column)?, at, out)?,
            (End::Hash { buckets }, column) => out.extend(hashed(&text(column)?, *buckets)),
            (End::Text { buckets, ngrams }, column) => out.push(words::vectors(&text(column)?, *buckets, *ngrams)?),
            (End::Date(parts), Column::Times(seconds)) => {
                for DatePart { part, chain } in parts {
                    match chain {
                        Some(chain) => chain.apply(Column::Numbers(part.numbers(&seconds)), first, out)?,
                        None => {
                            let (sin, cos) = part.circle(&seconds);
                            out.push(finished(&sin, at)?);
                            out.push(finished(&cos, at)?);
                        }
                    }
                }
            }
            _ => return Err(Error::new(format!("the model does not fit column {:?}", self.name))),
        }
        Ok(())
    }
}

fn learn_parts(parts: &[(Part, Option<Track>)], seconds: &[i64], name: &str, steps: &[Step]) -> Result<Vec<DatePart>> {
    let missing = seconds.iter().filter(|time| **time == NO_TIME).count();
    if missing > 0 && parts.iter().any(|(_, track)| track.is_none()) {
        return Err(Error::new(format!(
            "column {name:?} has {missing} null{}, which have no place on a circle",
            plural(missing)
        ))
        .help(format!("drop these rows with `sql` (WHERE {name} IS NOT NULL), or leave out `cyclic`")));
    }
    let learn = |(part, track): &(Part, Option<Track>)| {
        let chain = track.as_ref().map(|track| Chain::learn(track, Column::Numbers(part.numbers(seconds)), steps));
        Ok(DatePart { part: *part, chain: chain.transpose()? })
    };
    parts.iter().map(learn).collect()
}

fn encoding(step: Option<&Step>, column: Column, name: &str) -> Result<End> {
    let numeric = matches!(column, Column::Numbers(_));
    Ok(match step {
        Some(Step::Onehot(wanted)) => End::OneHot(OneHot::learn(&text(column)?, numeric, wanted, name)?),
        Some(Step::Hash(wanted)) => End::Hash { buckets: wanted.buckets },
        Some(Step::Text(wanted)) => End::Text { buckets: wanted.buckets, ngrams: wanted.ngrams },
        _ => return Err(Error::new(format!("column {name:?} became no feature"))),
    })
}

/// A column as categories.
fn text(column: Column) -> Result<Text> {
    match column {
        Column::Text(text) => Ok(text),
        Column::Numbers(values) => Ok(Text::of_numbers(&values)),
        Column::Times(_) | Column::Vectors(_) => Err(Error::new("times and vectors are no categories")),
    }
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

/// Checks that training rows have a number everywhere.
fn whole(values: &[f64], name: &str) -> Result<()> {
    let missing = values.iter().filter(|value| value.is_nan()).count();
    if missing > 0 {
        return Err(Error::new(format!("column {name:?} has {missing} null{} (or NaN)", plural(missing)))
            .help("fill them in with a step: `{ impute = \"median\" }`"));
    }
    let infinite = values.iter().filter(|value| !(**value as f32).is_finite()).count();
    if infinite > 0 {
        let error = Error::new(format!(
            "column {name:?} has {infinite} value{} that are infinite or too large",
            plural(infinite)
        ));
        return Err(error.help(format!("bound them: `{{ clip = {{ columns = [{name:?}], low = ..., high = ... }} }}`")));
    }
    Ok(())
}

/// Numbers as a feature.
fn finished(values: &[f64], at: At) -> Result<ArrayRef> {
    let narrow: Vec<f32> = values.iter().map(|value| *value as f32).collect();
    if !narrow.iter().fold(true, |finite, value| finite & value.is_finite()) {
        let row = narrow.iter().position(|value| !value.is_finite()).unwrap_or_default();
        return Err(match values.get(row) {
            Some(value) if !value.is_nan() => {
                Error::usage(format!("column {:?} is infinite or too large in {}", at.column, at.row(row)))
                    .help("bound it before the features are fitted: `{ clip = { low = ..., high = ... } }`")
            }
            _ => Error::usage(format!("column {:?} is null (or NaN) in {}", at.column, at.row(row)))
                .help("fill it in with a step when the features are fitted: `{ impute = \"median\" }`"),
        });
    }
    Ok(Arc::new(Float32Array::from(narrow)))
}

fn check_vectors(vectors: &ArrayRef, at: At) -> Result<()> {
    let list = vectors.as_fixed_size_list();
    let (values, width) = (list.values(), list.value_length().max(1) as usize);
    let null = (0..list.len()).find(|row| list.is_null(*row));
    let inner = || (0..values.len()).find(|item| values.is_null(*item)).map(|item| item / width);
    let infinite = || match values.data_type() {
        DataType::Float32 => values.as_primitive::<Float32Type>().values().iter().position(|value| !value.is_finite()),
        DataType::Float64 => values.as_primitive::<Float64Type>().values().iter().position(|value| !value.is_finite()),
        _ => None,
    };
    let nulls =
        (list.null_count() > 0).then_some(null).flatten().or_else(|| (values.null_count() > 0).then(inner).flatten());
    match nulls.or_else(|| infinite().map(|item| item / width)) {
        None => Ok(()),
        Some(row) => Err(Error::usage(format!(
            "the vector in column {:?} has a null, NaN or infinite value in {}",
            at.column,
            at.row(row)
        ))
        .help("drop such rows with `sql`")),
    }
}
