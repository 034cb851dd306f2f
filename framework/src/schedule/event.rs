//! What the scheduler is told, and what it says.

use super::{Capacity, Needs, Share};
use crate::data::Digest;
use std::time::Duration;

/// A point in time: how long since the scheduler's start. It comes with every event.
pub type Time = Duration;

/// A task that the scheduler was given; the caller chooses it and never gives the same twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId(pub u64);

/// One incarnation of a worker; the caller chooses it, and a worker that comes back is a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerId(pub u64);

/// A stage whose tasks cost alike; the caller numbers them from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct StageId(pub u32);

/// A run: the runs share the workers as their [`Standing`] says. The caller numbers them from 0, and may give the number
/// of one that is over to another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId(pub u32);

/// What a run is due beside others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// As long as a run of a higher priority can use a place, it gets it.
    pub priority: i32,
    /// Among runs of the same priority, the parts of the workers that are its due while others want theirs: one of 2
    /// gets twice as much as one of 1. At least 1.
    pub weight: u32,
}

impl Default for Standing {
    fn default() -> Self {
        Self { priority: 0, weight: 1 }
    }
}

/// Tasks of a run that share its workers fairly with those of other groups: what one stage of a pipeline asks for. The
/// caller numbers them from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId(pub u32);

/// An artifact, by the first bytes of its digest. That is enough for a hint: two that are confused cost a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Blob(pub u64);

impl From<&Digest> for Blob {
    fn from(digest: &Digest) -> Self {
        let [a, b, c, d, e, f, g, h, ..] = *digest.as_bytes();
        Self(u64::from_le_bytes([a, b, c, d, e, f, g, h]))
    }
}

/// A task as the scheduler sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// Its name.
    pub id: TaskId,
    /// What it needs; what each member needs, if it is a gang.
    pub needs: Needs,
    /// How many members run at the same time, all or none: 1, unless it is a gang.
    pub members: u32,
    /// Whether a second attempt beside a late one would do harm.
    pub once: bool,
    /// Whose it is.
    pub run: RunId,
    /// Higher goes first, among those of its run.
    pub priority: i32,
    /// With whom it shares fairly what its run gets.
    pub group: GroupId,
    /// How often it is tried again after a failure.
    pub retries: u32,
    /// When it fails if it is not done.
    pub deadline: Option<Time>,
    /// What it reads, and how many bytes each has: it runs best where they are.
    pub inputs: Vec<(Blob, u64)>,
    /// The tasks that cost alike.
    pub stage: StageId,
    /// The size of its work, for the cost model: bytes of its inputs, say.
    pub size: u64,
}

impl Task {
    /// A task that needs nothing special.
    pub fn new(id: TaskId, needs: Needs) -> Self {
        Self {
            id,
            needs,
            members: 1,
            once: false,
            run: RunId::default(),
            priority: 0,
            group: GroupId::default(),
            retries: 0,
            deadline: None,
            inputs: Vec::new(),
            stage: StageId::default(),
            size: 0,
        }
    }
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A worker came. It runs nothing for this scheduler: what it may still run for an earlier link it stops soon, unless
    /// it is asked for the same, and nothing of it is said here.
    Joined {
        /// Who.
        worker: WorkerId,
        /// What it has.
        has: Capacity,
    },
    /// A worker is gone, and with it whatever it was running.
    Lost(WorkerId),
    /// A worker will go: it ends what it runs and takes nothing new.
    Draining(WorkerId),
    /// A run is due this from now on. One of which nothing is said has the usual standing.
    Admitted {
        /// Which.
        run: RunId,
        /// What.
        standing: Standing,
    },
    /// There is a new task.
    Submitted(Task),
    /// An attempt ended. A worker says so exactly once of each attempt that it was told to start, stopped ones and
    /// those that only waited in its lane included: only then is their room free again.
    Ended {
        /// Where.
        worker: WorkerId,
        /// Which task.
        task: TaskId,
        /// Which attempt, as [`Action::Start`] numbered it.
        attempt: u32,
        /// How.
        end: End,
        /// How long it ran.
        seconds: f64,
        /// What it made, which the worker now holds, and how many bytes each has.
        made: Vec<(Blob, u64)>,
    },
    /// A worker holds an artifact.
    Holds {
        /// Who.
        worker: WorkerId,
        /// What.
        blob: Blob,
    },
    /// A task is another run's from now on.
    Passed {
        /// Which.
        task: TaskId,
        /// Whose it becomes.
        to: RunId,
    },
    /// A task's result is no longer wanted.
    Cancelled(TaskId),
    /// Nothing but time: something may be due.
    Tick,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Its result is committed.
    Done,
    /// It failed, and would fail again.
    Failed,
    /// It failed in a way that may pass.
    Transient,
    /// It failed for want of what is none of its own: a disk, the store. Another worker may have it.
    Unavailable,
    /// It was stopped because [`Action::Stop`] said so, or never started. That counts as nothing.
    Stopped,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Start an attempt. The members of a gang are attempts of their own; all are started in one step, and one that is
    /// lost later is replaced while the others go on.
    Start {
        /// Which task.
        task: TaskId,
        /// Which attempt of the task: 1, 2, …
        attempt: u32,
        /// Where.
        worker: WorkerId,
        /// How many threads it may keep busy: its share of the worker's cores, at least what it needs.
        threads: usize,
        /// The parts of devices that are its own until it ends.
        devices: Vec<Share>,
        /// Whether it waits in the worker's [`Lane`](super::Lane) behind others.
        queued: bool,
    },
    /// Stop an attempt, or take it out of the lane. The worker says how it ended all the same.
    Stop {
        /// Which task.
        task: TaskId,
        /// Which attempt.
        attempt: u32,
        /// Where.
        worker: WorkerId,
    },
    /// The task is done: an attempt committed.
    Done(TaskId),
    /// The task failed for good.
    Failed(TaskId),
    /// The task's deadline passed.
    Expired {
        /// Which task.
        task: TaskId,
        /// What it was waiting for.
        reason: String,
    },
    /// The task can never be placed.
    Refused {
        /// Which task.
        task: TaskId,
        /// Why.
        reason: String,
    },
    /// Send [`Event::Tick`] at this time. It takes the place of what was said before.
    Wake(Time),
}
