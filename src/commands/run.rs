//! `ropeway run`

use super::join::JoinArgs;
use super::signals::Signals;
use super::trace::TraceFile;
use super::{gpus, load, load_source, open_store, print, print_json, read_pipeline, run_metrics};
use crate::cli::{Context, Exit, Format, PipelineArgs, TierArgs, complain};
use crate::live::Live;
use crate::observe::Timeline;
use crate::pipeline::Pool;
use crate::run::{Elsewhere, Event, Line, Options, Report, Sink, read_events, run};
use crate::stage::Cancel;
use crate::table::summary;
use crate::worker::Token;
use crate::{Error, Fault, Result, runtime, units};
use std::ops::RangeInclusive;
use std::path::PathBuf;

/// `ropeway run PIPELINE`
#[derive(clap::Args)]
pub(crate) struct Run {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// Only these stages, and what they need
    #[arg(long, value_name = "STAGE", value_delimiter = ',')]
    only: Vec<String>,
    /// How many cores to keep busy; the result does not depend on it [default: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    cores: Option<u16>,
    /// How many of this machine's CUDA devices this process computes on [default: all]
    #[arg(long, value_name = "N")]
    gpus: Option<usize>,
    /// Write a trace of the run here; ui.perfetto.dev opens it
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Serve metrics of the run for Prometheus at http://ADDR/metrics; port 0 takes any free one
    #[arg(long, value_name = "HOST:PORT")]
    metrics: Option<String>,
    #[command(flatten)]
    elsewhere: ElsewhereArgs,
    #[command(flatten)]
    join: JoinArgs,
    #[command(flatten)]
    tiers: TierArgs,
    /// How to print: a summary for people, or one event a line
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

/// Workers in other processes.
#[derive(clap::Args)]
struct ElsewhereArgs {
    /// Start this many worker processes here, and run stages in them; 0..4 for as many as there is work for, 0 to wait
    /// for workers that join [default: the pipeline's pools]
    #[arg(long, value_name = "N", value_parser = units::workers)]
    workers: Option<RangeInclusive<u32>>,
    /// Run all stages in this process, whatever pools the pipeline has
    #[arg(long, conflicts_with_all = ["workers", "listen"])]
    embedded: bool,
    /// Let workers join from elsewhere, at this address, such as 0.0.0.0:7777
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// The secret that workers that join must have [default: a new one, which is printed]
    // From the environment it may be there for other runs, so that it asks for no --listen.
    #[arg(long, env = "ROPEWAY_TOKEN", hide_env_values = true)]
    token: Option<String>,
}

impl ElsewhereArgs {
    /// With workers of its own, a run computes nothing in this process; its cores and CUDA devices are theirs.
    fn read(
        self,
        pools: &[Pool],
        cores: Option<u16>,
        tiers: &TierArgs,
        (here, gpus): (&mut usize, usize),
    ) -> Result<Option<Elsewhere>> {
        if self.embedded || (self.workers.is_none() && self.listen.is_none() && pools.is_empty()) {
            return Ok(None);
        }
        if self.workers == Some(0..=0) && self.listen.is_none() {
            return Err(Error::usage("a run without workers that nobody can join computes nothing")
                .help("add --listen ADDRESS, or give --workers a number"));
        }
        let token = match &self.token {
            Some(text) if self.listen.is_some() => text.parse()?,
            _ => Token::generate()?,
        };
        let pools = match self.workers {
            Some(ref workers) => local(workers, cores, (*here, gpus)),
            None if pools.is_empty() => Vec::new(),
            None if cores.is_some() => {
                return Err(Error::usage("the pipeline's pools say how many cores a worker has, and so does --cores")
                    .help("change a pool with --set pool.NAME.cpus=N, or add --embedded or --workers N"));
            }
            None => pools.to_vec(),
        };
        if self.workers.is_some() || !pools.is_empty() {
            *here = 0;
        }
        let open = self.listen.is_some();
        let listen = self.listen.unwrap_or_else(|| "127.0.0.1:0".into());
        let (memory, cache) = (tiers.memory, tiers.cache());
        Ok(Some(Elsewhere { listen, open, token, pools, memory, cache }))
    }
}

/// The pool that `--workers` means. The cores and CUDA devices that there are are shared; a number of cores that was asked
/// for is each worker's.
pub(super) fn local(workers: &RangeInclusive<u32>, cores: Option<u16>, (all, devices): (usize, usize)) -> Vec<Pool> {
    let (min, max) = (*workers.start(), *workers.end());
    let share = |all: usize| all / max.max(1) as usize;
    let cpus = cores.map_or(share(all).max(1) as f64, f64::from);
    let gpus = u32::try_from(share(devices)).unwrap_or(0);
    let pool = Pool { name: "local".into(), min, max, cpus, gpus, ..Pool::default() };
    if max > 0 { vec![pool] } else { Vec::new() }
}

impl Run {
    pub(crate) fn execute(self, context: &Context) -> Exit {
        let trace = self.trace.as_deref().map(TraceFile::create).transpose()?;
        let mut sink: Box<dyn Sink> = match self.format {
            Format::Text => Box::new(Live::new()),
            // A reader that goes away does not stop the run; the last line tells.
            Format::Json => Box::new(|line: &Line| drop(print_json(line))),
        };
        let format = self.format;
        let (report, events) = if self.join.asks() {
            self.ask(context, &mut *sink, trace.is_some())?
        } else {
            self.see_through(context, &mut *sink, trace.is_some())?
        };
        drop(sink);
        if let Some(trace) = trace {
            trace.write(&Timeline::of(&events))?;
        }
        if format == Format::Text {
            print(summary(&report))?;
        }
        exit_code(&report)
    }

    /// Has a coordinator see the run through. Gives how it ended, and its events if they are wanted.
    fn ask(self, context: &Context, sink: &mut dyn Sink, traced: bool) -> Result<(Report, Vec<Line>)> {
        // Mistakes are found here, where the file is.
        let (source, overrides) = (read_pipeline(&self.pipeline.pipeline)?, self.pipeline.all_overrides());
        load_source(&source, &overrides, context)?;
        let mut events = Vec::new();
        let mut hear = |line: &Line| {
            // A run that is asked for again begins again; how far stages are is in no trace.
            if matches!(line.event, Event::Started { .. }) {
                events.clear();
            }
            if traced && !matches!(line.event, Event::Progress { .. } | Event::Log { .. }) {
                events.push(line.clone());
            }
            sink.event(line);
        };
        let report = self.join.execute(&source, (overrides, self.only), self.elsewhere.token, &mut hear)?;
        Ok((report, events))
    }

    /// Sees the run through, likewise.
    fn see_through(self, context: &Context, sink: &mut dyn Sink, traced: bool) -> Result<(Report, Vec<Line>)> {
        let pipeline = load(&self.pipeline, context)?;
        let store = self.tiers.limit(open_store(&self.pipeline, &pipeline)?);
        let mut options = Options { only: self.only, gpus: gpus(self.gpus)?, ..Options::default() };
        if let Some(cores) = self.cores {
            options.cores = cores.into();
        }
        let here = (&mut options.cores, options.gpus.all().len());
        options.elsewhere = self.elsewhere.read(&pipeline.pools, self.cores, &self.tiers, here)?;
        options.metrics = run_metrics(self.metrics.as_deref(), &store)?;
        interrupt_with(options.cancel.clone())?;
        let token =
            options.elsewhere.as_ref().filter(|elsewhere| elsewhere.open).map(|elsewhere| elsewhere.token.to_string());
        let mut hear = |line: &Line| {
            if let (Event::Listening { address }, Some(token)) = (&line.event, &token) {
                complain(&format!("workers join with: ROPEWAY_TOKEN={token} ropeway worker --join {address}"));
            }
            sink.event(line);
        };
        let ended = run(&pipeline, &context.registry, &store, &options, &mut hear).and_then(|report| {
            let events = if traced { read_events(&store, &report.run)? } else { Vec::new() };
            Ok((report, events))
        });
        store.close();
        ended
    }
}

/// The first Ctrl-C or SIGTERM stops the run in good order, the second at once. What is committed stays either way.
pub(super) fn interrupt_with(cancel: Cancel) -> Result<()> {
    let mut signals = Signals::new()?;
    runtime()?.spawn(async move {
        signals.next().await;
        complain("stopping; what is committed stays (again to stop at once)");
        cancel.cancel();
        signals.next().await;
        std::process::exit(Fault::Interrupted.exit_code().into());
    });
    Ok(())
}

/// What a process ends with whose run ended so.
pub(super) fn exit_code(report: &Report) -> Exit {
    if report.interrupted {
        return Err(Error::new("interrupted").help("run it again to go on").fault(Fault::Interrupted));
    }
    Ok(report.fault().map_or(0, Fault::exit_code))
}
