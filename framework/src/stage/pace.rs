//! How often it is told how far a stage is.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What comes sooner after the last is overtaken by the next: nobody sees more, and to tell it takes longer than many a
/// step does.
const PAUSE: Duration = Duration::from_millis(50);

/// When something was told last.
#[derive(Debug, Default)]
pub(crate) struct Pace(Mutex<Option<Instant>>);

impl Pace {
    /// Whether it is time to tell something again. Then it counts as told.
    pub(crate) fn is_due(&self) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let due = last.is_none_or(|last| last.elapsed() >= PAUSE);
        if due {
            *last = Some(Instant::now());
        }
        due
    }
}
