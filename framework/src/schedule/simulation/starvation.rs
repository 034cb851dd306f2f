//! Nobody waits for ever: whatever small tasks keep coming, a task that needs much starts after a bounded number of
//! others.

use crate::schedule::{Action, Capacity, End, Event, GroupId, Needs, Scheduler, StageId, Task, TaskId, Time, WorkerId};
use crate::stage::Seed;
use rand::RngExt;
use std::collections::{BTreeMap, BTreeSet};

/// Workers that are never without small tasks.
struct Crowd {
    scheduler: Scheduler,
    now: Time,
    /// When attempts end.
    running: BTreeSet<(Time, TaskId, u32, WorkerId)>,
    small: u64,
    waiting: u64,
    /// How many attempts were started before each task that is not small.
    started: BTreeMap<TaskId, usize>,
    starts: usize,
    rng: rand_chacha::ChaCha8Rng,
}

/// Names of tasks that are not small begin here.
const LARGE: u64 = 1 << 40;

impl Crowd {
    fn new(workers: u64, seed: u64) -> Self {
        let mut this = Self {
            scheduler: Scheduler::new(),
            now: Time::ZERO,
            running: BTreeSet::new(),
            small: 0,
            waiting: 0,
            started: BTreeMap::new(),
            starts: 0,
            rng: Seed::new(seed, "starvation").rng("crowd"),
        };
        for worker in 0..workers {
            let has = Capacity { millicores: 4000, memory: u64::MAX, devices: vec![16], ..Capacity::default() };
            this.send(Event::Joined { worker: WorkerId(worker), has });
        }
        this.go_on(200);
        this
    }

    fn send(&mut self, event: Event) {
        for action in self.scheduler.step(self.now, event) {
            if let Action::Start { task, attempt, worker, .. } = action {
                self.starts += 1;
                if task.0 >= LARGE {
                    self.started.entry(task).or_insert(self.starts);
                } else {
                    self.waiting -= 1;
                }
                let ends = self.now + Time::from_micros(self.rng.random_range(100..3_000));
                self.running.insert((ends, task, attempt, worker));
            }
        }
    }

    /// Ends so many attempts, and sees that small tasks never run out.
    fn go_on(&mut self, attempts: usize) {
        for _ in 0..attempts {
            while self.waiting < 50 {
                self.small += 1;
                self.waiting += 1;
                let stage = StageId(self.rng.random_range(0..3));
                let needs = Needs { millicores: [500, 1000][(self.small % 2) as usize], ..Needs::default() };
                let group = GroupId((self.small % 3) as u32);
                self.send(Event::Submitted(Task { stage, group, ..Task::new(TaskId(self.small), needs) }));
            }
            let (at, task, attempt, worker) = self.running.pop_first().unwrap();
            self.now = at;
            let end = Event::Ended { worker, task, attempt, end: End::Done, seconds: 0.001, made: Vec::new() };
            self.send(end);
            self.scheduler.check();
        }
    }

    /// How many attempts start before a task does.
    fn wait_for(&mut self, tasks: &[Task]) -> usize {
        let before = self.starts;
        tasks.iter().for_each(|task| self.send(Event::Submitted(task.clone())));
        let all = |this: &Self| tasks.iter().all(|task| this.started.contains_key(&task.id));
        while !all(self) {
            assert!(self.starts - before < 100_000, "it waits for ever: {:?}", self.scheduler.reservation);
            self.go_on(1);
        }
        self.starts - before
    }
}

fn large(name: u64, needs: Needs, members: u32) -> Task {
    Task { members, stage: StageId(9), ..Task::new(TaskId(LARGE + name), needs) }
}

#[test]
fn a_task_that_needs_a_whole_worker_starts_in_the_end() {
    for seed in 0..20 {
        let needs = Needs { millicores: 4000, gpus: 500, ..Needs::default() };
        let waited = Crowd::new(8, seed).wait_for(&[large(0, needs, 1)]);
        assert!(waited < 1_500, "seed {seed}: {waited} others went first");
    }
}

#[test]
fn gangs_that_want_the_same_workers_do_not_block_each_other() {
    for seed in 0..20 {
        let needs = Needs { millicores: 3000, ..Needs::default() };
        let gangs = [large(0, needs, 6), large(1, needs, 5), large(2, Needs { gpus: 1000, ..needs }, 8)];
        let waited = Crowd::new(8, seed).wait_for(&gangs);
        assert!(waited < 5_000, "seed {seed}: {waited} others went first");
    }
}

#[test]
fn a_gang_is_not_stopped_by_one_that_can_never_be_complete() {
    let needs = Needs { millicores: 3000, ..Needs::default() };
    let mut crowd = Crowd::new(8, 1);
    crowd.send(Event::Submitted(large(0, needs, 8)));
    // Now only seven can be placed at once.
    let before = crowd.running.len();
    crowd.running.retain(|(.., worker)| *worker != WorkerId(7));
    crowd.waiting += (before - crowd.running.len()) as u64;
    crowd.send(Event::Lost(WorkerId(7)));
    let waited = crowd.wait_for(&[large(1, needs, 7)]);
    assert!(waited < 3_000, "{waited} others went first");
}
