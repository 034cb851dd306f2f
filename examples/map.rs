//! Cross-validation: a stage that is run once for each fold, and one that puts the scores together.
//!
//! `cargo run --release --example map -- run examples/map.toml`

use ropeway::arrow::array::{AsArray, Float64Array};
use ropeway::arrow::compute::cast;
use ropeway::arrow::datatypes::{DataType, Float64Type};
use ropeway::prelude::*;
use std::process::ExitCode;

/// Which rows are left out: every `folds`-th, beginning with `fold`.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Fold {
    fold: usize,
    folds: usize,
}

fn numbers(rows: &Frame, name: &str) -> Result<Float64Array> {
    Ok(cast(&rows.column(name)?, &DataType::Float64)?.as_primitive::<Float64Type>().clone())
}

/// Predicts the rows of one fold by their nearest neighbour among the others.
fn fold(rows: Frame, Params(p): Params<Fold>) -> Result<Metrics> {
    let label = numbers(&rows, "label")?;
    let names = rows.schema().fields().iter().map(|field| field.name().as_str()).filter(|name| *name != "label");
    let columns = names.map(|name| numbers(&rows, name)).collect::<Result<Vec<_>>>()?;
    let distance =
        |a: usize, b: usize| -> f64 { columns.iter().map(|column| (column.value(a) - column.value(b)).powi(2)).sum() };
    let (out, known): (Vec<usize>, Vec<usize>) = (0..rows.rows()).partition(|row| row % p.folds == p.fold);
    let nearest = |row: usize| {
        let others = known.iter().map(|other| (distance(row, *other), *other));
        others.min_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, other)| other)
    };
    let right = out.iter().filter(|row| nearest(**row).is_some_and(|near| label.value(near) == label.value(**row)));
    Ok(Metrics::new().with("accuracy", right.count() as f64 / out.len().max(1) as f64))
}

/// The mean and the range of the folds' accuracies.
fn mean(scores: List) -> Result<Metrics> {
    let accuracy = |score: &Artifact| Metrics::try_from(score.clone())?.get("accuracy").context("it has an accuracy");
    let scores = scores.items().iter().map(accuracy).collect::<Result<Vec<f64>>>()?;
    let mean = scores.iter().sum::<f64>() / scores.len().max(1) as f64;
    let worst = scores.iter().copied().fold(f64::INFINITY, f64::min);
    let best = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    Ok(Metrics::new().with("accuracy", mean).with("worst", worst).with("best", best))
}

fn main() -> ExitCode {
    let registry = ropeway::standard()
        .stage("fold", stage(fold).about("Predicts the rows of one fold by their nearest neighbour."))
        .stage("mean", stage(mean).about("The mean of scores."));
    ropeway::main(registry)
}
