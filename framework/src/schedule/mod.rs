//! Who runs what: a pure state machine. It does no I/O and reads no clock; the same code decides for real runs and in
//! simulation.
//!
//! [`Scheduler::step`] takes what happened and says what to do. Tasks are placed in the order of their priority, then
//! of their submission; one that needs more than any worker has is refused at once, with the reason.

mod ready;
mod scheduler;
#[cfg(test)]
mod simulation;

pub use scheduler::Scheduler;

use std::fmt;
use std::time::Duration;

/// A point in time: how long since the scheduler's start. It comes with every event.
pub type Time = Duration;

/// A task that the scheduler was given; the caller chooses it and never gives the same twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId(pub u64);

/// A worker that joined; the caller chooses it, and one that comes back is a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerId(pub u64);

/// What a task needs, and what a worker has. Whole numbers, so that sums have no rounding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// Thousandths of a core.
    pub millicores: u64,
    /// CUDA devices.
    pub gpus: u64,
}

/// A task as the scheduler sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Task {
    /// Its name.
    pub id: TaskId,
    /// What it needs.
    pub needs: Resources,
    /// Higher goes first.
    pub priority: i32,
    /// How often it is tried again after a failure.
    pub retries: u32,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A worker came.
    Joined {
        /// Who.
        worker: WorkerId,
        /// What it has.
        has: Resources,
    },
    /// A worker is gone, and with it whatever it was running.
    Lost(WorkerId),
    /// There is a new task.
    Submitted(Task),
    /// An attempt ended.
    Ended {
        /// Which task.
        task: TaskId,
        /// Which attempt, as [`Action::Start`] numbered it.
        attempt: u32,
        /// How.
        end: End,
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
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Start an attempt.
    Start {
        /// Which task.
        task: TaskId,
        /// Which attempt: 1, 2, …
        attempt: u32,
        /// Where.
        worker: WorkerId,
        /// How many threads it may keep busy: its share of the worker's cores, at least what it needs.
        threads: usize,
    },
    /// Stop an attempt; what it returns is ignored.
    Stop {
        /// Which task.
        task: TaskId,
        /// Which attempt.
        attempt: u32,
        /// Where.
        worker: WorkerId,
    },
    /// The task is done; its last attempt committed.
    Done(TaskId),
    /// The task failed for good.
    Failed(TaskId),
    /// The task can never be placed.
    Refused {
        /// Which task.
        task: TaskId,
        /// Why.
        reason: String,
    },
    /// Send [`Event::Tick`] at this time.
    Wake(Time),
}

impl Resources {
    /// Whether `needs` fits into what is here.
    pub fn fits(&self, needs: &Resources) -> bool {
        needs.millicores <= self.millicores && needs.gpus <= self.gpus
    }

    fn take(&mut self, needs: &Resources) {
        self.millicores -= needs.millicores;
        self.gpus -= needs.gpus;
    }

    fn give(&mut self, needs: &Resources) {
        self.millicores += needs.millicores;
        self.gpus += needs.gpus;
    }
}

impl fmt::Display for Resources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} cores", self.millicores as f64 / 1000.0)?;
        match self.gpus {
            0 => Ok(()),
            1 => write!(f, " and 1 CUDA device"),
            n => write!(f, " and {n} CUDA devices"),
        }
    }
}
