//! Workers that are gone, and the tasks that they had.

use super::coordinator::Coordinator;
use super::event::Event;
use crate::schedule::{self, TaskId, WorkerId};
use crate::{Error, Result};

/// So many workers may be lost while they have a task; then it may be what ends them.
const MOST_LOSSES: u32 = 10;

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
            self.count_loss(worker);
            self.tell_lost(worker, name, reason)?;
        }
        self.crew.lose(worker)?;
        self.step(schedule::Event::Lost(worker))?;
        self.give_up()
    }

    fn count_loss(&mut self, worker: WorkerId) {
        let had = |task: &super::task::Task| task.live.values().any(|live| live.worker == worker);
        self.tasks.values_mut().filter(|task| had(task)).for_each(|task| task.losses += 1);
    }

    /// Fails the tasks that too many workers were lost with: they would take down one after another for ever.
    fn give_up(&mut self) -> Result<()> {
        let fatal: Vec<TaskId> =
            self.tasks.iter().filter(|(_, task)| task.losses >= MOST_LOSSES).map(|(id, _)| *id).collect();
        for id in fatal {
            self.step(schedule::Event::Cancelled(id))?;
            let error = Error::new(format!("{MOST_LOSSES} workers were lost while they had it")).help(
                "it may be what ends them: with `needs.isolate = true` it runs in a process of its own, and the run \
                 says how that ends",
            );
            self.fail(id, error)?;
        }
        Ok(())
    }
}
