//! What steps do to one column that stays one column.

use super::categories::Ordinal;
use super::column::{Column, NO_TEXT, Text};
use super::exact::Exact;
use super::params::{Bucket, Constant, Impute, ImputeMethod, Scale, ScaleMethod, Step};
use super::stats;
use ropeway_framework::{Error, Result};
use serde::{Deserialize, Serialize};

/// Which rows of which column are worked on, for error messages.
#[derive(Clone, Copy)]
pub(super) struct At<'a> {
    /// The column's name.
    pub(super) column: &'a str,
    /// The number of the first row, from 0.
    pub(super) first: usize,
}

impl At<'_> {
    /// What to call a row, as `train` and `evaluate` do.
    pub(super) fn row(&self, row: usize) -> String {
        format!("row {} (the first is row 0)", self.first + row)
    }
}

/// A fitted step.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Operation {
    /// Puts a number where one is missing.
    Fill(Exact),
    /// Puts a text where one is missing.
    FillText(String),
    /// `(x - center) / scale`.
    Scale { center: Exact, scale: Exact },
    /// Brings numbers between bounds.
    Clip { low: Exact, high: Exact },
    /// `ln(1 + x)`.
    Log1p,
    /// How many of these edges a number reaches.
    Bucket { edges: Vec<Exact> },
    /// The number of a category, and that of an unknown one.
    Ordinal { categories: Ordinal, unknown: Option<Exact> },
}

impl Operation {
    /// Learns a step from a column; nothing if the step is none of those that leave one column one column.
    ///
    /// # Errors
    /// There is nothing to learn from: every value is missing, or some are infinite.
    pub(super) fn learn(step: &Step, column: &Column, name: &str) -> Result<Option<Self>> {
        Ok(Some(match (step, column) {
            (Step::Impute(step), Column::Numbers(values)) => Operation::Fill(fill(step, values, name)?),
            (Step::Impute(step), Column::Text(text)) => Operation::FillText(fill_text(step, text, name)?),
            (Step::Scale(step), Column::Numbers(values)) => scale(step, values, name)?,
            (Step::Clip(step), Column::Numbers(_)) => Operation::Clip {
                low: Exact(step.low.unwrap_or(f64::NEG_INFINITY)),
                high: Exact(step.high.unwrap_or(f64::INFINITY)),
            },
            (Step::Log1p(_), Column::Numbers(_)) => Operation::Log1p,
            (Step::Bucket(step), Column::Numbers(values)) => bucket(step, values, name)?,
            (Step::Ordinal(step), Column::Text(text)) => {
                let values = Text { values: text.values.clone(), codes: Vec::new() };
                Operation::Ordinal { categories: Ordinal::learn(values, false), unknown: step.unknown.map(Exact) }
            }
            (Step::Ordinal(step), Column::Numbers(values)) => Operation::Ordinal {
                categories: Ordinal::learn(Text::of_numbers(values), true),
                unknown: step.unknown.map(Exact),
            },
            _ => return Ok(None),
        }))
    }

    /// Whether missing values are filled in.
    pub(super) fn fills(&self) -> bool {
        matches!(self, Operation::Fill(_) | Operation::FillText(_))
    }

    /// Repeats the step on any rows. Every row goes its own way.
    ///
    /// # Errors
    /// A value that has no result; the message names its row.
    pub(super) fn apply(&self, column: Column, at: At) -> Result<Column> {
        Ok(match (self, column) {
            (Operation::Ordinal { categories, unknown }, Column::Text(text)) => {
                Column::Numbers(categories.apply(&text, unknown.map(|number| number.0), at)?)
            }
            (Operation::Ordinal { categories, unknown }, Column::Numbers(values)) => {
                let text = Text::of_numbers(&values);
                Column::Numbers(categories.apply(&text, unknown.map(|number| number.0), at)?)
            }
            (Operation::FillText(value), Column::Text(text)) => Column::Text(fill_in_text(text, value)),
            (_, Column::Numbers(mut values)) => {
                self.apply_numbers(&mut values, at)?;
                Column::Numbers(values)
            }
            (_, other) => other,
        })
    }

    fn apply_numbers(&self, values: &mut [f64], at: At) -> Result<()> {
        match self {
            Operation::Fill(Exact(fill)) => {
                for value in values {
                    *value = if value.is_nan() { *fill } else { *value };
                }
            }
            Operation::Scale { center: Exact(center), scale: Exact(scale) } => {
                for value in values {
                    *value = (*value - center) / scale;
                }
            }
            Operation::Clip { low: Exact(low), high: Exact(high) } => {
                for value in values {
                    // Comparisons with NaN are false, so a missing value stays missing.
                    *value = if *value < *low { *low } else { *value };
                    *value = if *value > *high { *high } else { *value };
                }
            }
            Operation::Log1p => {
                if let Some(row) = values.iter().position(|value| *value <= -1.0) {
                    let value = values[row];
                    return Err(Error::new(format!(
                        "column {:?} has the value {value} in {}, which has no logarithm of 1 + x",
                        at.column,
                        at.row(row)
                    ))
                    .help("bring the values over -1 first: `{ clip = { low = 0 } }`"));
                }
                for value in values {
                    *value = value.ln_1p();
                }
            }
            Operation::Bucket { edges } => {
                for value in values.iter_mut().filter(|value| !value.is_nan()) {
                    *value = edges.partition_point(|edge| edge.0 <= *value) as f64;
                }
            }
            Operation::FillText(_) | Operation::Ordinal { .. } => {}
        }
        Ok(())
    }
}

fn no_values(name: &str) -> Error {
    Error::new(format!("column {name:?} has no values: all are null"))
        .help(format!("leave it out: `drop = [{name:?}]`"))
}

/// The number, unless infinite values spoilt it.
fn finite(number: f64, name: &str, values: &[f64]) -> Result<f64> {
    if number.is_finite() {
        return Ok(number);
    }
    Err(match values.iter().filter(|value| value.is_infinite()).count() {
        0 => Error::new(format!("the values of column {name:?} are too large to add up")),
        count => Error::new(format!("column {name:?} has {count} infinite value{}", if count == 1 { "" } else { "s" })),
    }
    .help(format!("bound them first: `{{ clip = {{ columns = [{name:?}], low = ..., high = ... }} }}`")))
}

fn fill(step: &Impute, values: &[f64], name: &str) -> Result<Exact> {
    let found = match step.method {
        ImputeMethod::Mean => stats::mean(values),
        ImputeMethod::Median => stats::quantiles(values, &[0.5]).and_then(|found| found.first().copied()),
        ImputeMethod::Mode => stats::mode(values),
        ImputeMethod::Constant => match &step.value {
            Some(Constant::Number(number)) => Some(*number),
            _ => None,
        },
    };
    finite(found.ok_or_else(|| no_values(name))?, name, values).map(Exact)
}

fn fill_text(step: &Impute, text: &Text, name: &str) -> Result<String> {
    if let Some(Constant::Text(constant)) = &step.value {
        return Ok(constant.clone());
    }
    let counts = text.counts().into_iter().zip(&text.values);
    let most = counts.filter(|(count, _)| *count > 0).max_by(|a, b| a.0.cmp(&b.0).then_with(|| b.1.cmp(a.1)));
    most.map(|(_, value)| value.clone()).ok_or_else(|| no_values(name))
}

fn fill_in_text(mut text: Text, value: &str) -> Text {
    if !text.codes.contains(&NO_TEXT) {
        return text;
    }
    let known = text.values.iter().position(|other| other == value);
    let code = known.unwrap_or_else(|| {
        text.values.push(value.to_owned());
        text.values.len() - 1
    });
    for missing in text.codes.iter_mut().filter(|code| **code == NO_TEXT) {
        *missing = code as u32;
    }
    text
}

fn scale(step: &Scale, values: &[f64], name: &str) -> Result<Operation> {
    let found = match step.method {
        ScaleMethod::Standard => stats::mean_and_deviation(values),
        ScaleMethod::Minmax => stats::range(values).map(|(low, high)| (low, high - low)),
        ScaleMethod::Maxabs => stats::range(values).map(|(low, high)| (0.0, high.abs().max(low.abs()))),
        ScaleMethod::Robust => match stats::quantiles(values, &[0.25, 0.5, 0.75]).as_deref() {
            Some([low, middle, high]) => Some((*middle, high - low)),
            _ => None,
        },
    };
    let (center, scale) = found.ok_or_else(|| no_values(name))?;
    let scale = finite(scale, name, values)?;
    // A constant column has no scale: it becomes 0, and other values later keep their distance.
    let scale = if scale == 0.0 { 1.0 } else { scale };
    Ok(Operation::Scale { center: Exact(finite(center, name, values)?), scale: Exact(scale) })
}

fn bucket(step: &Bucket, values: &[f64], name: &str) -> Result<Operation> {
    let mut edges = match (&step.edges, step.buckets) {
        (Some(edges), _) => edges.clone(),
        (None, buckets) => {
            let buckets = buckets.unwrap_or(2);
            let parts: Vec<f64> = (1..buckets).map(|edge| edge as f64 / buckets as f64).collect();
            stats::quantiles(values, &parts).ok_or_else(|| no_values(name))?
        }
    };
    edges.dedup();
    let edges = edges.into_iter().map(|edge| finite(edge, name, values).map(Exact)).collect::<Result<_>>()?;
    Ok(Operation::Bucket { edges })
}
