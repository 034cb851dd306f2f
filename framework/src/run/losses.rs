//! Workers that are gone, and the tasks that they had.

use super::coordinator::Coordinator;
use super::event::Event;
use super::task::Task;
use crate::Result;
use crate::schedule::{self, WorkerId};

/// A task that so many workers were lost with may be what ends them.
const SUSPECT: u32 = 3;

impl Coordinator<'_> {
    /// A worker is gone. If it was not told to go, what it had runs elsewhere.
    pub(super) fn lost(&mut self, worker: WorkerId, reason: String) -> Result<()> {
        if !self.crew.has(worker) {
            return Ok(());
        }
        let name = self.crew.name(worker).to_owned();
        if self.crew.is_leaving(worker) {
            self.tell(Event::WorkerLeft { worker: name, lost: None })?;
        } else {
            let message = format!("the worker is lost: {reason}; what it was doing runs elsewhere");
            self.tell(Event::Warning { name: name.clone(), message })?;
            self.suspect(worker)?;
            self.tell_lost(worker, name, reason)?;
        }
        self.crew.lose(worker)?;
        self.step(schedule::Event::Lost(worker))
    }

    /// Counts the losses of the tasks that a worker had. One that has seen too many runs in a process of its own from
    /// then on: if it is what ended them, it ends that, and its failure is told.
    fn suspect(&mut self, worker: WorkerId) -> Result<()> {
        let mut suspects = Vec::new();
        let had = |task: &&mut Task| task.live.values().any(|live| live.worker == worker);
        // A gang outlives its members.
        let alone = |task: &&mut Task| task.request.task.needs.workers == 1;
        for task in self.tasks.values_mut().filter(had).filter(alone) {
            task.losses += 1;
            if task.losses == SUSPECT {
                suspects.push(task.label().to_owned());
            }
        }
        suspects.into_iter().try_for_each(|name| {
            let message = format!("{SUSPECT} workers were lost while they had it: it gets a process of its own");
            self.tell(Event::Warning { name, message })
        })
    }
}

impl Task {
    /// Whether it runs in a process of its own.
    pub(super) fn is_isolated(&self) -> bool {
        self.request.task.needs.isolate || self.losses >= SUSPECT
    }
}
