//! The world: time, the network, and what goes wrong.

use super::coordinator::{Coordinator, Status};
use super::machine::{Attempt, Machine, Run};
use super::scenario::{Scenario, compute};
use crate::data::{Artifact, Digest};
use crate::runtime;
use crate::schedule::{Action, Capacity, End, Event, OrderId, Scale, TaskId, Time, WorkerId};
use crate::stage::Seed;
use crate::store::{Commit, Key, Memo, Store};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use std::collections::{BTreeMap, BTreeSet};

/// No run has so many events.
const MOST_EVENTS: u64 = 2_000_000;
/// Nor does one take so long.
const LONGEST: Time = Time::from_secs(24 * 3600);

/// No attempt is late sooner.
const LATE: Time = Time::from_secs(1);

/// What the coordinator says to a worker.
#[derive(Clone, Debug)]
enum Order {
    Start(Attempt, Run),
    Stop(Attempt),
}

/// What a worker says to the coordinator.
#[derive(Clone, Debug)]
enum Word {
    Joined(Capacity, Option<OrderId>),
    Ended { attempt: Attempt, end: End, micros: u64, result: Option<Digest> },
}

/// What happens. What belongs to a life that is over happens to nobody.
#[derive(Clone, Debug)]
enum Happening {
    ToWorker {
        machine: usize,
        link: WorkerId,
        order: Order,
    },
    ToCoordinator {
        life: u32,
        link: WorkerId,
        word: Word,
    },
    /// An attempt has computed what it should.
    Computed {
        machine: usize,
        life: u32,
        link: WorkerId,
        attempt: Attempt,
        micros: u64,
    },
    /// A stopped attempt has stopped.
    Stopped {
        machine: usize,
        life: u32,
        link: WorkerId,
        attempt: Attempt,
    },
    /// A worker sees that its link is broken.
    Unlinked {
        machine: usize,
        link: WorkerId,
    },
    /// A worker dials.
    Dials {
        machine: usize,
        life: u32,
    },
    /// A dead machine comes back.
    Revives {
        machine: usize,
        life: u32,
    },
    /// The coordinator has not heard from a worker for too long.
    Silent {
        life: u32,
        link: WorkerId,
    },
    /// The store says whether a result is known.
    Looked {
        life: u32,
        task: usize,
    },
    Wakes {
        life: u32,
    },
    Scales {
        life: u32,
    },
    Arrives {
        life: u32,
        order: OrderId,
    },
    Starts,
    Fault,
    /// A worker that was drained goes.
    Leaves {
        machine: usize,
        life: u32,
    },
}

/// How a run went. Equal seeds have equal ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trace {
    pub(super) events: u64,
    pub(super) took: Time,
    digest: u64,
}

pub(super) struct World {
    scenario: Scenario,
    rng: ChaCha8Rng,
    store: Store,
    now: Time,
    sequence: u64,
    queue: BTreeMap<(Time, u64), Happening>,
    machines: Vec<Machine>,
    coordinator: Option<Coordinator>,
    /// How often the coordinator was started.
    life: u32,
    links: u64,
    /// Links that a message was lost on: the other side will notice.
    broken: BTreeSet<WorkerId>,
    /// When the last message on a link arrives, by direction.
    last: BTreeMap<(WorkerId, bool), Time>,
    /// Results that the coordinator was told, in any of its lives.
    finished: BTreeMap<usize, Digest>,
    committed: BTreeSet<Key>,
    abandoned: BTreeSet<OrderId>,
    /// Attempts that the coordinator has started and not heard the end of, and since when.
    live: BTreeMap<u64, BTreeMap<(u32, WorkerId), Time>>,
    expected: Vec<Option<Digest>>,
    events: u64,
    aloud: bool,
    digest: u64,
}

impl World {
    pub(super) fn new(scenario: Scenario) -> Self {
        Self {
            rng: Seed::new(scenario.seed, "simulation").rng("world"),
            store: if scenario.store_fails { Store::failing(scenario.seed) } else { Store::memory() },
            now: Time::ZERO,
            sequence: 0,
            queue: BTreeMap::new(),
            machines: scenario.machines.iter().map(|has| Machine::new(has.clone(), None)).collect(),
            coordinator: None,
            life: 0,
            links: 0,
            broken: BTreeSet::new(),
            last: BTreeMap::new(),
            finished: BTreeMap::new(),
            committed: BTreeSet::new(),
            abandoned: BTreeSet::new(),
            live: BTreeMap::new(),
            expected: scenario.results(),
            events: 0,
            aloud: false,
            digest: 0xcbf2_9ce4_8422_2325,
            scenario,
        }
    }

    /// Prints what happens.
    pub(super) fn aloud(mut self) -> Self {
        self.aloud = true;
        self
    }

    /// Sees the run through and checks how it ended.
    pub(super) fn run(mut self) -> Trace {
        self.after(0, Happening::Starts);
        for machine in 0..self.machines.len() {
            let life = self.machines[machine].life;
            self.soon(1_000, Happening::Dials { machine, life });
        }
        for at in self.scenario.faults.clone() {
            self.after(at, Happening::Fault);
        }
        while !self.coordinator.as_ref().is_some_and(Coordinator::is_done) {
            let next = self.queue.pop_first();
            let ((at, _), happening) = next.unwrap_or_else(|| panic!("nothing happens any more: {}", self.stuck()));
            self.now = at;
            self.events += 1;
            assert!(self.events < MOST_EVENTS && self.now < LONGEST, "the run does not end: {}", self.stuck());
            self.note(&happening);
            self.happen(happening);
            if self.events.is_multiple_of(self.scenario.check_every)
                && let Some(coordinator) = &self.coordinator
            {
                coordinator.scheduler.check();
            }
            if self.scenario.crashes.contains(&self.events) {
                self.kill_coordinator();
            }
        }
        self.finish()
    }

    fn stuck(&self) -> String {
        let Some(coordinator) = &self.coordinator else { return "no coordinator".into() };
        let open = |(_, status): &(usize, &Status)| !matches!(status, Status::Done(_) | Status::Failed);
        let open: Vec<_> = coordinator.status.iter().enumerate().filter(open).take(5).collect();
        let needs: Vec<_> = open.iter().map(|(task, _)| &self.scenario.tasks[*task]).collect();
        format!("{open:?} {needs:?} {:?}", coordinator.scheduler)
    }

    fn finish(self) -> Trace {
        let coordinator = self.coordinator.expect("it has seen the run through");
        for (task, expected) in self.expected.iter().enumerate() {
            let result = match coordinator.status[task] {
                Status::Done(digest) => Some(digest),
                _ => None,
            };
            assert_eq!(result, *expected, "task {task} ends as without faults");
        }
        Trace { events: self.events, took: self.now, digest: self.digest }
    }

    fn note(&mut self, what: &impl std::fmt::Debug) {
        let line = format!("{:?} {what:?}", self.now);
        for byte in line.bytes() {
            self.digest = (self.digest ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        if self.aloud {
            println!("{line}");
        }
    }

    fn after(&mut self, micros: u64, happening: Happening) {
        self.sequence += 1;
        self.queue.insert((self.now + Time::from_micros(micros), self.sequence), happening);
    }

    fn soon(&mut self, most: u64, happening: Happening) {
        let micros = self.rng.random_range(0..most);
        self.after(micros, happening);
    }

    fn chance(&mut self, thousandths: u32) -> bool {
        thousandths > 0 && self.rng.random_range(0..1000) < thousandths
    }

    /// Sends a message over a link; it arrives once and in order, unless something goes wrong.
    fn send(&mut self, link: WorkerId, down: bool, happening: Happening) {
        let chaos = self.scenario.chaos;
        if self.chance(chaos.lost) {
            self.break_link(link);
            return;
        }
        if self.chance(chaos.twice) {
            self.soon(50_000, happening.clone());
        }
        let mut at = self.now + Time::from_micros(self.rng.random_range(20..500));
        if self.chance(chaos.late) {
            at += Time::from_micros(self.rng.random_range(0..50_000));
        } else {
            let last = self.last.entry((link, down)).or_default();
            at = at.max(*last);
            *last = at;
        }
        self.sequence += 1;
        self.queue.insert((at, self.sequence), happening);
    }

    /// Both sides notice, at different times; until then they go on.
    fn break_link(&mut self, link: WorkerId) {
        if !self.broken.insert(link) {
            return;
        }
        let life = self.life;
        self.soon(3_000_000, Happening::Silent { life, link });
        if let Some(machine) = self.machines.iter().position(|machine| machine.link == Some(link)) {
            self.soon(4_000_000, Happening::Unlinked { machine, link });
        }
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Starts => self.start_coordinator(),
            Happening::ToWorker { machine, link, order } => self.worker_hears(machine, link, order),
            Happening::ToCoordinator { life, link, word } if life == self.life => self.coordinator_hears(link, word),
            Happening::Computed { machine, life, link, attempt, micros } if self.runs(machine, life, link, attempt) => {
                self.computed(machine, link, attempt, micros);
            }
            Happening::Stopped { machine, life, link, attempt } if self.runs(machine, life, link, attempt) => {
                self.ended(machine, link, attempt, End::Stopped, 0, None);
            }
            Happening::Unlinked { machine, link } if self.machines[machine].link == Some(link) => {
                self.machines[machine].link = None;
                let attempts: Vec<Attempt> = self.machines[machine].runs.keys().copied().collect();
                attempts.into_iter().for_each(|attempt| self.stop(machine, link, attempt));
                let life = self.machines[machine].life;
                self.soon(100_000, Happening::Dials { machine, life });
            }
            Happening::Dials { machine, life } if self.machines[machine].life == life => self.dial(machine),
            Happening::Revives { machine, life } if self.machines[machine].life == life => {
                self.machines[machine].alive = true;
                self.soon(10_000, Happening::Dials { machine, life });
            }
            Happening::Silent { life, link } if life == self.life => self.lose(link),
            Happening::Looked { life, task } if life == self.life => self.looked(task),
            Happening::Wakes { life } if life == self.life => self.tell(Event::Tick),
            Happening::Scales { life } if life == self.life => self.scale(),
            Happening::Arrives { life, order } if life == self.life && !self.abandoned.contains(&order) => {
                let has = self.scenario.pool.as_ref().expect("there is a pool").capacity.clone();
                self.machines.push(Machine::new(has, Some(order)));
                self.dial(self.machines.len() - 1);
            }
            Happening::Fault => self.fault(),
            Happening::Leaves { machine, life } if self.machines[machine].life == life => self.kill(machine),
            _ => {}
        }
    }

    /// Whether a machine still has an attempt.
    fn runs(&self, machine: usize, life: u32, link: WorkerId, attempt: Attempt) -> bool {
        let machine = &self.machines[machine];
        machine.life == life && machine.has(link, attempt)
    }

    fn start_coordinator(&mut self) {
        self.life += 1;
        self.live.clear();
        self.coordinator = Some(Coordinator::new(&self.scenario));
        self.advance();
        if self.scenario.pool.is_some() {
            let life = self.life;
            self.after(0, Happening::Scales { life });
        }
    }

    fn kill_coordinator(&mut self) {
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

    fn dial(&mut self, machine: usize) {
        if !self.machines[machine].alive || self.machines[machine].link.is_some() {
            return;
        }
        if !self.machines[machine].runs.is_empty() || self.coordinator.is_none() {
            let life = self.machines[machine].life;
            self.soon(100_000, Happening::Dials { machine, life });
            return;
        }
        self.links += 1;
        let link = WorkerId(self.links);
        self.machines[machine].connect(link);
        let word = Word::Joined(self.machines[machine].capacity.clone(), self.machines[machine].order);
        self.say(link, word);
    }

    fn say(&mut self, link: WorkerId, word: Word) {
        let life = self.life;
        self.send(link, false, Happening::ToCoordinator { life, link, word });
    }

    fn worker_hears(&mut self, machine: usize, link: WorkerId, order: Order) {
        if self.machines[machine].link != Some(link) {
            return;
        }
        match order {
            Order::Start(attempt, run) => {
                self.machines[machine].take(attempt, run);
                self.start_waiting(machine, link);
            }
            Order::Stop(attempt) => self.stop(machine, link, attempt),
        }
    }

    fn start_waiting(&mut self, machine: usize, link: WorkerId) {
        while let Some(attempt) = self.machines[machine].start_next() {
            let task = self.machines[machine].runs[&attempt].task;
            let slow = if self.chance(self.scenario.chaos.stragglers) { 20 } else { 1 };
            let usual = self.scenario.tasks[task].micros;
            let micros = usual * slow + self.rng.random_range(0..usual / 4 + 1);
            let life = self.machines[machine].life;
            self.after(micros, Happening::Computed { machine, life, link, attempt, micros });
        }
    }

    fn stop(&mut self, machine: usize, link: WorkerId, attempt: Attempt) {
        let runs = self.machines[machine].lane.runs(attempt);
        let Some(run) = self.machines[machine].runs.get_mut(&attempt) else { return };
        if std::mem::replace(&mut run.stopping, true) {
            return;
        }
        let life = self.machines[machine].life;
        if runs {
            // It looks now and then whether it should stop; it may be done before.
            self.soon(300_000, Happening::Stopped { machine, life, link, attempt });
        } else {
            self.ended(machine, link, attempt, End::Stopped, 0, None);
        }
    }

    /// A stage has computed its result: it is kept, then committed. Nobody knows whether anybody still waits for it.
    fn computed(&mut self, machine: usize, link: WorkerId, attempt: Attempt, micros: u64) {
        let run = self.machines[machine].runs[&attempt].clone();
        let spec = &self.scenario.tasks[run.task];
        if spec.fails {
            return self.ended(machine, link, attempt, End::Failed, micros, None);
        }
        if self.chance(self.scenario.chaos.failures) {
            return self.ended(machine, link, attempt, End::Transient, micros, None);
        }
        let committed = if run.member == 0 { self.commit(&run, attempt).map(Some) } else { Some(None) };
        match committed {
            Some(result) => self.ended(machine, link, attempt, End::Done, micros, result),
            None => self.ended(machine, link, attempt, End::Transient, micros, None),
        }
    }

    fn commit(&mut self, run: &Run, attempt: Attempt) -> Option<Digest> {
        let bytes = compute(run.task, &run.inputs);
        let key = key(run.task, &run.inputs);
        let runtime = runtime().expect("there is a runtime");
        let reference = runtime.block_on(self.store.put(&Artifact::Bytes(bytes.into()))).ok()?;
        let memo = Memo {
            outputs: [("output".to_owned(), reference)].into(),
            stage: run.task.to_string(),
            seconds: 0.0,
            device: "cpu".into(),
            build: format!("{} {attempt:?} {:?}", self.life, self.now),
        };
        match runtime.block_on(self.store.commit(key, &memo)).ok()? {
            Commit::First => assert!(self.committed.insert(key), "task {} was committed twice", run.task),
            Commit::Same => {}
            Commit::Different(_) => panic!("task {} has two results", run.task),
        }
        Some(reference.digest)
    }

    fn ended(
        &mut self,
        machine: usize,
        link: WorkerId,
        attempt: Attempt,
        end: End,
        micros: u64,
        result: Option<Digest>,
    ) {
        self.machines[machine].end(attempt);
        self.say(link, Word::Ended { attempt, end, micros, result });
        // A worker without a link only waits for what it ran to end.
        if self.machines[machine].link == Some(link) {
            self.start_waiting(machine, link);
        }
    }

    fn coordinator_hears(&mut self, link: WorkerId, word: Word) {
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

    fn lose(&mut self, link: WorkerId) {
        let Some(coordinator) = &mut self.coordinator else { return };
        coordinator.links.remove(&link);
        self.live.values_mut().for_each(|live| live.retain(|(_, at), _| *at != link));
        self.tell(Event::Lost(link));
        self.kill_of_pool(|machine| machine.link == Some(link));
    }

    fn tell(&mut self, event: Event) {
        let now = self.now;
        let Some(coordinator) = &mut self.coordinator else { return };
        let actions = coordinator.step(now, event);
        self.act(actions);
    }

    fn act(&mut self, actions: Vec<Action>) {
        for action in actions {
            self.note(&action);
            let Some(coordinator) = &mut self.coordinator else { return };
            match action {
                Action::Start { task: name, attempt, member, worker, threads, devices, .. } => {
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
                    let run = Run { link: worker, task, needs: spec.needs, devices, member, inputs, stopping: false };
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

    fn finish_task(&mut self, task: usize, digest: Digest) {
        let before = self.finished.insert(task, digest);
        assert!(before.is_none_or(|before| before == digest), "a result changed");
    }

    fn order(&mut self, link: WorkerId, order: Order) {
        // To a worker that is gone nothing is said; that it is gone will be noticed.
        if let Some(machine) = self.machines.iter().position(|machine| machine.link == Some(link)) {
            self.send(link, true, Happening::ToWorker { machine, link, order });
        }
    }

    /// Looks up what is ready.
    fn advance(&mut self) {
        let life = self.life;
        let Some(coordinator) = &mut self.coordinator else { return };
        for task in coordinator.ready(&self.scenario.tasks) {
            self.soon(1_000, Happening::Looked { life, task });
        }
    }

    fn looked(&mut self, task: usize) {
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

    fn scale(&mut self) {
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

    /// The pool ends a worker of its own.
    fn kill_of_pool(&mut self, which: impl Fn(&Machine) -> bool) {
        let found = |machine: &Machine| machine.alive && machine.order.is_some() && which(machine);
        if let Some(machine) = self.machines.iter().position(found) {
            self.kill(machine);
        }
    }

    /// A machine dies. It comes back, unless it is of a pool.
    fn kill(&mut self, machine: usize) {
        let link = self.machines[machine].link;
        self.machines[machine].die();
        self.machines[machine].life += 1;
        if let Some(link) = link {
            let life = self.life;
            self.soon(2_000_000, Happening::Silent { life, link });
        }
        if self.machines[machine].order.is_none() {
            let life = self.machines[machine].life;
            self.soon(5_000_000, Happening::Revives { machine, life });
        }
    }

    fn fault(&mut self) {
        let machine = self.rng.random_range(0..self.machines.len());
        let link = self.machines[machine].link;
        match self.rng.random_range(0..5) {
            0 | 1 if self.machines[machine].alive => self.kill(machine),
            2 => {
                if let Some(link) = link {
                    self.break_link(link);
                }
            }
            3 => {
                if let Some(link) = link {
                    self.tell(Event::Draining(link));
                    let life = self.machines[machine].life;
                    self.soon(5_000_000, Happening::Leaves { machine, life });
                }
            }
            4 => self.ask_anew(),
            _ => {}
        }
    }

    /// A task is given up and asked for anew, as when an input of it was lost.
    fn ask_anew(&mut self) {
        let now = self.now;
        let Some(coordinator) = &mut self.coordinator else { return };
        let task = self.rng.random_range(0..coordinator.status.len());
        if let Status::Scheduled(name) = coordinator.status[task] {
            let actions = coordinator.step(now, Event::Cancelled(TaskId(name)));
            self.act(actions);
            let Some(coordinator) = &mut self.coordinator else { return };
            let actions = coordinator.submit(now, task, &self.scenario.tasks[task]);
            self.act(actions);
        }
    }
}

/// The name under which a result is remembered.
fn key(task: usize, inputs: &[Digest]) -> Key {
    let task = task.to_le_bytes();
    let inputs = inputs.iter().map(|digest| digest.as_bytes().as_slice());
    Key(Digest::of_fields(std::iter::once(task.as_slice()).chain(inputs)))
}
