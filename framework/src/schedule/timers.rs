//! What is due when.

use super::workers::Attempt;
use super::{TaskId, Time};
use std::collections::BTreeSet;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Due {
    /// A task's deadline passes.
    Deadline(TaskId),
    /// A task that failed is tried again.
    Retry(TaskId),
    /// A task has avoided a worker for long enough.
    Choosy(TaskId),
    /// An attempt takes much longer than others of its stage.
    Late(Attempt),
    /// Tasks that no worker can run have waited long enough for one that can.
    Stranded,
}

#[derive(Debug, Default)]
pub(super) struct Timers {
    due: BTreeSet<(Time, Due)>,
    /// When the caller was last asked to wake us.
    asked: Option<Time>,
}

impl Timers {
    pub(super) fn set(&mut self, at: Time, due: Due) {
        self.due.insert((at, due));
    }

    pub(super) fn unset(&mut self, at: Time, due: Due) {
        self.due.remove(&(at, due));
    }

    pub(super) fn pop(&mut self, now: Time) -> Option<Due> {
        let (at, _) = self.due.first()?;
        if *at > now { None } else { self.due.pop_first().map(|(_, due)| due) }
    }

    /// The time to be woken, if that must be said: it is earlier than what was asked before, or that has passed.
    pub(super) fn ask(&mut self, now: Time) -> Option<Time> {
        let (next, _) = self.due.first()?;
        if self.asked.is_some_and(|asked| asked > now && asked <= *next) {
            return None;
        }
        self.asked = Some(*next);
        self.asked
    }
}
