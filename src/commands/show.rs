//! `ropeway show`

use super::trace::TraceFile;
use super::{find_artifact, newest_run, open, print, print_json, readable, reports, stage_report};
use crate::cli::{Context, Exit, Format};
use crate::data::Artifact;
use crate::observe::{Bill, Cost, Span, Timeline, WorkerLife};
use crate::run::{Event, Line, Outcome, StageReport, read_events};
use crate::store::Store;
use crate::table::{Table, bytes, progress_table, seconds, stage_table};
use crate::timeline::{cost_table, draw};
use crate::{Error, Result, runtime};
use arrow::util::pretty::pretty_format_batches;
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Rows of a table that `show` prints; `export` writes them all.
const ROWS: usize = 20;

/// `ropeway show [WHAT]`
#[derive(clap::Args)]
pub(crate) struct Show {
    /// Nothing for all runs; a RUN (or `last`) for its stages; STAGE, STAGE.OUTPUT or RUN/STAGE.OUTPUT for what it gave
    what: Option<String>,
    /// Also write the run's trace here; ui.perfetto.dev opens it
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// The store [default: file://.ropeway]
    #[arg(long, value_name = "URL")]
    store: Option<String>,
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

impl Show {
    pub(crate) fn execute(self, _: &Context) -> Exit {
        let store = open(self.store.as_deref())?;
        match self.what.as_deref() {
            None => self.no_trace().and_then(|()| runs(&store, self.format))?,
            Some("last") => self.run(&store, &newest_run(&store)?)?,
            Some(name) if runtime()?.block_on(store.runs())?.iter().any(|run| run == name) => {
                self.run(&store, name)?;
            }
            Some(name) => self.no_trace().and_then(|()| artifact(&store, name, self.format))?,
        }
        Ok(0)
    }

    fn no_trace(&self) -> Result<()> {
        match &self.trace {
            None => Ok(()),
            Some(_) => Err(Error::usage("only a run has a trace").help("name one: ropeway show last --trace FILE")),
        }
    }

    fn run(&self, store: &Store, run: &str) -> Result<()> {
        let lines = read_events(store, run)?;
        let timeline = Timeline::of(&lines);
        if let Some(path) = &self.trace {
            TraceFile::create(path)?.write(&timeline)?;
        }
        let progress: BTreeMap<String, Event> = lines.iter().filter_map(progress).collect();
        let stages: Vec<StageReport> = lines.into_iter().filter_map(stage_report).collect();
        let bill = Bill::of(&timeline);
        match self.format {
            Format::Json => story(&stages, &progress, &timeline, &bill),
            Format::Text if timeline.spans.is_empty() => print(stage_table(&stages)),
            Format::Text => {
                print(stage_table(&stages))?;
                if !progress.is_empty() {
                    print(format!("\n{}", progress_table(progress.values())))?;
                }
                print(format!("\n{}", draw(&timeline, terminal_width())))?;
                print(format!("\n{}", cost_table(&bill)))
            }
        }
    }
}

/// A run as JSON: a line for each stage, with what it cost, then for each worker, for each attempt, and one in all.
fn story(stages: &[StageReport], progress: &BTreeMap<String, Event>, timeline: &Timeline, bill: &Bill) -> Result<()> {
    #[derive(Serialize)]
    #[serde(tag = "what", rename_all = "snake_case")]
    enum Told<'a> {
        Stage {
            #[serde(flatten)]
            report: &'a StageReport,
            cost: Option<&'a Cost>,
            /// What it said last of how far it was, and how fast.
            #[serde(skip_serializing_if = "Option::is_none")]
            progress: Option<&'a Event>,
        },
        Worker(&'a WorkerLife),
        Attempt(&'a Span),
        Total {
            run: &'a str,
            seconds: f64,
            ended: bool,
            cost: &'a Cost,
            #[serde(skip_serializing_if = "Option::is_none")]
            workers_price: Option<f64>,
        },
    }
    for report in stages {
        let cost = bill.stages.iter().find(|cost| cost.name == report.name);
        print_json(&Told::Stage { report, cost, progress: progress.get(&report.name) })?;
    }
    timeline.workers.iter().try_for_each(|worker| print_json(&Told::Worker(worker)))?;
    timeline.spans.iter().try_for_each(|span| print_json(&Told::Attempt(span)))?;
    let Timeline { run, seconds, ended, .. } = timeline;
    let (seconds, ended) = (*seconds, *ended);
    print_json(&Told::Total { run, seconds, ended, cost: &bill.total, workers_price: bill.workers })
}

/// What a stage said last of how far it was, if it measured how fast it was, or where its time went.
fn progress(line: &Line) -> Option<(String, Event)> {
    let Event::Progress { name, metrics, .. } = &line.event else { return None };
    let measured = metrics.iter().any(|(name, _)| name.ends_with("/s") || name.starts_with("time."));
    measured.then(|| (name.clone(), line.event.clone()))
}

/// As wide as the terminal; somewhat wide if it is none.
fn terminal_width() -> usize {
    terminal_size::terminal_size().map_or(100, |(width, _)| width.0.into())
}

fn runs(store: &Store, format: Format) -> Result<()> {
    let mut table = Table::new(["run", "stages", "time", "ended"]);
    for run in runtime()?.block_on(store.runs())? {
        let Some(events) = readable(store, &run)? else { continue };
        let finished = events.iter().rev().find_map(|line| match &line.event {
            Event::Finished(report) => Some(report.clone()),
            _ => None,
        });
        let stages = reports(events);
        let ended = match &finished {
            None => "under way or killed",
            Some(report) if report.interrupted => "interrupted",
            Some(report) if report.succeeded() => "done",
            Some(_) => "failed",
        };
        let time = finished.as_ref().map(|report| report.seconds);
        if format == Format::Json {
            print_json(&json!({ "run": run, "stages": stages.len(), "seconds": time, "ended": ended }))?;
        }
        let fresh = stages.iter().filter(|stage| stage.outcome == Outcome::Done).count();
        let shown = format!("{} ({fresh} fresh)", stages.len());
        table.row([run, shown, time.map(seconds).unwrap_or_default(), ended.to_owned()]);
    }
    if format == Format::Text { print(table) } else { Ok(()) }
}

fn artifact(store: &Store, name: &str, format: Format) -> Result<()> {
    let (reference, artifact) = find_artifact(store, name)?;
    let described = describe(&artifact);
    if format == Format::Json {
        return print_json(&json!({
            "kind": reference.kind, "digest": reference.digest, "bytes": reference.bytes, "content": described,
        }));
    }
    print(format!("{} {} ({})", reference.kind, reference.digest, bytes(reference.bytes)))?;
    match &artifact {
        Artifact::Frame(frame) => {
            let batch = frame.to_batch()?;
            let shown = batch.slice(0, batch.num_rows().min(ROWS));
            print(pretty_format_batches(&[shown])?)?;
            print(format!("{} rows, {} columns", frame.rows(), frame.columns()))
        }
        Artifact::Metrics(metrics) => metrics.iter().try_for_each(|(name, value)| print(format!("{name} = {value}"))),
        _ => print(serde_json::to_string_pretty(&described)?),
    }
}

/// What an artifact is like, as JSON; its contents only where they are small.
fn describe(artifact: &Artifact) -> Value {
    match artifact {
        Artifact::Frame(frame) => json!({
            "rows": frame.rows(),
            "columns": frame.schema().fields().iter()
                .map(|field| json!({ "name": field.name(), "type": field.data_type().to_string() }))
                .collect::<Vec<_>>(),
        }),
        Artifact::Tensors(tensors) => shapes(tensors),
        Artifact::Model(model) => {
            json!({ "kind": model.kind(), "spec": model.spec(), "tensors": shapes(model.tensors()) })
        }
        Artifact::Metrics(metrics) => json!(metrics),
        Artifact::List(list) => list.items().iter().map(describe).collect(),
        Artifact::Bytes(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned())),
            Err(_) => json!({ "bytes": bytes.len() }),
        },
    }
}

fn shapes(tensors: &crate::data::Tensors) -> Value {
    tensors.iter().map(|(name, tensor)| (name.to_owned(), json!(tensor.shape()))).collect()
}
