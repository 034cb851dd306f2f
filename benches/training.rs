//! A training against the matrix products that it can't do without: `train` on a perceptron, and the same products
//! with nothing around them, on all cores.
//!
//! `cargo bench --bench training`

#![allow(missing_docs, reason = "criterion's macros make public functions")]
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark says what it measured, or fails")]

use candle_core::{Device, Tensor as Matrix};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rand::RngExt;
use ropeway::arrow::array::{ArrayRef, FixedSizeListArray, Float32Array, Int64Array};
use ropeway::arrow::datatypes::{DataType, Field};
use ropeway::prelude::*;
use ropeway::run::{Line, Options, run};
use serde_json::json;
use std::sync::Arc;
use std::time::{Duration, Instant};

const ROWS: usize = 8192;
const EPOCHS: usize = 4;
const BATCH: usize = 256;
/// Shards of a step: the default for this batch first, one last.
const SHARDS: [usize; 4] = [8, 4, 2, 1];
/// From the inputs over the hidden layers to the classes.
const WIDTHS: [usize; 4] = [64, 256, 128, 10];

/// Rows of noise with labels that a line separates.
fn rows(seed: Seed) -> Result<Frame> {
    let mut rng = seed.rng("rows");
    let values: Vec<f32> = (0..ROWS * WIDTHS[0]).map(|_| rng.random::<f32>() - 0.5).collect();
    let labels = values.chunks(WIDTHS[0]).map(|row| ((row[0] + 0.5) * WIDTHS[3] as f32) as i64);
    let labels: ArrayRef = Arc::new(Int64Array::from_iter_values(labels));
    let item = Arc::new(Field::new_list_field(DataType::Float32, false));
    let x = FixedSizeListArray::new(item, WIDTHS[0] as i32, Arc::new(Float32Array::from(values)), None);
    Frame::from_columns([("x", Arc::new(x) as ArrayRef), ("label", labels)])
}

/// How long the stage `train` ran, in a fresh store, on all cores.
fn train(pipeline: &Pipeline, registry: &Arc<Registry>) -> Duration {
    train_on(Options::default().cores, pipeline, registry)
}

fn train_on(cores: usize, pipeline: &Pipeline, registry: &Arc<Registry>) -> Duration {
    let options = Options { cores, ..Options::default() };
    let report = run(pipeline, registry, &Store::memory(), &options, &mut |_: &Line| {}).unwrap();
    assert!(report.succeeded(), "{report:?}");
    let fit = report.stages.iter().find(|stage| stage.name == "fit").unwrap();
    Duration::from_secs_f64(fit.seconds)
}

/// The products of as many steps: each layer forward, the gradient of its weights, and (but for the first) that of
/// its input.
fn products(layers: &[[Matrix; 3]]) -> Duration {
    let begun = Instant::now();
    for _ in 0..EPOCHS * ROWS / BATCH {
        for (index, [input, weights, gradient]) in layers.iter().enumerate() {
            input.matmul(weights).unwrap();
            input.t().unwrap().matmul(gradient).unwrap();
            if index > 0 {
                gradient.matmul(&weights.t().unwrap()).unwrap();
            }
        }
    }
    begun.elapsed()
}

fn layers() -> Vec<[Matrix; 3]> {
    let noise = |rows, columns| Matrix::rand(-1f32, 1f32, (rows, columns), &Device::Cpu).unwrap();
    WIDTHS.windows(2).map(|w| [noise(BATCH, w[0]), noise(w[0], w[1]), noise(BATCH, w[1])]).collect()
}

/// A training whose steps are cut into so many shards.
fn pipeline(registry: &Registry, shards: usize) -> Pipeline {
    let hidden = &WIDTHS[1..3];
    Pipeline::build("training")
        .seed(7)
        .stage("rows", "rows")
        .stage("fit", "train")
        .from("rows")
        .with(json!({
            "model": { "mlp": { "hidden": hidden } },
            "target": "label",
            "epochs": EPOCHS,
            "batch": BATCH,
            "shards": shards,
            "optimizer": { "adamw": { "rate": 1e-3 } },
        }))
        .resolve(registry)
        .unwrap()
}

fn training(criterion: &mut Criterion) {
    let registry = Arc::new(ropeway::standard().stage("rows", stage(rows).version(1)));
    let (pipeline, layers) = (pipeline(&registry, SHARDS[0]), layers());
    let in_shards = SHARDS.map(|shards| self::pipeline(&registry, shards));

    let mut group = criterion.benchmark_group("training");
    group.sample_size(10).throughput(Throughput::Elements((EPOCHS * ROWS) as u64));
    group.bench_function("train", |b| b.iter_custom(|rounds| (0..rounds).map(|_| train(&pipeline, &registry)).sum()));
    group.bench_function("products", |b| b.iter_custom(|rounds| (0..rounds).map(|_| products(&layers)).sum()));
    group.finish();

    let median = |mut times: Vec<Duration>| -> f64 {
        times.sort();
        times[times.len() / 2].as_secs_f64()
    };
    let (ours, least) = (0..9).map(|_| (train(&pipeline, &registry), products(&layers))).unzip();
    let (ours, least) = (median(ours), median(least));
    let rate = (EPOCHS * ROWS) as f64 / ours;
    println!("train: {rate:.0} rows/s, {:.2} times as long as its products alone", ours / least);

    // What the shards cost one core. They take turns, so that what disturbs the machine disturbs all alike.
    let mut times = SHARDS.map(|_| Vec::new());
    for _ in 0..9 {
        times.iter_mut().zip(&in_shards).for_each(|(times, pipeline)| times.push(train_on(1, pipeline, &registry)));
    }
    let times = times.map(median);
    for (shards, time) in SHARDS.iter().zip(times) {
        println!(
            "  in {shards} shards: {:.2} times as long as in {}",
            time / times[SHARDS.len() - 1],
            SHARDS[SHARDS.len() - 1]
        );
    }
}

criterion_group!(benches, training);
criterion_main!(benches);
