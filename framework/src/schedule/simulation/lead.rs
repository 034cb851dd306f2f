//! What the coordinator does in each of its lives.

use super::coordinator::{Coordinator, Status};
use super::ledger::Ledger;
use super::machine::Run;
use super::rules;
use super::scenario::{Fate, key};
use super::world::{Happening, Order, Word, World};
use crate::data::Digest;
use crate::runtime;
use crate::schedule::{Action, End, Event, Scale, TaskId, WorkerId};
use rand::RngExt;

impl World {
    pub(super) fn start_coordinator(&mut self) {
        self.life += 1;
        self.ledger = Ledger::default();
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
                if let Some(order) = order {
                    coordinator.orders.remove(&order);
                    coordinator.ordered.insert(link, order);
                    // Else it comes too late, or dials again.
                    if !coordinator.autoscaler.came(order) && self.abandoned.contains(&order) {
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
                // A name of another life means nothing in this one.
                if let Some(task) = coordinator.known(TaskId(name)) {
                    self.ledger.ended(self.now, name, &self.scenario.tasks[task], (attempt, link), end);
                }
                if end == End::Done {
                    coordinator.served.insert(link);
                }
                let made = result.iter().map(|digest| (digest.into(), 1000)).collect();
                let seconds = micros as f64 / 1e6;
                self.tell(Event::Ended { worker: link, task: TaskId(name), attempt, end, seconds, made });
            }
        }
    }

    pub(super) fn lose(&mut self, link: WorkerId) {
        let Some(coordinator) = &mut self.coordinator else { return };
        coordinator.loses(link);
        let order = coordinator.ordered.remove(&link);
        let served = coordinator.served.remove(&link);
        if let Some(pool) = self.scenario.pool.as_ref().filter(|_| order.is_some()) {
            coordinator.autoscaler.lost(self.now, pool.id, served);
        }
        self.ledger.lost(link);
        self.tell(Event::Lost(link));
        if order.is_some() {
            self.kill_of_pool(|machine| machine.order == order);
        }
    }

    pub(super) fn tell(&mut self, event: Event) {
        let now = self.now;
        let Some(coordinator) = &mut self.coordinator else { return };
        // Who has not come yet is not known to be going.
        if let Event::Draining(link) = event
            && coordinator.scheduler.workers.slot(link).is_some()
        {
            self.ledger.drains(link);
        }
        let taken_back = !matches!(event, Event::Draining(_) | Event::Cancelled(_));
        let before = rules::Before::of(&coordinator.scheduler);
        let actions = coordinator.scheduler.step(now, event);
        actions.iter().for_each(|action| self.note(action));
        let Some(coordinator) = &self.coordinator else { return };
        if self.scenario.check_every == 1 {
            rules::check(&coordinator.scheduler, &actions, before);
        }
        self.count(&actions, taken_back);
        self.act(actions);
    }

    /// Counts what is to be simulated often. Whether what the scheduler asks back is taken back for others.
    fn count(&mut self, actions: &[Action], taken_back: bool) {
        let Some(coordinator) = &self.coordinator else { return };
        let decided = |name: TaskId| {
            let over = |action: &Action| match action {
                Action::Done(task) | Action::Failed(task) => *task == name,
                Action::Expired { task, .. } | Action::Refused { task, .. } => *task == name,
                _ => false,
            };
            actions.iter().any(over)
        };
        let gang = |name: TaskId| self.scenario.tasks[coordinator.task(name)].members > 1;
        for action in actions {
            match action {
                Action::Start { queued: true, .. } => self.counts.queued += 1,
                Action::Start { task, .. } if self.ledger.runs(task.0) => match gang(*task) {
                    true => self.counts.replaced += 1,
                    false => self.counts.doubled += 1,
                },
                Action::Stop { task, .. } if taken_back && !gang(*task) && !decided(*task) => {
                    self.counts.taken_back += 1;
                }
                Action::Expired { .. } => self.counts.expired += 1,
                Action::Refused { .. } => self.counts.refused += 1,
                _ => {}
            }
        }
    }

    fn act(&mut self, actions: Vec<Action>) {
        let now = self.now;
        let mut over = Vec::new();
        for action in actions {
            let Some(coordinator) = &mut self.coordinator else { return };
            match action {
                Action::Start { task: name, attempt, worker, threads, devices, .. } => {
                    let task = coordinator.task(name);
                    assert!(threads >= 1 && coordinator.links.contains(&worker));
                    assert_eq!(coordinator.status[task], Status::Scheduled(name.0));
                    assert!(!self.finished.contains_key(&task), "finished work is not done again");
                    let spec = &self.scenario.tasks[task];
                    let inputs = coordinator.inputs(spec);
                    self.ledger.starts(now, name.0, spec, (attempt, worker));
                    let run = Run::new(worker, task, spec.needs, devices, inputs);
                    self.order(worker, Order::Start((name.0, attempt), run));
                }
                Action::Stop { task, attempt, worker } => {
                    self.ledger.stops(task.0, (attempt, worker));
                    self.order(worker, Order::Stop((task.0, attempt)));
                }
                Action::Done(name) => {
                    let task = coordinator.decided(name);
                    self.ledger.done(now, name.0);
                    let digest = coordinator.results[&name.0];
                    coordinator.status[task] = Status::Done(digest);
                    self.finish_task(task, digest);
                    over.push(name.0);
                }
                Action::Failed(name) => {
                    let task = coordinator.decided(name);
                    self.ledger.failed(name.0, &self.scenario.tasks[task]);
                    over.push(name.0);
                }
                Action::Expired { task: name, .. } => {
                    coordinator.decided(name);
                    self.ledger.expired(now, name.0);
                    over.push(name.0);
                }
                Action::Refused { task: name, reason } => {
                    let task = coordinator.decided(name);
                    let spec = &self.scenario.tasks[task];
                    assert!(spec.fate == Fate::Impossible, "{spec:?} is refused: {reason}");
                    over.push(name.0);
                }
                Action::Wake(at) => {
                    let life = self.life;
                    let micros = at.saturating_sub(self.now).as_micros() as u64 + 1;
                    self.after(micros, Happening::Wakes { life });
                }
            }
        }
        over.into_iter().for_each(|name| self.ledger.is_over(name));
        if let Some(coordinator) = &self.coordinator {
            self.ledger.stepped(|name| &self.scenario.tasks[coordinator.task(TaskId(name))]);
        }
        self.advance();
    }

    /// Gives a task to the scheduler.
    pub(super) fn submit(&mut self, task: usize) {
        let Some(coordinator) = &mut self.coordinator else { return };
        let spec = &self.scenario.tasks[task];
        let submitted = coordinator.name(self.now, task, spec);
        self.ledger.submitted(self.now, submitted.id.0, spec);
        self.tell(Event::Submitted(submitted));
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
        let life = self.life;
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
            Ok(None) => self.submit(task),
            Err(_) => self.soon(100_000, Happening::Looked { life, task }),
        }
    }

    pub(super) fn scale(&mut self) {
        let (now, life) = (self.now, self.life);
        let Some(coordinator) = &mut self.coordinator else { return };
        let mut view = coordinator.scheduler.view();
        view.demand.extend(coordinator.upcoming(now, &self.scenario.tasks));
        let scales = coordinator.autoscaler.step(now, &view);
        for scale in &scales {
            match scale {
                Scale::Start { order, .. } => drop(coordinator.orders.insert(*order)),
                Scale::Abandon(order) => drop(coordinator.orders.remove(order)),
                Scale::Stop(_) => {}
            }
        }
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
                    self.may_stop(worker);
                    self.tell(Event::Draining(worker));
                    if let Some(machine) = self.machines.iter().position(|machine| machine.link == Some(worker)) {
                        let life = self.machines[machine].life;
                        self.soon(10_000, Happening::Leaves { machine, life });
                    }
                }
            }
        }
        let alive = self.of_pool();
        assert!(alive <= pool.max as usize, "{alive} workers of a pool that has at most {}", pool.max);
        self.after(50_000, Happening::Scales { life });
    }

    /// Only who has been idle for long enough is stopped, unless there are too many.
    fn may_stop(&self, link: WorkerId) {
        let (Some(coordinator), Some(pool)) = (&self.coordinator, &self.scenario.pool) else { return };
        let workers = &coordinator.scheduler.workers;
        let worker = workers.slot(link).and_then(|slot| workers.get(slot)).expect("it is there");
        assert_eq!(worker.lane.running().len(), 0, "{link:?} is stopped while it runs something");
        let here = workers.iter().filter(|(_, worker)| worker.has.pool == Some(pool.id)).count();
        let surplus = here + coordinator.orders.len() > pool.max as usize;
        let long = worker.idle.is_some_and(|since| since + pool.idle <= self.now);
        assert!(long || surplus, "{link:?} was not idle for long: {:?}", worker.idle);
    }
}
