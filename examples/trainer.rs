//! A candle module of one's own: trained by `Trainer`, scored by `evaluate`, ready to be served.
//!
//! `cargo run --release --example trainer -- run examples/trainer.toml`

use candle_core::Tensor;
use candle_nn::{Linear, Module, VarBuilder, linear, loss};
use ropeway::arrow::datatypes::SchemaRef;
use ropeway::prelude::*;
use ropeway::stages::train::{Reader, Surroundings, Trainer, weights};
use std::process::ExitCode;

/// A perceptron whose hidden layer has a way around it.
struct Residual {
    first: Linear,
    hidden: Linear,
    last: Linear,
}

/// The width of its layers.
const WIDTH: usize = 64;

impl Residual {
    fn new(vb: VarBuilder, inputs: usize, classes: usize) -> candle_core::Result<Self> {
        Ok(Self {
            first: linear(inputs, WIDTH, vb.pp("first"))?,
            hidden: linear(WIDTH, WIDTH, vb.pp("hidden"))?,
            last: linear(WIDTH, classes, vb.pp("last"))?,
        })
    }

    fn forward(&self, rows: &Tensor) -> candle_core::Result<Tensor> {
        let first = self.first.forward(rows)?.relu()?;
        let around = (&first + self.hidden.forward(&first)?.relu()?)?;
        self.last.forward(&around)
    }
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Fit {
    /// The column to predict.
    target: String,
    /// Passes over the rows.
    epochs: usize,
}

/// Trains the module.
fn fit(rows: Frame, Params(p): Params<Fit>, seed: Seed, around: Surroundings) -> Result<(Model, Metrics)> {
    let reader = Reader::fit(&rows, &p.target)?;
    let (inputs, classes) = (reader.width(), reader.classes().len());
    let trained = Trainer::new(
        move |vb| Residual::new(vb, inputs, classes),
        |module, batch| loss::cross_entropy(&module.forward(&batch.features)?, &batch.target),
    )
    .epochs(p.epochs)
    .fit(&reader.examples(&rows)?, None, &seed, &around)?;
    let metrics = trained.metrics.clone();
    Ok((trained.model("residual", &reader)?, metrics))
}

/// The module, loaded to be applied.
struct Loaded {
    module: Residual,
    reader: Reader,
    input: SchemaRef,
    output: SchemaRef,
}

fn load(model: &Model) -> Result<Box<dyn Apply>> {
    let reader: Reader = model.parse()?;
    let module = Residual::new(weights(model)?, reader.width(), reader.classes().len())?;
    Ok(Box::new(Loaded { module, input: reader.input()?, output: reader.output()?, reader }))
}

impl Apply for Loaded {
    fn input(&self) -> SchemaRef {
        self.input.clone()
    }

    fn output(&self) -> SchemaRef {
        self.output.clone()
    }

    fn target(&self) -> Option<&str> {
        Some(self.reader.target())
    }

    fn apply(&self, rows: &Frame) -> Result<Frame> {
        self.reader.predictions(&self.module.forward(&self.reader.features(rows)?)?)
    }
}

fn main() -> ExitCode {
    let fit = stage(fit).outputs(["model", "metrics"]).about("Trains a residual perceptron.");
    ropeway::main(ropeway::standard().stage("residual", fit).model("residual", load))
}
