//! Who holds which artifact: a hint, for placing tasks near their bytes.

use super::Blob;
use super::hash::ByNumber;

/// Artifacts of which it is remembered that one worker holds them: the last that it made or read.
pub(crate) const MOST_HELD: usize = 16 << 10;
/// Holders of an artifact that are remembered.
const MOST: usize = 4;
/// Inputs of a task that are looked at, the largest.
pub(super) const MOST_INPUTS: usize = 8;
const NOBODY: u32 = u32::MAX;

/// The slots of the workers that hold an artifact.
#[derive(Debug, Default)]
pub(super) struct Holders(ByNumber<Blob, [u32; MOST]>);

impl Holders {
    /// Notes that a worker holds an artifact; whether that is news.
    pub(super) fn add(&mut self, blob: Blob, slot: u32) -> bool {
        let holders = self.0.entry(blob).or_insert([NOBODY; MOST]);
        if holders.contains(&slot) {
            return false;
        }
        let vacant = holders.iter_mut().find(|holder| **holder == NOBODY);
        vacant.map(|vacant| *vacant = slot).is_some()
    }

    pub(super) fn remove(&mut self, blob: Blob, slot: u32) {
        let Some(holders) = self.0.get_mut(&blob) else { return };
        holders.iter_mut().filter(|holder| **holder == slot).for_each(|holder| *holder = NOBODY);
        if holders.iter().all(|holder| *holder == NOBODY) {
            self.0.remove(&blob);
        }
    }

    /// The workers that hold some of these inputs and how many bytes, those with most first.
    pub(super) fn of(&self, inputs: &[(Blob, u64)]) -> Vec<(u32, u64)> {
        let mut found: Vec<(u32, u64)> = Vec::new();
        for (blob, bytes) in inputs {
            let holders = self.0.get(blob).into_iter().flatten().filter(|holder| **holder != NOBODY);
            for holder in holders {
                match found.iter_mut().find(|(slot, _)| slot == holder) {
                    Some((_, sum)) => *sum = sum.saturating_add(*bytes),
                    None => found.push((*holder, *bytes)),
                }
            }
        }
        found.sort_unstable_by_key(|(slot, bytes)| (std::cmp::Reverse(*bytes), *slot));
        found
    }

    /// How many bytes of these inputs a worker holds.
    pub(super) fn bytes(&self, inputs: &[(Blob, u64)], slot: u32) -> u64 {
        let held = |blob: &Blob| self.0.get(blob).is_some_and(|holders| holders.contains(&slot));
        inputs.iter().filter(|(blob, _)| held(blob)).fold(0, |sum, (_, bytes)| sum.saturating_add(*bytes))
    }
}
