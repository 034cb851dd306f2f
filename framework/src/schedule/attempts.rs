//! Attempts: how they start, are stopped and end, and what that means for their task.

use super::scheduler::Scheduler;
use super::task::{Live, State, Vacancies};
use super::timers::Due;
use super::workers::Attempt;
use super::{Action, Blob, Device, End, Needs, StageId, TaskId, Time, WorkerId};

/// An attempt is late that takes so many times the median of its stage…
const LATE: u32 = 3;
/// …and at least so long.
const LATE_FLOOR: Time = Time::from_secs(1);
/// Tasks of a stage that must have ended before it is said to be known.
const KNOWN: u32 = 3;
/// How often a task goes to another worker because one lacks what is none of the task's own.
pub(super) const MOST_MOVES: u32 = 3;
/// Longer than any attempt.
const LONGEST: f64 = 1e9;

pub(super) fn device(needs: &Needs) -> Device {
    if needs.on_device() { Device::Cuda } else { Device::Cpu }
}

impl Scheduler {
    /// What a task will take, if enough of its stage have ended.
    pub(super) fn expected(&self, id: TaskId) -> Option<Time> {
        let entry = self.tasks.get(&id)?;
        let device = device(&self.lines.get(entry.line).needs);
        let estimate = self.costs.expect(entry.stage, device, entry.size)?;
        (estimate.samples >= KNOWN).then_some(estimate.median)
    }

    /// Starts an attempt of a task on a worker that has room for it, or whose lane has; then it takes `micros` there.
    /// Whether it did.
    pub(super) fn start(&mut self, id: TaskId, slot: u32, micros: u32) -> bool {
        let expected = self.expected(id);
        let Some(entry) = self.tasks.get_mut(&id) else { return false };
        let line = self.lines.get(entry.line);
        let Some(worker) = self.workers.get_mut(slot) else { return false };
        let attempt = (id, entry.attempts + 1);
        let Some(devices) = worker.devices.take(&line.needs) else { return false };
        if !worker.lane.push(attempt, &line.needs) {
            worker.devices.give(&devices);
            return false;
        }
        let queued = worker.lane.start_next().is_none();
        let running = (worker.lane.running().len() + worker.lane.waiting().len()) as u64;
        let cores = worker.has.millicores / 1000;
        let name = worker.id;
        worker.idle = None;
        if queued {
            worker.queued_micros += u64::from(micros);
        }
        if entry.state == State::Waiting {
            let place = entry.place();
            entry.state = State::Active;
            self.lines.remove(entry.line, &place, self.starts + 1);
        } else if let Some(vacancies) = &mut entry.vacancies {
            vacancies.places -= 1;
            if vacancies.places == 0 {
                let (line, place) = (vacancies.line, entry.place());
                entry.vacancies = None;
                self.lines.remove(line, &place, self.starts + 1);
            }
        }
        entry.attempts += 1;
        let avoided = entry.avoids.is_some();
        entry.live.push(Live {
            attempt: attempt.1,
            slot,
            micros: if queued { micros } else { 0 },
            queued,
            began: (!queued).then_some(self.now),
            stopping: false,
            late: None,
            devices: devices.clone(),
        });
        self.starts += 1;
        let line = entry.line;
        if avoided {
            self.avoid(id, None);
        }
        self.lines.use_more(line);
        self.workers.changed(slot);
        let needed = self.lines.get(line).needs.millicores.div_ceil(1000);
        let sharing = running + (self.lines.waiting() / self.workers.len().max(1)) as u64;
        let threads = (cores / sharing.max(1)).max(needed).max(1) as usize;
        self.actions.push(Action::Start { task: id, attempt: attempt.1, worker: name, threads, devices, queued });
        if !queued {
            self.watch(attempt, expected);
        }
        if self.reservation.as_ref().is_some_and(|kept| kept.task == id) {
            self.release();
        }
        true
    }

    /// Notes when a running attempt will be late.
    fn watch(&mut self, (id, number): Attempt, expected: Option<Time>) {
        let Some(expected) = expected else { return };
        let Some(entry) = self.tasks.get_mut(&id) else { return };
        if self.lines.get(entry.line).members > 1 || entry.once {
            return;
        }
        let live = entry.live.iter_mut().find(|live| live.attempt == number && live.late.is_none());
        if let Some(live) = live {
            let began = live.began.unwrap_or(self.now);
            let late = began + expected.saturating_mul(LATE).max(LATE_FLOOR);
            live.late = Some(late);
            self.timers.set(late, Due::Late((id, number)));
        }
    }

    /// Notes when those of a stage will be late that began before anybody knew what it takes.
    fn watch_all(&mut self, stage: StageId) {
        let begun = |live: &&Live| live.began.is_some() && live.late.is_none();
        let of_stage = self.tasks.values().filter(|entry| entry.stage == stage);
        let attempts = of_stage.flat_map(|entry| entry.live.iter().filter(begun).map(|live| (entry.id, live.attempt)));
        let mut attempts: Vec<Attempt> = attempts.collect();
        attempts.sort_unstable();
        for attempt in attempts {
            self.watch(attempt, self.expected(attempt.0));
        }
    }

    /// Since when an attempt runs that was placed at some time: nothing if it still waits in its worker's lane. One that
    /// is not known waits for nothing.
    pub fn runs_since(&self, task: TaskId, attempt: u32, placed: Time) -> Option<Time> {
        let lives = self.tasks.get(&task).map(|entry| &entry.live);
        let live = lives.and_then(|lives| lives.iter().find(|live| live.attempt == attempt));
        live.map_or(Some(placed), |live| live.began)
    }

    /// Asks an attempt back. Its worker says how it ended.
    pub(super) fn stop(&mut self, (id, number): Attempt) {
        let Some(entry) = self.tasks.get_mut(&id) else { return };
        let live = entry.live.iter_mut().find(|live| live.attempt == number && !live.stopping);
        let Some(live) = live else { return };
        let Some(worker) = self.workers.get_mut(live.slot) else { return };
        live.stopping = true;
        if live.queued {
            worker.recalled += 1;
        }
        self.actions.push(Action::Stop { task: id, attempt: number, worker: worker.id });
        self.workers.changed(live.slot);
    }

    pub(super) fn stop_all(&mut self, id: TaskId) {
        let Some(entry) = self.tasks.get(&id) else { return };
        let numbers: Vec<u32> = entry.live.iter().map(|live| live.attempt).collect();
        numbers.into_iter().for_each(|number| self.stop((id, number)));
    }

    /// An attempt has ended, or is gone with its worker: gives back what it had, and says what it was.
    pub(super) fn clear(&mut self, (id, number): Attempt, slot: u32) -> Option<Live> {
        let entry = self.tasks.get_mut(&id)?;
        let at = entry.live.iter().position(|live| live.attempt == number && live.slot == slot)?;
        let live = entry.live.swap_remove(at);
        if let Some(late) = live.late {
            self.timers.unset(late, Due::Late((id, number)));
            self.late.remove(&(id, number));
        }
        self.lines.use_less(entry.line);
        if let Some(worker) = self.workers.get_mut(slot) {
            worker.lane.end((id, number));
            worker.devices.give(&live.devices);
            if live.queued {
                worker.queued_micros -= u64::from(live.micros);
                worker.recalled -= usize::from(live.stopping);
            }
            self.promote(slot);
            let now = self.now;
            if let Some(worker) = self.workers.get_mut(slot).filter(|worker| worker.lane.running().len() == 0) {
                worker.idle = Some(now);
            }
            self.workers.changed(slot);
            self.roomy.push_back(slot);
        }
        Some(live)
    }

    /// Notes who starts in a worker's lane, by the same rule as the worker.
    fn promote(&mut self, slot: u32) {
        while let Some((id, number)) = self.workers.get_mut(slot).and_then(|worker| worker.lane.start_next()) {
            let Some(entry) = self.tasks.get_mut(&id) else { continue };
            let Some(live) = entry.live.iter_mut().find(|live| live.attempt == number) else { continue };
            live.queued = false;
            live.began = Some(self.now);
            let (micros, stopping) = (u64::from(live.micros), live.stopping);
            if let Some(worker) = self.workers.get_mut(slot) {
                worker.queued_micros -= micros;
                worker.recalled -= usize::from(stopping);
            }
            self.watch((id, number), self.expected(id));
        }
    }

    pub(super) fn end(&mut self, worker: WorkerId, attempt: Attempt, end: End, seconds: f64, made: &[(Blob, u64)]) {
        let Some(slot) = self.workers.slot(worker) else { return };
        let Some(live) = self.clear(attempt, slot) else { return };
        made.iter().for_each(|(blob, _)| self.workers.hold(slot, *blob));
        let id = attempt.0;
        let Some(line) = self.tasks.get(&id).map(|entry| self.lines.get(entry.line)) else { return };
        let members = line.members;
        let is_alone = end == End::Unavailable && !self.has_another(&line.needs, slot);
        let Some(entry) = self.tasks.get_mut(&id) else { return };
        match end {
            End::Done if entry.state == State::Active => {
                let took = Time::from_secs_f64(if seconds.is_finite() { seconds.clamp(0.0, LONGEST) } else { 0.0 });
                let stage = entry.stage;
                self.costs.learn(stage, device(&line.needs), entry.size, took);
                let known = self.costs.expect(stage, device(&line.needs), entry.size);
                self.decide(id, Some(Action::Done(id)));
                if known.is_some_and(|known| known.samples == KNOWN) {
                    self.watch_all(stage);
                }
            }
            // What a stopped attempt says of its failure says that it was stopped.
            End::Failed | End::Transient | End::Unavailable if entry.state == State::Active && !live.stopping => {
                let twin = members == 1 && entry.live.iter().any(|live| !live.stopping);
                let may_move = members == 1 && !entry.once && !is_alone && entry.moves < MOST_MOVES;
                let moves = end == End::Unavailable && may_move;
                if end == End::Failed || (!moves && entry.failures >= entry.retries && !twin) {
                    self.decide(id, Some(Action::Failed(id)));
                } else if !twin {
                    entry.moves += u32::from(moves);
                    entry.failures += u32::from(!moves);
                    entry.state = State::Retry;
                    if moves {
                        self.avoid(id, Some(worker));
                    }
                    self.fill(id);
                    self.stop_all(id);
                }
            }
            End::Stopped if entry.state == State::Active && members > 1 => self.vacate(id),
            _ => {}
        }
        self.close(id);
    }

    /// The tasks of a lost worker run elsewhere; that is no failure of theirs.
    pub(super) fn lose(&mut self, worker: WorkerId) {
        let Some((slot, worker)) = self.workers.leave(worker) else { return };
        self.changes += 1;
        self.lost = Some(self.now);
        self.forget_reserved(slot);
        let attempts: Vec<Attempt> = worker.lane.running().chain(worker.lane.waiting()).collect();
        for attempt in attempts {
            self.clear(attempt, slot);
            let id = attempt.0;
            if let Some(entry) = self.tasks.get(&id)
                && entry.state == State::Active
                && self.lines.get(entry.line).members > 1
            {
                self.vacate(id);
            }
            self.close(id);
        }
        self.offer_avoided();
        self.look_for_stranded();
    }

    /// A member of a gang is gone, and the others go on: its place is to be taken by a new one.
    fn vacate(&mut self, id: TaskId) {
        let Some(entry) = self.tasks.get_mut(&id).filter(|entry| !entry.live.is_empty()) else { return };
        if let Some(vacancies) = &mut entry.vacancies {
            vacancies.places += 1;
            return;
        }
        let gang = self.lines.get(entry.line);
        let line = self.lines.id(gang.needs, 1, (gang.run, gang.group));
        entry.vacancies = Some(Vacancies { line, places: 1 });
        self.lines.insert(line, entry.place(), self.starts);
        self.hopeful.push(line);
    }

    /// A gang looks for no more members.
    pub(super) fn fill(&mut self, id: TaskId) {
        let Some(entry) = self.tasks.get_mut(&id) else { return };
        let Some(vacancies) = entry.vacancies.take() else { return };
        self.lines.remove(vacancies.line, &entry.place(), self.starts);
        self.hopeful.push(vacancies.line);
    }
}
