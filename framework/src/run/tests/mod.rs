//! Whole runs, of small stages.

mod lost;
mod many;
mod needs;

use super::*;
use crate::data::{Artifact, Digest, Frame, Metrics};
use crate::stage::{Cancel, Params, Seed, TaskRequest, Tasks, Template, stage};
use crate::store::Memo;
use crate::{Error, runtime};
use arrow::array::{ArrayRef, AsArray, Float64Array};
use arrow::datatypes::Float64Type;
use rand::RngExt;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

#[derive(Serialize, Deserialize, JsonSchema)]
struct Rows {
    rows: usize,
}

#[derive(Serialize, Deserialize, JsonSchema)]
struct By {
    #[serde(default)]
    by: f64,
}

fn noise(Params(p): Params<Rows>, seed: Seed) -> Result<Frame> {
    let mut rng = seed.rng("noise");
    let values: ArrayRef = Arc::new(Float64Array::from_iter_values((0..p.rows).map(|_| rng.random::<f64>())));
    Frame::from_columns([("x", values)])
}

fn add(rows: Frame, Params(p): Params<By>) -> Result<Frame> {
    rows.map_numeric(|x| x + p.by)
}

fn round(rows: Frame) -> Result<Frame> {
    rows.map_numeric(f64::trunc)
}

/// What [`round`] does, on another thread of the runtime, which must drive it.
async fn round_later(rows: Frame) -> Result<Frame> {
    tokio::task::spawn_blocking(move || round(rows)).await?
}

/// Waits for something that comes only if the runtime runs others meanwhile, and then fails.
async fn fail_later(_: Frame) -> Result<Frame> {
    let (said, heard) = tokio::sync::oneshot::channel();
    tokio::spawn(async move { said.send("it never works, later") });
    Err(Error::new(heard.await?))
}

fn total(rows: Frame) -> Result<Metrics> {
    let column = rows.column("x")?;
    Ok(Metrics::new().with("total", column.as_primitive::<Float64Type>().values().iter().sum()))
}

fn fail(_: Frame) -> Result<Frame> {
    Err(Error::new("it never works").help("do without it"))
}

fn blow_up(_: Frame) -> Frame {
    panic!("out of fuel")
}

/// Runs its template with three values and gives the totals; the second is asked for twice.
fn sweep(trial: Template, tasks: Tasks) -> Result<Metrics> {
    let submit = |by: f64| {
        let params = json!({ "by": by });
        (by, tasks.submit(TaskRequest { label: format!("by-{by}"), params, ..trial.task.clone() }))
    };
    let pending: Vec<_> = [1.0, 2.0, 2.0, 3.0].into_iter().map(submit).collect();
    let mut totals = Metrics::new();
    for (by, pending) in pending {
        let frame: Frame = pending.wait()?["output"].load_as()?;
        totals.insert(format!("by {by}"), total(frame)?.get("total").unwrap_or_default());
    }
    Ok(totals)
}

fn registry() -> Arc<Registry> {
    Arc::new(
        Registry::new()
            .stage("noise", stage(noise).version(1))
            .stage("add", stage(add).version(1))
            .stage("round", stage(round).version(1))
            .stage("round_later", stage(round_later).version(1))
            .stage("fail_later", fail_later)
            .stage("total", stage(total).version(1))
            .stage("fail", stage(fail).version(1))
            .stage("blow_up", stage(blow_up).version(1))
            .stage("sweep", stage(sweep).inputs(["trial"]).version(1)),
    )
}

fn pipeline(text: &str, registry: &Registry) -> Pipeline {
    let source = crate::pipeline::SourceFile::new("test.toml", text);
    let (pipeline, found) = crate::pipeline::resolve(&source, registry, &[]);
    pipeline.unwrap_or_else(|| panic!("{found:?}"))
}

const CHAIN: &str = r#"
name = "chain"
seed = 3
[stage.rows]
use = "noise"
with = { rows = 1000 }
[stage.more]
use = "add"
from = "rows"
with = { by = 0.25 }
[stage.whole]
use = "round"
from = "more"
[stage.sum]
use = "total"
from = "whole"
"#;

fn go(text: &str, store: &Store, cores: usize) -> (Report, Vec<Line>) {
    heard(text, &registry(), store, &Options { cores, ..Options::default() })
}

/// What a run of a pipeline over some stages comes to, and what it tells.
fn heard(text: &str, registry: &Arc<Registry>, store: &Store, options: &Options) -> (Report, Vec<Line>) {
    let mut lines = Vec::new();
    let mut sink = |line: &Line| lines.push(line.clone());
    let report = run(&pipeline(text, registry), registry, store, options, &mut sink).unwrap();
    (report, lines)
}

fn outcomes(report: &Report) -> Vec<(&str, Outcome)> {
    report.stages.iter().map(|stage| (stage.name.as_str(), stage.outcome)).collect()
}

fn digests(report: &Report) -> BTreeMap<String, Vec<Digest>> {
    report.stages.iter().map(|stage| (stage.name.clone(), stage.outputs.values().copied().collect())).collect()
}

#[test]
fn a_second_run_does_nothing_and_gives_the_same() {
    let store = Store::memory();
    let (first, _) = go(CHAIN, &store, 2);
    assert!(first.succeeded());
    assert!(first.stages.iter().all(|stage| stage.outcome == Outcome::Done));
    let (second, _) = go(CHAIN, &store, 2);
    assert!(second.stages.iter().all(|stage| stage.outcome == Outcome::Cached));
    assert_eq!(digests(&first), digests(&second));
    assert_eq!((first.run.as_str(), second.run.as_str()), ("chain-1", "chain-2"));
}

#[test]
fn fresh_stores_and_any_number_of_cores_give_the_same_bytes() {
    let reference = digests(&go(CHAIN, &Store::memory(), 1).0);
    for cores in [1, 2, 4, 8] {
        assert_eq!(digests(&go(CHAIN, &Store::memory(), cores).0), reference);
    }
}

#[test]
fn an_async_stage_is_a_stage_like_any_other() {
    let registry = registry();
    let ports = |name: &str| {
        let signature = registry.get(name).unwrap().signature();
        let inputs: Vec<_> = signature.inputs.iter().map(|input| (input.name.clone(), input.kind)).collect();
        let outputs: Vec<_> = signature.outputs.iter().map(|output| (output.name.clone(), output.kind)).collect();
        (inputs, outputs)
    };
    assert_eq!(ports("round_later"), ports("round"));
    let reference = digests(&go(CHAIN, &Store::memory(), 1).0);
    for cores in [1, 4] {
        let (report, _) = go(&CHAIN.replace("\"round\"", "\"round_later\""), &Store::memory(), cores);
        assert!(report.succeeded(), "{report:?}");
        assert_eq!(digests(&report), reference);
    }
    let (report, _) = go(&CHAIN.replace("\"round\"", "\"fail_later\""), &Store::memory(), 1);
    assert_eq!(report.stages[2].outcome, Outcome::Failed);
    assert_eq!(report.stages[2].error.as_deref(), Some("it never works, later"));
}

/// A clock that somebody sets. What it says to people jumps about, years ahead and back. The other can't go back, but
/// jumps an hour ahead once, as when the machine was asleep.
struct Restless {
    since: Instant,
    asked: AtomicUsize,
    jumps_at: usize,
}

impl Clock for Restless {
    fn elapsed(&self) -> Duration {
        let asleep = self.asked.fetch_add(1, Ordering::SeqCst) >= self.jumps_at;
        self.since.elapsed() + if asleep { Duration::from_secs(3600) } else { Duration::ZERO }
    }

    fn unix_millis(&self) -> u64 {
        if self.asked.load(Ordering::SeqCst).is_multiple_of(2) { 0 } else { u64::MAX }
    }
}

#[test]
fn a_clock_that_jumps_changes_nothing() {
    let registry = registry();
    let reference = digests(&go(SWEEP, &Store::memory(), 2).0);
    for jumps_at in [0, 1, 2, 3, 5, 8, 13, 21, 34, 55, usize::MAX] {
        let clock = Arc::new(Restless { since: Instant::now(), asked: AtomicUsize::new(0), jumps_at });
        let options = Options { cores: 2, clock: clock.clone(), ..Options::default() };
        let mut lines = Vec::new();
        let mut sink = |line: &Line| lines.push(line.clone());
        let report = run(&pipeline(SWEEP, &registry), &registry, &Store::memory(), &options, &mut sink).unwrap();
        assert!(report.succeeded() && digests(&report) == reference, "{jumps_at}: {report:?}");
        assert!(lines.windows(2).all(|pair| pair[0].at <= pair[1].at), "the story goes on in order");
        let asked = clock.asked.load(Ordering::SeqCst);
        assert!(asked > 55, "it was asked {asked} times only");
    }
}

#[test]
fn only_what_changed_runs_and_equal_bytes_leave_the_rest_cached() {
    let store = Store::memory();
    go(CHAIN, &store, 2);
    // Another addend, but the same rows after rounding? No: 0.25 and 0.3 move other rows over 1.
    let (changed, _) = go(&CHAIN.replace("0.25", "0.3"), &store, 2);
    use Outcome::{Cached, Done};
    assert_eq!(outcomes(&changed), [("rows", Cached), ("more", Done), ("whole", Done), ("sum", Done)]);
    // 1 and 1 + 1e-18 are the same number: the stage runs again, its bytes are equal, the rest is cached.
    go(&CHAIN.replace("0.25", "1.0"), &store, 2);
    let registry = registry();
    let mut cut = pipeline(&CHAIN.replace("0.25", "1.0"), &registry);
    cut.stages[1].params = json!({ "by": 1.0, "note": "another key" });
    let report = run(&cut, &registry, &store, &Options::default(), &mut |_: &Line| {}).unwrap();
    assert_eq!(outcomes(&report), [("rows", Cached), ("more", Done), ("whole", Cached), ("sum", Cached)]);
}

#[test]
fn another_seed_gives_other_bytes_only_where_chance_is() {
    let store = Store::memory();
    let first = digests(&go(CHAIN, &store, 2).0);
    let second = digests(&go(&CHAIN.replace("seed = 3", "seed = 4"), &store, 2).0);
    assert_ne!(first["rows"], second["rows"]);
}

#[test]
fn a_failure_stops_what_needs_it_and_nothing_else() {
    let text = format!(
        "{CHAIN}\n[stage.bad]\nuse = \"fail\"\nfrom = \"rows\"\n[stage.after]\nuse = \"round\"\nfrom = \"bad\"\n\
         [stage.worse]\nuse = \"blow_up\"\nfrom = \"rows\"\n"
    );
    let store = Store::memory();
    let (report, _) = go(&text, &store, 2);
    assert!(!report.succeeded());
    let outcome: BTreeMap<_, _> = outcomes(&report).into_iter().collect();
    assert_eq!(outcome["sum"], Outcome::Done);
    assert_eq!(
        (outcome["bad"], outcome["after"], outcome["worse"]),
        (Outcome::Failed, Outcome::Skipped, Outcome::Failed)
    );
    let said = |name: &str| report.stages.iter().find(|stage| stage.name == name).unwrap().error.clone().unwrap();
    assert_eq!(said("bad"), "it never works");
    assert_eq!(said("worse"), "the stage panicked: out of fuel");
    // What was done is kept.
    let (again, _) = go(&text, &store, 2);
    assert_eq!(outcomes(&again).into_iter().filter(|(_, outcome)| *outcome == Outcome::Cached).count(), 4);
}

const SWEEP: &str = r#"
name = "sweep"
seed = 3
[stage.rows]
use = "noise"
with = { rows = 1000 }
[stage.trial]
use = "add"
from = "rows"
[stage.best]
use = "sweep"
from = { trial = "trial" }
"#;

#[test]
fn a_stage_runs_others_on_any_number_of_cores_and_its_tasks_are_remembered() {
    let store = Store::memory();
    let (report, lines) = go(SWEEP, &store, 1);
    assert!(report.succeeded(), "{report:?}");
    // The template is not run on its own.
    assert_eq!(outcomes(&report), [("rows", Outcome::Done), ("best", Outcome::Done)]);
    let tasks = |lines: &[Line], wanted: Outcome| {
        let wanted = |line: &&Line| matches!(&line.event, Event::TaskFinished { outcome, .. } if *outcome == wanted);
        lines.iter().filter(wanted).count()
    };
    assert_eq!(tasks(&lines, Outcome::Done) + tasks(&lines, Outcome::Cached), 4);
    // Another seed for the search itself: the trials are known.
    let registry = registry();
    let mut again = pipeline(SWEEP, &registry);
    again.stages[2].params = json!({ "note": "another key" });
    let mut lines = Vec::new();
    let mut sink = |line: &Line| lines.push(line.clone());
    let second = run(&again, &registry, &store, &Options::default(), &mut sink).unwrap();
    assert_eq!(tasks(&lines, Outcome::Cached), 4);
    assert_eq!(digests(&second), digests(&report));
}

#[test]
fn an_interrupted_run_says_so_and_goes_on_later() {
    let store = Store::memory();
    let registry = registry();
    let built = pipeline(CHAIN, &registry);
    let options = Options::default();
    let cancel = options.cancel.clone();
    let mut sink = |line: &Line| {
        if matches!(&line.event, Event::StageFinished(report) if report.name == "more") {
            cancel.cancel();
        }
    };
    let report = run(&built, &registry, &store, &options, &mut sink).unwrap();
    assert!(report.interrupted && !report.succeeded());
    let (again, _) = go(CHAIN, &store, 2);
    assert!(again.succeeded());
    assert_eq!(again.stages[1].outcome, Outcome::Cached);
}

#[test]
fn the_log_in_the_store_tells_the_run() {
    let store = Store::memory();
    let (report, lines) = go(CHAIN, &store, 2);
    let kept = read_events(&store, &report.run).unwrap();
    let told: Vec<Line> = lines.into_iter().filter(|line| !matches!(line.event, Event::Progress { .. })).collect();
    assert_eq!(kept, told);
    assert!(read_events(&store, "chain-9").unwrap_err().to_string().contains("no run"));
}

#[test]
fn a_plan_says_what_a_run_would_do() {
    let store = Store::memory();
    let registry = registry();
    let states = |text: &str| -> Vec<State> {
        plan(&pipeline(text, &registry), &store, &[]).unwrap().into_iter().map(|planned| planned.state).collect()
    };
    use State::{Cached, Depends, Run};
    assert_eq!(states(CHAIN), [Run, Depends, Depends, Depends]);
    go(CHAIN, &store, 2);
    assert_eq!(states(CHAIN), [Cached; 4]);
    assert_eq!(states(&CHAIN.replace("0.25", "0.5")), [Cached, Run, Depends, Depends]);
    let error = plan(&pipeline(CHAIN, &registry), &store, &["summ".into()]).unwrap_err();
    assert_eq!(error.advice(), Some("did you mean `sum`?"));
}

#[test]
fn only_runs_what_is_asked_for_and_what_it_needs() {
    let registry = registry();
    let options = Options { only: vec!["more".into()], ..Options::default() };
    let report = run(&pipeline(CHAIN, &registry), &registry, &Store::memory(), &options, &mut |_: &Line| {}).unwrap();
    assert_eq!(outcomes(&report), [("rows", Outcome::Done), ("more", Outcome::Done)]);
}

#[test]
fn metrics_stand_in_the_report() {
    let (report, _) = go(CHAIN, &Store::memory(), 2);
    assert!(report.stages[3].metrics.get("total").unwrap() > 0.0);
    let text = serde_json::to_string(&report).unwrap();
    assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), report);
}

#[test]
fn an_artifact_is_read_back_as_it_was_given() {
    let store = Store::memory();
    let (report, _) = go(CHAIN, &store, 2);
    let memo = runtime().unwrap().block_on(store.memo(report.stages[0].key.unwrap())).unwrap().unwrap();
    let read = runtime().unwrap().block_on(store.get(memo.outputs["output"])).unwrap();
    assert!(matches!(read, Artifact::Frame(frame) if frame.rows() == 1000));
}

#[test]
fn thousands_of_tasks_at_once_on_a_store_of_files() {
    fn many(each: Template, tasks: Tasks) -> Result<Metrics> {
        let submit = |by: u32| {
            let params = json!({ "by": by });
            tasks.submit(TaskRequest { label: by.to_string(), params, ..each.task.clone() })
        };
        let pending: Vec<_> = (0..2000).map(submit).collect();
        let mut rows = 0;
        for pending in pending {
            rows += pending.wait()?["output"].load_as::<Frame>()?.rows();
        }
        Ok(Metrics::new().with("rows", rows as f64))
    }
    let registry = Arc::new((*registry()).clone().stage("many", stage(many).version(1)));
    let text = SWEEP.replace("\"sweep\"\nfrom", "\"many\"\nfrom").replace("trial = ", "input = ").replace("1000", "10");
    let folder = tempfile::tempdir().unwrap();
    let store = runtime().unwrap().block_on(Store::open(&folder.path().display().to_string())).unwrap();
    let report = run(&pipeline(&text, &registry), &registry, &store, &Options::default(), &mut |_: &Line| {}).unwrap();
    assert_eq!(report.stages[1].metrics.get("rows"), Some(20_000.0), "{report:?}");

    // The log tells the first thousand one by one and sums up the rest; nothing is missing.
    let lines = read_events(&store, &report.run).unwrap();
    assert!(lines.len() < 3 * ONE_BY_ONE + 200, "{} lines", lines.len());
    let timeline = crate::observe::Timeline::of(&lines);
    let bill = crate::observe::Bill::of(&timeline);
    assert_eq!((bill.stages[1].name.as_str(), bill.stages[1].attempts), ("best", 2001), "{bill:?}");
    assert!(timeline.spans.iter().all(|span| span.end.is_some() || span.attempts > 1), "all have ended");
}

#[test]
fn tasks_of_a_stage_that_failed_are_not_run_for_nobody() {
    let (begun, failed) = (Arc::new(AtomicUsize::new(0)), Arc::new(Barrier::new(2)));
    // One of the tasks runs until it is stopped; on one core the others wait behind it.
    let slow = {
        let (begun, failed) = (begun.clone(), failed.clone());
        move |_: Frame, Params(_): Params<By>, cancel: Cancel| -> Result<Frame> {
            if begun.fetch_add(1, Ordering::Relaxed) == 0 {
                failed.wait();
            }
            loop {
                cancel.check()?;
                std::thread::yield_now();
            }
        }
    };
    let quits = move |each: Template, tasks: Tasks| -> Result<Metrics> {
        let submit = |by: usize| {
            let params = json!({ "by": by });
            tasks.submit(TaskRequest { label: by.to_string(), params, ..each.task.clone() })
        };
        let _pending: Vec<_> = (0..50).map(submit).collect();
        failed.wait();
        Err(Error::new("that is enough"))
    };
    let registry =
        Arc::new((*registry()).clone().stage("slow", stage(slow).version(1)).stage("quits", stage(quits).version(1)));
    let text = SWEEP.replace("\"sweep\"\nfrom", "\"quits\"\nfrom").replace("trial = ", "input = ");
    let text = text.replace("use = \"add\"", "use = \"slow\"");
    let options = Options { cores: 1, ..Options::default() };
    let report = run(&pipeline(&text, &registry), &registry, &Store::memory(), &options, &mut |_: &Line| {}).unwrap();
    assert!(report.stages[1].error.as_ref().unwrap().contains("that is enough"), "{report:?}");
    // A worker may begin the next in its line just before that is taken back.
    assert!(begun.load(Ordering::Relaxed) < 25, "{begun:?}");
}
