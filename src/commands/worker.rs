//! `ropeway worker`

use super::signals::Signals;
use super::{gpus, serve_metrics};
use crate::cli::{Context, Exit, TierArgs, complain};
use crate::units;
use crate::worker::{Leave, Token, WorkerMetrics, WorkerOptions, work};
use crate::{Error, Fault, Result, runtime};
use ropeway_framework::parse_size;
use std::io::Read;
use std::time::Duration;

/// `ropeway worker --join ADDRESS`
#[derive(clap::Args)]
pub(crate) struct Worker {
    /// Where the run listens: HOST:PORT, as `ropeway run --listen` prints it
    #[arg(long, value_name = "ADDRESS")]
    join: String,
    /// The run's secret, as `ropeway run --listen` prints it; better given in the environment
    #[arg(long, env = "ROPEWAY_TOKEN", hide_env_values = true)]
    token: String,
    /// Who it is, for people [default: host and process]
    #[arg(long)]
    name: Option<String>,
    /// How many cores to keep busy; parts of one are fine [default: all]
    #[arg(long, value_name = "N", value_parser = units::cores)]
    cores: Option<f64>,
    /// How many of this machine's CUDA devices to compute on [default: all]
    #[arg(long, value_name = "N")]
    gpus: Option<usize>,
    /// How much memory its stages may take together, as they say under `needs` [default: the machine's]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    room: Option<u64>,
    /// The pool of the run's pipeline that it is started for
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    pool: String,
    #[command(flatten)]
    tiers: TierArgs,
    /// How many seconds to look for a run that can't be reached
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    patience: u64,
    /// Serve metrics of this worker for Prometheus at http://ADDR/metrics; port 0 takes any free one
    #[arg(long, value_name = "HOST:PORT")]
    metrics: Option<String>,
    /// Say nothing but errors
    #[arg(long)]
    quiet: bool,
    /// End when standard input closes: for whoever starts workers
    #[arg(long, hide = true)]
    leash: bool,
}

impl Worker {
    pub(crate) fn execute(self, context: &Context) -> Exit {
        let token: Token = self.token.parse()?;
        if self.leash {
            hold_leash()?;
        }
        let metrics = WorkerMetrics::default();
        if let Some(address) = &self.metrics {
            let served = metrics.clone();
            serve_metrics(address, move || served.text())?;
        }
        let options = WorkerOptions {
            name: self.name.unwrap_or_else(own_name),
            join: self.join,
            token,
            cores: self.cores.unwrap_or_else(all_cores),
            gpus: gpus(self.gpus)?,
            room: self.room,
            memory: self.tiers.memory,
            cache: self.tiers.cache(),
            pool: self.pool,
            patience: Duration::from_secs(self.patience),
            store_options: std::env::vars().collect(),
            metrics,
            leave: leave_when_asked()?,
        };
        let quiet = self.quiet;
        let mut say = |line: String| {
            if !quiet {
                complain(&format!("{}: {line}", options.name));
            }
        };
        work(&context.registry, &options, &mut say)?;
        Ok(0)
    }
}

/// Has the worker leave in good order at the first SIGTERM or Ctrl-C, and at once at the second.
fn leave_when_asked() -> Result<Leave> {
    let leave = Leave::default();
    let asked = leave.clone();
    let mut signals = Signals::new()?;
    runtime()?.spawn(async move {
        signals.next().await;
        asked.ask();
        signals.next().await;
        std::process::exit(Fault::Interrupted.exit_code().into());
    });
    Ok(leave)
}

fn all_cores() -> f64 {
    std::thread::available_parallelism().map_or(1.0, |cores| cores.get() as f64)
}

fn own_name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = if host.trim().is_empty() { "worker" } else { host.trim() };
    format!("{host}-{}", std::process::id())
}

/// Ends this process when standard input closes, as it does when whoever started the worker is gone.
fn hold_leash() -> Result<()> {
    let watch = || {
        let mut nothing = [0; 64];
        while matches!(std::io::stdin().read(&mut nothing), Ok(1..)) {}
        std::process::exit(0);
    };
    let thread = std::thread::Builder::new().name("ropeway-leash".into()).spawn(watch);
    thread.map(drop).map_err(|error| Error::unavailable(format!("the system gives no thread: {error}")))
}
