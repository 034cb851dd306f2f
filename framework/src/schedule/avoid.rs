//! Workers that lacked what a task needed and should have had, such as a disk with room or the store: for a while the task
//! goes to others, if there are any.

use super::lines::Line;
use super::place::WINDOW;
use super::scheduler::{Scheduler, backoff};
use super::timers::Due;
use super::{Needs, TaskId, Time, WorkerId};

/// How long a task waits for another worker than the one that failed it.
const CHOOSY: Time = Time::from_secs(5);

impl Scheduler {
    /// Notes which worker a task avoids, for a while after it rests. The one that it avoided may be given more, once it does
    /// not.
    pub(super) fn avoid(&mut self, id: TaskId, worker: Option<WorkerId>) {
        let Some(entry) = self.tasks.get_mut(&id) else { return };
        let until = self.now + backoff(entry.failures + entry.moves) + CHOOSY;
        let before = std::mem::replace(&mut entry.avoids, worker.map(|worker| (worker, until)));
        if let Some(worker) = worker {
            *self.avoided.entry(worker).or_default() += 1;
            self.timers.set(until, Due::Choosy(id));
        }
        let Some((before, until)) = before else { return };
        self.timers.unset(until, Due::Choosy(id));
        if let Some(tasks) = self.avoided.get_mut(&before) {
            *tasks -= 1;
            if *tasks == 0 {
                self.avoided.remove(&before);
            }
        }
        self.roomy.extend(self.workers.slot(before));
    }

    /// Whether a task is not given to a worker that failed it, since another one could have it.
    pub(super) fn avoids(&self, id: TaskId, slot: u32) -> bool {
        if self.avoided.is_empty() {
            return false;
        }
        let Some(entry) = self.tasks.get(&id) else { return false };
        let is_here = |(worker, _)| self.workers.slot(worker) == Some(slot);
        entry.avoids.is_some_and(is_here) && self.has_another(&self.lines.get(entry.line).needs, slot)
    }

    /// Whether another worker than this one could ever have what is needed.
    pub(super) fn has_another(&self, needs: &Needs, slot: u32) -> bool {
        let able = self.workers.kinds().iter().filter(|(kind, _)| kind.fits(needs));
        let this = self.workers.get(slot).is_some_and(|worker| !worker.draining && worker.has.fits(needs));
        able.map(|(_, workers)| *workers).sum::<u32>() > u32::from(this)
    }

    /// Whether a worker would be given one of the first tasks of a line.
    pub(super) fn takes(&self, line: &Line, slot: u32) -> bool {
        self.avoided.is_empty() || line.front(WINDOW).any(|id| !self.avoids(id, slot))
    }

    /// Those that tasks avoid may be the last ones that there are.
    pub(super) fn offer_avoided(&mut self) {
        let slots: Vec<u32> = self.avoided.keys().filter_map(|worker| self.workers.slot(*worker)).collect();
        self.roomy.extend(slots);
    }
}
