//! Links between the coordinator and its workers, and messages that go astray.

use super::world::{Happening, Order, Word, World};
use crate::schedule::{TaskId, Time, WorkerId};
use rand::RngExt;

impl World {
    /// Sends a message over a link; it arrives once and in order, unless something goes wrong.
    pub(super) fn send(&mut self, link: WorkerId, down: bool, happening: Happening) {
        let chaos = self.scenario.chaos;
        if self.chance(chaos.lost) {
            self.break_link(link);
            return;
        }
        if self.chance(chaos.twice) {
            *self.flying.entry(link).or_default() += 1;
            self.soon(50_000, happening.clone());
        }
        *self.flying.entry(link).or_default() += 1;
        let mut at = self.now + Time::from_micros(self.rng.random_range(20..500));
        if self.chance(chaos.late) {
            at += Time::from_micros(self.rng.random_range(0..50_000));
        } else {
            let last = self.last.entry((link, down)).or_default();
            at = at.max(*last);
            *last = at;
        }
        self.sequence += 1;
        self.queue.insert((at, self.sequence), happening);
    }

    /// Both sides notice, at different times; until then they go on.
    pub(super) fn break_link(&mut self, link: WorkerId) {
        if !self.broken.insert(link) {
            return;
        }
        let life = self.life;
        self.soon(3_000_000, Happening::Silent { life, link });
        if let Some(machine) = self.machines.iter().position(|machine| machine.link == Some(link)) {
            self.soon(4_000_000, Happening::Unlinked { machine, link });
        }
    }

    pub(super) fn dial(&mut self, machine: usize) {
        if !self.machines[machine].alive || self.machines[machine].link.is_some() {
            return;
        }
        if !self.machines[machine].runs.is_empty() || self.coordinator.is_none() {
            let life = self.machines[machine].life;
            self.soon(100_000, Happening::Dials { machine, life });
            return;
        }
        self.links += 1;
        let link = WorkerId(self.links);
        self.machines[machine].connect(link);
        let word = Word::Joined(self.machines[machine].capacity.clone(), self.machines[machine].order);
        self.say(link, word);
    }

    /// A message has arrived. When none is under way and all came in order, the scheduler's books say what the worker
    /// does.
    pub(super) fn arrived(&mut self, link: WorkerId) {
        let flying = self.flying.get_mut(&link).expect("it was sent");
        *flying -= 1;
        let chaos = self.scenario.chaos;
        if *flying > 0 || chaos.late > 0 || chaos.twice > 0 || self.broken.contains(&link) {
            return;
        }
        let Some(machine) = self.machines.iter().find(|machine| machine.link == Some(link)) else { return };
        let Some(scheduler) = self.coordinator.as_ref().map(|coordinator| &coordinator.scheduler) else { return };
        let Some(worker) = scheduler.workers.slot(link).and_then(|slot| scheduler.workers.get(slot)) else { return };
        let names =
            |attempts: Vec<(TaskId, u32)>| attempts.into_iter().map(|(task, number)| (task.0, number)).collect();
        let books: [Vec<_>; 2] = [worker.lane.running().collect(), worker.lane.waiting().collect()].map(names);
        assert_eq!(machine.runs_and_waits(), books, "{link:?} runs and keeps waiting what the books say");
    }

    pub(super) fn say(&mut self, link: WorkerId, word: Word) {
        let life = self.life;
        self.send(link, false, Happening::ToCoordinator { life, link, word });
    }

    pub(super) fn order(&mut self, link: WorkerId, order: Order) {
        // To a worker that is gone nothing is said; that it is gone will be noticed.
        if let Some(machine) = self.machines.iter().position(|machine| machine.link == Some(link)) {
            self.send(link, true, Happening::ToWorker { machine, link, order });
        }
    }
}
