//! A machine: its worker keeps a lane and runs what it was told. What really runs is counted here, whatever the books
//! say.

use crate::data::Digest;
use crate::schedule::{Capacity, Lane, Needs, OrderId, Share, WorkerId};
use std::collections::{BTreeMap, BTreeSet};

/// An attempt, by its task's and its own number.
pub(super) type Attempt = (u64, u32);

/// An attempt at the machine.
#[derive(Clone, Debug)]
pub(super) struct Run {
    /// The link over which it was told to: the same name means another attempt on another link.
    pub(super) link: WorkerId,
    pub(super) task: usize,
    pub(super) needs: Needs,
    pub(super) devices: Vec<Share>,
    /// The results that it reads, as the coordinator named them.
    pub(super) inputs: Vec<Digest>,
    pub(super) stopping: bool,
    /// Which it was of those that came.
    turn: u64,
    /// Whether it runs, rather than waits.
    started: bool,
}

impl Run {
    pub(super) fn new(link: WorkerId, task: usize, needs: Needs, devices: Vec<Share>, inputs: Vec<Digest>) -> Self {
        Self { link, task, needs, devices, inputs, stopping: false, turn: 0, started: false }
    }

    /// Whether it is in nobody's way.
    fn is_light(&self) -> bool {
        self.needs.millicores == 0 && self.needs.memory == 0
    }
}

#[derive(Clone, Debug)]
pub(super) struct Machine {
    pub(super) capacity: Capacity,
    /// The order that brought it, if it is of a pool.
    pub(super) order: Option<OrderId>,
    pub(super) alive: bool,
    /// How often it was started: what was meant for an earlier life is for nobody.
    pub(super) life: u32,
    /// Its link to the coordinator, if it has one.
    pub(super) link: Option<WorkerId>,
    pub(super) lane: Lane<Attempt>,
    pub(super) runs: BTreeMap<Attempt, Run>,
    /// What it was told to start on this link.
    seen: BTreeSet<Attempt>,
    /// How many attempts it took on.
    taken: u64,
}

impl Machine {
    pub(super) fn new(has: Capacity, order: Option<OrderId>) -> Self {
        let lane = Lane::new(has.millicores, has.memory);
        let (runs, seen) = (BTreeMap::new(), BTreeSet::new());
        Self { capacity: has, order, alive: true, life: 0, link: None, lane, runs, seen, taken: 0 }
    }

    /// A new link begins with nothing.
    pub(super) fn connect(&mut self, link: WorkerId) {
        assert!(self.runs.is_empty(), "a worker that joins runs nothing");
        self.link = Some(link);
        self.lane = Lane::new(self.capacity.millicores, self.capacity.memory);
        self.seen.clear();
    }

    /// Kill -9.
    pub(super) fn die(&mut self) {
        self.alive = false;
        self.link = None;
        self.runs.clear();
        self.lane = Lane::new(self.capacity.millicores, self.capacity.memory);
    }

    /// Takes an attempt on, unless it did before.
    pub(super) fn take(&mut self, attempt: Attempt, run: Run) {
        if self.seen.insert(attempt) {
            self.taken += 1;
            assert!(self.lane.push(attempt, &run.needs), "it can run here at all");
            let run = Run { turn: self.taken, ..run };
            assert!(self.runs.insert(attempt, run).is_none(), "an attempt runs once");
        }
    }

    /// Whether an attempt of this link is still here.
    pub(super) fn has(&self, link: WorkerId, attempt: Attempt) -> bool {
        self.runs.get(&attempt).is_some_and(|run| run.link == link)
    }

    /// Who starts now; nobody overtakes.
    pub(super) fn start_next(&mut self) -> Option<Attempt> {
        let Some(started) = self.lane.start_next() else {
            self.nobody_could_start();
            return None;
        };
        let run = self.runs.get_mut(&started).expect("it was told to start this");
        assert!(!std::mem::replace(&mut run.started, true), "an attempt starts once");
        let (turn, light) = (run.turn, run.is_light());
        let first = light || self.runs.values().all(|other| other.started || other.is_light() || other.turn > turn);
        assert!(first, "{started:?} overtakes another");
        self.check();
        Some(started)
    }

    /// An attempt is over, or was taken out of the lane.
    pub(super) fn end(&mut self, attempt: Attempt) {
        assert!(self.lane.end(attempt) && self.runs.remove(&attempt).is_some(), "who ends was here");
    }

    /// Who runs, and who waits, in the order in which they came.
    pub(super) fn runs_and_waits(&self) -> [Vec<Attempt>; 2] {
        [true, false].map(|started| {
            let mut these: Vec<_> = self.runs.iter().filter(|(_, run)| run.started == started).collect();
            if !started {
                these.sort_unstable_by_key(|(_, run)| run.turn);
            }
            these.into_iter().map(|(attempt, _)| *attempt).collect()
        })
    }

    /// What those that run take, whatever the lane says.
    fn used(&self) -> (u64, u64) {
        let running = self.runs.values().filter(|run| run.started);
        running.fold((0, 0u64), |(cores, memory), run| {
            (cores + run.needs.millicores, memory.saturating_add(run.needs.memory))
        })
    }

    fn nobody_could_start(&self) {
        let (cores, memory) = self.used();
        let waiting = self.runs.values().filter(|run| !run.started);
        assert!(waiting.clone().all(|run| !run.is_light()), "one that needs nothing waits");
        if let Some(first) = waiting.min_by_key(|run| run.turn) {
            let fits = cores + first.needs.millicores <= self.capacity.millicores
                && memory.saturating_add(first.needs.memory) <= self.capacity.memory;
            assert!(!fits, "the first in the lane waits although there is room: {first:?}");
        }
    }

    /// No need vector is over-committed by what really runs.
    fn check(&self) {
        let (millicores, memory) = self.used();
        let mut devices: BTreeMap<u32, (u64, u64)> = BTreeMap::new();
        for run in self.runs.values().filter(|run| run.started) {
            assert!(self.capacity.files || !run.needs.files, "the coordinator's files are not here");
            assert_eq!(run.devices.len() as u64, run.needs.devices());
            for share in &run.devices {
                let used = devices.entry(share.device).or_default();
                used.0 += u64::from(share.share);
                used.1 += share.memory;
                assert!(share.memory >= run.needs.gpu_memory);
            }
        }
        assert!(millicores <= self.capacity.millicores, "cores are over-committed");
        assert!(memory <= self.capacity.memory, "memory is over-committed");
        for (device, (share, memory)) in devices {
            assert!(share <= 1000, "device {device} is over-committed: {share}");
            assert!(memory <= self.capacity.devices[device as usize], "memory of device {device} is over-committed");
        }
    }
}
