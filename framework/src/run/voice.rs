//! What the coordinator hears, and from whom.

use super::task::Reply;
use crate::Result;
use crate::schedule::{TaskId, WorkerId};
use crate::stage::{Report, ReportSink, Stored, Submit, TaskRequest};
use crate::store::{Key, Memo};
use crate::worker::{Failure, Heard, Outcome};
use std::collections::BTreeMap;
use std::sync::mpsc;

/// What comes to the coordinator's ears.
pub(super) enum Message {
    /// A task's key is computed and its memo looked up.
    Looked(TaskId, Result<Looked>),
    /// An attempt in this process ended.
    Ended(WorkerId, TaskId, u32, Result<Outcome, Failure>),
    /// A worker in another process says something, or comes or goes.
    Heard(Heard),
    /// A task asks for another one.
    Submitted(TaskId, TaskRequest, Reply),
    /// A task says how far it is.
    Said(TaskId, Report),
}

/// What was found out about a task.
pub(super) struct Looked {
    pub(super) key: Key,
    /// Whether its parameters name files, so that it runs where those are.
    pub(super) files: bool,
    /// Its result, if it is known.
    pub(super) memo: Option<Memo>,
}

/// How a running stage speaks to the coordinator.
pub(super) struct Voice {
    pub(super) task: TaskId,
    pub(super) outbox: mpsc::Sender<Message>,
}

impl ReportSink for Voice {
    fn report(&self, step: Report) {
        // The run may have ended; then nobody listens.
        let _ = self.outbox.send(Message::Said(self.task, step));
    }
}

impl Submit for Voice {
    fn submit(&self, task: TaskRequest) -> mpsc::Receiver<Result<BTreeMap<String, Stored>>> {
        let (sender, receiver) = mpsc::channel();
        let _ = self.outbox.send(Message::Submitted(self.task, task, sender));
        receiver
    }
}
