//! Workers and attempts, as the events of a run tell of them.

use serde::{Deserialize, Serialize};

/// A worker, as it presents itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerInfo {
    /// Its name; no other worker of the run has it.
    pub worker: String,
    /// The machine that it runs on.
    pub machine: String,
    /// Cores that it offers.
    pub cores: f64,
    /// Bytes of memory that it offers, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// Its devices besides the processor: `cuda:0`, …
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<String>,
    /// The pool that it belongs to, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// What it costs an hour, if the pipeline says so, in whatever money that is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price: Option<f64>,
}

/// An attempt that was placed on a worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AttemptStart {
    /// The stage's name, or `stage/task`.
    pub name: String,
    /// The task's number in the run; names need not be unique, this is.
    pub task: u64,
    /// 1, 2, …
    pub attempt: u32,
    /// The worker's name.
    pub worker: String,
    /// What it computes on: `cpu`, `cuda:0`.
    pub device: String,
    /// Threads that it may keep busy.
    pub threads: u32,
    /// Cores that are reserved for it: what it needs, or its threads where the worker has more to give. A stage that
    /// only waits for its own tasks has none: they have theirs.
    pub cores: f64,
    /// Devices that are reserved for it, in fractions.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub gpus: f64,
    /// Seconds that it waited since all that it needs was there.
    pub waited: f64,
}

/// An attempt that ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AttemptEnd {
    /// The stage's name, or `stage/task`.
    pub name: String,
    /// The task's number in the run.
    pub task: u64,
    /// Which attempt.
    pub attempt: u32,
    /// The worker's name.
    pub worker: String,
    /// How.
    pub end: Ended,
    /// Seconds that its stage ran, as the worker measured them; since it was placed, if it gave no result.
    pub seconds: f64,
    /// Cores that were reserved for it.
    pub cores: f64,
    /// Devices that were reserved for it, in fractions.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub gpus: f64,
    /// Bytes of its inputs.
    pub read: u64,
    /// Bytes of its outputs.
    pub written: u64,
    /// Bytes that moved over the network for it.
    #[serde(default, skip_serializing_if = "is_nothing")]
    pub moved: u64,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ended {
    /// Its result is committed.
    Done,
    /// It failed; there may be another attempt.
    Failed,
    /// Its worker is gone; there will be another attempt.
    Lost,
    /// Its result was no longer wanted.
    Stopped,
}

impl Ended {
    /// Its name, as in the log.
    pub fn name(self) -> &'static str {
        match self {
            Ended::Done => "done",
            Ended::Failed => "failed",
            Ended::Lost => "lost",
            Ended::Stopped => "stopped",
        }
    }
}

/// What many attempts were together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AttemptsFolded {
    /// The stage's name.
    pub name: String,
    /// The worker's name.
    pub worker: String,
    /// When the first of them began: seconds since the run's start.
    pub from: f64,
    /// How many.
    pub attempts: u64,
    /// How many of them were not done.
    pub failed: u64,
    /// Seconds that they waited, in sum.
    pub waited: f64,
    /// Seconds that they held their places, in sum.
    pub seconds: f64,
    /// Those seconds times the cores reserved.
    pub core_seconds: f64,
    /// Those seconds times the devices reserved.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub gpu_seconds: f64,
    /// Bytes of their inputs.
    pub read: u64,
    /// Bytes of their outputs.
    pub written: u64,
    /// Bytes that moved over the network for them.
    #[serde(default, skip_serializing_if = "is_nothing")]
    pub moved: u64,
}

fn is_zero(value: &f64) -> bool {
    *value == 0.0
}

fn is_nothing(value: &u64) -> bool {
    *value == 0
}
