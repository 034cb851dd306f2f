//! A run on S3 gives the bytes of a run in memory.

use super::proxy::Proxy;
use super::server::{Server, hurried};
use crate::data::{Digest, Frame, Metrics};
use crate::pipeline::Pipeline;
use crate::run::{Event, Line, Options, Outcome, Report, run};
use crate::stage::{OneOrMany, Params, Registry, Seed, stage};
use crate::store::Store;
use arrow::array::{ArrayRef, AsArray, Float64Array};
use arrow::datatypes::Float64Type;
use rand::RngExt;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;

#[derive(Serialize, Deserialize, JsonSchema)]
struct Rows {
    rows: usize,
}

fn noise(Params(p): Params<Rows>, seed: Seed) -> crate::Result<Frame> {
    let mut rng = seed.rng("noise");
    let values: ArrayRef = Arc::new(Float64Array::from_iter_values((0..p.rows).map(|_| rng.random::<f64>())));
    Frame::from_columns([("x", values)])
}

fn square(rows: Frame) -> crate::Result<Frame> {
    rows.map_numeric(|x| x * x)
}

fn total(parts: OneOrMany<Frame>) -> crate::Result<Metrics> {
    let mut totals = Metrics::new();
    for (index, rows) in parts.0.iter().enumerate() {
        let column = rows.column("x")?;
        totals.insert(format!("part {index}"), column.as_primitive::<Float64Type>().values().iter().sum());
    }
    Ok(totals)
}

fn registry() -> Arc<Registry> {
    Arc::new(
        Registry::new()
            .stage("noise", stage(noise).version(1))
            .stage("square", stage(square).version(1))
            .stage("total", stage(total).version(1)),
    )
}

/// Six parts, small and large, each made, changed twice and summed up at the end.
fn pipeline(registry: &Registry) -> Pipeline {
    let mut builder = Pipeline::build("parts").seed(7);
    let last: Vec<String> = (0..6).map(|part| format!("fourth-{part}")).collect();
    for (part, last) in last.iter().enumerate() {
        let (rows, squares) = (format!("rows-{part}"), format!("squares-{part}"));
        builder = builder.stage(&rows, "noise").with(json!({ "rows": 100 * 7usize.pow(part as u32 % 4) }));
        builder = builder.stage(&squares, "square").from(rows.as_str());
        builder = builder.stage(last, "square").from(squares.as_str());
    }
    builder.stage("all", "total").from(last).resolve(registry).unwrap()
}

fn go(store: &Store, mut heard: impl FnMut(&Line)) -> Report {
    let registry = registry();
    let options = Options { cores: 2, ..Options::default() };
    run(&pipeline(&registry), &registry, store, &options, &mut |line: &Line| heard(line)).unwrap()
}

fn digests(report: &Report) -> BTreeMap<String, Vec<Digest>> {
    report.stages.iter().map(|stage| (stage.name.clone(), stage.outputs.values().copied().collect())).collect()
}

#[test]
fn a_run_on_s3_gives_the_bytes_of_a_run_in_memory() {
    let Some(server) = Server::start() else { return };
    let expected = digests(&go(&Store::memory(), |_| {}));
    let store = hurried(server.address(), "run");
    let first = go(&store, |_| {});
    assert!(first.succeeded());
    assert_eq!(digests(&first), expected);
    let second = go(&hurried(server.address(), "run"), |_| {});
    assert_eq!(digests(&second), expected);
    assert!(second.stages.iter().all(|stage| stage.outcome == Outcome::Cached));
}

#[test]
fn so_does_one_on_a_bad_network_whose_server_is_killed() {
    let Some(server) = Server::start() else { return };
    let expected = digests(&go(&Store::memory(), |_| {}));
    for seed in 0..3 {
        let proxy = Proxy::bad(server.address(), seed);
        let prefix = format!("bad-{seed}");
        let mut finished = 0;
        let report = go(&hurried(proxy.address(), &prefix), |line| {
            if matches!(line.event, Event::StageFinished(_)) {
                finished += 1;
                if finished % 5 == seed + 1 {
                    server.kill_and_restart();
                }
            }
        });
        // Two parts are equal to two others: whoever comes second may find the first one's result.
        assert!(report.succeeded(), "{:?}", report.stages);
        assert_eq!(digests(&report), expected);
        assert_eq!(digests(&go(&hurried(server.address(), &prefix), |_| {})), expected);
    }
}
