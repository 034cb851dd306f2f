//! The first tier: artifacts that this process used lately.

use crate::data::{Artifact, Ref};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Recently used artifacts up to a number of canonical bytes; the one that was not used for longest goes first.
///
/// A list counts with its items. An item that is also kept for itself counts twice though its memory is shared: the
/// cap is an upper limit.
pub(super) struct Memory(Mutex<State>);

#[derive(Default)]
struct State {
    cap: u64,
    used: u64,
    clock: u64,
    entries: HashMap<Ref, Kept>,
    by_age: BTreeMap<u64, Ref>,
}

struct Kept {
    artifact: Artifact,
    bytes: u64,
    time: u64,
}

impl Memory {
    pub(super) fn new(cap: u64) -> Self {
        Self(Mutex::new(State { cap, ..State::default() }))
    }

    pub(super) fn set_cap(&self, cap: u64) {
        let mut state = self.lock();
        state.cap = cap;
        state.shrink();
    }

    /// An artifact and the bytes it was counted with.
    pub(super) fn get(&self, reference: Ref) -> Option<(Artifact, u64)> {
        let state = &mut *self.lock();
        let kept = state.entries.get_mut(&reference)?;
        state.clock += 1;
        state.by_age.remove(&kept.time);
        state.by_age.insert(state.clock, reference);
        kept.time = state.clock;
        Some((kept.artifact.clone(), kept.bytes))
    }

    /// Keeps an artifact, counted with `bytes`; one that would not leave room for any other is not kept.
    pub(super) fn keep(&self, reference: Ref, artifact: Artifact, bytes: u64) {
        let mut state = self.lock();
        state.forget(reference);
        if bytes > state.cap {
            return;
        }
        state.clock += 1;
        state.used += bytes;
        let time = state.clock;
        state.by_age.insert(time, reference);
        state.entries.insert(reference, Kept { artifact, bytes, time });
        state.shrink();
    }

    pub(super) fn forget(&self, reference: Ref) {
        self.lock().forget(reference);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn forget(&mut self, reference: Ref) {
        if let Some(kept) = self.entries.remove(&reference) {
            self.by_age.remove(&kept.time);
            self.used -= kept.bytes;
        }
    }

    fn shrink(&mut self) {
        while self.used > self.cap
            && let Some((_, oldest)) = self.by_age.pop_first()
        {
            self.forget(oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Digest, Kind};
    use bytes::Bytes;

    fn name(index: u8) -> Ref {
        Ref { kind: Kind::Bytes, digest: Digest::of(&[index]), bytes: 10 }
    }

    fn keep(memory: &Memory, index: u8) {
        memory.keep(name(index), Artifact::Bytes(Bytes::new()), 10);
    }

    #[test]
    fn the_longest_unused_goes_first() {
        let memory = Memory::new(30);
        (0..3).for_each(|index| keep(&memory, index));
        assert!(memory.get(name(0)).is_some());
        keep(&memory, 3);
        assert!(memory.get(name(1)).is_none());
        assert!([0, 2, 3].iter().all(|index| memory.get(name(*index)).is_some()));
    }

    #[test]
    fn the_cap_holds_and_a_giant_is_not_kept() {
        let memory = Memory::new(30);
        (0..100).for_each(|index| keep(&memory, index % 7));
        let counted = || {
            let state = memory.lock();
            assert_eq!(state.entries.len(), state.by_age.len());
            (state.used, state.entries.len())
        };
        assert_eq!(counted(), (30, 3));
        memory.keep(name(9), Artifact::Bytes(Bytes::new()), 31);
        assert!(memory.get(name(9)).is_none());
        assert_eq!(counted(), (30, 3));
        memory.set_cap(0);
        assert_eq!(counted(), (0, 0));
    }
}
