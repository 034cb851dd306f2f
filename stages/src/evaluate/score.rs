//! A model's answers beside the truth.

use super::classification::Answers;
use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float32Type, Float64Type};
use ropeway_framework::data::Frame;
use ropeway_framework::{Context, Error, Result};
use std::collections::{BTreeMap, BTreeSet};

/// Where the true values are, for messages.
pub(super) struct Truth<'a> {
    pub(super) name: &'a str,
    pub(super) values: &'a ArrayRef,
}

impl Truth<'_> {
    /// The true values as numbers.
    ///
    /// # Errors
    /// A column of another type, or a null.
    pub(super) fn numbers(&self) -> Result<Vec<f64>> {
        finite(self.values, self.name)
    }

    fn texts(&self) -> Result<Vec<String>> {
        texts(self.values, self.name)
    }
}

fn no_nulls(values: &ArrayRef, name: &str) -> Result<()> {
    match (0..values.len()).find(|row| values.is_null(*row)) {
        Some(row) if values.null_count() > 0 => {
            Err(Error::new(format!("column {name:?} is null in row {row} (the first is row 0)"))
                .help("drop rows without an answer, with `sql` and WHERE"))
        }
        _ => Ok(()),
    }
}

fn finite(values: &ArrayRef, name: &str) -> Result<Vec<f64>> {
    if !values.data_type().is_numeric() {
        return Err(Error::new(format!("column {name:?} is of type {}, not a number", values.data_type())));
    }
    no_nulls(values, name)?;
    let values = cast(values, &DataType::Float64)?;
    let values = values.as_primitive::<Float64Type>().values().to_vec();
    match values.iter().position(|value| !value.is_finite()) {
        Some(row) => Err(Error::new(format!("column {name:?} is {} in row {row} (the first is row 0)", values[row]))),
        None => Ok(values),
    }
}

/// Labels as text: integers of any width, text of any encoding, `true` and `false`.
fn texts(values: &ArrayRef, name: &str) -> Result<Vec<String>> {
    no_nulls(values, name)?;
    let values = cast(values, &DataType::Utf8).context(format!("column {name:?} can't be a class"))?;
    Ok(values.as_string::<i32>().iter().flatten().map(str::to_owned).collect())
}

/// The numbers that a model predicted.
///
/// # Errors
/// No column `prediction` of numbers.
pub(super) fn predicted_numbers(answers: &Frame) -> Result<Vec<f64>> {
    finite(&answers.column("prediction").context("the model's answers")?, "prediction")
}

/// The classes that a model predicted beside the true ones, and the names of the classes.
///
/// # Errors
/// A label that the model does not know, or probabilities that are none.
pub(super) fn classes(answers: &Frame, truth: &Truth<'_>) -> Result<(Vec<String>, Answers)> {
    let predicted = texts(&answers.column("prediction").context("the model's answers")?, "prediction")?;
    let labels = truth.texts()?;
    let probabilities = probabilities(answers)?;
    let names = match names(answers)? {
        Some(names) => {
            known(&names, &labels, truth.name)?;
            names
        }
        // A model that does not say which classes it knows: those that occur, in their order.
        None => order(labels.iter().chain(&predicted), truth.values.data_type()),
    };
    let places: BTreeMap<&str, usize> = names.iter().enumerate().map(|(place, name)| (name.as_str(), place)).collect();
    let place = |labels: &[String]| -> Result<Vec<usize>> {
        let place = |label: &String| places.get(label.as_str()).copied();
        labels.iter().map(|label| place(label).context(format!("{label:?} is no class of the model"))).collect()
    };
    let (truth, predicted) = (place(&labels)?, place(&predicted)?);
    let probabilities = match probabilities {
        Some((width, values)) if width == names.len() => Some(values),
        Some((width, _)) => {
            return Err(Error::new(format!("the model gives {width} probabilities a row for {} classes", names.len()))
                .help("a model names its classes in the metadata of its column `probability`"));
        }
        None => None,
    };
    let answers = Answers { classes: names.len(), truth, predicted, probabilities };
    Ok((names, answers))
}

/// Refuses labels that the model has never seen.
fn known(names: &[String], labels: &[String], column: &str) -> Result<()> {
    let names: BTreeSet<&str> = names.iter().map(String::as_str).collect();
    let mut strange: BTreeMap<&str, usize> = BTreeMap::new();
    for label in labels.iter().filter(|label| !names.contains(label.as_str())) {
        *strange.entry(label).or_default() += 1;
    }
    if strange.is_empty() {
        return Ok(());
    }
    let shown: Vec<String> = strange.iter().take(5).map(|(label, rows)| format!("{label:?} ({rows} rows)")).collect();
    let more = if strange.len() > 5 { format!(" and {} more", strange.len() - 5) } else { String::new() };
    Err(Error::new(format!("column {column:?} has labels that the model never saw: {}{more}", shown.join(", ")))
        .help("split with `stratify`, so that the training part has every label, or leave these rows out"))
}

/// The classes that the field of the probabilities names.
fn names(answers: &Frame) -> Result<Option<Vec<String>>> {
    let field = answers.schema().field_with_name("probability").ok();
    let Some(text) = field.and_then(|field| field.metadata().get("classes")) else { return Ok(None) };
    Ok(Some(serde_json::from_str(text).context("the classes of the column \"probability\"")?))
}

fn order<'a>(labels: impl Iterator<Item = &'a String>, kind: &DataType) -> Vec<String> {
    let distinct: BTreeSet<&String> = labels.collect();
    let mut names: Vec<String> = distinct.into_iter().cloned().collect();
    if kind.is_integer() {
        names.sort_by_key(|name| name.parse::<i128>().unwrap_or(i128::MAX));
    }
    names
}

/// The probabilities: how many a row, and all of them.
fn probabilities(answers: &Frame) -> Result<Option<(usize, Vec<f32>)>> {
    if answers.schema().field_with_name("probability").is_err() {
        return Ok(None);
    }
    let column = answers.column("probability")?;
    let Some(list) = column.as_fixed_size_list_opt() else { return Ok(None) };
    let width = list.value_length() as usize;
    let values = list.values().slice(list.value_offset(0) as usize, list.len() * width);
    let values = cast(&values, &DataType::Float32)?;
    let values = values.as_primitive::<Float32Type>();
    if list.null_count() > 0 || values.null_count() > 0 || values.values().iter().any(|p| !(0.0..=1.0001).contains(p)) {
        return Err(Error::new("the model's column \"probability\" has values that are no probabilities"));
    }
    Ok(Some((width, values.values().to_vec())))
}
