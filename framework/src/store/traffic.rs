//! What went in and out of a store since this process opened it.

use super::{Commit, Store};
use std::sync::atomic::{AtomicU64, Ordering};

/// Where an artifact was found when it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    /// In the memory of this process.
    Memory,
    /// In the files of this machine.
    Machine,
    /// At another worker.
    Peer,
    /// In the store itself.
    Store,
}

impl Tier {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Tier::Memory => "memory",
            Tier::Machine => "machine",
            Tier::Peer => "peer",
            Tier::Store => "store",
        }
    }
}

/// Numbers since this process opened the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes that were read, by where they were found.
    pub read: [(Tier, u64); 4],
    /// Bytes that were written and were not there before.
    pub written: u64,
    /// Bytes of artifacts in this process's memory now.
    pub held: u64,
    /// Commits that were the first under their key.
    pub first: u64,
    /// Commits that found the same result there.
    pub same: u64,
    /// Commits that found another result there.
    pub different: u64,
    /// Look-ups that found a result.
    pub known: u64,
    /// Look-ups that found none.
    pub unknown: u64,
}

/// Counts the traffic of a store.
#[derive(Debug, Default)]
pub(super) struct Meter {
    from_memory: AtomicU64,
    from_machine: AtomicU64,
    from_peers: AtomicU64,
    from_store: AtomicU64,
    written: AtomicU64,
    first: AtomicU64,
    same: AtomicU64,
    different: AtomicU64,
    known: AtomicU64,
    unknown: AtomicU64,
}

impl Meter {
    pub(super) fn read(&self, tier: Tier, bytes: u64) {
        match tier {
            Tier::Memory => add(&self.from_memory, bytes),
            Tier::Machine => add(&self.from_machine, bytes),
            Tier::Peer => add(&self.from_peers, bytes),
            Tier::Store => add(&self.from_store, bytes),
        }
    }

    pub(super) fn wrote(&self, bytes: u64) {
        add(&self.written, bytes);
    }

    pub(super) fn committed(&self, commit: &Commit) {
        match commit {
            Commit::First => add(&self.first, 1),
            Commit::Same => add(&self.same, 1),
            Commit::Different(_) => add(&self.different, 1),
        }
    }

    pub(super) fn looked_up(&self, found: bool) {
        add(if found { &self.known } else { &self.unknown }, 1);
    }
}

fn add(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

impl Store {
    /// What went in and out since this process opened the store. Clones of a store share the numbers.
    pub fn traffic(&self) -> Traffic {
        let (meter, get) = (&self.0.meter, |counter: &AtomicU64| counter.load(Ordering::Relaxed));
        Traffic {
            read: [
                (Tier::Memory, get(&meter.from_memory)),
                (Tier::Machine, get(&meter.from_machine)),
                (Tier::Peer, get(&meter.from_peers)),
                (Tier::Store, get(&meter.from_store)),
            ],
            written: get(&meter.written),
            held: self.0.count().used,
            first: get(&meter.first),
            same: get(&meter.same),
            different: get(&meter.different),
            known: get(&meter.known),
            unknown: get(&meter.unknown),
        }
    }
}
