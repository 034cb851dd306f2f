//! What stages gave before: so much room is made for what they are about to give.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Less is not worth a thought.
const LARGE: u64 = 1 << 20;

/// The bytes that each stage gave last, where those are many.
#[derive(Default)]
pub(super) struct Habits(Mutex<HashMap<String, u64>>);

impl Habits {
    /// What a stage is likely to give; 0 if nobody knows, or little.
    pub(super) fn expect(&self, stage: &str) -> u64 {
        self.lock().get(stage).copied().unwrap_or_default()
    }

    /// Remembers what a stage gave.
    pub(super) fn note(&self, stage: &str, bytes: u64) {
        let mut known = self.lock();
        match known.get_mut(stage) {
            Some(before) => *before = if bytes < LARGE { 0 } else { bytes },
            None if bytes >= LARGE => drop(known.insert(stage.to_owned(), bytes)),
            None => {}
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_counts_and_little_is_nothing() {
        let habits = Habits::default();
        for (given, expected) in [(100, 0), (5 << 20, 5 << 20), (3 << 20, 3 << 20), (7, 0), (LARGE, LARGE)] {
            habits.note("stage", given);
            assert_eq!(habits.expect("stage"), expected);
        }
        assert_eq!(habits.expect("other"), 0);
    }
}
