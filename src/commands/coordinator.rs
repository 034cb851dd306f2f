//! `ropeway coordinator`

use super::run::{interrupt_with, local};
use super::{DEFAULT_STORE, gpus, load_source, open, read_pipeline, run_metrics};
use crate::cli::{Context, Exit, TierArgs, complain};
use crate::pipeline::Pool;
use crate::run::{Elsewhere, Event, Options, Report, coordinate};
use crate::worker::Token;
use crate::{Error, Result, units};
use std::ops::RangeInclusive;
use std::path::PathBuf;

/// `ropeway coordinator --listen ADDRESS`
#[derive(clap::Args)]
pub(crate) struct Coordinator {
    /// Where runs are asked for and workers join, such as 0.0.0.0:7777; port 0 takes any free one
    #[arg(long, value_name = "ADDRESS")]
    listen: String,
    /// The secret that whoever asks or joins must have [default: a new one, which is printed]
    #[arg(long, env = "ROPEWAY_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Where results are kept: file://PATH, s3://BUCKET/PREFIX, …
    #[arg(long, value_name = "URL", default_value = DEFAULT_STORE)]
    store: String,
    /// Start this many worker processes here; 0..4 for as many as there is work for, 0 to wait for workers that join
    /// [default: stages run in this process]
    #[arg(long, value_name = "N", value_parser = units::workers)]
    workers: Option<RangeInclusive<u32>>,
    /// Start workers as the pools of this pipeline file say
    #[arg(long, value_name = "FILE", conflicts_with_all = ["workers", "cores"])]
    pools: Option<PathBuf>,
    /// How many cores to keep busy; of each worker, with --workers [default: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    cores: Option<u16>,
    /// How many of this machine's CUDA devices to compute on [default: all]
    #[arg(long, value_name = "N")]
    gpus: Option<usize>,
    /// Serve metrics of all runs for Prometheus at http://ADDR/metrics; port 0 takes any free one
    #[arg(long, value_name = "HOST:PORT")]
    metrics: Option<String>,
    #[command(flatten)]
    tiers: TierArgs,
    /// Say nothing but errors, and where it listens
    #[arg(long)]
    quiet: bool,
}

impl Coordinator {
    pub(crate) fn execute(self, context: &Context) -> Exit {
        let store = self.tiers.limit(open(Some(&self.store))?);
        let mut options = Options { gpus: gpus(self.gpus)?, ..Options::default() };
        options.cores = self.cores.map_or(options.cores, usize::from);
        let pools = match (&self.workers, &self.pools) {
            (Some(workers), _) => Some(local(workers, self.cores, (options.cores, options.gpus.all().len()))),
            (None, Some(file)) => Some(pools_of(file, context)?),
            (None, None) => None,
        };
        if pools.is_some() {
            // The cores and CUDA devices of this machine are the workers'.
            options.cores = 0;
        }
        let token = self.token.as_deref().map_or_else(Token::generate, str::parse)?;
        // Whoever gave it knows it: it need not stand in a log.
        let shown = if self.token.is_some() { "…".to_owned() } else { token.to_string() };
        options.elsewhere = Some(Elsewhere {
            listen: self.listen,
            open: true,
            token,
            pools: pools.unwrap_or_default(),
            memory: self.tiers.memory,
            cache: self.tiers.cache(),
        });
        options.metrics = run_metrics(self.metrics.as_deref(), &store)?;
        interrupt_with(options.cancel.clone())?;
        let quiet = self.quiet;
        let ended = coordinate(&context.registry, &store, &options, &mut |event| match event {
            Event::Listening { address } => {
                complain(&format!(
                    "runs are asked for with: ROPEWAY_TOKEN={shown} ropeway run PIPELINE --join {address}"
                ));
                complain(&format!("workers join with: ROPEWAY_TOKEN={shown} ropeway worker --join {address}"));
            }
            event if !quiet => said(event).into_iter().for_each(|line| complain(&line)),
            _ => {}
        });
        store.close();
        ended.map(|()| 0)
    }
}

/// The pools of a pipeline file.
fn pools_of(file: &std::path::Path, context: &Context) -> Result<Vec<Pool>> {
    let source = read_pipeline(file)?;
    let pools = load_source(&source, &[], context)?.pools;
    match pools.is_empty() {
        true => Err(Error::usage(format!("{} has no pools", source.name)).help("add one: [pool.NAME]")),
        false => Ok(pools),
    }
}

/// What is said of an event to whoever watches the coordinator.
fn said(event: &Event) -> Option<String> {
    match event {
        Event::Started { run, .. } => Some(format!("run {run} begins")),
        Event::Finished(Report { run, seconds, interrupted: true, .. }) => {
            Some(format!("run {run} was interrupted after {seconds:.1} s"))
        }
        Event::Finished(report) => {
            let how = if report.fault().is_some() { "failed" } else { "is done" };
            Some(format!("run {} {how} after {:.1} s", report.run, report.seconds))
        }
        Event::WorkerJoined(info) => Some(format!("worker {} joins, with {} cores", info.worker, info.cores)),
        Event::WorkerLeft { worker, lost: None } => Some(format!("worker {worker} has left")),
        Event::Warning { name, message } => Some(format!("warning: {name}: {message}")),
        _ => None,
    }
}
