//! What the coordinator hears, and from whom.

use super::asks::Resolved;
use super::key::Known;
use super::lookup::LookedAt;
use super::window::{Reply, Window};
use crate::Result;
use crate::schedule::{TaskId, WorkerId};
use crate::stage::{Pace, Pending, Report, ReportSink, Submit, TaskRequest, pending};
use crate::store::Key;
use crate::worker::{Failure, Heard, Inputs, Outcome};
use std::sync::{Arc, mpsc};

/// What comes to the coordinator's ears.
pub(super) enum Message {
    /// The keys of tasks are computed and their memos looked up.
    Looked(LookedAt),
    /// An attempt in this process ended.
    Ended(WorkerId, TaskId, u32, Result<Outcome, Failure>),
    /// A worker in another process says something, or comes or goes.
    Heard(Vec<Heard>),
    /// A task asks for another one.
    Submitted(TaskId, TaskRequest, Reply),
    /// A task says how far it is.
    Said(TaskId, Report),
    /// A run that somebody asked for is understood.
    Resolved(Box<Resolved>),
}

/// What was found out about a task.
pub(super) struct Looked {
    pub(super) key: Key,
    /// Whether its parameters name files, so that it runs where those are.
    pub(super) files: bool,
    /// Its result, if it is known, and what is wrong with that.
    pub(super) known: Known,
}

/// How a running stage speaks to the coordinator.
pub(super) struct Voice {
    pub(super) task: TaskId,
    pub(super) outbox: mpsc::Sender<Message>,
    /// The tasks that it asked for and that are under way.
    pub(super) window: Arc<Window>,
    /// What they gave.
    pub(super) given: Arc<Inputs>,
    pub(super) pace: Pace,
}

impl ReportSink for Voice {
    fn report(&self, step: Report) {
        // A bare count says nothing that the next does not.
        if step.is_final() || !step.metrics.is_empty() || self.pace.is_due() {
            // The run may have ended; then nobody listens.
            let _ = self.outbox.send(Message::Said(self.task, step));
        }
    }
}

impl Submit for Voice {
    fn submit(&self, task: TaskRequest) -> Pending {
        let (answer, pending) = pending();
        let reply = Reply { answer, source: self.given.clone(), _place: Window::enter(&self.window) };
        let _ = self.outbox.send(Message::Submitted(self.task, task, reply));
        pending
    }
}
