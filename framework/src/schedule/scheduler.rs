//! The scheduler's state and its one step.

use super::ready::Ready;
use super::{Action, Capacity, End, Event, Needs, Share, Task, TaskId, Time, WHOLE, WorkerId};
use std::collections::{BTreeMap, BTreeSet};

const FIRST_BACKOFF: Time = Time::from_millis(100);
const LONGEST_BACKOFF: Time = Time::from_secs(30);

/// Places tasks on workers.
#[derive(Debug, Default)]
pub struct Scheduler {
    workers: BTreeMap<WorkerId, Worker>,
    tasks: BTreeMap<TaskId, Entry>,
    ready: Ready,
    delayed: BTreeSet<(Time, TaskId)>,
}

#[derive(Debug)]
struct Worker {
    has: Capacity,
    free: Capacity,
    running: BTreeSet<TaskId>,
}

#[derive(Debug)]
struct Entry {
    task: Task,
    attempt: u32,
    failures: u32,
    worker: Option<WorkerId>,
}

impl Scheduler {
    /// Knows no worker and no task yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Tasks that are neither done nor failed.
    pub fn open(&self) -> usize {
        self.tasks.len()
    }

    /// Takes what happened and says what to do, in order. What happened to an attempt that is not the current one (a
    /// zombie's word, a message that came twice) changes nothing.
    pub fn step(&mut self, now: Time, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            Event::Joined { worker, has } => {
                self.workers.insert(worker, Worker { free: has.clone(), has, running: BTreeSet::new() });
            }
            Event::Lost(worker) => self.lose(worker),
            Event::Submitted(task) => self.submit(task, &mut actions),
            Event::Ended { task, attempt, end, .. } => self.end(now, task, attempt, end, &mut actions),
            Event::Cancelled(task) => self.cancel(task, &mut actions),
            Event::Draining(_) | Event::Holds { .. } | Event::Dropped { .. } | Event::Tick => {}
        }
        self.wake(now, &mut actions);
        self.place(&mut actions);
        actions
    }

    fn submit(&mut self, task: Task, actions: &mut Vec<Action>) {
        if !self.workers.is_empty() && !self.workers.values().any(|worker| worker.has.fits(&task.needs)) {
            let largest = self.workers.values().map(|worker| &worker.has);
            let largest = largest.max_by_key(|has| (has.devices.len(), has.millicores));
            let largest = largest.map_or("nothing".to_owned(), ToString::to_string);
            let reason = format!("it needs {}, and the largest worker has {largest}", task.needs);
            actions.push(Action::Refused { task: task.id, reason });
            return;
        }
        self.ready.push(&task);
        self.tasks.insert(task.id, Entry { task, attempt: 0, failures: 0, worker: None });
    }

    fn end(&mut self, now: Time, id: TaskId, attempt: u32, end: End, actions: &mut Vec<Action>) {
        let Some(entry) = self.tasks.get_mut(&id) else { return };
        let Some(worker) = entry.worker else { return };
        if entry.attempt != attempt {
            return;
        }
        entry.worker = None;
        let needs = entry.task.needs;
        if let Some(worker) = self.workers.get_mut(&worker) {
            worker.running.remove(&id);
            give(&mut worker.free, &needs, &worker.has);
        }
        match end {
            End::Done => {
                self.tasks.remove(&id);
                actions.push(Action::Done(id));
            }
            End::Transient if entry.failures < entry.task.retries => {
                let backoff = FIRST_BACKOFF.saturating_mul(1 << entry.failures.min(16)).min(LONGEST_BACKOFF);
                entry.failures += 1;
                self.delayed.insert((now + backoff, id));
            }
            End::Failed | End::Transient => {
                self.tasks.remove(&id);
                actions.push(Action::Failed(id));
            }
            End::Stopped => self.ready.push(&entry.task),
        }
    }

    /// The tasks of a lost worker run elsewhere; that is no failure of theirs.
    fn lose(&mut self, worker: WorkerId) {
        let Some(worker) = self.workers.remove(&worker) else { return };
        for id in worker.running {
            if let Some(entry) = self.tasks.get_mut(&id) {
                entry.worker = None;
                self.ready.push(&entry.task);
            }
        }
    }

    fn cancel(&mut self, id: TaskId, actions: &mut Vec<Action>) {
        let Some(entry) = self.tasks.remove(&id) else { return };
        self.ready.remove(id);
        self.delayed.retain(|(_, task)| *task != id);
        let Some(worker) = entry.worker else { return };
        if let Some(place) = self.workers.get_mut(&worker) {
            place.running.remove(&id);
            give(&mut place.free, &entry.task.needs, &place.has);
        }
        actions.push(Action::Stop { task: id, attempt: entry.attempt, worker });
    }

    fn wake(&mut self, now: Time, actions: &mut Vec<Action>) {
        while let Some((due, id)) = self.delayed.first().copied() {
            if due > now {
                actions.push(Action::Wake(due));
                break;
            }
            self.delayed.pop_first();
            if let Some(entry) = self.tasks.get(&id) {
                self.ready.push(&entry.task);
            }
        }
    }

    fn place(&mut self, actions: &mut Vec<Action>) {
        while let Some(id) = self.ready.pop(|needs| self.workers.values().any(|worker| worker.free.fits(needs))) {
            let Some(entry) = self.tasks.get_mut(&id) else { continue };
            let needs = entry.task.needs;
            // The emptiest worker, so that each task gets as many threads as there are.
            let place = self
                .workers
                .iter_mut()
                .filter(|(_, worker)| worker.free.fits(&needs))
                .max_by_key(|(id, worker)| (worker.free.millicores, std::cmp::Reverse(**id)));
            let Some((worker_id, worker)) = place else { continue };
            let devices = take(&mut worker.free, &needs);
            worker.running.insert(id);
            entry.attempt += 1;
            entry.worker = Some(*worker_id);
            let sharing = (worker.running.len() + self.ready.len()) as u64;
            let threads = (worker.has.millicores / 1000 / sharing.max(1)).max(needs.millicores.div_ceil(1000)).max(1);
            actions.push(Action::Start {
                task: id,
                attempt: entry.attempt,
                member: 0,
                worker: *worker_id,
                threads: threads as usize,
                devices,
                queued: false,
            });
        }
    }
}

fn take(free: &mut Capacity, needs: &Needs) -> Vec<Share> {
    free.millicores -= needs.millicores;
    free.memory -= needs.memory;
    let left = free.devices.len().saturating_sub(needs.devices() as usize);
    let taken = free.devices.split_off(left);
    let shares = taken.iter().enumerate();
    shares.map(|(at, memory)| Share { device: (left + at) as u32, share: WHOLE as u32, memory: *memory }).collect()
}

fn give(free: &mut Capacity, needs: &Needs, has: &Capacity) {
    free.millicores += needs.millicores;
    free.memory += needs.memory;
    let from = free.devices.len();
    free.devices.extend(has.devices.iter().skip(from).take(needs.devices() as usize));
}
