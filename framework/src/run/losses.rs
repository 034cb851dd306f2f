//! Workers that are gone, and the tasks that they had.

use super::coordinator::Coordinator;
use super::event::Event;
use super::task::Task;
use crate::schedule::{self, TaskId, WorkerId};
use crate::stage::Report;
use crate::{Error, Fault, Result};
use std::collections::BTreeMap;

/// A task that so many workers were lost with may be what ends them.
const SUSPECT: u32 = 3;

/// The losses of a task.
#[derive(Default)]
pub(super) struct Losses {
    /// How many workers were lost while they had it; of a gang, since it was last further than ever before.
    count: u32,
    /// How far it ever said that it was, by what it counts.
    furthest: BTreeMap<String, u64>,
}

impl Coordinator<'_> {
    /// A worker is gone. If it was not told to go, what it had runs elsewhere.
    pub(super) fn lost(&mut self, worker: WorkerId, reason: String) -> Result<()> {
        if !self.crew.has(worker) {
            return Ok(());
        }
        let name = self.crew.name(worker).to_owned();
        let mut doomed = Vec::new();
        if self.crew.is_leaving(worker) {
            self.tell_all(Event::WorkerLeft { worker: name, lost: None })?;
        } else {
            let message = format!("the worker is lost: {reason}; what it was doing runs elsewhere");
            self.tell_all(Event::Warning { name: name.clone(), message })?;
            // One that means to leave may be ended any time, and not by what it runs.
            doomed = if self.crew.means_to_leave(worker) { Vec::new() } else { self.suspect(worker)? };
            self.tell_lost(worker, name, reason)?;
        }
        self.crew.lose(self.options.clock.elapsed(), worker)?;
        self.step(schedule::Event::Lost(worker))?;
        doomed.into_iter().try_for_each(|task| self.give_up(task))
    }

    /// A worker means to leave: it gets nothing new, and goes when what it runs has ended. A gang goes on without it at
    /// once.
    pub(super) fn leaves(&mut self, worker: WorkerId) -> Result<()> {
        if !self.crew.will_leave(worker) {
            return Ok(());
        }
        let message = "the worker leaves: it takes nothing new".to_owned();
        self.tell_all(Event::Warning { name: self.crew.name(worker).to_owned(), message })?;
        self.step(schedule::Event::Draining(worker))?;
        for (id, task) in self.tasks.iter().filter(|(_, task)| task.request.task.needs.workers > 1) {
            for (attempt, live) in task.live.iter().filter(|(_, live)| live.worker == worker) {
                live.cancel.cancel();
                self.crew.stop(worker, *id, *attempt);
            }
        }
        self.part_if_idle(worker)
    }

    /// Lets a worker go that means to leave, if it runs nothing more.
    pub(super) fn part_if_idle(&mut self, worker: WorkerId) -> Result<()> {
        if !self.tasks.values().any(|task| task.live.values().any(|live| live.worker == worker)) {
            self.crew.part(worker);
        }
        Ok(())
    }

    /// Counts the losses of the tasks that a worker had. One that has seen too many runs in a process of its own from
    /// then on: if it is what ended them, it ends that, and its failure is told. A gang can't: gives those that are to be
    /// given up.
    fn suspect(&mut self, worker: WorkerId) -> Result<Vec<TaskId>> {
        let (mut suspects, mut doomed) = (Vec::new(), Vec::new());
        let had = |(_, task): &(&TaskId, &mut Box<Task>)| task.live.values().any(|live| live.worker == worker);
        for (id, task) in self.tasks.iter_mut().filter(had) {
            task.losses.count += 1;
            let members = task.request.task.needs.workers;
            if members == 1 && task.losses.count == SUSPECT {
                suspects.push((task.run, task.label().to_owned()));
            } else if members > 1 && task.losses.count >= SUSPECT.saturating_mul(members) {
                doomed.push(*id);
            }
        }
        suspects.into_iter().try_for_each(|(run, name)| {
            let message = format!("{SUSPECT} workers were lost while they had it: it gets a process of its own");
            self.tell(run, Event::Warning { name, message })
        })?;
        Ok(doomed)
    }

    /// Fails a gang that workers are lost with again and again.
    fn give_up(&mut self, id: TaskId) -> Result<()> {
        let Some(count) = self.tasks.get(&id).map(|task| task.losses.count) else { return Ok(()) };
        self.step(schedule::Event::Cancelled(id))?;
        let error = Error::new(format!("{count} workers were lost while they had it, and it got no further meanwhile"));
        let help = "it may be what ends them: too much memory, a crash, a device that fails; what they said before they \
                    ended tells";
        self.fail(id, error.help(help).fault(Fault::Stage))
    }
}

impl Losses {
    /// It says how far it is: a gang that gets on is not what its workers are lost with.
    pub(super) fn note(&mut self, members: u32, step: &Report) {
        if members == 1 || step.line.is_some() {
            return;
        }
        let before = self.furthest.get_mut(&*step.unit);
        if before.as_ref().is_some_and(|before| step.done <= **before) {
            return;
        }
        self.count = 0;
        match before {
            Some(before) => *before = step.done,
            None => drop(self.furthest.insert(step.unit.to_string(), step.done)),
        }
    }
}

impl Task {
    /// Whether it runs in a process of its own.
    pub(super) fn is_isolated(&self) -> bool {
        self.request.task.needs.isolate || self.losses.count >= SUSPECT
    }
}
