//! The workers of a run: the one inside this process, and those in other processes.

use super::Options;
use super::event::Event;
use super::gpus::Dealt;
use super::holders::Holders;
use super::placement::WorkerInfo;
use super::pools::Pools;
use super::voice::Message;
use super::watch::worker_info;
use crate::data::Digest;
use crate::pipeline::Pool;
use crate::schedule::{self, Capacity, PoolId, Scheduler, Site, TaskId, Time, View, WorkerId};
use crate::store::{Store, kernel};
use crate::worker::{
    Assignment, Circle, EmbeddedWorker, Failure, Hands, Hub, RemoteWorker, Terms, Token, machine_number, program,
};
use crate::{Error, Fault, Result, machine};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::time::Duration;

/// The worker inside this process, and its name.
pub(super) const HERE: WorkerId = WorkerId(0);
pub(super) const EMBEDDED: &str = "embedded";
/// As many CUDA devices as a worker that joins by itself may have.
const MOST_GPUS: usize = 16;
/// The workers that join by themselves.
const ANY: PoolId = PoolId(u32::MAX);
/// How often a worker shows that it lives, and how long one may be silent.
const HEARTBEAT: Duration = Duration::from_millis(500);
const PATIENCE: Duration = Duration::from_secs(5);

/// Who falls so soon after coming, without having said a word of what it does, came for nothing.
const BRIEF: Duration = Duration::from_secs(5);

/// Workers in other processes.
#[derive(Clone, Debug)]
pub struct Elsewhere {
    /// Where workers dial: `127.0.0.1:0` for any free port of this machine.
    pub listen: String,
    /// Whether others than those that the run starts may join.
    pub open: bool,
    /// The secret that they must have.
    pub token: Token,
    /// Those that the run starts, and lets go when they have nothing to do.
    pub pools: Vec<Pool>,
    /// Bytes of artifacts that each of these holds in memory.
    pub memory: u64,
    /// Where these share what they read from a store that is far away, and how many bytes of it; nothing for where
    /// workers do by default.
    pub cache: Option<(PathBuf, u64)>,
}

/// Who works for a run.
pub(super) struct Crew {
    has: Capacity,
    here: Hands<(TaskId, u32)>,
    there: BTreeMap<WorkerId, RemoteWorker>,
    /// Those that were told to go.
    leaving: BTreeSet<WorkerId>,
    holders: Holders,
    outbox: mpsc::Sender<Message>,
    pools: Option<Pools>,
    hub: Option<Hub>,
}

impl Crew {
    /// Gathers workers, who are told the name of the run that they work for, if it is one.
    pub(super) fn gather(
        store: &Store,
        options: &Options,
        run: Option<&str>,
        outbox: &mpsc::Sender<Message>,
    ) -> Result<Self> {
        let millicores = options.cores as u64 * 1000;
        let pools = options.elsewhere.as_ref().map_or(&[][..], |elsewhere| &elsewhere.pools);
        let left = if options.cores > 0 { Dealt::of(&options.gpus, pools).left } else { 0 };
        let gpus = options.gpus.clone().first(left)?;
        let (devices, machine) = (gpus.memory(), machine_number(&kernel()));
        let memory = machine::memory().unwrap_or(u64::MAX);
        let has = Capacity { millicores, memory, devices, files: true, machine, ..Capacity::default() };
        let mut crew = Self {
            here: Hands::new(EmbeddedWorker::new(store.clone(), has.clone())?.with_gpus(gpus)),
            has,
            there: BTreeMap::new(),
            leaving: BTreeSet::new(),
            holders: Holders::default(),
            outbox: outbox.clone(),
            pools: None,
            hub: None,
        };
        let Some(elsewhere) = &options.elsewhere else { return Ok(crew) };
        let terms = Terms {
            build: program::identity()?,
            run: run.map(str::to_owned),
            heartbeat: HEARTBEAT,
            patience: PATIENCE,
        };
        let ear = outbox.clone();
        // The run may have ended; then nobody listens.
        let ear = Arc::new(move |heard| drop(ear.send(Message::Heard(heard))));
        let hub = Hub::listen(&elsewhere.listen, &elsewhere.token, terms, store.clone(), ear)?;
        let mut pools = Pools::new(elsewhere, &hub.reached_at().to_string(), &options.gpus);
        // Those that are always there come at once.
        pools.step(options.clock.elapsed(), &View::default())?;
        crew.pools = Some(pools);
        crew.hub = Some(hub);
        Ok(crew)
    }

    /// What the worker inside this process has.
    pub(super) fn capacity(&self) -> Capacity {
        self.has.clone()
    }

    /// What all who are here present themselves as, first the worker inside this process.
    pub(super) fn describe_all(&self) -> Vec<WorkerInfo> {
        let here = worker_info(EMBEDDED, &machine::name(), &self.has, "");
        std::iter::once(here).chain(self.there.values().map(describe)).collect()
    }

    /// A worker's name.
    pub(super) fn name(&self, worker: WorkerId) -> &str {
        self.there.get(&worker).map_or(if worker == HERE { EMBEDDED } else { "gone" }, |there| &there.name)
    }

    /// Tells a scheduler which workers may still come.
    pub(super) fn announce(&self, scheduler: Scheduler, elsewhere: Option<&Elsewhere>) -> Scheduler {
        let scheduler = self.pools.iter().fold(scheduler, |scheduler, pools| pools.announce(scheduler));
        if !elsewhere.is_some_and(|elsewhere| elsewhere.open) {
            return scheduler;
        }
        // Nobody knows what workers that join from elsewhere will have.
        let devices = vec![u64::MAX; MOST_GPUS];
        let (millicores, memory) = (u64::MAX, u64::MAX);
        let any = Capacity { millicores, memory, devices, files: true, peers: true, ..Capacity::default() };
        scheduler.with_pool(ANY, any, u32::MAX)
    }

    /// What there is for tasks, and at which price: every worker, and those that may be started.
    pub(super) fn sites(&self) -> Vec<Site<'_>> {
        let pools = || self.pools.iter().flat_map(Pools::all);
        let price = |has: &Capacity| pools().find(|pool| Some(pool.id) == has.pool).map_or(0.0, |pool| pool.price);
        let site = |has| Site { has, price: price(has), ready: Time::ZERO };
        let there = self.there.values().map(|worker| &worker.has);
        let could_come = pools().map(|pool| Site { has: &pool.capacity, price: pool.price, ready: pool.startup });
        std::iter::once(&self.has).chain(there).map(site).chain(could_come).collect()
    }

    /// Where workers dial, if they may.
    pub(super) fn address(&self) -> Option<String> {
        self.hub.as_ref().map(|hub| hub.reached_at().to_string())
    }

    /// A worker has come: what is told of it, and what the scheduler hears.
    pub(super) fn join(&mut self, now: Time, mut worker: RemoteWorker) -> (WorkerInfo, schedule::Event) {
        worker.has.pool = self.pools.as_mut().and_then(|pools| pools.join(&worker.called, &worker.pool));
        // One that comes back may be here before it is known that it was gone.
        if self.there.values().any(|other| other.name == worker.name) {
            worker.name = format!("{}#{}", worker.name, worker.id.0);
        }
        worker.since = now;
        let info = describe(&worker);
        let joined = schedule::Event::Joined { worker: worker.id, has: worker.has.clone() };
        self.there.insert(worker.id, worker);
        (info, joined)
    }

    /// A worker is gone.
    ///
    /// # Errors
    /// Its process can't be stopped.
    pub(super) fn lose(&mut self, now: Time, worker: WorkerId) -> Result<()> {
        let leaves = self.leaving.remove(&worker);
        self.holders.forget(worker);
        let Some(there) = self.there.remove(&worker) else { return Ok(()) };
        let is_back = self.there.values().any(|other| other.has.pool.is_some() && other.called == there.called);
        match (there.has.pool, &mut self.pools) {
            // One that leaves ends by itself, and one that is back must live.
            (Some(pool), Some(pools)) if !leaves && !is_back => {
                let served = there.served || now.saturating_sub(there.since) > BRIEF;
                pools.lose(now, pool, &there.called, served)
            }
            _ => Ok(()),
        }
    }

    /// A worker that was told that the run is over has left.
    pub(super) fn forget(&mut self, worker: WorkerId) {
        self.there.remove(&worker);
    }

    /// Lets go of those that nobody here started, without a farewell: they look for another coordinator. Gives who.
    pub(super) fn release_guests(&mut self) -> BTreeSet<WorkerId> {
        self.there.extract_if(.., |_, worker| worker.has.pool.is_none()).map(|(id, _)| id).collect()
    }

    /// Lets a worker go that runs nothing.
    pub(super) fn part(&mut self, worker: WorkerId) {
        if let Some(there) = self.there.get_mut(&worker) {
            there.farewell();
            self.leaving.insert(worker);
        }
    }

    /// Whether a worker was told to go.
    pub(super) fn is_leaving(&self, worker: WorkerId) -> bool {
        self.leaving.contains(&worker)
    }

    /// Whether a worker is one of the crew: the words of one that was given up change nothing.
    pub(super) fn has(&self, worker: WorkerId) -> bool {
        worker == HERE || self.there.contains_key(&worker)
    }

    /// A worker elsewhere says something of an attempt; `gave` tells whether it was of use. Gives whether it means to leave,
    /// if it is one of the crew.
    pub(super) fn hears(&mut self, worker: WorkerId, gave: bool) -> Option<bool> {
        let there = self.there.get_mut(&worker)?;
        there.served |= gave;
        Some(there.leaves)
    }

    /// A worker means to leave; whether that is news.
    pub(super) fn will_leave(&mut self, worker: WorkerId) -> bool {
        self.there.get_mut(&worker).is_some_and(|there| !std::mem::replace(&mut there.leaves, true))
    }

    /// Whether a worker said that it means to leave.
    pub(super) fn means_to_leave(&self, worker: WorkerId) -> bool {
        self.there.get(&worker).is_some_and(|there| there.leaves)
    }

    /// Hands an attempt to a worker.
    pub(super) fn start(&mut self, worker: WorkerId, work: Box<Assignment>) {
        let (task, attempt) = (work.task, work.attempt);
        let begun = if worker == HERE {
            let outbox = self.outbox.clone();
            let done = move |result| drop(outbox.send(Message::Ended(HERE, task, attempt, result)));
            self.here.give((task, attempt), work, done)
        } else {
            // One that is gone is lost soon, and the scheduler hears that.
            let peers = self.peers(worker, &work);
            self.there.get_mut(&worker).map_or(Ok(()), |there| there.start(&work, peers))
        };
        if let Err(error) = begun {
            let _ = self.outbox.send(Message::Ended(worker, task, attempt, Err(Failure::from(error))));
        }
    }

    /// A worker holds artifacts that it made or read.
    pub(super) fn holds(&mut self, worker: WorkerId, made: impl Iterator<Item = Digest>) {
        if self.there.contains_key(&worker) {
            made.for_each(|digest| self.holders.add(worker, digest));
        }
    }

    /// Where a worker can fetch inputs of an attempt from other workers.
    fn peers(&self, worker: WorkerId, work: &Assignment) -> Vec<String> {
        let inputs = work.request.inputs.values().flatten();
        if inputs.clone().next().is_none() {
            return Vec::new();
        }
        let holders = inputs.flat_map(|input| self.holders.of(input.digest));
        let others = holders.filter(|holder| *holder != worker).filter_map(|holder| self.there.get(&holder));
        let addresses: BTreeSet<&String> = others.map(|peer| &peer.peer).filter(|peer| !peer.is_empty()).collect();
        let mut addresses: Vec<String> = addresses.into_iter().cloned().collect();
        // Not all ask the same one first.
        let first = worker.0 as usize % addresses.len().max(1);
        addresses.rotate_left(first);
        addresses
    }

    /// Where others reach a worker, and on which machine it is.
    pub(super) fn reached(&self, worker: WorkerId) -> Option<(String, String)> {
        self.there.get(&worker).map(|there| (there.peer.clone(), there.machine.clone()))
    }

    /// Tells a member of a gang who works with it.
    pub(super) fn tell_circle(&mut self, worker: WorkerId, task: TaskId, attempt: u32, circle: &Circle) {
        if let Some(there) = self.there.get_mut(&worker) {
            there.gather(task, attempt, circle);
        }
    }

    /// Whether no worker has joined.
    pub(super) fn is_empty(&self) -> bool {
        self.there.is_empty()
    }

    /// Whether others can work for the run, besides this process.
    pub(super) fn has_others(&self) -> bool {
        self.hub.is_some()
    }

    /// Asks a worker to stop an attempt, or takes it back if it has not begun. That it ended is heard all the same.
    pub(super) fn stop(&mut self, worker: WorkerId, task: TaskId, attempt: u32) {
        if worker == HERE && self.here.take_back((task, attempt)) {
            let error = Error::new("it was taken back").fault(Fault::Interrupted);
            let _ = self.outbox.send(Message::Ended(HERE, task, attempt, Err(Failure::from(error))));
        }
        if let Some(there) = self.there.get_mut(&worker) {
            there.stop(task, attempt);
        }
    }

    /// Sends what was handed to workers elsewhere.
    pub(super) fn flush(&mut self) {
        self.there.values_mut().for_each(RemoteWorker::flush);
    }

    /// Something happened that may change how many workers are wanted.
    pub(super) fn stir(&mut self) {
        self.pools.iter_mut().for_each(Pools::stir);
    }

    /// When to look after the pools, if there are any.
    pub(super) fn due(&self) -> Option<Time> {
        self.pools.as_ref().map(Pools::due)
    }

    /// Starts the workers that are wanted, and gives those that are to go.
    ///
    /// # Errors
    /// Workers can't be started, or do not come again and again.
    pub(super) fn scale(&mut self, now: Time, view: &View) -> Result<Vec<WorkerId>> {
        self.pools.as_mut().map_or(Ok(Vec::new()), |pools| pools.step(now, view))
    }

    /// The run is not the only one: pools whose workers do not come end nothing.
    pub(super) fn goes_on(&mut self) {
        self.pools.iter_mut().for_each(Pools::go_on);
    }

    /// What there is to say of the pools, once.
    pub(super) fn warnings(&mut self) -> Vec<Event> {
        self.pools.as_mut().map_or_else(Vec::new, Pools::warnings)
    }

    /// The run is over.
    pub(super) fn dismiss(&mut self) {
        self.there.values_mut().for_each(RemoteWorker::farewell);
    }
}

/// What a worker in another process presents itself as.
fn describe(worker: &RemoteWorker) -> WorkerInfo {
    let pool = if worker.has.pool.is_some() { &*worker.pool } else { "" };
    worker_info(&worker.name, &worker.host, &worker.has, pool)
}
