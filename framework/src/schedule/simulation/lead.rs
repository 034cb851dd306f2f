//! What the coordinator does in each of its lives.

use super::coordinator::{Coordinator, Status};
use super::machine::Run;
use super::scenario::key;
use super::world::{Happening, LATE, Order, Word, World};
use crate::data::Digest;
use crate::runtime;
use crate::schedule::{Action, Event, Scale, TaskId, WorkerId};
use rand::RngExt;

impl World {
    pub(super) fn start_coordinator(&mut self) {
        self.life += 1;
        self.live.clear();
        self.coordinator = Some(Coordinator::new(&self.scenario));
        self.advance();
        if self.scenario.pool.is_some() {
            let life = self.life;
            self.after(0, Happening::Scales { life });
        }
    }

    pub(super) fn kill_coordinator(&mut self) {
        if self.coordinator.take().is_none() {
            return;
        }
        self.note(&"the coordinator is killed");
        self.life += 1;
        for machine in 0..self.machines.len() {
            // Who was started by the coordinator dies with it; the others see that the link is broken.
            if self.machines[machine].order.is_some() {
                self.machines[machine].die();
                self.machines[machine].life += 1;
            } else if let Some(link) = self.machines[machine].link {
                self.soon(1_000_000, Happening::Unlinked { machine, link });
            }
        }
        self.soon(1_000_000, Happening::Starts);
    }

    pub(super) fn coordinator_hears(&mut self, link: WorkerId, word: Word) {
        let Some(coordinator) = &mut self.coordinator else { return };
        match word {
            Word::Joined(has, order) => {
                if !coordinator.admits(link) {
                    return;
                }
                if let Some(order) = order
                    && !coordinator.autoscaler.came(order)
                {
                    // It comes too late, or dials again.
                    if self.abandoned.contains(&order) {
                        coordinator.links.remove(&link);
                        return;
                    }
                }
                self.tell(Event::Joined { worker: link, has });
            }
            Word::Ended { attempt: (name, attempt), end, micros, result } => {
                if let Some(result) = result {
                    coordinator.results.insert(name, result);
                }
                self.live.entry(name).or_default().remove(&(attempt, link));
                let made = result.iter().map(|digest| (digest.into(), 1000)).collect();
                let seconds = micros as f64 / 1e6;
                self.tell(Event::Ended { worker: link, task: TaskId(name), attempt, end, seconds, made });
            }
        }
    }

    pub(super) fn lose(&mut self, link: WorkerId) {
        let Some(coordinator) = &mut self.coordinator else { return };
        coordinator.loses(link);
        self.live.values_mut().for_each(|live| live.retain(|(_, at), _| *at != link));
        self.tell(Event::Lost(link));
        self.kill_of_pool(|machine| machine.link == Some(link));
    }

    pub(super) fn tell(&mut self, event: Event) {
        let now = self.now;
        let Some(coordinator) = &mut self.coordinator else { return };
        let actions = coordinator.step(now, event);
        self.act(actions);
    }

    pub(super) fn act(&mut self, actions: Vec<Action>) {
        for action in actions {
            self.note(&action);
            let Some(coordinator) = &mut self.coordinator else { return };
            match action {
                Action::Start { task: name, attempt, worker, threads, devices, .. } => {
                    let task = coordinator.task(name);
                    assert!(threads >= 1 && coordinator.links.contains(&worker));
                    assert_eq!(coordinator.status[task], Status::Scheduled(name.0));
                    assert!(!self.finished.contains_key(&task), "finished work is not done again");
                    let spec = &self.scenario.tasks[task];
                    let inputs = coordinator.inputs(spec);
                    let live = self.live.entry(name.0).or_default();
                    // Only a straggler may be doubled, once.
                    let alone = live.values().all(|since| *since + LATE <= self.now) && live.len() <= 1;
                    assert!(spec.members > 1 || alone, "{name:?} runs already: {live:?}");
                    assert!(live.len() < spec.members.max(2) as usize, "{name:?} has too many attempts: {live:?}");
                    live.insert((attempt, worker), self.now);
                    let run = Run { link: worker, task, needs: spec.needs, devices, inputs, stopping: false };
                    self.order(worker, Order::Start((name.0, attempt), run));
                }
                Action::Stop { task, attempt, worker } => self.order(worker, Order::Stop((task.0, attempt))),
                Action::Done(name) => {
                    let task = coordinator.task(name);
                    assert_eq!(coordinator.status[task], Status::Scheduled(name.0), "a task ends once");
                    let digest = coordinator.results[&name.0];
                    coordinator.status[task] = Status::Done(digest);
                    self.finish_task(task, digest);
                }
                Action::Failed(name) => {
                    let task = coordinator.task(name);
                    assert_eq!(coordinator.status[task], Status::Scheduled(name.0), "a task ends once");
                    coordinator.status[task] = Status::Failed;
                }
                Action::Expired { .. } | Action::Refused { .. } => panic!("{action:?}"),
                Action::Wake(at) => {
                    let life = self.life;
                    let micros = at.saturating_sub(self.now).as_micros() as u64 + 1;
                    self.after(micros, Happening::Wakes { life });
                }
            }
        }
        self.advance();
    }

    pub(super) fn finish_task(&mut self, task: usize, digest: Digest) {
        let before = self.finished.insert(task, digest);
        assert!(before.is_none_or(|before| before == digest), "a result changed");
    }

    /// Looks up what is ready.
    pub(super) fn advance(&mut self) {
        let life = self.life;
        let Some(coordinator) = &mut self.coordinator else { return };
        for task in coordinator.ready(&self.scenario.tasks) {
            self.soon(1_000, Happening::Looked { life, task });
        }
    }

    pub(super) fn looked(&mut self, task: usize) {
        let (now, life) = (self.now, self.life);
        let Some(coordinator) = &mut self.coordinator else { return };
        let spec = &self.scenario.tasks[task];
        let memo = self.store.memo(key(task, &coordinator.inputs(spec)));
        match runtime().expect("there is a runtime").block_on(memo) {
            Ok(Some(memo)) => {
                let digest = memo.outputs["output"].digest;
                coordinator.status[task] = Status::Done(digest);
                self.finish_task(task, digest);
                self.advance();
            }
            Ok(None) => {
                let actions = coordinator.submit(now, task, spec);
                self.act(actions);
            }
            Err(_) => self.soon(100_000, Happening::Looked { life, task }),
        }
    }

    pub(super) fn scale(&mut self) {
        let (now, life) = (self.now, self.life);
        let Some(coordinator) = &mut self.coordinator else { return };
        let mut view = coordinator.scheduler.view();
        view.demand.extend(coordinator.upcoming(now, &self.scenario.tasks));
        let scales = coordinator.autoscaler.step(now, &view);
        let pool = self.scenario.pool.clone().expect("there is a pool");
        for scale in scales {
            self.note(&scale);
            match scale {
                Scale::Start { order, .. } => {
                    // Some never come, and some come late.
                    let usual = pool.startup.as_micros() as u64;
                    match self.rng.random_range(0..8) {
                        0 => {}
                        1 => self.soon(usual * 100, Happening::Arrives { life, order }),
                        _ => self.soon(usual, Happening::Arrives { life, order }),
                    }
                }
                Scale::Abandon(order) => {
                    self.abandoned.insert(order);
                    self.kill_of_pool(|machine| machine.order == Some(order));
                }
                Scale::Stop(worker) => {
                    self.tell(Event::Draining(worker));
                    if let Some(machine) = self.machines.iter().position(|machine| machine.link == Some(worker)) {
                        let life = self.machines[machine].life;
                        self.soon(10_000, Happening::Leaves { machine, life });
                    }
                }
            }
        }
        let alive = self.machines.iter().filter(|machine| machine.alive && machine.order.is_some()).count();
        assert!(alive <= pool.max as usize, "{alive} workers of a pool that has at most {}", pool.max);
        self.after(50_000, Happening::Scales { life });
    }
}
