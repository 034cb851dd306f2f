//! A pipeline made in Rust, without TOML, run twice in a store in memory: the second run does nothing.
//!
//! `cargo run --release --example builder`

#![allow(clippy::print_stdout, reason = "a program says what it found")]

use ropeway::prelude::*;
use ropeway::run::{Line, Options, Outcome, run};
use serde_json::json;
use std::sync::Arc;

fn main() -> Result<()> {
    let registry = Arc::new(ropeway::standard());
    let pipeline = Pipeline::build("cancer")
        .seed(7)
        .stage("rows", "dataset.breast_cancer")
        .stage("split", "split")
        .from("rows")
        .with(json!({ "train": 0.7, "valid": 0.1, "test": 0.2, "stratify": "label" }))
        .stage("features", "features.fit")
        .from("split.train")
        .with(json!({ "target": "label", "steps": [{ "scale": "standard" }] }))
        .stage("fit", "train")
        .from([("train", "split.train"), ("valid", "split.valid"), ("features", "features")])
        .with(json!({ "model": { "logistic": {} }, "epochs": 20, "optimizer": { "adam": { "rate": 0.01 } } }))
        .stage("score", "evaluate")
        .from([("model", "fit"), ("features", "features"), ("rows", "split.test")])
        .resolve(&registry)?;

    let store = Store::memory();
    for _ in 0..2 {
        let report = run(&pipeline, &registry, &store, &Options::default(), &mut |_: &Line| {})?;
        for stage in &report.stages {
            let how = if stage.outcome == Outcome::Cached { "cached" } else { "ran" };
            println!("{:<8} {how}", stage.name);
        }
        let score = report.stages.iter().find(|stage| stage.name == "score").context("there is a score")?;
        println!("accuracy {:.3}", score.metrics.get("accuracy").context("it has an accuracy")?);
    }
    Ok(())
}
