//! One file a command.

pub(crate) mod check;
pub(crate) mod coordinator;
pub(crate) mod export;
pub(crate) mod gc;
pub(crate) mod infer;
mod join;
pub(crate) mod new;
pub(crate) mod plan;
pub(crate) mod run;
pub(crate) mod schema;
pub(crate) mod serve;
pub(crate) mod show;
mod signals;
pub(crate) mod stages;
mod trace;
pub(crate) mod worker;

use crate::cli::{Context, PipelineArgs, complain};
use crate::data::{Artifact, Ref};
use crate::diagnostics;
use crate::pipeline::{Override, Pipeline, SourceFile, resolve};
use crate::run::{Event, Line, Metrics, StageReport, read_events};
use crate::serving::MetricsServer;
use crate::store::{Entry, Store, StoreError};
use crate::worker::Gpus;
use crate::{Context as _, Error, Fault, Result, nearest, runtime};
use serde::Serialize;
use std::io::Write;

/// Where results are kept unless the pipeline or `--store` says otherwise.
const DEFAULT_STORE: &str = "file://.ropeway";

/// The CUDA devices to compute on: so many, or all that there are.
pub(crate) fn gpus(count: Option<usize>) -> Result<Gpus> {
    match count {
        Some(0) => Ok(Gpus::default()),
        Some(count) => Gpus::find().first(count),
        None => Ok(Gpus::find()),
    }
}

/// Writes a line of data to stdout.
pub(crate) fn print(line: impl std::fmt::Display) -> Result<()> {
    Ok(writeln!(std::io::stdout().lock(), "{line}")?)
}

/// Writes a value as one line of JSON to stdout.
pub(crate) fn print_json(value: &impl Serialize) -> Result<()> {
    print(serde_json::to_string(value)?)
}

/// Reads and resolves a pipeline file. Mistakes are drawn on stderr, all of them.
pub(crate) fn load(args: &PipelineArgs, context: &Context) -> Result<Pipeline> {
    load_source(&read_pipeline(&args.pipeline)?, &args.all_overrides(), context)
}

/// Resolves what a pipeline file says. Mistakes are drawn likewise.
pub(crate) fn load_source(source: &SourceFile, overrides: &[String], context: &Context) -> Result<Pipeline> {
    let overrides = overrides.iter().map(|text| Override::parse(text)).collect::<Result<Vec<_>>>()?;
    let (pipeline, found) = resolve(source, &context.registry, &overrides);
    diagnostics::draw(source, &found);
    // What is wrong has been drawn; the exit code says that something is.
    pipeline.ok_or_else(|| Error::usage(""))
}

/// Reads a pipeline file.
pub(crate) fn read_pipeline(path: &std::path::Path) -> Result<SourceFile> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        let error = Error::usage(format!("can't read the pipeline file {}: {error}", path.display()));
        match near_file(path) {
            Some(near) => error.help(format!("did you mean {near}?")),
            None => error.help("give the path of a TOML file, such as configs/digits.toml"),
        }
    })?;
    Ok(SourceFile::new(path.display().to_string(), text))
}

fn near_file(path: &std::path::Path) -> Option<String> {
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(".".as_ref());
    // What is there but can't be read is not meant to be another.
    if path.exists() {
        return None;
    }
    let names: Vec<String> = std::fs::read_dir(folder)
        .ok()?
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    let near = nearest(path.file_name()?.to_str()?, names.iter().map(String::as_str))?;
    Some(path.with_file_name(near).display().to_string())
}

/// Opens the store of a pipeline.
pub(crate) fn open_store(args: &PipelineArgs, pipeline: &Pipeline) -> Result<Store> {
    open(args.store.as_deref().or(pipeline.store.as_deref()))
}

/// Opens a store, or the default one.
pub(crate) fn open(url: Option<&str>) -> Result<Store> {
    runtime()?.block_on(Store::open_with(url.unwrap_or(DEFAULT_STORE), std::env::vars()))
}

/// An artifact as people name it: `STAGE`, `STAGE.OUTPUT`, `RUN/STAGE.OUTPUT`; the newest run if none is named.
pub(crate) fn find_artifact(store: &Store, name: &str) -> Result<(Ref, Artifact)> {
    let (run, rest) = match name.split_once('/') {
        Some((run, rest)) => (run.to_owned(), rest),
        None => (newest_run(store)?, name),
    };
    let (stage, output) = match rest.split_once('.') {
        Some((stage, output)) => (stage, Some(output)),
        None => (rest, None),
    };
    let stages = reports(read_events(store, &run)?);
    let report = stages.iter().find(|report| report.name == stage).ok_or_else(|| {
        let error = Error::usage(format!("run {run} has no stage {stage:?}"));
        did_you_mean(error, stage, stages.iter().map(|report| report.name.as_str()))
    })?;
    let key = report.key.context(format!("stage {stage:?} of run {run} has no result"))?;
    let memo = runtime()?.block_on(store.memo(key))?;
    let memo = memo.context(format!("the result of stage {stage:?} of run {run} is no longer in the store"))?;
    // The default output is the first.
    let output = output.or_else(|| report.outputs.keys().next().map(String::as_str)).unwrap_or_default();
    let reference = memo.outputs.get(output).copied().ok_or_else(|| {
        let error = Error::usage(format!("stage {stage:?} has no output {output:?}"));
        did_you_mean(error, output, memo.outputs.keys().map(String::as_str))
    })?;
    Ok((reference, read(store, reference)?))
}

/// An artifact of a store. One that is corrupt is set aside, so that the next run computes it again.
pub(crate) fn read(store: &Store, reference: Ref) -> Result<Artifact> {
    let read = runtime()?.block_on(store.get(reference));
    if let Err(error) = &read
        && StoreError::of(error).is_some_and(StoreError::is_lost)
    {
        // Where nothing may be written it stays, and what is wrong is said all the same.
        let _ = runtime()?.block_on(store.discard(Entry::Blob(reference)));
    }
    read
}

/// The run that began last.
pub(crate) fn newest_run(store: &Store) -> Result<String> {
    let mut newest: Option<(u64, usize, String)> = None;
    for (order, run) in runtime()?.block_on(store.runs())?.into_iter().enumerate() {
        let Some(events) = readable(store, &run)? else { continue };
        let Some(Event::Started { unix_millis, .. }) = events.into_iter().next().map(|line| line.event) else {
            continue;
        };
        newest = newest.max(Some((unix_millis, order, run)));
    }
    newest.map(|(.., run)| run).ok_or_else(|| {
        Error::usage(format!("there are no runs in {}", store.url())).help("run a pipeline first: ropeway run PIPELINE")
    })
}

/// The events of one run of many. A log that is damaged, or that is just collected, is said and passed over: it must not
/// hide the others.
pub(crate) fn readable(store: &Store, run: &str) -> Result<Option<Vec<Line>>> {
    match read_events(store, run) {
        Ok(events) => Ok(Some(events)),
        Err(error) if error.whose() == Fault::Unavailable => Err(error),
        Err(error) => {
            complain(&format!("warning: {error}"));
            Ok(None)
        }
    }
}

/// How the stages of a run ended, as far as it got.
pub(crate) fn reports(events: Vec<Line>) -> Vec<StageReport> {
    events.into_iter().filter_map(stage_report).collect()
}

fn stage_report(line: Line) -> Option<StageReport> {
    match line.event {
        Event::StageFinished(report) => Some(report),
        _ => None,
    }
}

pub(crate) fn did_you_mean<'a>(error: Error, name: &str, known: impl Iterator<Item = &'a str>) -> Error {
    let known: Vec<&str> = known.collect();
    match nearest(name, known.iter().copied()) {
        Some(near) => error.help(format!("did you mean {near:?}?")),
        None => error.help(format!("there are: {}", known.join(", "))),
    }
}

/// Counts what happens in runs, if an address is given at which Prometheus can ask for it.
fn run_metrics(address: Option<&str>, store: &Store) -> Result<Option<Metrics>> {
    let Some(address) = address else { return Ok(None) };
    let metrics = Metrics::of(store);
    let served = metrics.clone();
    serve_metrics(address, move || served.text())?;
    Ok(Some(metrics))
}

/// Serves numbers for Prometheus at an address, as long as this process lives, and says where.
fn serve_metrics(address: &str, text: impl Fn() -> Result<String> + Clone + Send + Sync + 'static) -> Result<()> {
    let server = MetricsServer::bind(address)?;
    complain(&format!("metrics at http://{}/metrics", server.local_addr()));
    runtime()?.spawn(async move {
        if let Err(error) = server.serve(text).await {
            complain(&format!("warning: {error}"));
        }
    });
    Ok(())
}
