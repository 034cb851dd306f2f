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
}

impl Machine {
    pub(super) fn new(has: Capacity, order: Option<OrderId>) -> Self {
        let lane = Lane::new(has.millicores, has.memory);
        let (runs, seen) = (BTreeMap::new(), BTreeSet::new());
        Self { capacity: has, order, alive: true, life: 0, link: None, lane, runs, seen }
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
            assert!(self.lane.push(attempt, &run.needs), "it can run here at all");
            assert!(self.runs.insert(attempt, run).is_none(), "an attempt runs once");
        }
    }

    /// Whether an attempt of this link is still here.
    pub(super) fn has(&self, link: WorkerId, attempt: Attempt) -> bool {
        self.runs.get(&attempt).is_some_and(|run| run.link == link)
    }

    /// Who starts now.
    pub(super) fn start_next(&mut self) -> Option<Attempt> {
        let started = self.lane.start_next()?;
        self.check();
        Some(started)
    }

    /// An attempt is over, or was taken out of the lane.
    pub(super) fn end(&mut self, attempt: Attempt) -> Option<Run> {
        self.lane.end(attempt);
        self.runs.remove(&attempt)
    }

    /// No need vector is over-committed by what really runs.
    fn check(&self) {
        let (mut millicores, mut memory) = (0, 0u64);
        let mut devices: BTreeMap<u32, (u64, u64)> = BTreeMap::new();
        for run in self.lane.running().map(|attempt| &self.runs[&attempt]) {
            millicores += run.needs.millicores;
            memory = memory.saturating_add(run.needs.memory);
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
