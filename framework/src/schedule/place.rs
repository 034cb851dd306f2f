//! Where waiting tasks go, and what a worker with room is given.

use super::lines::Line;
use super::reserve::LOOK_EVERY;
use super::scheduler::Scheduler;
use super::workers::{Attempt, QUEUE_MICROS};
use super::{Capacity, TaskId, WorkerId};

/// Tasks at the front of a line among which a worker may choose the one that is nearest to its inputs…
pub(super) const WINDOW: usize = 8;
/// …until the very first was passed over so often.
const MOST_PASSED: u32 = 16;
/// How many attempts are taken back from a lane at once, at most.
const MOST_RECALLED: usize = 512;

impl Scheduler {
    pub(super) fn join(&mut self, worker: WorkerId, has: Capacity) {
        if let Some(slot) = self.workers.join(worker, has, self.now) {
            self.changes += 1;
            self.roomy.push_back(slot);
        }
    }

    pub(super) fn drain(&mut self, worker: WorkerId) {
        let Some(slot) = self.workers.drain(worker) else { return };
        self.changes += 1;
        self.forget_reserved(slot);
        self.recall(slot, usize::MAX);
        self.offer_avoided();
        self.look_for_stranded();
    }

    /// Places what can be placed: room goes to whoever is first in rank, then lines look for more of it, and only what
    /// found none waits in lanes.
    pub(super) fn settle(&mut self) {
        loop {
            if let Some(slot) = self.roomy.pop_front() {
                self.offer(slot);
                self.served.push_back(slot);
            } else if let Some(line) = self.most_hopeful() {
                self.serve(line);
            } else if let Some(slot) = self.served.pop_front() {
                self.keep_busy(slot);
            } else if self.starts >= self.look_at {
                self.look_at = self.starts + LOOK_EVERY;
                self.keep_for_aged();
            } else {
                return;
            }
        }
    }

    /// The first in rank of the lines that may find a place.
    fn most_hopeful(&mut self) -> Option<u32> {
        if self.hopeful.len() < 2 {
            return self.hopeful.pop();
        }
        let total = self.workers.total();
        let rank = |(at, line): (usize, &u32)| Some((self.lines.rank(*line, total)?, at));
        let first = self.hopeful.iter().enumerate().filter_map(rank).min();
        let Some((_, at)) = first else {
            self.hopeful.clear();
            return None;
        };
        Some(self.hopeful.swap_remove(at))
    }

    /// Finds a place for the first task of a line.
    fn serve(&mut self, line: u32) {
        let Some((.., id)) = self.lines.get(line).first() else { return };
        let gang = self.lines.get(line).members > 1;
        if gang && self.reservation.is_none() && self.possible_now(line) {
            if self.is_others_turn(line) && !self.has_places(line) {
                self.deferred.insert(line);
                return;
            }
            self.reserve(line);
        }
        let gone = |this: &Self| this.lines.get(line).first().is_none_or(|(.., first)| first != id);
        let placed = if gang { gone(self) } else { self.place(line, id) };
        if placed {
            // Others may come before its next one.
            return self.hopeful.push(line);
        }
        // What is kept for another gives way to a higher priority.
        if self.reservation.as_ref().is_some_and(|kept| kept.task != id && self.outranks(line, kept)) {
            self.release();
        }
        if !self.possible_now(line) {
            self.look_if_stranded(line);
        }
    }

    fn place(&mut self, line: u32, id: TaskId) -> bool {
        let avoided = self.tasks.get(&id).and_then(|entry| self.workers.slot(entry.avoids?.0));
        let avoided = avoided.filter(|slot| self.avoids(id, *slot));
        let placed = self.place_beside(line, id, avoided);
        if !placed {
            // Others of its line may run there.
            self.roomy.extend(avoided);
        }
        placed
    }

    fn place_beside(&mut self, line: u32, id: TaskId, avoided: Option<u32>) -> bool {
        let Some(entry) = self.tasks.get(&id) else { return false };
        let needs = self.lines.get(line).needs;
        let near = if entry.inputs.is_empty() { None } else { self.workers.near(&needs, &entry.inputs) };
        let near = near.filter(|slot| Some(*slot) != avoided);
        if let Some(slot) = near.or_else(|| self.workers.with_room(&needs, avoided)) {
            return self.start(id, slot, 0);
        }
        let Some(micros) = self.queue_micros(line, id) else { return false };
        let Some(slot) = self.workers.with_queue(&needs, u64::from(micros)) else { return false };
        Some(slot) != avoided && self.next_in_lane(slot) == Some(line) && self.start(id, slot, micros)
    }

    /// What a task takes of its cores, in microseconds, if it is known to be short enough to wait in a lane.
    fn queue_micros(&self, line: u32, id: TaskId) -> Option<u32> {
        let (line, entry) = (self.lines.get(line), self.tasks.get(&id)?);
        // A gang waits for its members.
        if line.members > 1 || entry.vacancies.is_some() || line.needs.on_device() {
            return None;
        }
        let micros = self.expected(id)?.as_micros();
        let work = micros * u128::from(line.needs.millicores) / 1000;
        (micros <= u128::from(QUEUE_MICROS)).then(|| work.max(1).min(u128::from(u32::MAX)) as u32)
    }

    /// The line that should get the next place that is free on a worker.
    fn next_in_lane(&self, slot: u32) -> Option<u32> {
        let has = &self.workers.get(slot)?.has;
        let kept = self.reservation.as_ref().map(|kept| kept.line);
        self.lines.best(self.workers.total(), |id, line| Some(id) != kept && has.fits(&line.needs))
    }

    /// Gives a worker with room what it should run.
    fn offer(&mut self, slot: u32) {
        self.keep(slot);
        while self.workers.get(slot).is_some_and(|worker| worker.is_open()) {
            let Some(line) = self.first_that_fits(slot) else { break };
            if self.lines.get(line).members > 1 {
                match self.is_others_turn(line) && !self.has_places(line) {
                    true => drop(self.deferred.insert(line)),
                    false => self.reserve(line),
                }
                continue;
            }
            let Some(id) = self.pick(line, slot) else { break };
            if !self.start(id, slot, 0) {
                break;
            }
        }
    }

    /// Sees that a worker has something to go on with.
    fn keep_busy(&mut self, slot: u32) {
        self.fill_lane(slot);
        if self.workers.get(slot).is_some_and(|worker| worker.is_open() && worker.lane.free_millicores() > 0) {
            self.take_from_others(slot);
            if !self.late.is_empty() && !self.is_waited_for(slot) {
                self.double_any();
            }
        }
    }

    fn first_that_fits(&mut self, slot: u32) -> Option<u32> {
        let kept = self.reservation.is_some();
        // Gangs of which not all members can be placed at present: they must not keep others from running.
        let mut incomplete = Vec::new();
        loop {
            let worker = self.workers.get(slot)?;
            let takes = |line: &Line| worker.has_room(&line.needs) && self.takes(line, slot);
            let put_off = |id| incomplete.contains(&id) || self.deferred.contains(&id);
            let may = |id, line: &Line| line.members == 1 || !(kept || put_off(id));
            let fits = |id, line: &Line| may(id, line) && takes(line);
            let best = self.lines.best(self.workers.total(), fits)?;
            if self.lines.get(best).members == 1 || self.possible_now(best) {
                return Some(best);
            }
            incomplete.push(best);
        }
    }

    /// The first task of a line, or one near the front whose inputs the worker holds.
    fn pick(&mut self, line: u32, slot: u32) -> Option<TaskId> {
        let (.., first) = self.lines.get(line).first()?;
        let waited = self.lines.get(line).passed >= MOST_PASSED || self.lines.get(line).len() == 1;
        if waited && !self.avoids(first, slot) {
            return Some(first);
        }
        let held = |id: TaskId| {
            let inputs = &self.tasks.get(&id)?.inputs;
            let held = if inputs.is_empty() { 0 } else { self.workers.bytes_held(inputs, slot) };
            Some((held, std::cmp::Reverse(self.tasks.get(&id)?.order), id))
        };
        let front = self.lines.get(line).front(WINDOW).filter(|id| !self.avoids(*id, slot));
        let (.., best) = front.filter_map(held).max()?;
        if best != first {
            self.lines.get_mut(line).passed += 1;
        }
        Some(best)
    }

    /// Lets short tasks wait in a worker's lane, so that it need not ask for each.
    fn fill_lane(&mut self, slot: u32) {
        while let Some(line) = self.next_in_lane(slot) {
            let Some((.., id)) = self.lines.get(line).first() else { return };
            let Some(micros) = self.queue_micros(line, id).filter(|_| !self.avoids(id, slot)) else { return };
            let needs = self.lines.get(line).needs;
            if !self.workers.may_queue(slot, &needs, u64::from(micros)) || !self.start(id, slot, micros) {
                return;
            }
        }
    }

    /// A worker is idle: half of the longest lane is taken back, to be placed here when it comes.
    fn take_from_others(&mut self, slot: u32) {
        let Some(victim) = self.workers.with_backlog(slot) else { return };
        let Some(worker) = self.workers.get(victim).filter(|worker| worker.recalled == 0) else { return };
        let Some((last, _)) = worker.lane.waiting().next_back() else { return };
        let Some(entry) = self.tasks.get(&last) else { return };
        let needs = self.lines.get(entry.line).needs;
        if self.workers.get(slot).is_some_and(|worker| worker.has_room(&needs)) {
            let half = self.workers.get(victim).map_or(0, |worker| worker.lane.waiting().len().div_ceil(2));
            self.recall(victim, half.min(MOST_RECALLED));
        }
    }

    /// Takes back the last `most` attempts that wait in a worker's lane.
    pub(super) fn recall(&mut self, slot: u32, most: usize) {
        let Some(worker) = self.workers.get(slot) else { return };
        let last: Vec<_> = worker.lane.waiting().rev().take(most).collect();
        last.into_iter().for_each(|attempt| self.stop(attempt));
    }

    /// Starts a late attempt's task a second time, if another worker has room and nothing waits that could run there.
    pub(super) fn double(&mut self, attempt: Attempt) {
        let Some(entry) = self.tasks.get(&attempt.0) else { return };
        let [live] = entry.live.as_slice() else { return };
        if live.attempt != attempt.1 || live.stopping || !entry.is_open() {
            return;
        }
        let needs = self.lines.get(entry.line).needs;
        if let Some(slot) = self.workers.with_room(&needs, Some(live.slot))
            && !self.is_waited_for(slot)
        {
            self.late.remove(&attempt);
            self.start(attempt.0, slot, 0);
        }
    }

    /// Whether something waits that a worker could run, now or once others have ended.
    fn is_waited_for(&self, slot: u32) -> bool {
        let Some(worker) = self.workers.get(slot) else { return false };
        self.lines.active().any(|line| worker.has.fits(&self.lines.get(line).needs))
    }

    fn double_any(&mut self) {
        let late: Vec<_> = self.late.iter().take(WINDOW).copied().collect();
        late.into_iter().for_each(|attempt| self.double(attempt));
    }
}
