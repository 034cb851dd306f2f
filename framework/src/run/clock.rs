//! Where time comes from.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A clock: the run's only source of time, so that tests can have their own.
pub trait Clock: Send + Sync {
    /// How long since some fixed moment; it never goes back.
    fn elapsed(&self) -> Duration;
    /// Milliseconds since 1970, for people.
    fn unix_millis(&self) -> u64;
}

/// The system's clock; it starts at zero when made.
#[derive(Debug)]
pub struct SystemClock(Instant);

impl Default for SystemClock {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl Clock for SystemClock {
    fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
    fn unix_millis(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
    }
}
