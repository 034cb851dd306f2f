//! Tasks that a stage asks for: trials, folds, parts.

use crate::data::{Artifact, Ref};
use crate::{Error, Fault, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, mpsc};

/// What a task needs of a worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Needs {
    /// Cores that it keeps busy.
    #[schemars(range(min = 0.0))]
    pub cpus: f64,
    /// Where it computes.
    pub device: Device,
    /// Workers of a distributed training; its result does not depend on them.
    #[schemars(range(min = 1))]
    pub workers: u32,
    /// How often it is tried again after a failure that may pass.
    pub retries: u32,
}

/// Where a task computes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Device {
    /// Where it is cheapest.
    #[default]
    Auto,
    /// On the processor.
    Cpu,
    /// On a CUDA device.
    Cuda,
}

impl Default for Needs {
    fn default() -> Self {
        Self { cpus: 1.0, device: Device::Auto, workers: 1, retries: 0 }
    }
}

/// Reads stored artifacts.
pub trait Fetch: Send + Sync {
    /// The artifact of a name, checked against its digest.
    fn fetch(&self, reference: Ref) -> Result<Artifact>;
}

/// An artifact in the store: its name, and a way to read it.
#[derive(Clone)]
pub struct Stored {
    /// Its name.
    pub reference: Ref,
    source: Arc<dyn Fetch>,
}

impl Stored {
    /// The artifact of a name in `source`.
    pub fn new(reference: Ref, source: Arc<dyn Fetch>) -> Self {
        Self { reference, source }
    }

    /// Reads it; from memory if it was used lately.
    ///
    /// # Errors
    /// It can't be read, or is not what its digest says.
    pub fn load(&self) -> Result<Artifact> {
        self.source.fetch(self.reference)
    }

    /// Reads it as what it must be.
    ///
    /// # Errors
    /// It can't be read, or is something else.
    pub fn load_as<T: TryFrom<Artifact, Error = Error>>(&self) -> Result<T> {
        T::try_from(self.load()?)
    }
}

impl fmt::Debug for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.reference.kind, self.reference.digest.short())
    }
}

/// One call of a stage, as plain data.
#[derive(Clone, Debug)]
pub struct TaskRequest {
    /// What to call it in progress and reports; behind the name of the task that asks for it: `best/trial-3`.
    pub label: String,
    /// The stage's name in the registry.
    pub stage: String,
    /// Its parameters.
    pub params: Value,
    /// Its inputs by port.
    pub inputs: BTreeMap<String, Vec<Ref>>,
    /// The seed.
    pub seed: u64,
    /// What it needs.
    pub needs: Needs,
}

/// A stage that is an input itself: to be run again and again with other parameters.
#[derive(Clone, Debug)]
pub struct Template {
    /// The stage's name in the pipeline.
    pub name: String,
    /// The call as the pipeline states it.
    pub task: TaskRequest,
    /// The outputs that it gives, the default one first.
    pub outputs: Vec<super::Output>,
    /// The inputs that the stage takes, whether or not the pipeline wires them.
    pub accepts: Vec<super::Input>,
    /// Checks parameters as the pipeline would, and completes them.
    pub stage: StageRef,
}

/// A stage, shared.
#[derive(Clone)]
pub struct StageRef(pub Arc<dyn super::Stage>);

impl fmt::Debug for StageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("stage")
    }
}

/// Takes tasks and runs them.
pub trait Submit: Send + Sync {
    /// Runs a task; the receiver gets its outputs by port, once.
    fn submit(&self, task: TaskRequest) -> mpsc::Receiver<Result<BTreeMap<String, Stored>>>;
}

/// A way for a stage to run other tasks. They are remembered and committed like any other.
#[derive(Clone, Default)]
pub struct Tasks(Option<Arc<dyn Submit>>);

impl Tasks {
    /// Tasks that go to `queue`.
    pub fn new(queue: Arc<dyn Submit>) -> Self {
        Self(Some(queue))
    }

    /// Hands a task in. Many may be under way; wait for them in an order that does not depend on which ends first.
    pub fn submit(&self, task: TaskRequest) -> Pending {
        match &self.0 {
            Some(queue) => Pending(queue.submit(task)),
            None => Pending(mpsc::channel().1),
        }
    }
}

/// A task under way.
#[derive(Debug)]
pub struct Pending(mpsc::Receiver<Result<BTreeMap<String, Stored>>>);

impl Pending {
    /// Waits for the task's outputs, by port.
    ///
    /// # Errors
    /// The task failed, or the run ends.
    pub fn wait(self) -> Result<BTreeMap<String, Stored>> {
        self.0.recv().map_err(|_| Error::new("the run ended before this task").fault(Fault::Interrupted))?
    }
}
