//! One call of a stage: what it was given and how it speaks to the outside.

use super::{Apply, Devices, Gang, Keep, Once, Registry, Seed, Stored, Tasks, Template};
use crate::data::{Artifact, Model, Tensors};
use crate::{Error, Fault, Result};
use serde_json::Value;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What one call of a stage was given.
pub struct Call {
    /// The inputs by port; several artifacts for a port that takes many.
    pub inputs: BTreeMap<String, Vec<Stored>>,
    /// The stages that are inputs themselves, by port.
    pub templates: BTreeMap<String, Template>,
    /// The normalised parameters.
    pub params: Value,
    /// The source of chance.
    pub seed: Seed,
    /// Where to say how far it is.
    pub progress: Progress,
    /// Where to keep a state from which a later attempt can go on.
    pub checkpoint: Checkpoint,
    /// A way to act on the outside world without doing so twice.
    pub once: Once,
    /// A way to keep artifacts before it ends.
    pub keep: Keep,
    /// A way to run other tasks.
    pub tasks: Tasks,
    /// Whether it should stop.
    pub cancel: Cancel,
    /// A place for temporary files.
    pub scratch: Scratch,
    /// The kinds of model that the program knows.
    pub models: Models,
    /// How many threads the call may keep busy.
    pub threads: Threads,
    /// The CUDA devices that it may compute on.
    pub devices: Devices,
    /// Those who compute it together.
    pub gang: Gang,
}

impl Call {
    /// The one artifact at a port.
    ///
    /// # Errors
    /// Nothing there, or it can't be read.
    pub fn input(&self, port: &str) -> Result<Artifact> {
        match self.inputs.get(port).map(Vec::as_slice) {
            Some([one, ..]) => one.load(),
            _ => Err(Error::usage(format!("input {port:?} is missing"))),
        }
    }

    /// The one artifact at a port, as what it must be.
    ///
    /// # Errors
    /// Nothing there, or something else.
    pub fn input_as<T: TryFrom<Artifact, Error = Error>>(&self, port: &str) -> Result<T> {
        T::try_from(self.input(port)?).map_err(|error| error.context(format!("input {port:?}")))
    }
}

/// The kinds of model that the program knows: applies what other stages fitted.
#[derive(Clone, Default)]
pub struct Models(Arc<Registry>);

impl Models {
    /// The models of a registry.
    pub fn new(registry: Arc<Registry>) -> Self {
        Self(registry)
    }

    /// Loads a model, to apply it.
    ///
    /// # Errors
    /// A kind that is not known, or a model that can't be read.
    pub fn load(&self, model: &Model) -> Result<Box<dyn Apply>> {
        self.0.load(model)
    }
}

/// How many threads a call may keep busy; at least one. Its result must not depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Threads(pub usize);

impl Default for Threads {
    fn default() -> Self {
        Self(1)
    }
}

/// How far a stage is, as it says itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// Steps done so far.
    pub done: u64,
    /// Steps in all, if known.
    pub total: Option<u64>,
    /// What a step is: `epoch`, `row`, `trial`.
    pub unit: Cow<'static, str>,
    /// What is worth seeing: the loss, the best value so far.
    pub metrics: Vec<(String, f64)>,
    /// A line for the log; `done`, `total` and `metrics` mean nothing then.
    pub line: Option<String>,
}

impl Report {
    /// Whether none like it will follow: a line, or the last step.
    pub(crate) fn is_final(&self) -> bool {
        self.line.is_some() || self.total == Some(self.done)
    }
}

/// Who hears the reports.
pub trait ReportSink: Send + Sync {
    /// Takes one report. It must not block for long.
    fn report(&self, report: Report);
}

/// Where a stage says how far it is; cheap to clone and to call.
#[derive(Clone, Default)]
pub struct Progress(Option<Arc<dyn ReportSink>>);

impl Progress {
    /// Progress that goes to a sink.
    pub fn new(sink: Arc<dyn ReportSink>) -> Self {
        Self(Some(sink))
    }

    /// Says that `done` of `total` steps are done.
    pub fn step(&self, done: u64, total: Option<u64>, unit: &'static str, metrics: &[(&str, f64)]) {
        let Some(sink) = &self.0 else { return };
        let metrics = metrics.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
        sink.report(Report { done, total, unit: unit.into(), metrics, line: None });
    }

    /// Passes on what was said elsewhere.
    pub(crate) fn pass_on(&self, report: Report) {
        self.0.iter().for_each(|sink| sink.report(report.clone()));
    }

    /// Writes a line to the run's log.
    pub fn log(&self, line: impl Into<String>) {
        let Some(sink) = &self.0 else { return };
        sink.report(Report { line: Some(line.into()), ..Report::default() });
    }
}

/// Keeps the checkpoints of one task.
pub trait Checkpoints: Send + Sync {
    /// The newest checkpoint that can be read; `passed_over` hears of each newer one that can't, and why.
    fn newest(&self, passed_over: &mut dyn FnMut(String)) -> Result<Option<Tensors>>;
    /// Keeps one more.
    fn save(&self, state: Tensors) -> Result<()>;
}

/// Where a long stage keeps a state, so that an attempt after a crash goes on from there.
///
/// The result must not depend on where an attempt began.
#[derive(Clone, Default)]
pub struct Checkpoint {
    keeper: Option<Arc<dyn Checkpoints>>,
    progress: Progress,
}

impl Checkpoint {
    /// Checkpoints kept by `keeper`.
    pub fn new(keeper: Arc<dyn Checkpoints>) -> Self {
        Self { keeper: Some(keeper), progress: Progress::default() }
    }

    /// Where to say that a checkpoint is corrupt.
    pub(crate) fn say_to(self, progress: Progress) -> Self {
        Self { progress, ..self }
    }

    /// The state that an earlier attempt kept last; `None` for the first attempt. If that one is corrupt, the log says
    /// so, and it is the one before it.
    ///
    /// # Errors
    /// The store can't be read.
    pub fn newest(&self) -> Result<Option<Tensors>> {
        let Some(keeper) = &self.keeper else { return Ok(None) };
        keeper.newest(&mut |line| self.progress.log(line))
    }

    /// Keeps a state.
    ///
    /// # Errors
    /// The store can't be written.
    pub fn save(&self, state: Tensors) -> Result<()> {
        self.keeper.as_ref().map_or(Ok(()), |keeper| keeper.save(state))
    }
}

/// Says whether a call should stop: the run was interrupted, or its result is no longer wanted.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Asks the call to stop.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether it should stop.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    /// An error if it should stop; call it once a step.
    ///
    /// # Errors
    /// It should stop.
    pub fn check(&self) -> Result<()> {
        match self.is_cancelled() {
            true => Err(Error::new("interrupted").fault(Fault::Interrupted)),
            false => Ok(()),
        }
    }
}

/// A folder of the call's own, made when first asked for and removed when the call ends.
#[derive(Debug, Default)]
pub struct Scratch {
    parent: Option<PathBuf>,
    made: Option<tempfile::TempDir>,
}

impl Scratch {
    /// Scratch folders under `parent`; the system's folder for temporary files if `None`.
    pub fn new(parent: Option<PathBuf>) -> Self {
        Self { parent, made: None }
    }

    /// The folder.
    ///
    /// # Errors
    /// It can't be made.
    pub fn path(&mut self) -> Result<&Path> {
        if self.made.is_none() {
            let mut builder = tempfile::Builder::new();
            builder.prefix("ropeway-");
            self.made = Some(match &self.parent {
                Some(parent) => builder.tempdir_in(parent)?,
                None => builder.tempdir()?,
            });
        }
        self.made.as_ref().map(tempfile::TempDir::path).ok_or_else(|| Error::new("no folder for temporary files"))
    }
}
