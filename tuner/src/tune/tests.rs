//! The stage against a queue that runs tasks on threads and answers in any order.

use crate::registry;
use arrow::array::AsArray;
use arrow::datatypes::{Float64Type, Int64Type};
use bytes::Bytes;
use proptest::prelude::*;
use rand::RngExt;
use ropeway_framework::data::{Artifact, Digest, Frame, Kind, Metrics, Model, Ref, Tensor, Tensors};
use ropeway_framework::stage::{
    Answer, Call, Cancel, Checkpoint, Fetch, Input, IntoStage, Keep, Models, Needs, Once, Output, Outputs, Params,
    Pending, Progress, Report, ReportSink, Scratch, Seed, StageRef, Submit, TaskRequest, Tasks, Template, Threads,
    pending,
};
use ropeway_framework::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;

/// The parameters of the stage that is tuned.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Fit {
    #[serde(default)]
    model: Mlp,
    #[serde(default)]
    rate: f64,
    #[serde(default)]
    epochs: u64,
}

#[derive(Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Mlp {
    hidden: Vec<u32>,
}

fn fit(Params(fit): Params<Fit>) -> Metrics {
    Metrics::new().with("loss", fit.rate)
}

/// Trains: the loss falls with the epochs towards a floor that `rate` and `hidden` set.
fn train(task: &TaskRequest, resume: Option<&Artifact>) -> Result<Vec<(&'static str, Artifact)>> {
    let fit: Fit = serde_json::from_value(task.params.clone())?;
    let from = match resume {
        Some(Artifact::Tensors(state)) => state.get("epochs")?.values::<u64>()?[0],
        _ => 0,
    };
    if fit.model.hidden == [13] {
        return Err(Error::new(format!("thirteen at rate {:.3}", fit.rate)));
    }
    let floor = (fit.rate.ln() - 0.1f64.ln()).abs() + 1.0 / f64::from(fit.model.hidden.iter().sum::<u32>().max(1));
    let loss = if fit.model.hidden == [7] { f64::NAN } else { floor + 1.0 / fit.epochs as f64 };
    let spec = json!({"rate": fit.rate, "hidden": fit.model.hidden, "epochs": fit.epochs, "from": from});
    let state = Tensors::new().with("epochs", Tensor::from_vec(vec![1], vec![fit.epochs])?);
    Ok(vec![
        ("model", Model::new("fit", &spec, Tensors::new())?.into()),
        ("metrics", Metrics::new().with("valid.loss", loss).into()),
        ("state", state.into()),
    ])
}

/// Tasks that wait to be run, and what the finished ones gave.
#[derive(Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    more: Condvar,
    store: Arc<Store>,
    log: Mutex<Log>,
}

#[derive(Default)]
struct Waiting {
    tasks: Vec<(TaskRequest, Answer)>,
    closed: bool,
}

#[derive(Default)]
struct Log {
    tasks: Vec<TaskRequest>,
    most_waiting: usize,
}

#[derive(Default)]
struct Store(Mutex<BTreeMap<Digest, Artifact>>);

impl Fetch for Store {
    fn fetch(&self, reference: Ref) -> Result<Artifact> {
        self.0.lock().unwrap().get(&reference.digest).cloned().ok_or_else(|| Error::unavailable("not in the store"))
    }

    fn items(&self, _: Ref) -> Result<Vec<Ref>> {
        Err(Error::new("no lists here"))
    }
}

impl Submit for Queue {
    fn submit(&self, task: TaskRequest) -> Pending {
        let (answer, pending) = pending();
        self.log.lock().unwrap().tasks.push(task.clone());
        let mut waiting = self.waiting.lock().unwrap();
        waiting.tasks.push((task, answer));
        self.more.notify_all();
        pending
    }
}

impl Queue {
    /// Runs waiting tasks, any of them first, until the queue is closed.
    fn work(&self, seed: u64) {
        let mut rng = Seed::new(seed, "worker").rng("choice");
        loop {
            let mut waiting = self.waiting.lock().unwrap();
            while waiting.tasks.is_empty() && !waiting.closed {
                waiting = self.more.wait(waiting).unwrap();
            }
            if waiting.tasks.is_empty() {
                return;
            }
            let most = waiting.tasks.len();
            let choice = rng.random_range(0..most);
            let (task, answer) = waiting.tasks.swap_remove(choice);
            drop(waiting);
            let mut log = self.log.lock().unwrap();
            log.most_waiting = log.most_waiting.max(most);
            drop(log);
            match self.run(&task) {
                Ok(outputs) => answer.give(&outputs, self.store.clone()),
                Err(error) => answer.fail(error),
            }
        }
    }

    fn run(&self, task: &TaskRequest) -> Result<BTreeMap<String, Ref>> {
        let resume = task.inputs.get("resume").map(|refs| self.store.fetch(refs[0])).transpose()?;
        let outputs = train(task, resume.as_ref())?.into_iter().map(|(port, artifact)| {
            let name = format!("{port} {} {:?}", task.params, task.inputs);
            let reference = Ref { kind: artifact.kind(), digest: Digest::of(name.as_bytes()), bytes: 0 };
            self.store.0.lock().unwrap().insert(reference.digest, artifact);
            (port.to_owned(), reference)
        });
        Ok(outputs.collect())
    }
}

/// A queue and the threads that empty it.
struct Workers(Arc<Queue>, Vec<JoinHandle<()>>);

impl Workers {
    fn start(threads: u64, seed: u64) -> Self {
        let queue = Arc::new(Queue::default());
        let work = |thread| {
            let queue = queue.clone();
            std::thread::spawn(move || queue.work(seed * 100 + thread))
        };
        let handles = (0..threads).map(work).collect();
        Self(queue, handles)
    }

    fn stop(self) -> Log {
        self.0.waiting.lock().unwrap().closed = true;
        self.0.more.notify_all();
        self.1.into_iter().for_each(|handle| handle.join().unwrap());
        std::mem::take(&mut self.0.log.lock().unwrap())
    }
}

fn template(params: Value) -> Template {
    let input = |name: &str| Input { name: name.into(), optional: true, ..Input::default() };
    let task = TaskRequest {
        label: "fit".into(),
        stage: "train".into(),
        params,
        inputs: BTreeMap::new(),
        seed: 11,
        needs: Needs::default(),
    };
    Template {
        name: "fit".into(),
        task,
        outputs: vec![
            Output::new("model", Kind::Model),
            Output::new("metrics", Kind::Metrics),
            Output::new("state", Kind::Tensors),
        ],
        accepts: vec![input("train"), input("resume")],
        stage: StageRef(fit.into_stage()),
    }
}

fn plain() -> Template {
    template(json!({"epochs": 9, "rate": 0.5, "model": {"hidden": [64]}}))
}

fn call(template: Template, params: Value, tasks: Tasks) -> Call {
    Call {
        inputs: BTreeMap::new(),
        templates: [("trial".to_owned(), template)].into(),
        params,
        seed: Seed::new(1, "best"),
        progress: Progress::default(),
        checkpoint: Checkpoint::default(),
        once: Once::default(),
        keep: Keep::default(),
        tasks,
        cancel: Cancel::default(),
        scratch: Scratch::default(),
        models: Models::default(),
        devices: Default::default(),
        threads: Threads::default(),
        gang: Default::default(),
    }
}

fn tune(template: Template, params: Value, threads: u64, seed: u64) -> (Result<Outputs>, Log) {
    let stage = registry().get("tune").unwrap().clone();
    let params = stage.normalise(&params).unwrap();
    let workers = Workers::start(threads, seed);
    let outputs = stage.run(call(template, params, Tasks::new(workers.0.clone())));
    (outputs, workers.stop())
}

fn search(pruner: &str, trials: u64, lag: u64) -> Value {
    json!({
        "minimize": "valid.loss", "trials": trials, "pruner": pruner, "lag": lag,
        "space": {"rate": {"log": [1e-3, 1.0]}, "model.hidden": {"choice": [[8], [64, 32], [7], [13]]}},
    })
}

fn get<T: TryFrom<Artifact, Error = Error>>(outputs: &Outputs, name: &str) -> T {
    T::try_from(outputs.get(name).unwrap().load().unwrap()).unwrap()
}

/// Everything that a search gave, as text.
fn text(outputs: &Outputs) -> String {
    let (model, metrics): (Model, Metrics) = (get(outputs, "model"), get(outputs, "metrics"));
    let (table, params): (Frame, Bytes) = (get(outputs, "trials"), get(outputs, "params"));
    format!("{} {metrics:?} {params:?} {:?}", model.spec(), table.to_batch().unwrap())
}

#[test]
fn the_best_trial_is_the_result() {
    let (outputs, log) = tune(plain(), search("none", 30, 4), 2, 1);
    let outputs = outputs.unwrap();
    let (model, metrics): (Model, Metrics) = (get(&outputs, "model"), get(&outputs, "metrics"));
    let table: Frame = get(&outputs, "trials");
    let params: Bytes = get(&outputs, "params");
    let params: Value = serde_json::from_slice(&params).unwrap();
    assert_eq!(params["rate"], model.spec()["rate"]);
    assert_eq!(params["model.hidden"], model.spec()["hidden"]);

    let values = table.column("value").unwrap();
    let values = values.as_primitive::<Float64Type>();
    let best = values.iter().flatten().fold(f64::INFINITY, f64::min);
    assert_eq!(metrics.get("best"), Some(best));
    assert_eq!(values.value(metrics.get("trial").unwrap() as usize), best);
    let failed = metrics.get("failed").unwrap();
    assert!(failed > 0.0, "some have 7 or 13 hidden units");
    assert_eq!(metrics.get("complete").unwrap() + failed, 30.0);
    assert_eq!(table.rows(), 30);
    let errors = table.column("error").unwrap();
    let errors: Vec<&str> = errors.as_string::<i32>().iter().flatten().collect();
    assert!(errors.contains(&"the result is NaN") && errors.iter().any(|error| error.starts_with("thirteen at rate")));

    assert_eq!(log.tasks.len(), 30);
    assert_eq!(log.tasks[3].label, "trial-3");
    assert!(log.tasks.iter().all(|task| task.seed == 11 && task.params["epochs"] == 9));
    assert!(log.most_waiting <= 4);
}

#[test]
fn promoted_trials_go_on_from_their_state() {
    let (outputs, log) = tune(plain(), search("asha", 12, 4), 2, 1);
    let outputs = outputs.unwrap();
    let model: Model = get(&outputs, "model");
    assert_eq!((&model.spec()["epochs"], &model.spec()["from"]), (&json!(9), &json!(3)));
    let table: Frame = get(&outputs, "trials");
    let budgets = table.column("budget").unwrap();
    let budgets: Vec<i64> = budgets.as_primitive::<Int64Type>().iter().flatten().collect();
    assert!(budgets.contains(&1) && budgets.contains(&9), "{budgets:?}");
    let first = log.tasks.iter().find(|task| task.label.ends_with("/rung-1")).unwrap();
    assert_eq!((first.params["epochs"].as_u64(), first.inputs["resume"].len()), (Some(3), 1));
    let metrics: Metrics = get(&outputs, "metrics");
    assert!(metrics.get("pruned").unwrap() > 0.0 && metrics.get("complete").unwrap() > 0.0);
}

#[test]
fn trainings_that_can_not_go_on_begin_again() {
    let mut template = plain();
    template.accepts.pop();
    let (outputs, log) = tune(template, search("asha", 12, 4), 2, 1);
    let model: Model = get(&outputs.unwrap(), "model");
    assert_eq!((&model.spec()["epochs"], &model.spec()["from"]), (&json!(9), &json!(0)));
    assert!(log.tasks.iter().all(|task| task.inputs.is_empty()));
}

#[test]
fn a_stage_without_a_model_gives_its_default_output() {
    let mut template = plain();
    template.outputs.remove(0);
    let (outputs, _) = tune(template, search("none", 6, 2), 1, 1);
    let metrics: Metrics = get(&outputs.unwrap(), "model");
    assert!(metrics.get("valid.loss").is_some());
}

#[test]
fn when_all_fail_the_first_says_why() {
    let mut params = search("asha", 5, 3);
    params["space"] = json!({"model.hidden": {"choice": [[13]]}});
    let (outputs, _) = tune(plain(), params, 2, 1);
    assert_eq!(outputs.unwrap_err().to_string(), "all 5 trials failed, the first with: thirteen at rate 0.500");
}

#[test]
fn what_the_stage_does_not_take_is_refused_before_anything_runs() {
    let space = |space: Value| {
        let mut params = search("none", 3, 2);
        params["space"] = space;
        params
    };
    let with = |key: &str, value: Value| {
        let mut params = search("asha", 3, 2);
        params[key] = value;
        params
    };
    let cases = [
        (space(json!({"rat": {"log": [1, 2]}})), "`rat` = 1.0: stage \"fit\" does not take it", "did you mean `rate`?"),
        (space(json!({"model.hiden": {"choice": [[1]]}})), "`model.hiden` = [1]", "did you mean `hidden`?"),
        (space(json!({"model.hidden": {"int": [1, 2]}})), "invalid type: integer `1`, expected a sequence", ""),
        (space(json!({"epochs": {"int": [-1, 2]}})), "`epochs` = -1", ""),
        (space(json!({"rate.x": {"int": [1, 2]}})), "`rate` is 0.5, which has no `x`", ""),
        (
            space(json!({"model.mlp.hidden": {"choice": [[8]]}})),
            "`model.mlp.hidden` = [8]: stage \"fit\" does not take it",
            "",
        ),
        (with("budget", json!("steps")), "has no parameter `steps` for a pruner", "set `budget`"),
        (with("budget", json!("model")), "which is no budget", "set `budget`"),
        (with("pruner", json!({"asha": {"min": 10}})), "beyond a whole training of 9", ""),
    ];
    for (params, why, help) in cases {
        let (outputs, log) = tune(plain(), params, 1, 1);
        let error = outputs.unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
        assert!(error.advice().unwrap_or_default().contains(help), "{error:?}");
        assert!(log.tasks.is_empty());
    }
    let mut silent = plain();
    silent.outputs.remove(1);
    let (outputs, _) = tune(silent, search("none", 3, 2), 1, 1);
    assert!(outputs.unwrap_err().to_string().contains("it has no output `metrics`"));
}

#[test]
fn a_metric_that_does_not_exist_ends_the_search() {
    let mut params = search("none", 30, 4);
    params["minimize"] = json!("valid.los");
    let (outputs, log) = tune(plain(), params, 2, 1);
    let error = outputs.unwrap_err();
    assert_eq!(error.to_string(), "stage \"fit\" gives no metric \"valid.los\"");
    assert_eq!(error.advice(), Some("did you mean \"valid.loss\"?"));
    assert!(log.tasks.len() < 30);
}

#[test]
fn an_interrupted_run_is_no_failed_trial() {
    let stage = registry().get("tune").unwrap().clone();
    let params = stage.normalise(&search("none", 3, 2)).unwrap();
    let error = stage.run(call(plain(), params.clone(), Tasks::default())).unwrap_err();
    assert_eq!(error.to_string(), "the run ended before this task");
    let cancelled = call(plain(), params, Tasks::default());
    cancelled.cancel.cancel();
    assert_eq!(stage.run(cancelled).unwrap_err().to_string(), "interrupted");
}

#[derive(Default)]
struct Reports(Mutex<Vec<Report>>);

impl ReportSink for Reports {
    fn report(&self, report: Report) {
        self.0.lock().unwrap().push(report);
    }
}

#[test]
fn progress_counts_trials_and_shows_the_best() {
    let stage = registry().get("tune").unwrap().clone();
    let params = stage.normalise(&search("asha", 9, 4)).unwrap();
    let (workers, reports) = (Workers::start(2, 1), Arc::new(Reports::default()));
    let mut call = call(plain(), params, Tasks::new(workers.0.clone()));
    call.progress = Progress::new(reports.clone());
    let metrics: Metrics = get(&stage.run(call).unwrap(), "metrics");
    workers.stop();
    let reports = reports.0.lock().unwrap();
    let steps: Vec<&Report> = reports.iter().filter(|report| report.line.is_none()).collect();
    assert_eq!((steps[0].done, steps[0].total, &*steps[0].unit), (0, Some(9), "trial"));
    assert!(steps.is_sorted_by_key(|step| step.done));
    let last = steps.last().unwrap();
    assert_eq!((last.done, last.metrics[0].1), (9, metrics.get("best").unwrap()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn neither_threads_nor_their_order_change_a_result(
        lag in 1u64..9,
        trials in 1u64..24,
        pruner in prop_oneof![Just("none"), Just("asha"), Just("median")],
        seed in 0u64..1000,
    ) {
        let run = |threads, seed| tune(plain(), search(pruner, trials, lag), threads, seed);
        let (one, log) = run(1, 0);
        let labels = |log: Log| log.tasks.into_iter().map(|task| (task.label, task.params)).collect::<Vec<_>>();
        let expected = (one.map(|outputs| text(&outputs)).map_err(|error| error.to_string()), labels(log));
        for threads in [2, 5] {
            let (outputs, log) = run(threads, seed);
            prop_assert!(log.most_waiting <= lag as usize);
            let found = (outputs.map(|outputs| text(&outputs)).map_err(|error| error.to_string()), labels(log));
            prop_assert_eq!(&expected, &found);
        }
    }
}
