//! Where it runs: a worker takes assignments, runs them on threads of its own, keeps their outputs and commits them.

mod bridge;
mod embedded;
mod execute;
#[cfg(test)]
mod killed;
mod pool;
mod scratch;

pub use embedded::EmbeddedWorker;
pub use execute::{Failure, Outcome};

use crate::data::Ref;
use crate::schedule::TaskId;
use crate::stage::{Cancel, Models, Progress, Seed, Stage, Tasks, Template};
use crate::store::Key;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// One attempt of a task, with all that it needs.
#[derive(Clone)]
pub struct Assignment {
    /// Which task.
    pub task: TaskId,
    /// Which attempt.
    pub attempt: u32,
    /// The stage's name in the registry.
    pub uses: String,
    /// The stage.
    pub stage: Arc<dyn Stage>,
    /// The name under which the result is remembered.
    pub key: Key,
    /// Normalised parameters.
    pub params: Value,
    /// Inputs by port.
    pub inputs: BTreeMap<String, Vec<Ref>>,
    /// Stages that are inputs themselves, by port.
    pub templates: BTreeMap<String, Template>,
    /// The source of chance.
    pub seed: Seed,
    /// How many threads it may keep busy.
    pub threads: usize,
    /// Where it says how far it is.
    pub progress: Progress,
    /// How it runs other tasks.
    pub tasks: Tasks,
    /// The models that it can apply.
    pub models: Models,
    /// Whether it should stop.
    pub cancel: Cancel,
    /// What the commit says of the program that computed it.
    pub build: String,
}
