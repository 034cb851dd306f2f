//! What the steps of a training spend their time on. Times are for people: none of them reaches a result.

use std::time::{Duration, Instant};

/// Time by phase, added up over the threads that worked side by side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Phases {
    /// Rows gathered into batches.
    pub(super) data: Duration,
    pub(super) forward: Duration,
    pub(super) backward: Duration,
    /// Gradients summed over the shards.
    pub(super) reduce: Duration,
    /// Weights updated.
    pub(super) optimize: Duration,
    /// Waited until a device had done what it was given, in whichever of these phases.
    pub(super) device: Duration,
}

/// A stopwatch that is read at the end of every phase.
pub(super) struct Stopwatch(Instant);

impl Stopwatch {
    pub(super) fn start() -> Self {
        Self(Instant::now())
    }

    /// Adds the time since the start or the last reading to a phase.
    pub(super) fn read(&mut self, phase: &mut Duration) {
        let now = Instant::now();
        *phase += now - self.0;
        self.0 = now;
    }
}

impl Phases {
    pub(super) fn add(&mut self, other: &Phases) {
        self.data += other.data;
        self.forward += other.forward;
        self.backward += other.backward;
        self.reduce += other.reduce;
        self.optimize += other.optimize;
        self.device += other.device;
    }

    /// The share of each phase in all of them, as metrics called `time.forward` and so on; nothing before anything was measured.
    pub(super) fn shares(&self) -> Vec<(&'static str, f64)> {
        let phases = [
            ("time.data", self.data),
            ("time.forward", self.forward),
            ("time.backward", self.backward),
            ("time.reduce", self.reduce),
            ("time.optimizer", self.optimize),
            ("time.device", self.device),
        ];
        let whole: f64 = phases.iter().map(|(_, time)| time.as_secs_f64()).sum();
        let measured = phases.into_iter().filter(|(_, time)| !time.is_zero());
        measured.map(|(name, time)| (name, time.as_secs_f64() / whole)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up_to_one() {
        let mut phases = Phases { data: Duration::from_millis(1), ..Phases::default() };
        assert!(Phases::default().shares().is_empty());
        phases.add(&Phases { backward: Duration::from_millis(3), ..phases });
        assert_eq!(phases.shares(), [("time.data", 0.4), ("time.backward", 0.6)]);
    }
}
