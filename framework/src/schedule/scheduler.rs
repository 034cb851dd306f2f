//! The scheduler's state and its one step.

use super::ready::Ready;
use super::{Action, End, Event, Resources, Task, TaskId, Time, WorkerId};
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
    /// Whether larger workers than those that are here may come.
    grows: bool,
}

#[derive(Debug)]
struct Worker {
    has: Resources,
    free: Resources,
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

    /// Says whether larger workers than those that are here may come; until then a task that fits none waits.
    pub fn expect_more(&mut self, grows: bool) {
        self.grows = grows;
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
                self.workers.insert(worker, Worker { has, free: has, running: BTreeSet::new() });
            }
            Event::Lost(worker) => self.lose(worker),
            Event::Submitted(task) => self.submit(task, &mut actions),
            Event::Ended { task, attempt, end } => self.end(now, task, attempt, end, &mut actions),
            Event::Cancelled(task) => self.cancel(task, &mut actions),
            Event::Tick => {}
        }
        self.wake(now, &mut actions);
        self.place(&mut actions);
        actions
    }

    fn submit(&mut self, task: Task, actions: &mut Vec<Action>) {
        if !self.grows && !self.workers.is_empty() && !self.workers.values().any(|worker| worker.has.fits(&task.needs)) {
            let largest = self.workers.values().map(|worker| worker.has).max_by_key(|has| (has.gpus, has.millicores));
            let largest = largest.unwrap_or_default();
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
            worker.free.give(&needs);
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
            place.free.give(&entry.task.needs);
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
            worker.free.take(&needs);
            worker.running.insert(id);
            entry.attempt += 1;
            entry.worker = Some(*worker_id);
            let sharing = (worker.running.len() + self.ready.len()) as u64;
            let threads = (worker.has.millicores / 1000 / sharing.max(1)).max(needs.millicores.div_ceil(1000)).max(1);
            actions.push(Action::Start {
                task: id,
                attempt: entry.attempt,
                worker: *worker_id,
                threads: threads as usize,
            });
        }
    }

    /// Says whether the books are right: no worker has given more than it has, and every running task runs once.
    #[cfg(test)]
    pub(super) fn check(&self) {
        for (id, worker) in &self.workers {
            let mut used = Resources::default();
            for task in &worker.running {
                let entry = &self.tasks[task];
                assert_eq!(entry.worker, Some(*id));
                used.give(&entry.task.needs);
            }
            used.give(&worker.free);
            assert_eq!(used, worker.has, "worker {id:?} gives what it has");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CORE: Resources = Resources { millicores: 1000, gpus: 0 };

    fn task(id: u64, retries: u32) -> Task {
        Task { id: TaskId(id), needs: CORE, priority: 0, retries }
    }

    fn scheduler(cores: u64) -> Scheduler {
        let mut scheduler = Scheduler::new();
        let has = Resources { millicores: cores * 1000, gpus: 0 };
        assert!(scheduler.step(Time::ZERO, Event::Joined { worker: WorkerId(1), has }).is_empty());
        scheduler
    }

    fn start(task: u64, attempt: u32, threads: usize) -> Action {
        Action::Start { task: TaskId(task), attempt, worker: WorkerId(1), threads }
    }

    #[test]
    fn a_lone_task_gets_all_threads_and_later_ones_their_share() {
        let mut scheduler = scheduler(4);
        assert_eq!(scheduler.step(Time::ZERO, Event::Submitted(task(1, 0))), [start(1, 1, 4)]);
        assert_eq!(scheduler.step(Time::ZERO, Event::Submitted(task(2, 0))), [start(2, 1, 2)]);
    }

    #[test]
    fn what_can_never_be_placed_is_refused_with_the_reason() {
        let mut scheduler = scheduler(2);
        let needs = Resources { millicores: 1000, gpus: 1 };
        let actions = scheduler.step(Time::ZERO, Event::Submitted(Task { needs, ..task(1, 0) }));
        let reason = "it needs 1 cores and 1 CUDA device, and the largest worker has 2 cores".to_owned();
        assert_eq!(actions, [Action::Refused { task: TaskId(1), reason }]);
    }

    #[test]
    fn a_transient_failure_is_tried_again_later_and_only_so_often() {
        let mut scheduler = scheduler(1);
        scheduler.step(Time::ZERO, Event::Submitted(task(1, 1)));
        let end = |attempt| Event::Ended { task: TaskId(1), attempt, end: End::Transient };
        assert_eq!(scheduler.step(Time::ZERO, end(1)), [Action::Wake(FIRST_BACKOFF)]);
        assert_eq!(scheduler.step(FIRST_BACKOFF, Event::Tick), [start(1, 2, 1)]);
        assert_eq!(scheduler.step(FIRST_BACKOFF, end(2)), [Action::Failed(TaskId(1))]);
    }

    #[test]
    fn a_zombies_word_changes_nothing() {
        let mut scheduler = scheduler(1);
        scheduler.step(Time::ZERO, Event::Submitted(task(1, 0)));
        scheduler.step(Time::ZERO, Event::Lost(WorkerId(1)));
        scheduler.step(Time::ZERO, Event::Joined { worker: WorkerId(2), has: CORE });
        let zombie = Event::Ended { task: TaskId(1), attempt: 1, end: End::Failed };
        assert!(scheduler.step(Time::ZERO, zombie).is_empty());
        let done = Event::Ended { task: TaskId(1), attempt: 2, end: End::Done };
        assert_eq!(scheduler.step(Time::ZERO, done), [Action::Done(TaskId(1))]);
    }

    #[test]
    fn higher_priority_goes_first() {
        let mut scheduler = scheduler(1);
        scheduler.step(Time::ZERO, Event::Submitted(task(1, 0)));
        scheduler.step(Time::ZERO, Event::Submitted(task(2, 0)));
        scheduler.step(Time::ZERO, Event::Submitted(Task { priority: 1, ..task(3, 0) }));
        let actions = scheduler.step(Time::ZERO, Event::Ended { task: TaskId(1), attempt: 1, end: End::Done });
        assert!(actions.contains(&start(3, 1, 1)), "{actions:?}");
    }
}
