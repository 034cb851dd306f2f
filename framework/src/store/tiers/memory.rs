//! The first tier: artifacts that this process used lately.

use super::budget::Lease;
use super::held::Held;
use crate::data::{Artifact, Ref};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Cold mappings that are remembered. There are few, since all of them give their pages back each time that memory is
/// short: whoever still reads one of them brings pages back that nobody counts.
const COLD: usize = 16;

/// Recently used artifacts, in the order of their use.
///
/// It knows no cap: [`Tiers`](super::Tiers) takes the coldest out when the [`Budget`](super::budget::Budget) says so.
#[derive(Default)]
pub(super) struct Memory(Mutex<State>);

#[derive(Default)]
struct State {
    clock: u64,
    entries: HashMap<Ref, Kept>,
    warm: BTreeMap<u64, Ref>,
    cold: BTreeMap<u64, Ref>,
}

/// An artifact in memory.
#[derive(Clone)]
pub(super) struct Kept {
    pub(super) form: Form,
    /// Its canonical bytes.
    pub(super) held: Arc<Held>,
    time: u64,
}

/// What is kept of an artifact.
#[derive(Clone)]
pub(in crate::store) enum Form {
    /// The artifact.
    Whole(Artifact),
    /// Of a list only what its items are called: they are kept by themselves, and go by themselves.
    List(Arc<[Ref]>),
}

impl Memory {
    pub(super) fn get(&self, reference: Ref) -> Option<Kept> {
        let mut state = self.lock();
        state.touch(reference).cloned()
    }

    /// Counts a cold artifact again, as just used, if it is still here.
    pub(super) fn warm(&self, reference: Ref, lease: Lease) {
        let mut state = self.lock();
        if let Some(kept) = state.touch(reference) {
            kept.held.warm(lease);
        }
    }

    /// Keeps an artifact as just used, and gives it; if it is here already, the one that is here: there must not be
    /// two of them.
    pub(super) fn keep(&self, reference: Ref, form: Form, held: &Arc<Held>) -> Form {
        let state = &mut *self.lock();
        if let Some(kept) = state.touch(reference) {
            if kept.held.is_cold()
                && let Some(lease) = held.cool()
            {
                kept.held.warm(lease);
            }
            return kept.form.clone();
        }
        state.clock += 1;
        let list = if held.is_cold() { &mut state.cold } else { &mut state.warm };
        list.insert(state.clock, reference);
        state.entries.insert(reference, Kept { form: form.clone(), held: held.clone(), time: state.clock });
        form
    }

    pub(super) fn forget(&self, reference: Ref) {
        // Freeing much takes time, which nobody else must wait for.
        let forgotten = self.lock().forget(reference);
        drop(forgotten);
    }

    /// Takes out the artifact that was not used for longest. One whose bytes are a file's stays, but is cold.
    pub(super) fn take_coldest(&self) -> Option<(Ref, Kept)> {
        let mut state = self.lock();
        let (time, reference) = state.warm.pop_first()?;
        if !state.entries.get(&reference).is_some_and(|kept| kept.held.is_mapped()) {
            return state.entries.remove(&reference).map(|kept| (reference, kept));
        }
        state.cold.insert(time, reference);
        let kept = state.entries.get(&reference).cloned()?;
        let lease = kept.held.cool();
        let forgotten = (state.cold.len() > COLD).then(|| state.cold.pop_first()).flatten();
        let forgotten = forgotten.and_then(|(_, reference)| state.entries.remove(&reference));
        let cold: Vec<Arc<Held>> =
            state.cold.values().filter_map(|name| Some(state.entries.get(name)?.held.clone())).collect();
        drop(state);
        cold.iter().for_each(|held| held.give_back());
        drop((lease, forgotten));
        Some((reference, kept))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// An artifact, which is from now on the one that was used last.
    fn touch(&mut self, reference: Ref) -> Option<&Kept> {
        let kept = self.entries.get_mut(&reference)?;
        self.clock += 1;
        self.warm.remove(&kept.time);
        self.cold.remove(&kept.time);
        self.warm.insert(self.clock, reference);
        kept.time = self.clock;
        Some(kept)
    }

    fn forget(&mut self, reference: Ref) -> Option<Kept> {
        let kept = self.entries.remove(&reference)?;
        self.warm.remove(&kept.time);
        self.cold.remove(&kept.time);
        Some(kept)
    }
}

#[cfg(test)]
mod tests {
    use super::super::budget::{Budget, Rule};
    use super::super::held::Content;
    use super::*;
    use crate::data::{Digest, Kind};
    use bytes::Bytes;

    fn name(index: u8) -> Ref {
        Ref { kind: Kind::Bytes, digest: Digest::of(&[index]), bytes: 10 }
    }

    fn keep(memory: &Memory, index: u8, content: Content) {
        let mut passage = Budget::new(u64::MAX).pass(0, Rule::Room).unwrap();
        memory.keep(name(index), Form::Whole(Artifact::Bytes(Bytes::new())), &Held::new(content, &mut passage));
    }

    #[test]
    fn the_longest_unused_goes_first() {
        let memory = Memory::default();
        (0..4).for_each(|index| keep(&memory, index, Content::heap(Bytes::new())));
        assert!(memory.get(name(0)).is_some());
        keep(&memory, 1, Content::heap(Bytes::new()));
        let order: Vec<Ref> = std::iter::from_fn(|| memory.take_coldest()).map(|(reference, _)| reference).collect();
        assert_eq!(order, [2, 3, 0, 1].map(name));
        assert!(memory.get(name(0)).is_none());
        let state = memory.lock();
        assert!(state.entries.is_empty() && state.warm.is_empty() && state.cold.is_empty());
    }

    #[test]
    fn a_mapping_stays_when_it_is_cold() {
        let memory = Memory::default();
        let file = tempfile::tempfile().unwrap();
        file.set_len(10).unwrap();
        // SAFETY: nobody else knows the file.
        keep(&memory, 0, Content::Mapped(unsafe { memmap2::Mmap::map(&file) }.unwrap()));
        assert!(memory.take_coldest().is_some());
        assert!(memory.take_coldest().is_none());
        assert!(memory.get(name(0)).is_some());
        assert!(memory.take_coldest().is_some());
        memory.forget(name(0));
        assert!(memory.get(name(0)).is_none());
    }
}
