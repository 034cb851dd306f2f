//! What it costs to train on rows that are never all in memory: a list of parts beside the same rows in one frame.
//!
//! First both are trained with a buffer for all rows, and must end with the same bytes. Then the times are compared, of
//! trainings whose rows cost little to compute with (a linear model) and much (a perceptron), with a buffer that holds a
//! sixteenth of the rows. `cargo bench --bench streams`.

#![allow(clippy::print_stdout, reason = "a benchmark says what it measured")]

use rand::RngExt;
use ropeway::arrow::array::{ArrayRef, FixedSizeListArray, Float32Array, Int64Array};
use ropeway::arrow::datatypes::{DataType, Field};
use ropeway::prelude::*;
use ropeway::run::{Line, Options, StageReport, run};
use serde_json::{Value, json};
use std::sync::Arc;

#[global_allocator]
static ALLOCATOR: ropeway::Allocator = ropeway::Allocator;

const PARTS: usize = 16;
const ROWS: usize = 16 << 10;
const WIDTH: usize = 64;
const EPOCHS: usize = 3;
const ROUNDS: usize = 7;

/// Rows of noise with labels that a line separates.
fn part(seed: &Seed, number: usize) -> Result<Frame> {
    let mut rng = seed.rng(&format!("part-{number}"));
    let values: Vec<f32> = (0..ROWS * WIDTH).map(|_| rng.random::<f32>() - 0.5).collect();
    let labels = values.chunks(WIDTH).map(|row| i64::from(row[0] + row[1] > 0.0));
    let labels: ArrayRef = Arc::new(Int64Array::from_iter_values(labels));
    let item = Arc::new(Field::new_list_field(DataType::Float32, false));
    let x = FixedSizeListArray::new(item, WIDTH as i32, Arc::new(Float32Array::from(values)), None);
    Frame::from_columns([("x", Arc::new(x) as ArrayRef), ("label", labels)])
}

fn frames(seed: &Seed) -> Result<Vec<Frame>> {
    (0..PARTS).map(|number| part(seed, number)).collect()
}

/// The parts, and the same rows in one frame.
fn rows(seed: Seed) -> Result<(List, Frame)> {
    let frames = frames(&seed)?;
    let whole = frames.iter().flat_map(|frame| frame.batches().to_vec()).collect();
    let whole = Frame::new(frames[0].schema().clone(), whole)?;
    Ok((frames.into_iter().collect(), whole))
}

/// A training that nobody has done before, on a store that has the rows: when it keeps checkpoints is no part of its
/// result. Gives the seconds that it took and the stage's line of the report.
fn train(store: &Store, from: &str, model: &Value, shuffle: Value, number: usize) -> Result<StageReport> {
    let registry = Arc::new(ropeway::standard().stage("rows", stage(rows).outputs(["parts", "whole"]).version(1)));
    let with = json!({
        "model": model, "epochs": EPOCHS, "batch": 256, "shuffle": shuffle, "checkpoint": { "steps": 1_000_000 + number },
    });
    let pipeline = Pipeline::build("streams").seed(7).stage("rows", "rows").stage("fit", "train").from(from).with(with);
    let report = run(&pipeline.resolve(&registry)?, &registry, store, &Options::default(), &mut |_: &Line| {})?;
    if let Some(error) = report.stages.iter().find_map(|stage| stage.error.clone()) {
        return Err(Error::new(error));
    }
    report.stages.into_iter().find(|stage| stage.name == "fit").context("a training is reported")
}

fn loss(trained: &StageReport) -> f64 {
    trained.metrics.get("train.loss").unwrap_or(f64::NAN)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let store = ropeway::runtime()?.block_on(Store::open(&format!("file://{}", folder.path().display())))?;
    let rows = (PARTS * ROWS * EPOCHS) as f64;
    let mut number = 0;
    let mut train = |from: &str, model: &Value, shuffle: Value| {
        number += 1;
        train(&store, from, model, shuffle, number)
    };
    for (name, model) in
        [("linear", json!({ "softmax": {} })), ("perceptron", json!({ "mlp": { "hidden": [256, 128] } }))]
    {
        let whole = train("rows.whole", &model, json!(true))?;
        let all = train("rows.parts", &model, json!({ "buffer": PARTS * ROWS }))?;
        assert_eq!(whole.outputs["model"], all.outputs["model"], "a buffer for all rows gives the same bytes");
        let (mut together, mut streamed, mut last) = (Vec::new(), Vec::new(), f64::NAN);
        for _ in 0..ROUNDS {
            together.push(train("rows.whole", &model, json!(true))?.seconds);
            let parts = train("rows.parts", &model, json!({ "buffer": ROWS }))?;
            streamed.push(parts.seconds);
            last = loss(&parts);
        }
        let (together, streamed) = (median(together), median(streamed));
        println!(
            "{name:10} in memory {:.0} rows/s, in parts {:.0} rows/s: {:.2} of it; losses {:.5} and {last:.5}",
            rows / together,
            rows / streamed,
            together / streamed,
            loss(&whole),
        );
    }
    Ok(())
}
