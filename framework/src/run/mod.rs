//! What happens: a run asks the store what is known, gives the rest to the scheduler, and tells what happens.
//!
//! Everything that a run knows is in the store: kill it at any moment, run it again, and it goes on.

mod ask;
mod asks;
mod attempts;
mod clock;
mod coordinator;
mod costs;
mod course;
mod crew;
mod endings;
mod event;
mod fold;
mod forecast;
mod gangs;
mod gpus;
mod holders;
mod key;
mod log;
mod lookup;
mod losses;
mod metrics;
mod nodes;
mod parting;
mod placement;
mod plan;
mod pools;
mod rests;
mod runs;
mod task;
#[cfg(test)]
mod tests;
mod voice;
mod watch;
mod window;

pub use crate::schedule::Standing;
pub use ask::{Ask, ask};
pub use clock::{Clock, SystemClock};
pub use crew::Elsewhere;
pub use event::{Event, Line, Outcome, Report, Sink, StageReport};
pub use fold::ONE_BY_ONE;
pub use log::read_events;
pub use metrics::Metrics;
pub use placement::{AttemptEnd, AttemptStart, AttemptsFolded, Ended, WorkerInfo};
pub use plan::{Planned, State, plan};

use crate::pipeline::Pipeline;
use crate::stage::{Cancel, Registry};
use crate::store::Store;
use crate::worker::{Gpus, program};
use crate::{Error, Result};
use coordinator::Coordinator;
use course::{Course, Opening};
use std::borrow::Cow;
use std::sync::Arc;

/// How to run a pipeline.
#[derive(Clone)]
pub struct Options {
    /// Only these stages, and what they need; all if empty.
    pub only: Vec<String>,
    /// How many cores this process keeps busy; with none, stages wait for workers elsewhere.
    pub cores: usize,
    /// The CUDA devices that this process computes on, if it keeps any core busy: none by default, or those that
    /// [`Gpus::find`] finds.
    pub gpus: Gpus,
    /// Workers in other processes, if there may be any.
    pub elsewhere: Option<Elsewhere>,
    /// Cancel it to interrupt the run.
    pub cancel: Cancel,
    /// Where time comes from.
    pub clock: Arc<dyn Clock>,
    /// Where what happens is counted, if anywhere.
    pub metrics: Option<Metrics>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            only: Vec::new(),
            elsewhere: None,
            gpus: Gpus::default(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            cancel: Cancel::default(),
            clock: Arc::new(SystemClock::default()),
            metrics: None,
        }
    }
}

/// Runs a pipeline on this thread and a worker inside this process. Call it from outside the runtime.
///
/// A stage that fails does not stop those that do not need it; the report says how each ended.
///
/// # Errors
/// The store can't be used, or `only` names no stage. A failed stage is no error here.
pub fn run(
    pipeline: &Pipeline,
    registry: &Arc<Registry>,
    store: &Store,
    options: &Options,
    sink: &mut dyn Sink,
) -> Result<Report> {
    let wanted = wanted(pipeline, &options.only)?;
    let start = (options.clock.unix_millis(), options.clock.elapsed());
    let opening = Opening::of(pipeline, &wanted, store, start, &program::build())?;
    let sink: Box<dyn Sink> = Box::new(|line: &Line| sink.event(line));
    let course = Course::new((Cow::Borrowed(pipeline), wanted), opening, sink, Cancel::default())?;
    Coordinator::new(registry.clone(), store.clone(), options, Some(&course.name))?.see_through(course)
}

/// Sees the runs through that others ask for ([`ask`]), side by side on the same workers, until it is cancelled. Each
/// gets its part of the workers, as its [`Standing`] says. Call it from outside the runtime.
///
/// `watcher` hears where it listens, which workers come and go, and which runs begin and end.
///
/// # Errors
/// The options name no address at which it is asked, or it can't be had, or the store can't be used.
pub fn coordinate(
    registry: &Arc<Registry>,
    store: &Store,
    options: &Options,
    watcher: &mut dyn FnMut(&Event),
) -> Result<()> {
    if options.elsewhere.is_none() {
        return Err(Error::usage("a coordinator of many runs listens at an address, at which it is asked for them"));
    }
    Coordinator::new(registry.clone(), store.clone(), options, None)?.serve(watcher)
}

/// The stages that a run sees through, by position in the pipeline; that is topological order.
fn wanted(pipeline: &Pipeline, only: &[String]) -> Result<Vec<usize>> {
    let wanted = if only.is_empty() { pipeline.to_run() } else { pipeline.needed_for(only)? };
    Ok(wanted.into_iter().collect())
}
