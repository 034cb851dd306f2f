//! The world: what there is, and what happens next.

use super::coordinator::{Coordinator, Status};
use super::ledger::Ledger;
use super::machine::{Attempt, Machine, Run};
use super::scenario::{Outcome, Scenario};
use crate::data::Digest;
use crate::schedule::{Capacity, End, Event, OrderId, Time, WorkerId};
use crate::stage::Seed;
use crate::store::{Key, Store};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use std::collections::{BTreeMap, BTreeSet};

/// No run has so many events.
const MOST_EVENTS: u64 = 2_000_000;
/// Nor does one take so long.
const LONGEST: Time = Time::from_secs(24 * 3600);

/// No attempt is late sooner.
pub(super) const LATE: Time = Time::from_secs(1);

/// What the coordinator says to a worker.
#[derive(Clone, Debug)]
pub(super) enum Order {
    Start(Attempt, Run),
    Stop(Attempt),
}

/// What a worker says to the coordinator.
#[derive(Clone, Debug)]
pub(super) enum Word {
    Joined(Capacity, Option<OrderId>),
    Ended { attempt: Attempt, end: End, micros: u64, result: Option<Digest> },
}

/// What happens. What belongs to a life that is over happens to nobody.
#[derive(Clone, Debug)]
pub(super) enum Happening {
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
    pub(super) counts: Counts,
    digest: u64,
}

/// How often the scheduler decided what is worth simulating.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Attempts that had to wait in a lane.
    pub(super) queued: u64,
    /// Attempts that were taken back from one.
    pub(super) taken_back: u64,
    /// Members of gangs that took the place of a lost one.
    pub(super) replaced: u64,
    pub(super) doubled: u64,
    pub(super) expired: u64,
    pub(super) refused: u64,
}

impl std::iter::Sum for Counts {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, next| Self {
            queued: sum.queued + next.queued,
            taken_back: sum.taken_back + next.taken_back,
            replaced: sum.replaced + next.replaced,
            doubled: sum.doubled + next.doubled,
            expired: sum.expired + next.expired,
            refused: sum.refused + next.refused,
        })
    }
}

pub(super) struct World {
    pub(super) scenario: Scenario,
    pub(super) rng: ChaCha8Rng,
    pub(super) store: Store,
    pub(super) now: Time,
    pub(super) sequence: u64,
    pub(super) queue: BTreeMap<(Time, u64), Happening>,
    pub(super) machines: Vec<Machine>,
    pub(super) coordinator: Option<Coordinator>,
    /// How often the coordinator was started.
    pub(super) life: u32,
    pub(super) links: u64,
    /// Links that a message was lost on: the other side will notice.
    pub(super) broken: BTreeSet<WorkerId>,
    /// When the last message on a link arrives, by direction.
    pub(super) last: BTreeMap<(WorkerId, bool), Time>,
    /// Results that the coordinator was told, in any of its lives.
    pub(super) finished: BTreeMap<usize, Digest>,
    pub(super) committed: BTreeSet<Key>,
    pub(super) abandoned: BTreeSet<OrderId>,
    /// Messages under way on each link.
    pub(super) flying: BTreeMap<WorkerId, u32>,
    pub(super) ledger: Ledger,
    pub(super) expected: Vec<Outcome>,
    pub(super) events: u64,
    pub(super) counts: Counts,
    pub(super) aloud: bool,
    pub(super) digest: u64,
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
            flying: BTreeMap::new(),
            ledger: Ledger::default(),
            expected: scenario.outcomes(),
            events: 0,
            counts: Counts::default(),
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
            self.soon(self.scenario.spread, Happening::Dials { machine, life });
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
        self.idle_workers_go();
        self.finish()
    }

    /// When all is done and nothing goes wrong, a pool goes down to its least.
    fn idle_workers_go(&mut self) {
        let Some(pool) = self.scenario.pool.clone().filter(|_| self.scenario.is_calm()) else { return };
        let until = self.now + pool.idle + pool.startup.saturating_mul(4) + Time::from_secs(20);
        while self.now < until
            && let Some(((at, _), happening)) = self.queue.pop_first()
        {
            self.now = at;
            self.happen(happening);
        }
        let here = self.of_pool();
        assert!(here <= pool.min as usize, "{here} workers of the pool stay, {} should", pool.min);
    }

    /// Workers of the pool that are alive.
    pub(super) fn of_pool(&self) -> usize {
        self.machines.iter().filter(|machine| machine.alive && machine.order.is_some()).count()
    }

    pub(super) fn stuck(&self) -> String {
        let Some(coordinator) = &self.coordinator else { return "no coordinator".into() };
        let open = |(_, status): &(usize, &Status)| !matches!(status, Status::Done(_) | Status::Failed);
        let open: Vec<_> = coordinator.status.iter().enumerate().filter(open).take(5).collect();
        let needs: Vec<_> = open.iter().map(|(task, _)| &self.scenario.tasks[*task]).collect();
        format!("{open:?} {needs:?} {:?}", coordinator.scheduler)
    }

    pub(super) fn finish(self) -> Trace {
        let coordinator = self.coordinator.expect("it has seen the run through");
        for (task, expected) in self.expected.iter().enumerate() {
            let result = match coordinator.status[task] {
                Status::Done(digest) => Some(digest),
                _ => None,
            };
            let right = match expected {
                Outcome::Result(digest) => result == Some(*digest),
                Outcome::Nothing => result.is_none(),
                Outcome::InTime(digest) => result.is_none_or(|result| result == *digest),
            };
            assert!(right, "task {task} ends as without faults: {result:?}, not {expected:?}");
        }
        Trace { events: self.events, took: self.now, counts: self.counts, digest: self.digest }
    }

    pub(super) fn note(&mut self, what: &impl std::fmt::Debug) {
        let line = format!("{:?} {what:?}", self.now);
        for byte in line.bytes() {
            self.digest = (self.digest ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        if self.aloud {
            println!("{line}");
        }
    }

    pub(super) fn after(&mut self, micros: u64, happening: Happening) {
        self.sequence += 1;
        self.queue.insert((self.now + Time::from_micros(micros), self.sequence), happening);
    }

    pub(super) fn soon(&mut self, most: u64, happening: Happening) {
        let micros = self.rng.random_range(0..most);
        self.after(micros, happening);
    }

    pub(super) fn chance(&mut self, thousandths: u32) -> bool {
        thousandths > 0 && self.rng.random_range(0..1000) < thousandths
    }

    pub(super) fn happen(&mut self, happening: Happening) {
        let over = match &happening {
            Happening::ToWorker { link, .. } | Happening::ToCoordinator { link, .. } => Some(*link),
            _ => None,
        };
        self.take(happening);
        over.into_iter().for_each(|link| self.arrived(link));
    }

    fn take(&mut self, happening: Happening) {
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
}
