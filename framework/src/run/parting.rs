//! How a coordinator ends: before its time, and after its last run.

use super::coordinator::Coordinator;
use super::event::Line;
use super::task::Live;
use super::voice::Message;
use crate::Result;
use crate::schedule::{RunId, TaskId, WorkerId};
use crate::worker::{self, Failure, Heard};
use std::time::Duration;

/// How long tasks under way have to stop when a run is interrupted.
const GRACE: Duration = Duration::from_secs(5);
/// How long workers have to hear that the run is over.
const PARTING: Duration = Duration::from_secs(2);
/// How often it is looked whether the time is over.
const PULSE: Duration = Duration::from_millis(100);

impl Coordinator<'_> {
    /// Ends all runs before their time: asks what runs to stop and waits a little. Whoever waits for a task that is dropped
    /// hears that the run ended.
    pub(super) fn interrupt(&mut self) -> Result<()> {
        if self.serves() {
            // Who asked for a run is to ask whoever coordinates next, and must not take this for its end. Nor must workers
            // that nobody here started: what they do goes on.
            self.courses.values_mut().for_each(|course| course.sink = Box::new(|_: &Line| {}));
            let guests = self.crew.release_guests();
            self.part(|_, _, live| !guests.contains(&live.worker));
        }
        self.tasks.retain(|_, task| !task.live.is_empty());
        self.tasks.values().flat_map(|task| task.live.values()).for_each(|live| live.cancel.cancel());
        self.crew.dismiss();
        let until = self.options.clock.elapsed() + GRACE;
        while !self.tasks.is_empty() && self.options.clock.elapsed() < until {
            match self.inbox.recv_timeout(PULSE) {
                Ok(Message::Ended(worker, id, attempt, result)) => self.ended_at_last(worker, id, attempt, &result)?,
                Ok(Message::Heard(all)) => all.into_iter().try_for_each(|heard| match heard {
                    Heard::Ended { worker, task, attempt, result } => {
                        self.ended_at_last(worker, task, attempt, &result)
                    }
                    // A worker that is told that the run is over stops what it does and goes.
                    Heard::Lost { worker, .. } => {
                        self.crew.forget(worker);
                        self.part(|_, _, live| live.worker != worker);
                        Ok(())
                    }
                    _ => Ok(()),
                })?,
                _ => {}
            }
            self.pulse()?;
        }
        let runs: Vec<RunId> = self.courses.keys().copied().collect();
        runs.into_iter().try_for_each(|run| self.finish(run, true))
    }

    /// An attempt of an interrupted run has ended.
    fn ended_at_last(
        &mut self,
        worker: WorkerId,
        id: TaskId,
        attempt: u32,
        result: &Result<worker::Outcome, Failure>,
    ) -> Result<()> {
        if let Some(live) = self.tasks.get_mut(&id).and_then(|task| task.take(attempt, worker)) {
            self.tell_ended(id, attempt, &live, result)?;
        }
        self.part(|_, _, _| true);
        Ok(())
    }

    /// Forgets the attempts that `stays` does not hold for, and the tasks that have none left.
    fn part(&mut self, stays: impl Fn(TaskId, u32, &Live) -> bool) {
        self.tasks.retain(|id, task| {
            task.live.retain(|number, live| stays(*id, *number, live));
            !task.live.is_empty()
        });
    }

    /// Tells the workers that the run is over, and waits until they have heard it and left: a process that ends may
    /// take its last words with it.
    pub(super) fn part_ways(&mut self) {
        self.count_out();
        self.crew.dismiss();
        let until = self.options.clock.elapsed() + PARTING;
        while !self.crew.is_empty() && self.options.clock.elapsed() < until {
            let Ok(Message::Heard(all)) = self.inbox.recv_timeout(PULSE) else { continue };
            for heard in all {
                match heard {
                    Heard::Lost { worker, .. } => self.crew.forget(worker),
                    // Its own end with it; others look for whoever coordinates next.
                    Heard::Joined(_) if self.serves() => {}
                    Heard::Joined(worker) => {
                        self.crew.join(self.options.clock.elapsed(), *worker);
                        self.crew.dismiss();
                    }
                    _ => {}
                }
            }
        }
    }
}
