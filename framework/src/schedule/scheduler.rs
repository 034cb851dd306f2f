//! The scheduler's state and its one step.

use super::hash::ByNumber;
use super::lines::Lines;
use super::reserve::Reservation;
use super::task::{Entry, State};
use super::timers::{Due, Timers};
use super::workers::{Attempt, Workers};
use super::{Action, Capacity, Costs, Event, PoolId, Task, TaskId, Time, WorkerId};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

pub(super) const FIRST_BACKOFF: Time = Time::from_millis(100);
pub(super) const LONGEST_BACKOFF: Time = Time::from_secs(30);

/// How long a task rests that has failed so often: twice as long each time.
pub(crate) fn backoff(failures: u32) -> Time {
    let doubled = FIRST_BACKOFF.saturating_mul(1 << failures.saturating_sub(1).min(16));
    doubled.min(LONGEST_BACKOFF)
}

/// Places tasks on workers.
///
/// Of several runs the one of the highest priority is served first, then the one that uses least of what is its due
/// ([`Standing`](super::Standing)). The tasks of a run are placed in the order of their priority; then those of the group
/// that uses least come first, then those that came first. What one step costs depends on how many different needs wait,
/// of how many groups and runs, and hardly on how many workers and tasks there are.
#[derive(Debug)]
pub struct Scheduler {
    pub(super) workers: Workers,
    pub(super) tasks: ByNumber<TaskId, Box<Entry>>,
    pub(super) lines: Lines,
    pub(super) timers: Timers,
    pub(super) costs: Costs,
    /// What the workers of each pool have, and how many there may be.
    pub(super) pools: BTreeMap<PoolId, (Capacity, u32)>,
    pub(super) reservation: Option<Reservation>,
    /// Gangs that could have one if it were not another run's turn; looked at again at each step.
    pub(super) deferred: BTreeSet<u32>,
    /// Attempts that take much longer than others of their stage.
    pub(super) late: BTreeSet<Attempt>,
    /// Attempts started so far: the scheduler's own measure of waiting.
    pub(super) starts: u64,
    /// When to look again for lines that wait too long, by starts.
    pub(super) look_at: u64,
    /// How often workers came or went.
    pub(super) changes: u64,
    /// Workers that tasks avoid, and how many of them.
    pub(super) avoided: BTreeMap<WorkerId, u32>,
    /// When a worker was lost last.
    pub(super) lost: Option<Time>,
    arrivals: u64,
    open: usize,
    /// Workers that may have room for more, to be looked at before the step ends.
    pub(super) roomy: VecDeque<u32>,
    /// Lines whose first task may find a place, likewise.
    pub(super) hopeful: Vec<u32>,
    /// Workers that were offered what they have room for, and whose lanes may now get longer.
    pub(super) served: VecDeque<u32>,
    pub(super) now: Time,
    pub(super) actions: Vec<Action>,
}

impl Default for Scheduler {
    fn default() -> Self {
        Self::new()
    }
}

impl Scheduler {
    /// Knows no worker and no task yet.
    pub fn new() -> Self {
        Self {
            workers: Workers::new(),
            tasks: ByNumber::default(),
            lines: Lines::default(),
            timers: Timers::default(),
            costs: Costs::default(),
            pools: BTreeMap::new(),
            reservation: None,
            deferred: BTreeSet::new(),
            late: BTreeSet::new(),
            starts: 0,
            look_at: 0,
            changes: 0,
            avoided: BTreeMap::new(),
            lost: None,
            arrivals: 0,
            open: 0,
            roomy: VecDeque::new(),
            hopeful: Vec::new(),
            served: VecDeque::new(),
            now: Time::ZERO,
            actions: Vec::new(),
        }
    }

    /// Knows what was learned in earlier runs.
    pub fn with_costs(self, costs: Costs) -> Self {
        Self { costs, ..self }
    }

    /// Knows that up to `max` workers of a pool can be started: a task that fits one of them is not refused.
    pub fn with_pool(mut self, pool: PoolId, capacity: Capacity, max: u32) -> Self {
        self.pools.insert(pool, (capacity, max));
        self
    }

    /// Tasks that are neither done nor failed.
    pub fn open(&self) -> usize {
        self.open
    }

    /// Tasks that wait for a place.
    pub fn waiting(&self) -> usize {
        self.lines.waiting()
    }

    /// What was learned of the stages.
    pub fn costs(&self) -> &Costs {
        &self.costs
    }

    /// Takes what was learned elsewhere: in earlier runs, or of tasks that were not placed here.
    pub fn costs_mut(&mut self) -> &mut Costs {
        &mut self.costs
    }

    /// Takes what happened and says what to do, in order. What is said of an attempt that has ended, or by a worker
    /// that is lost (a zombie's word, a message that came twice), changes nothing.
    pub fn step(&mut self, now: Time, event: Event) -> Vec<Action> {
        self.now = self.now.max(now);
        match event {
            Event::Joined { worker, has } => self.join(worker, has),
            Event::Lost(worker) => self.lose(worker),
            Event::Draining(worker) => self.drain(worker),
            Event::Admitted { run, standing } => self.lines.shares.admit(run, standing),
            Event::Submitted(task) => self.submit(task),
            Event::Ended { worker, task, attempt, end, seconds, made } => {
                self.end(worker, (task, attempt), end, seconds, &made);
            }
            Event::Holds { worker, blob } => {
                if let Some(slot) = self.workers.slot(worker) {
                    self.workers.hold(slot, blob);
                }
            }
            Event::Passed { task, to } => self.pass_on(task, to),
            Event::Cancelled(task) => self.decide(task, None),
            Event::Tick => {}
        }
        self.ring();
        self.hopeful.extend(std::mem::take(&mut self.deferred));
        self.settle();
        self.workers.refresh();
        if let Some(at) = self.timers.ask(self.now) {
            self.actions.push(Action::Wake(at));
        }
        std::mem::take(&mut self.actions)
    }

    fn submit(&mut self, task: Task) {
        if self.tasks.contains_key(&task.id) {
            return;
        }
        let members = task.members.max(1);
        let line = self.lines.id(task.needs, members, (task.run, task.group));
        if let Err(reason) = self.possible_ever(line)
            && !self.may_come_back(&task.needs)
        {
            self.actions.push(Action::Refused { task: task.id, reason });
            return;
        }
        self.arrivals += 1;
        self.open += 1;
        let entry = Entry::new(task, self.arrivals, line);
        if let Some(deadline) = entry.deadline {
            self.timers.set(deadline, Due::Deadline(entry.id));
        }
        let (id, place) = (entry.id, entry.place());
        self.tasks.insert(id, Box::new(entry));
        self.lines.insert(line, place, self.starts);
        // Behind another it need not be tried: there was no place for that one, unless it was choosy.
        if self.lines.get(line).first() == Some(place) || !self.avoided.is_empty() {
            self.hopeful.push(line);
        }
    }

    /// A task is decided: `say` tells how, and what remains of it is stopped.
    pub(super) fn decide(&mut self, id: TaskId, say: Option<Action>) {
        let Some(entry) = self.tasks.get_mut(&id).filter(|entry| entry.is_open()) else { return };
        let before = std::mem::replace(&mut entry.state, State::Over);
        let (line, place) = (entry.line, entry.place());
        if let Some(deadline) = entry.deadline {
            self.timers.unset(deadline, Due::Deadline(id));
        }
        match before {
            State::Waiting => {
                self.lines.remove(line, &place, self.starts);
                self.hopeful.push(line);
            }
            State::Backoff(due) => self.timers.unset(due, Due::Retry(id)),
            State::Active | State::Retry | State::Over => {}
        }
        self.fill(id);
        self.avoid(id, None);
        self.open -= 1;
        self.actions.extend(say);
        self.stop_all(id);
        self.close(id);
        if self.reservation.as_ref().is_some_and(|kept| kept.task == id) {
            self.release();
        }
    }

    /// What becomes of a task that has no attempt any more.
    pub(super) fn close(&mut self, id: TaskId) {
        let Some(entry) = self.tasks.get_mut(&id).filter(|entry| entry.live.is_empty()) else { return };
        match entry.state {
            State::Over => drop(self.tasks.remove(&id)),
            State::Active => self.wait(id),
            State::Retry => {
                let due = self.now + backoff(entry.failures + entry.moves);
                entry.state = State::Backoff(due);
                self.timers.set(due, Due::Retry(id));
            }
            State::Waiting | State::Backoff(_) => {}
        }
    }

    /// Puts a task back in its line, at its old place.
    fn wait(&mut self, id: TaskId) {
        self.fill(id);
        let Some(entry) = self.tasks.get_mut(&id) else { return };
        entry.state = State::Waiting;
        self.lines.insert(entry.line, entry.place(), self.starts);
        self.hopeful.push(entry.line);
    }

    /// Does what is due.
    fn ring(&mut self) {
        while let Some(due) = self.timers.pop(self.now) {
            match due {
                Due::Deadline(task) => self.expire(task),
                Due::Retry(task) => self.wait(task),
                Due::Choosy(task) => self.avoid(task, None),
                Due::Late(attempt) => {
                    self.late.insert(attempt);
                    self.double(attempt);
                }
                Due::Stranded => self.refuse_stranded(),
            }
        }
    }

    fn expire(&mut self, task: TaskId) {
        let Some(entry) = self.tasks.get(&task) else { return };
        let doing = match entry.state {
            State::Waiting if entry.attempts == 0 => "it was still waiting for a worker with room".to_owned(),
            State::Waiting => format!("it was waiting for a worker after {} attempts", entry.attempts),
            State::Backoff(_) => {
                format!("it was about to be tried again after {} failures", entry.failures + entry.moves)
            }
            _ if entry.live.iter().all(|live| live.queued) => "it was next in a worker's lane".to_owned(),
            _ => format!("attempt {} was running", entry.attempts),
        };
        let reason = format!("its deadline passed: {doing}");
        self.decide(task, Some(Action::Expired { task, reason }));
    }
}
