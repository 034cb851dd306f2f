//! A task in the scheduler's books.

use super::holders::MOST_INPUTS;
use super::{Blob, Share, StageId, Task, TaskId, Time, WorkerId};
use std::cmp::Reverse;

/// A task that is open, or whose last attempts have not ended yet.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) id: TaskId,
    /// Which task this is in the order of their arrival.
    pub(super) order: u64,
    pub(super) priority: i32,
    pub(super) once: bool,
    /// The line in which it waits if it does: tasks with the same needs.
    pub(super) line: u32,
    pub(super) stage: StageId,
    pub(super) size: u64,
    pub(super) retries: u32,
    pub(super) failures: u32,
    /// How often it went to another worker for want of something.
    pub(super) moves: u32,
    /// The worker that lacked something last, and until when others come first.
    pub(super) avoids: Option<(WorkerId, Time)>,
    /// Attempts so far.
    pub(super) attempts: u32,
    pub(super) deadline: Option<Time>,
    /// The largest inputs.
    pub(super) inputs: Box<[(Blob, u64)]>,
    pub(super) state: State,
    pub(super) live: Vec<Live>,
    /// Members that a running gang has lost.
    pub(super) vacancies: Option<Vacancies>,
}

/// Places of a running gang that nobody has. Each is taken like that of a task of its own.
#[derive(Clone, Copy, Debug)]
pub(super) struct Vacancies {
    /// The line in which the gang waits for them.
    pub(super) line: u32,
    pub(super) places: u32,
}

/// Where a task stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// In its line.
    Waiting,
    /// Tried again at this time.
    Backoff(Time),
    /// It has attempts.
    Active,
    /// Its remaining attempts are stopped; when all have ended, it is tried again after a while.
    Retry,
    /// Decided; its remaining attempts are stopped.
    Over,
}

/// An attempt that has not ended.
#[derive(Clone, Debug)]
pub(super) struct Live {
    pub(super) attempt: u32,
    pub(super) slot: u32,
    /// What it will take of the cores of its worker, in microseconds, if it waits in its lane.
    pub(super) micros: u32,
    pub(super) queued: bool,
    /// Since when it runs, if it does not wait in a lane.
    pub(super) began: Option<Time>,
    pub(super) stopping: bool,
    /// When it is late enough to be doubled.
    pub(super) late: Option<Time>,
    pub(super) devices: Vec<Share>,
}

/// A place in a line: higher priority first, then earlier arrival.
pub(super) type Place = (Reverse<i32>, u64, TaskId);

impl Entry {
    pub(super) fn new(task: Task, order: u64, line: u32) -> Self {
        let mut inputs = task.inputs;
        if inputs.len() > MOST_INPUTS {
            inputs.sort_unstable_by_key(|(blob, bytes)| (Reverse(*bytes), *blob));
            inputs.truncate(MOST_INPUTS);
        }
        Self {
            id: task.id,
            order,
            priority: task.priority,
            once: task.once,
            line,
            stage: task.stage,
            size: task.size,
            retries: task.retries,
            failures: 0,
            moves: 0,
            avoids: None,
            attempts: 0,
            deadline: task.deadline,
            inputs: inputs.into(),
            state: State::Waiting,
            live: Vec::new(),
            vacancies: None,
        }
    }

    pub(super) fn place(&self) -> Place {
        (Reverse(self.priority), self.order, self.id)
    }

    /// Whether its attempts may still give its result.
    pub(super) fn is_open(&self) -> bool {
        self.state != State::Over
    }
}
