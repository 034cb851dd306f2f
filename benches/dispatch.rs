//! What the framework costs a task: thousands of tasks that do nothing, through key, memo lookup, scheduler, worker
//! and commit, in a store in memory.
//!
//! `cargo bench --bench dispatch`

#![allow(clippy::print_stdout, reason = "a benchmark says what it measured")]

use ropeway::prelude::*;
use ropeway::run::{Line, Options, run};
use ropeway::stage::TaskRequest;
use serde_json::json;
use std::sync::Arc;
use std::time::Instant;

const TASKS: u64 = 10_000;
const ROUNDS: usize = 5;
/// What a task may cost, in seconds.
const LIMIT: f64 = 0.2e-3;

#[derive(Serialize, Deserialize, JsonSchema)]
struct Number {
    number: u64,
}

fn nothing(Params(p): Params<Number>) -> Metrics {
    Metrics::new().with("number", p.number as f64)
}

/// Submits the tasks all at once and waits for them in order.
fn many(each: Template, tasks: Tasks) -> Result<Metrics> {
    let submit = |number: u64| {
        let params = json!({ "number": number });
        tasks.submit(TaskRequest { label: number.to_string(), params, ..each.task.clone() })
    };
    let pending: Vec<_> = (0..TASKS).map(submit).collect();
    let mut sum = 0.0;
    for pending in pending {
        let metrics: Metrics = pending.wait()?.remove("output").context("a task gives its number")?.load_as()?;
        sum += metrics.get("number").unwrap_or_default();
    }
    Ok(Metrics::new().with("sum", sum))
}

fn main() -> Result<()> {
    let registry =
        Arc::new(Registry::new().stage("nothing", stage(nothing).version(1)).stage("many", stage(many).version(1)));
    let pipeline = Pipeline::build("dispatch")
        .stage("each", "nothing")
        .with(json!({ "number": 0 }))
        .stage("all", "many")
        .from("each")
        .resolve(&registry)?;
    let mut costs = Vec::new();
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        let report = run(&pipeline, &registry, &Store::memory(), &Options::default(), &mut |_: &Line| {})?;
        let expected = (0..TASKS).sum::<u64>() as f64;
        assert_eq!(report.stages[0].metrics.get("sum"), Some(expected), "the results are right");
        costs.push(begun.elapsed().as_secs_f64() / TASKS as f64);
    }
    costs.sort_by(f64::total_cmp);
    let median = costs[ROUNDS / 2];
    println!("{TASKS} tasks, median of {ROUNDS}: {:.1} µs a task, {:.2} of the limit", median * 1e6, median / LIMIT);
    Ok(())
}
