//! The `evaluate` stage.

use super::classification::scores;
use super::{regression, score};
use arrow::array::{ArrayRef, Float64Array, Int64Array, StringArray};
use ropeway_framework::data::{Frame, Metrics, Model};
use ropeway_framework::stage::{Apply, Models, Params};
use ropeway_framework::{Context, Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// The `with` table of `evaluate`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EvaluateSpec {
    /// The column with the true values; by default the one that the model was trained for.
    pub target: Option<String>,
    /// Whether the model predicts classes or numbers; by default as its predictions say.
    pub task: Task,
    /// How precision, recall and F1 are averaged over classes.
    pub average: Average,
}

/// What a model predicts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// Classes, unless the predictions are floating point numbers.
    #[default]
    Auto,
    /// Classes.
    Classification,
    /// Numbers.
    Regression,
}

/// How scores are averaged over classes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Average {
    /// Of two classes the second's scores, in order; of more, `macro`.
    #[default]
    Auto,
    /// Every class counts the same.
    Macro,
    /// Every class counts by its rows.
    Weighted,
    /// Every row counts the same.
    Micro,
}

/// Scores a model: `(metrics, confusion)`.
pub(super) fn evaluate(
    model: Model,
    features: Option<Model>,
    rows: Frame,
    Params(spec): Params<EvaluateSpec>,
    models: Models,
) -> Result<(Metrics, Frame)> {
    if rows.rows() == 0 {
        return Err(Error::new("input \"rows\" has no rows: there is nothing to score"));
    }
    let model = models.load(&model).context("input \"model\"")?;
    let target = match (&spec.target, model.target()) {
        (Some(target), _) => target.clone(),
        (None, Some(target)) => target.to_owned(),
        (None, None) => {
            return Err(Error::usage("the model does not say which column it predicts").help("name it with `target`"));
        }
    };
    let answers = apply(&*model, features.as_ref(), &rows, &models)?;
    // The features may drop the target; the rows themselves have it.
    let values = rows.column(&target).context("`target`")?;
    let truth = score::Truth { name: &target, values: &values };
    match decide(spec.task, &answers)? {
        Task::Regression => Ok((
            regression::metrics(&truth.numbers()?, &score::predicted_numbers(&answers)?),
            Frame::from_columns::<&str>([])?,
        )),
        _ => {
            let (names, answers) = score::classes(&answers, &truth)?;
            let counts = answers.confusion();
            Ok((answers.metrics(spec.average), confusion(&names, &counts)?))
        }
    }
}

/// A model's answers for rows, which go through the fitted features first.
pub(super) fn apply(model: &dyn Apply, features: Option<&Model>, rows: &Frame, models: &Models) -> Result<Frame> {
    let answers = match features {
        None => model.apply(rows).context("input \"rows\"")?,
        Some(features) => {
            let features = models.load(features).context("input \"features\"")?;
            let rows = features.apply(rows).context("input \"rows\", through \"features\"")?;
            model.apply(&rows).context("input \"rows\"")?
        }
    };
    match answers.rows() == rows.rows() {
        true => Ok(answers),
        false => Err(Error::new(format!("the model gave {} answers for {} rows", answers.rows(), rows.rows()))),
    }
}

fn decide(task: Task, answers: &Frame) -> Result<Task> {
    if task != Task::Auto {
        return Ok(task);
    }
    let place = answers.position("prediction").context("the model's answers")?;
    let floating = matches!(answers.schema().field(place).data_type(), kind if kind.is_floating());
    let probable = answers.schema().field_with_name("probability").is_ok();
    Ok(if floating && !probable { Task::Regression } else { Task::Classification })
}

/// A row a class: how many rows of it were taken for each class, and its scores.
fn confusion(names: &[String], counts: &[Vec<u64>]) -> Result<Frame> {
    let mut columns: Vec<(String, ArrayRef)> = vec![("class".into(), Arc::new(StringArray::from(names.to_vec())))];
    for (place, name) in names.iter().enumerate() {
        let taken = counts.iter().map(|row| i64::try_from(row[place]).unwrap_or(i64::MAX));
        columns.push((format!("as.{name}"), Arc::new(Int64Array::from_iter_values(taken))));
    }
    let scores: Vec<[f64; 4]> = (0..names.len()).map(|class| scores(counts, class)).collect();
    for (index, name) in ["precision", "recall", "f1"].into_iter().enumerate() {
        let values: ArrayRef = Arc::new(Float64Array::from_iter_values(scores.iter().map(|row| row[index])));
        columns.push((name.to_owned(), values));
    }
    Frame::from_columns(columns)
}
