//! What went in and out of a store since this process opened it.

use super::{Commit, Store};
use std::cell::RefCell;
use std::sync::Arc;
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
    /// The most that these may be.
    pub cap: u64,
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

/// Counts the bytes of artifacts that cross the network for somebody: those that a store fetches from other workers and
/// from far away, and those that it sends there. Cloning is cheap and shares the count.
#[derive(Clone, Debug, Default)]
pub(crate) struct Moved(Arc<AtomicU64>);

thread_local! {
    /// For whom stores work on this thread.
    static FOR: RefCell<Option<Moved>> = const { RefCell::new(None) };
}

impl Moved {
    /// Counts what stores move on this thread during some work.
    pub(crate) fn during<T>(&self, work: impl FnOnce() -> T) -> T {
        let _back = Back(FOR.replace(Some(self.clone())));
        work()
    }

    /// Counts bytes that were moved by other means.
    pub(crate) fn add(&self, bytes: u64) {
        add(&self.0, bytes);
    }

    /// The bytes so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Whoever the thread worked for before, also after a panic.
struct Back(Option<Moved>);

impl Drop for Back {
    fn drop(&mut self) {
        FOR.set(self.0.take());
    }
}

/// Notes that bytes crossed the network for whomever this thread works for.
pub(super) fn moved(bytes: u64) {
    FOR.with_borrow(|whose| whose.iter().for_each(|whose| whose.add(bytes)));
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
            cap: self.0.count().cap,
            first: get(&meter.first),
            same: get(&meter.same),
            different: get(&meter.different),
            known: get(&meter.known),
            unknown: get(&meter.unknown),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Artifact;
    use crate::runtime;

    #[test]
    fn what_crosses_the_network_is_counted_for_who_asked() {
        let far = Store::memory();
        let near = Store::remote(Arc::new(far.clone())).with_memory(0);
        let artifact = Artifact::Bytes(vec![7; 100_000].into());
        let block_on = |moved: &Moved, store: &Store| {
            let (runtime, artifact) = (runtime().unwrap(), &artifact);
            moved.during(|| runtime.block_on(async { store.get(store.put(artifact).await.unwrap()).await.unwrap() }));
            moved.bytes()
        };
        assert_eq!(block_on(&Moved::default(), &far), 0, "nothing leaves this process");
        let (first, second) = (Moved::default(), Moved::default());
        let bytes = runtime().unwrap().block_on(far.put(&Artifact::Bytes(vec![8; 10].into()))).unwrap().bytes;
        assert!(bytes > 0);
        let one = block_on(&first, &Store::remote(Arc::new(Store::memory())).with_memory(0));
        assert!((200_000..210_000).contains(&one), "there and back: {one}");
        let two = block_on(&second, &near);
        assert!((100_000..110_000).contains(&two), "it is there already, and comes back: {two}");
        assert_eq!(first.bytes(), one, "what is asked for others is not counted for one");
    }

    #[test]
    fn a_panic_does_not_leave_a_thread_working_for_another() {
        let moved = Moved::default();
        let outer = Moved::default();
        outer.during(|| {
            let work = || moved.during(|| panic!("on purpose"));
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
            super::moved(5);
        });
        super::moved(7);
        assert_eq!((moved.bytes(), outer.bytes()), (0, 5));
    }
}
