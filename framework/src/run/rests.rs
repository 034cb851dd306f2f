//! Stages that run others and have failed, until they are tried again. The scheduler, which lets all others rest, knows
//! nothing of them.

use crate::schedule::{TaskId, Time, backoff};
use std::collections::BTreeSet;

/// When the next attempt of a task begins.
#[derive(Default)]
pub(super) struct Rests(BTreeSet<(Time, TaskId, u32)>);

impl Rests {
    /// An attempt has just failed: the next one is due after a while.
    pub(super) fn begin(&mut self, now: Time, task: TaskId, failed: u32) {
        self.0.insert((now + backoff(failed), task, failed + 1));
    }

    /// The next attempt that is due.
    pub(super) fn end(&mut self, now: impl FnOnce() -> Time) -> Option<(TaskId, u32)> {
        let (due, task, attempt) = *self.0.first()?;
        if due > now() {
            return None;
        }
        self.0.pop_first();
        Some((task, attempt))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rest_is_longer_than_the_one_before() {
        let mut rests = Rests::default();
        let at = Time::from_millis;
        rests.begin(at(1000), TaskId(1), 2);
        rests.begin(at(1000), TaskId(2), 1);
        let mut end = |now: u64| rests.end(|| at(now));
        assert_eq!(end(1099), None);
        assert_eq!(end(1100), Some((TaskId(2), 2)));
        assert_eq!(end(1199), None);
        assert_eq!(end(1200), Some((TaskId(1), 3)));
        assert_eq!(end(u64::MAX), None);
    }
}
