//! A seeded simulation: workers come, die and lie about nothing but time; every task ends once, and nothing is
//! over-committed.

use super::{Action, End, Event, Resources, Scheduler, Task, TaskId, Time, WorkerId};
use crate::stage::Seed;
use rand::RngExt;
use std::collections::{BTreeMap, BTreeSet};

struct World {
    scheduler: Scheduler,
    now: Time,
    /// Attempts under way, by the time at which they will end.
    attempts: BTreeSet<(Time, TaskId, u32, WorkerId)>,
    workers: BTreeMap<WorkerId, Resources>,
    ended: BTreeMap<TaskId, bool>,
    trace: Vec<String>,
}

impl World {
    fn send(&mut self, event: Event, rng: &mut impl RngExt) {
        self.trace.push(format!("{:?} {event:?}", self.now));
        for action in self.scheduler.step(self.now, event) {
            self.trace.push(format!("  {action:?}"));
            match action {
                Action::Start { task, attempt, worker, threads } => {
                    assert!(threads >= 1);
                    assert!(self.workers.contains_key(&worker), "a task was placed on a worker that is gone");
                    let ends = self.now + Time::from_millis(rng.random_range(1..500));
                    self.attempts.insert((ends, task, attempt, worker));
                }
                Action::Done(task) => assert_eq!(self.ended.insert(task, true), None, "a task ended twice"),
                Action::Failed(task) | Action::Refused { task, .. } => {
                    assert_eq!(self.ended.insert(task, false), None, "a task ended twice");
                }
                Action::Stop { .. } | Action::Wake(_) => {}
            }
        }
        self.scheduler.check();
    }
}

/// Runs one seed to its end and gives its trace.
fn simulate(seed: u64) -> Vec<String> {
    let mut rng = Seed::new(seed, "simulation").rng("world");
    let mut world = World {
        scheduler: Scheduler::new(),
        now: Time::ZERO,
        attempts: BTreeSet::new(),
        workers: BTreeMap::new(),
        ended: BTreeMap::new(),
        trace: Vec::new(),
    };
    let tasks = rng.random_range(1..60);
    let mut submitted = 0;
    let mut next_worker = 0;
    // One worker always stays, so that every task can be placed in the end.
    let has = Resources { millicores: 4000, gpus: 1 };
    world.workers.insert(WorkerId(0), has);
    world.send(Event::Joined { worker: WorkerId(0), has }, &mut rng);
    while world.ended.len() < tasks {
        match rng.random_range(0..10) {
            0 if world.workers.len() < 8 => {
                next_worker += 1;
                let has = Resources { millicores: 1000 * rng.random_range(1..5), gpus: rng.random_range(0..2) };
                world.workers.insert(WorkerId(next_worker), has);
                world.send(Event::Joined { worker: WorkerId(next_worker), has }, &mut rng);
            }
            1 if world.workers.len() > 1 => {
                let place = rng.random_range(1..world.workers.len());
                let Some(worker) = world.workers.keys().nth(place).copied() else { continue };
                world.workers.remove(&worker);
                world.send(Event::Lost(worker), &mut rng);
                // What a lost worker still says may come much later, or never.
            }
            2..5 if submitted < tasks => {
                submitted += 1;
                let needs = Resources {
                    millicores: [0, 500, 1000, 2000, 4000][rng.random_range(0..5)],
                    gpus: u64::from(rng.random_range(0..6) == 0),
                };
                let task = Task {
                    id: TaskId(submitted as u64),
                    needs,
                    priority: rng.random_range(-1..2),
                    retries: rng.random_range(0..3),
                };
                world.send(Event::Submitted(task), &mut rng);
            }
            _ => {
                world.now += Time::from_millis(rng.random_range(1..200));
                let due: Vec<_> = world.attempts.iter().take_while(|(ends, ..)| *ends <= world.now).copied().collect();
                for attempt in due {
                    world.attempts.remove(&attempt);
                    let (_, task, number, _) = attempt;
                    let end = [End::Done, End::Done, End::Done, End::Failed, End::Transient][rng.random_range(0..5)];
                    let event = Event::Ended { task, attempt: number, end };
                    world.send(event.clone(), &mut rng);
                    if rng.random_range(0..8) == 0 {
                        world.send(event, &mut rng);
                    }
                }
                world.send(Event::Tick, &mut rng);
            }
        }
    }
    assert_eq!(world.scheduler.open(), 0);
    world.trace
}

#[test]
fn every_task_ends_once_and_nothing_is_overcommitted() {
    for seed in 0..500 {
        simulate(seed);
    }
}

#[test]
fn one_seed_gives_one_trace() {
    for seed in 0..20 {
        assert_eq!(simulate(seed), simulate(seed));
    }
}
