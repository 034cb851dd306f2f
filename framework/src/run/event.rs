//! What happens in a run, as one stream of events: for the terminal, for `--format json`, and kept in the store.

use super::placement::{AttemptEnd, AttemptStart, AttemptsFolded, WorkerInfo};
use crate::Fault;
use crate::data::{Digest, Metrics};
use crate::store::Key;
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// An event and when it happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
    /// Seconds since the run's start.
    pub at: f64,
}

/// What happens in a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The run began.
    Started {
        /// Its name in the store.
        run: String,
        /// The pipeline's name.
        pipeline: String,
        /// The run's seed.
        seed: u64,
        /// The stages that it will see through, in order.
        stages: Vec<String>,
        /// When it began: milliseconds since 1970.
        unix_millis: u64,
        /// The program and instruction-set level that compute.
        build: String,
    },
    /// Workers in other processes may join.
    Listening {
        /// Where they dial.
        address: String,
    },
    /// A stage's inputs are there and it begins, or what it gave before is looked up.
    StageStarted {
        /// The stage's name in the pipeline.
        name: String,
        /// The stages whose results it takes.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        takes: Vec<String>,
    },
    /// A stage or one of its tasks says how far it is.
    Progress {
        /// The stage's name, or `stage/task`.
        name: String,
        /// Steps done.
        done: u64,
        /// Steps in all.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        total: Option<u64>,
        /// What a step is.
        unit: String,
        /// What is worth seeing.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty", with = "crate::data::numbers")]
        metrics: BTreeMap<String, f64>,
    },
    /// A stage or one of its tasks has something to tell.
    Log {
        /// The stage's name, or `stage/task`.
        name: String,
        /// One line.
        line: String,
    },
    /// Something is not as it should be, but the run goes on.
    Warning {
        /// The stage's name, or `stage/task`.
        name: String,
        /// What.
        message: String,
    },
    /// A task that a stage asked for ended.
    TaskFinished {
        /// `stage/task`.
        name: String,
        /// How.
        outcome: Outcome,
        /// Seconds that it ran, now or when it was first computed.
        seconds: f64,
        /// What went wrong.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    },
    /// A worker came.
    WorkerJoined(WorkerInfo),
    /// A worker is gone.
    WorkerLeft {
        /// Its name.
        worker: String,
        /// Why, if it was lost; nothing if it was no longer needed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        lost: Option<String>,
    },
    /// An attempt of a task was placed on a worker.
    AttemptStarted(AttemptStart),
    /// An attempt ended.
    AttemptEnded(AttemptEnd),
    /// Many attempts of one stage's tasks on one worker, told together; see [`ONE_BY_ONE`](super::ONE_BY_ONE).
    AttemptsFolded(AttemptsFolded),
    /// Many tasks that one stage asked for, told together; see [`ONE_BY_ONE`](super::ONE_BY_ONE).
    TasksFolded {
        /// The stage's name.
        name: String,
        /// Tasks that ran and are committed.
        done: u64,
        /// Tasks whose result was known.
        cached: u64,
        /// Tasks that failed.
        failed: u64,
    },
    /// A stage ended.
    StageFinished(StageReport),
    /// The run ended.
    Finished(Report),
}

/// How a stage or task ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Its result was known.
    Cached,
    /// It ran, and its result is committed.
    Done,
    /// It failed.
    Failed,
    /// It could not begin, because something above it failed or the run was interrupted.
    Skipped,
}

impl Outcome {
    /// Its name, as in the log.
    pub fn name(self) -> &'static str {
        match self {
            Outcome::Cached => "cached",
            Outcome::Done => "done",
            Outcome::Failed => "failed",
            Outcome::Skipped => "skipped",
        }
    }
}

/// How a stage ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StageReport {
    /// Its name in the pipeline.
    pub name: String,
    /// How.
    pub outcome: Outcome,
    /// Seconds that it ran, now or when it was first computed.
    pub seconds: f64,
    /// Where.
    pub device: String,
    /// The name under which its result is remembered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Key>,
    /// What it gave: digests by output name, the default output first.
    pub outputs: IndexMap<String, Digest>,
    /// The numbers among what it gave.
    pub metrics: Metrics,
    /// What went wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// Whose fault it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<Fault>,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The run's name in the store.
    pub run: String,
    /// Seconds that it took.
    pub seconds: f64,
    /// Its stages, in order.
    pub stages: Vec<StageReport>,
    /// Whether it was interrupted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub interrupted: bool,
}

impl Report {
    /// Whether every stage has its result.
    pub fn succeeded(&self) -> bool {
        !self.interrupted && self.stages.iter().all(|stage| matches!(stage.outcome, Outcome::Cached | Outcome::Done))
    }

    /// Why not: that the store or the fleet was unavailable, if it was so for any stage; else the user, or a stage.
    pub fn fault(&self) -> Option<Fault> {
        let unavailable = self.stages.iter().any(|stage| stage.fault == Some(Fault::Unavailable));
        match (self.succeeded(), self.interrupted) {
            (true, _) => None,
            (_, true) => Some(Fault::Interrupted),
            _ => Some(if unavailable { Fault::Unavailable } else { Fault::Stage }),
        }
    }
}

/// Hears what happens in a run.
pub trait Sink {
    /// Takes one event, in the order in which they happen.
    fn event(&mut self, line: &Line);
}

impl<F: FnMut(&Line)> Sink for F {
    fn event(&mut self, line: &Line) {
        self(line);
    }
}
