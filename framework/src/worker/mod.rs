//! Where it runs: a worker takes assignments, runs them on threads of its own or in processes of their own, keeps their
//! outputs and commits them.

mod asking;
mod attempts;
mod bridge;
mod cell;
mod client;
mod cuda;
mod door;
mod embedded;
#[cfg(test)]
mod enemies;
mod execute;
mod gang;
mod gpus;
mod habits;
mod hands;
mod hub;
mod incoming;
#[cfg(test)]
mod killed;
mod member;
mod metrics;
mod orders;
mod peers;
mod pool;
pub(crate) mod process;
pub(crate) mod program;
mod remote;
mod row;
mod shelf;
mod token;
mod unsaved;
mod wire;

pub(crate) use asking::{Asking, Told};
pub(crate) use client::{FIRST_PAUSE, LAST_PAUSE};
pub use client::{Leave, WorkerOptions, work};
pub use embedded::EmbeddedWorker;
pub(crate) use execute::Inputs;
pub use execute::{Failure, Outcome};
pub(crate) use gang::{Chair, Circle, Present};
pub use gpus::{Gpu, Gpus};
pub(crate) use hands::Hands;
pub(crate) use hub::{Heard, Hub, Terms, machine_number};
pub use metrics::WorkerMetrics;
pub(crate) use orders::{Client, Order};
pub(crate) use remote::RemoteWorker;
pub use token::Token;
pub use unsaved::Unsaved;

use crate::schedule::{Needs, Share, TaskId};
use crate::stage::{Cancel, Gang, Models, Progress, Seed, Stage, TaskRequest, Tasks, Template};
use crate::store::Key;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What the paths of files mean to this process: the folder that relative ones are meant from, and which file systems it
/// sees where. Two containers of one machine may call different folders the same.
fn current_folder() -> String {
    use std::os::unix::fs::MetadataExt;
    let folder = std::env::current_dir().map(|folder| folder.display().to_string()).unwrap_or_default();
    let number = std::fs::metadata(".").map(|here| format!("{}:{}", here.dev(), here.ino())).unwrap_or_default();
    // Each mount namespace has a name of its own (namespaces(7)).
    let mounts = std::fs::read_link("/proc/self/ns/mnt").map(|name| name.display().to_string()).unwrap_or_default();
    format!("{folder} {number} {mounts}")
}

/// One attempt of a task, with all that it needs.
#[derive(Clone)]
pub struct Assignment {
    /// Which task.
    pub task: TaskId,
    /// Which attempt.
    pub attempt: u32,
    /// What it takes of the worker.
    pub needs: Needs,
    /// The parts of the worker's devices that it takes.
    pub shares: Vec<Share>,
    /// Whether it demands them, and does not do without.
    pub demands_device: bool,
    /// Whether it runs in a process of its own.
    pub isolate: bool,
    /// Whether it is a member of a gang.
    pub member: bool,
    /// How it finds the others, if it is.
    pub gang: Gang,
    /// Which stage, its parameters (normalised) and its inputs.
    pub request: Arc<TaskRequest>,
    /// The stage.
    pub stage: Arc<dyn Stage>,
    /// The name under which the result is remembered.
    pub key: Key,
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
    pub build: Arc<str>,
    /// What is traced of it.
    pub span: tracing::Span,
}
