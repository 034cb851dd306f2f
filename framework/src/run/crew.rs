//! The workers of a run: the one inside this process, those in other processes, and what starts them.

use super::Options;
use super::placement::WorkerInfo;
use super::voice::Message;
use super::watch::worker_info;
use crate::data::Digest;
use crate::fleet::{Fleet, LocalFleet};
use crate::schedule::{Capacity, PoolId, Scheduler, TaskId, WorkerId};
use crate::store::Store;
use crate::worker::{Assignment, EmbeddedWorker, Failure, Hands, Hub, RemoteWorker, Terms, Token, program};
use crate::{Error, Fault, Result};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, mpsc};
use std::time::Duration;

/// The worker inside this process, and its name.
pub(super) const HERE: WorkerId = WorkerId(0);
pub(super) const EMBEDDED: &str = "embedded";
/// The workers that this run starts on this machine, and those that join by themselves.
const LOCAL: PoolId = PoolId(0);
const ANY: PoolId = PoolId(1);
/// How often a worker shows that it lives, and how long one may be silent.
const HEARTBEAT: Duration = Duration::from_millis(500);
const PATIENCE: Duration = Duration::from_secs(5);
/// Workers that end before they join, one after another, until the fleet is given up.
const MOST_STILLBORN: u32 = 5;

/// Workers in other processes.
#[derive(Clone, Debug)]
pub struct Elsewhere {
    /// Where workers dial: `127.0.0.1:0` for any free port of this machine.
    pub listen: String,
    /// Whether others than those that the run starts may join.
    pub open: bool,
    /// The secret that they must have.
    pub token: Token,
    /// How many are started on this machine, and replaced when they end.
    pub local: u32,
    /// The cores of each that is started.
    pub cores: usize,
    /// Bytes of artifacts that each that is started holds in memory.
    pub memory: u64,
}

/// Who works for a run.
pub(super) struct Crew {
    has: Capacity,
    here: Hands<(TaskId, u32)>,
    there: BTreeMap<WorkerId, RemoteWorker>,
    /// Who made large artifacts, and so may still hold them.
    holders: HashMap<Digest, Vec<WorkerId>>,
    outbox: mpsc::Sender<Message>,
    started: Option<Started>,
    hub: Option<Hub>,
}

/// The workers that this run starts.
struct Started {
    fleet: LocalFleet,
    wanted: u32,
    /// Those that were started and have not ended.
    names: BTreeSet<String>,
    /// Those of them that have joined.
    joined: BTreeSet<String>,
    count: u64,
    stillborn: u32,
}

impl Crew {
    pub(super) fn gather(store: &Store, options: &Options, run: &str, outbox: &mpsc::Sender<Message>) -> Result<Self> {
        let worker = EmbeddedWorker::new(store.clone(), options.cores)?;
        let (has, here) = (worker.capacity(), Hands::new(worker));
        let mut crew = Self {
            has,
            here,
            there: BTreeMap::new(),
            holders: HashMap::new(),
            outbox: outbox.clone(),
            started: None,
            hub: None,
        };
        let Some(elsewhere) = &options.elsewhere else { return Ok(crew) };
        let terms =
            Terms { build: program::identity()?, run: run.to_owned(), heartbeat: HEARTBEAT, patience: PATIENCE };
        let ear = outbox.clone();
        // The run may have ended; then nobody listens.
        let ear = Arc::new(move |heard| drop(ear.send(Message::Heard(heard))));
        let hub = Hub::listen(&elsewhere.listen, &elsewhere.token, terms, store.clone(), ear)?;
        let Elsewhere { token, cores, memory, .. } = elsewhere.clone();
        let mut started = Started {
            fleet: LocalFleet::new(hub.address().to_string(), token, cores, memory)?,
            wanted: elsewhere.local,
            names: BTreeSet::new(),
            joined: BTreeSet::new(),
            count: 0,
            stillborn: 0,
        };
        started.tend()?;
        crew.started = Some(started);
        crew.hub = Some(hub);
        Ok(crew)
    }

    /// What the worker inside this process has.
    pub(super) fn capacity(&self) -> Capacity {
        self.has.clone()
    }

    /// What the worker inside this process presents itself as.
    pub(super) fn describe(&self) -> WorkerInfo {
        worker_info(EMBEDDED, &self.has, "", true)
    }

    /// A worker's name.
    pub(super) fn name(&self, worker: WorkerId) -> &str {
        self.there.get(&worker).map_or(if worker == HERE { EMBEDDED } else { "gone" }, |there| &there.name)
    }

    /// Tells a scheduler which workers may still come.
    pub(super) fn announce(&self, scheduler: Scheduler, elsewhere: Option<&Elsewhere>) -> Scheduler {
        let Some(elsewhere) = elsewhere else { return scheduler };
        let local = Capacity {
            millicores: elsewhere.cores as u64 * 1000,
            memory: u64::MAX,
            files: true,
            ..Capacity::default()
        };
        let scheduler = scheduler.with_pool(LOCAL, local, elsewhere.local);
        if !elsewhere.open {
            return scheduler;
        }
        // Nobody knows what workers that join from elsewhere will have.
        let any = Capacity { millicores: u64::MAX, memory: u64::MAX, files: true, ..Capacity::default() };
        scheduler.with_pool(ANY, any, u32::MAX)
    }

    /// Where workers dial, if they may.
    pub(super) fn address(&self) -> Option<String> {
        self.hub.as_ref().map(|hub| hub.address().to_string())
    }

    pub(super) fn join(&mut self, worker: RemoteWorker) {
        if let Some(started) = &mut self.started
            && started.names.contains(&worker.name)
        {
            started.joined.insert(worker.name.clone());
            started.stillborn = 0;
        }
        self.there.insert(worker.id, worker);
    }

    /// A worker is gone.
    pub(super) fn lose(&mut self, worker: WorkerId) {
        self.there.remove(&worker);
    }

    /// Whether a worker is one of the crew: the words of one that was given up change nothing.
    pub(super) fn has(&self, worker: WorkerId) -> bool {
        worker == HERE || self.there.contains_key(&worker)
    }

    /// Hands an attempt to a worker.
    pub(super) fn start(&mut self, worker: WorkerId, work: Assignment) {
        let (task, attempt) = (work.task, work.attempt);
        let begun = if worker == HERE {
            let outbox = self.outbox.clone();
            let needs = work.needs;
            let done = move |result| drop(outbox.send(Message::Ended(HERE, task, attempt, result)));
            self.here.give((task, attempt), &needs, work, done)
        } else {
            // One that is gone is lost soon, and the scheduler hears that.
            let peers = self.peers(worker, &work);
            self.there.get_mut(&worker).map_or(Ok(()), |there| there.start(&work, peers))
        };
        if let Err(error) = begun {
            let _ = self.outbox.send(Message::Ended(worker, task, attempt, Err(Failure { error, lost: None })));
        }
    }

    /// A worker holds artifacts that it made.
    pub(super) fn holds(&mut self, worker: WorkerId, made: impl Iterator<Item = Digest>) {
        if worker != HERE {
            made.for_each(|digest| self.holders.entry(digest).or_default().push(worker));
        }
    }

    /// Where a worker can fetch inputs of an attempt from other workers.
    fn peers(&self, worker: WorkerId, work: &Assignment) -> Vec<String> {
        let inputs = work.inputs.values().flatten();
        let holders = inputs.filter_map(|input| self.holders.get(&input.digest)).flatten();
        let others = holders.filter(|holder| **holder != worker).filter_map(|holder| self.there.get(holder));
        let addresses: BTreeSet<&String> = others.map(|peer| &peer.peer).filter(|peer| !peer.is_empty()).collect();
        addresses.into_iter().cloned().collect()
    }

    /// Asks a worker to stop an attempt, or takes it back if it has not begun. That it ended is heard all the same.
    pub(super) fn stop(&mut self, worker: WorkerId, task: TaskId, attempt: u32) {
        if worker == HERE && self.here.take_back((task, attempt)) {
            let error = Error::new("it was taken back").fault(Fault::Interrupted);
            let _ = self.outbox.send(Message::Ended(HERE, task, attempt, Err(Failure { error, lost: None })));
        }
        if let Some(there) = self.there.get_mut(&worker) {
            there.stop(task, attempt);
        }
    }

    /// Sends what was handed to workers elsewhere.
    pub(super) fn flush(&mut self) {
        self.there.values_mut().for_each(RemoteWorker::flush);
    }

    /// Replaces workers that ended.
    ///
    /// # Errors
    /// Workers can't be started, or end before they join again and again.
    pub(super) fn tend(&mut self) -> Result<()> {
        self.started.as_mut().map_or(Ok(()), Started::tend)
    }

    /// Whether there is no worker elsewhere.
    pub(super) fn is_alone(&self) -> bool {
        self.there.is_empty()
    }

    /// The run is over.
    pub(super) fn dismiss(&mut self) {
        self.there.values_mut().for_each(RemoteWorker::farewell);
    }
}

impl Started {
    fn tend(&mut self) -> Result<()> {
        for ended in self.fleet.ended() {
            self.names.remove(&ended.name);
            if self.joined.remove(&ended.name) {
                continue;
            }
            self.stillborn += 1;
            if self.stillborn >= MOST_STILLBORN {
                return Err(Error::unavailable(format!(
                    "{MOST_STILLBORN} workers ended before they joined the run, the last with {}",
                    ended.how
                ))
                .help("start one by hand and see what it says: ropeway worker --join ADDRESS --token TOKEN"));
            }
        }
        while self.names.len() < self.wanted as usize {
            self.count += 1;
            let name = format!("local-{}", self.count);
            self.fleet.start(&name)?;
            self.names.insert(name);
        }
        Ok(())
    }
}
