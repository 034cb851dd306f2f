//! Workers that are kept free for a task that would wait forever otherwise: a gang, or one that needs much of a worker
//! while smaller ones take every place.
//!
//! There is one reservation at a time, so that two gangs never wait for each other's workers.

use super::lines::Line;
use super::scheduler::Scheduler;
use super::{RunId, TaskId};
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// A line that was passed over by so many starts gets the next reservation.
const PATIENCE: u64 = 256;
/// How many starts there are between two looks for lines that wait too long.
pub(super) const LOOK_EVERY: u64 = 64;

#[derive(Debug)]
pub(super) struct Reservation {
    pub(super) task: TaskId,
    pub(super) line: u32,
    priority: i32,
    /// Workers that have room for so many members now.
    held: BTreeMap<u32, u32>,
    /// The worker that is emptied next, and which part of what a member needs is free there, in thousandths. It is
    /// always the one that has most: who has more takes its place.
    target: Option<(u32, u64)>,
}

impl Scheduler {
    /// Keeps workers for the first task of a line, or places it if there is room for it. There must be no reservation.
    pub(super) fn reserve(&mut self, line: u32) {
        let Some((priority, _, task)) = self.lines.get(line).first() else { return };
        let needs = self.lines.get(line).needs;
        let held = BTreeMap::new();
        self.reservation = Some(Reservation { task, line, priority: priority.0, held, target: None });
        while self.reservation.is_some()
            && let Some(slot) = self.workers.with_room(&needs, None)
        {
            self.hold(slot);
        }
    }

    /// Whether another run has less of its due than the run of a gang, and waits for workers that the gang would keep.
    pub(super) fn is_others_turn(&mut self, gang: u32) -> bool {
        let total = self.workers.total();
        let Line { needs, run, .. } = *self.lines.get(gang);
        let claim = |line: u32| self.lines.rank(line, total).map(|(claim, ..)| claim);
        let own = claim(gang);
        let ahead = |line: &u32| self.lines.get(*line).run != run && claim(*line) < own;
        let ahead: Vec<u32> = self.lines.active().filter(ahead).collect();
        ahead.into_iter().any(|line| {
            let other = self.lines.get(line).needs;
            self.possible_now(line) && self.workers.kinds().keys().any(|has| has.fits(&needs) && has.fits(&other))
        })
    }

    /// Whether there is room for all members of a gang at this moment.
    pub(super) fn has_places(&mut self, gang: u32) -> bool {
        let Line { needs, members, .. } = *self.lines.get(gang);
        if self.workers.with_room(&needs, None).is_none() {
            return false;
        }
        let mut missing = u64::from(members);
        let open = self.workers.iter().filter(|(_, worker)| worker.is_open());
        open.map(|(_, worker)| u64::from(worker.places(&needs, members))).any(|places| {
            missing = missing.saturating_sub(places);
            missing == 0
        })
    }

    /// A worker with room is kept; if that makes enough, the task starts.
    fn hold(&mut self, slot: u32) {
        let Some(kept) = self.reservation.as_mut() else { return };
        let line = self.lines.get(kept.line);
        let Some(worker) = self.workers.get_mut(slot) else { return };
        kept.held.insert(slot, worker.places(&line.needs, line.members));
        if kept.target.is_some_and(|(target, _)| target == slot) {
            kept.target = None;
        }
        worker.reserved = true;
        self.workers.changed(slot);
        if kept.held.values().map(|places| u64::from(*places)).sum::<u64>() < u64::from(line.members) {
            return;
        }
        let (task, members, held) = (kept.task, line.members, std::mem::take(&mut kept.held));
        self.release();
        // Spread over the workers: each gets a member before any gets a second.
        let most = held.values().copied().max().unwrap_or(0);
        let rounds = (0..most).flat_map(|round| held.iter().filter(move |(_, places)| **places > round));
        let slots: Vec<u32> = rounds.map(|(slot, _)| *slot).take(members as usize).collect();
        for slot in slots {
            self.free(slot);
            self.start(task, slot, 0);
        }
        held.into_keys().for_each(|slot| self.free(slot));
    }

    /// Looks at a worker whose room has grown: it may serve the reservation.
    pub(super) fn keep(&mut self, slot: u32) {
        let Some(kept) = self.reservation.as_ref() else { return };
        let line = self.lines.get(kept.line);
        let (needs, members) = (line.needs, line.members);
        let Some(worker) = self.workers.get(slot) else { return };
        if worker.draining || !worker.has.fits(&needs) {
            return;
        }
        if worker.places(&needs, members) > 0 {
            self.hold(slot);
            return;
        }
        let (progress, before) = (worker.progress(&needs), kept.target);
        if before.is_none_or(|(target, most)| target == slot || progress > most) {
            self.retarget(slot, progress);
        }
    }

    fn retarget(&mut self, slot: u32, progress: u64) {
        let Some(kept) = self.reservation.as_mut() else { return };
        let before = kept.target.replace((slot, progress));
        if before.is_some_and(|(before, _)| before == slot) {
            return;
        }
        if let Some(worker) = self.workers.get_mut(slot) {
            worker.reserved = true;
            self.workers.changed(slot);
            self.recall(slot, usize::MAX);
        }
        if let Some((before, _)) = before {
            self.free(before);
        }
    }

    /// A worker may be given anything again.
    fn free(&mut self, slot: u32) {
        if let Some(worker) = self.workers.get_mut(slot) {
            worker.reserved = false;
            self.workers.changed(slot);
            self.roomy.push_back(slot);
        }
    }

    /// Gives the reservation up.
    pub(super) fn release(&mut self) {
        let Some(kept) = self.reservation.take() else { return };
        kept.held.into_keys().for_each(|slot| self.free(slot));
        if let Some((target, _)) = kept.target {
            self.free(target);
        }
        self.hopeful.push(kept.line);
    }

    /// A worker is gone, or will go.
    pub(super) fn forget_reserved(&mut self, slot: u32) {
        let Some(kept) = self.reservation.as_mut() else { return };
        kept.held.remove(&slot);
        if kept.target.is_some_and(|(target, _)| target == slot) {
            kept.target = None;
        }
        if let Some(worker) = self.workers.get_mut(slot) {
            worker.reserved = false;
            self.workers.changed(slot);
        }
        let line = kept.line;
        if !self.possible_now(line) {
            self.release();
        }
    }

    /// Whether the first task of a line goes before what workers are kept for: its run has a higher priority, or it has
    /// among those of its run.
    pub(super) fn outranks(&self, line: u32, kept: &Reservation) -> bool {
        let (line, other) = (self.lines.get(line), self.lines.get(kept.line));
        let Some((Reverse(priority), ..)) = line.first() else { return false };
        let run = |line: &Line| self.lines.shares.standing(line.run).priority;
        run(line) > run(other) || (line.run == other.run && priority > kept.priority)
    }

    /// Keeps workers for the line that was passed over longest, if that was too long and nobody of higher priority
    /// waits.
    pub(super) fn keep_for_aged(&mut self) {
        if self.reservation.is_some() {
            return;
        }
        let active: Vec<u32> = self.lines.active().collect();
        let waiting = active.into_iter().filter(|line| self.possible_now(*line)).collect::<Vec<_>>();
        let first = |line: &u32| self.lines.get(*line).first();
        let run = |line: &u32| self.lines.get(*line).run;
        let Some(top) = waiting.iter().map(|line| self.lines.shares.standing(run(line)).priority).max() else { return };
        // By run, the highest priority of its tasks.
        let mut highest: BTreeMap<RunId, Reverse<i32>> = BTreeMap::new();
        for line in &waiting {
            if let Some((priority, ..)) = first(line) {
                let highest = highest.entry(run(line)).or_insert(priority);
                *highest = priority.min(*highest);
            }
        }
        let patience = PATIENCE.max(self.workers.len() as u64);
        let aged = waiting.iter().filter(|line| {
            let since = self.lines.get(**line).since;
            let foremost = first(line).is_some_and(|(priority, ..)| highest.get(&run(line)) == Some(&priority));
            foremost && self.lines.shares.standing(run(line)).priority == top && self.starts - since >= patience
        });
        let oldest = aged.min_by_key(|line| (self.lines.get(**line).since, **line)).copied();
        if let Some(line) = oldest {
            self.reserve(line);
        }
    }
}
