//! Who made or read large artifacts, and so may still hold them.

use crate::data::Digest;
use crate::schedule::{MOST_HELD, WorkerId};
use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap, VecDeque};

/// The workers that hold an artifact, and the artifacts that a worker holds: those of one that is gone are forgotten.
#[derive(Debug, Default)]
pub(super) struct Holders {
    of: HashMap<Digest, BTreeSet<WorkerId>>,
    by: HashMap<WorkerId, VecDeque<Digest>>,
}

impl Holders {
    /// A worker made an artifact, or read it.
    pub(super) fn add(&mut self, worker: WorkerId, digest: Digest) {
        if !self.of.entry(digest).or_default().insert(worker) {
            return;
        }
        let held = self.by.entry(worker).or_default();
        held.push_back(digest);
        if held.len() > MOST_HELD
            && let Some(oldest) = held.pop_front()
        {
            self.drop_one(worker, oldest);
        }
    }

    fn drop_one(&mut self, worker: WorkerId, digest: Digest) {
        if let Entry::Occupied(mut holders) = self.of.entry(digest) {
            holders.get_mut().remove(&worker);
            if holders.get().is_empty() {
                holders.remove();
            }
        }
    }

    /// A worker is gone, and with it what it held.
    pub(super) fn forget(&mut self, worker: WorkerId) {
        for digest in self.by.remove(&worker).unwrap_or_default() {
            self.drop_one(worker, digest);
        }
    }

    /// Who may hold an artifact.
    pub(super) fn of(&self, digest: Digest) -> impl Iterator<Item = WorkerId> {
        self.of.get(&digest).into_iter().flatten().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holders(all: &Holders, name: &str) -> Vec<u64> {
        all.of(Digest::of(name.as_bytes())).map(|worker| worker.0).collect()
    }

    #[test]
    fn nobody_is_named_twice_and_who_is_gone_is_not_named() {
        let mut all = Holders::default();
        for (worker, name) in [(1, "a"), (2, "a"), (1, "a"), (1, "b"), (2, "a")] {
            all.add(WorkerId(worker), Digest::of(name.as_bytes()));
        }
        assert_eq!((holders(&all, "a"), holders(&all, "b")), (vec![1, 2], vec![1]));
        all.forget(WorkerId(1));
        assert_eq!((holders(&all, "a"), holders(&all, "b")), (vec![2], vec![]));
        all.forget(WorkerId(1));
        all.forget(WorkerId(2));
        assert!(all.of.is_empty() && all.by.is_empty(), "{all:?}");
    }

    #[test]
    fn only_what_a_worker_made_or_read_last_is_remembered() {
        let mut all = Holders::default();
        let name = |number: usize| number.to_string();
        (0..MOST_HELD + 5).for_each(|number| all.add(WorkerId(1), Digest::of(name(number).as_bytes())));
        assert_eq!((holders(&all, &name(4)), holders(&all, &name(5))), (vec![], vec![1]));
        assert_eq!((all.of.len(), all.by[&WorkerId(1)].len()), (MOST_HELD, MOST_HELD));
    }
}
