//! A stage that fits and one that applies what was fitted: the mean and spread of every column, and the distance of
//! each row from the middle. The model can be served, because its kind is in the registry.
//!
//! `cargo run --release --example fit_and_apply -- run examples/fit_and_apply.toml`

use ropeway::arrow::array::{Array, ArrayRef, AsArray, Float64Array};
use ropeway::arrow::compute::cast;
use ropeway::arrow::datatypes::{DataType, Field, Float64Type, Schema, SchemaRef};
use ropeway::prelude::*;
use std::process::ExitCode;
use std::sync::Arc;

/// What is fitted: one entry a column.
#[derive(Serialize, Deserialize)]
struct Middle {
    columns: Vec<String>,
    mean: Vec<f64>,
    spread: Vec<f64>,
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Fit {
    /// Columns that are left out.
    #[serde(default)]
    without: Vec<String>,
}

fn numbers(rows: &Frame, name: &str) -> Result<Float64Array> {
    let column = cast(&rows.column(name)?, &DataType::Float64)?;
    match column.null_count() {
        0 => Ok(column.as_primitive::<Float64Type>().clone()),
        nulls => Err(Error::new(format!("column {name:?} has {nulls} nulls"))),
    }
}

/// Fits the middle of the rows.
fn fit_middle(rows: Frame, Params(p): Params<Fit>) -> Result<Model> {
    let mut middle = Middle { columns: Vec::new(), mean: Vec::new(), spread: Vec::new() };
    for field in rows.schema().fields().iter().filter(|field| !p.without.contains(field.name())) {
        let values = numbers(&rows, field.name())?;
        let count = values.len().max(1) as f64;
        let mean = values.values().iter().sum::<f64>() / count;
        let variance = values.values().iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count;
        middle.columns.push(field.name().clone());
        middle.mean.push(mean);
        middle.spread.push(variance.sqrt().max(f64::MIN_POSITIVE));
    }
    Model::new("middle", &middle, Tensors::new())
}

impl Apply for Middle {
    fn input(&self) -> SchemaRef {
        let field = |name: &String| Field::new(name, DataType::Float64, false);
        Arc::new(Schema::new(self.columns.iter().map(field).collect::<Vec<_>>()))
    }

    fn output(&self) -> SchemaRef {
        Arc::new(Schema::new(vec![Field::new("distance", DataType::Float64, false)]))
    }

    fn apply(&self, rows: &Frame) -> Result<Frame> {
        let mut squares = vec![0.0; rows.rows()];
        for ((name, mean), spread) in self.columns.iter().zip(&self.mean).zip(&self.spread) {
            // A column whose values are all alike says nothing.
            if *spread == f64::MIN_POSITIVE {
                continue;
            }
            for (square, value) in squares.iter_mut().zip(numbers(rows, name)?.values()) {
                *square += ((value - mean) / spread).powi(2);
            }
        }
        let distance: ArrayRef = Arc::new(Float64Array::from_iter_values(squares.into_iter().map(f64::sqrt)));
        Frame::from_columns([("distance", distance)])
    }
}

/// Applies any model to rows.
fn apply(rows: Frame, model: Model, models: Models) -> Result<Frame> {
    models.load(&model)?.apply(&rows)
}

fn main() -> ExitCode {
    let registry = ropeway::standard()
        .stage("middle.fit", stage(fit_middle).about("Fits the mean and spread of every column."))
        .stage("middle.apply", stage(apply).inputs(["rows", "model"]).about("Gives each row's distance."))
        .model("middle", |model| Ok(Box::new(model.parse::<Middle>()?)));
    ropeway::main(registry)
}
