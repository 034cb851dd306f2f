//! When checkpoints are kept.

use super::state::State;
use crate::period::Period;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::num::NonZeroUsize;
use std::time::Instant;

/// When a checkpoint is kept: after so many epochs (`2`), steps (`{ steps = 500 }`), or so much time
/// (`{ every = "30s" }`). It is no part of the result: a training that goes on from any of them ends with the same
/// bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected a number of epochs, { steps = 500 } or { every = \"30s\" }")]
pub enum Cadence {
    /// After so many epochs.
    Epochs(NonZeroUsize),
    /// After so many steps.
    Steps(EverySteps),
    /// After so much time, at the next step's end.
    Time(EveryTime),
}

/// After so many steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EverySteps {
    /// Steps from one to the next.
    pub steps: NonZeroUsize,
}

/// After so much time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EveryTime {
    /// Time from one to the next: `"500ms"`, `"30s"`, `"5m"`.
    pub every: Period,
}

impl Default for Cadence {
    fn default() -> Self {
        Cadence::Epochs(NonZeroUsize::MIN)
    }
}

impl Cadence {
    /// Whether one is due, now that a step or an epoch is over; the last one was kept at `last`.
    pub(super) fn due(self, state: &State, last: Instant) -> bool {
        match self {
            Cadence::Epochs(epochs) => state.position == 0 && state.epoch.is_multiple_of(epochs.get() as u64),
            Cadence::Steps(every) => state.step.is_multiple_of(every.steps.get() as u64),
            Cadence::Time(time) => last.elapsed() >= time.every.get(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{from_value, json};

    #[test]
    fn each_form_has_its_moments() {
        let due = |spec: serde_json::Value, epoch: u64, position: u64, step: u64| {
            let state = State { epoch, position, step, ..State::default() };
            from_value::<Cadence>(spec).unwrap().due(&state, Instant::now())
        };
        assert!(due(json!(2), 4, 0, 40) && !due(json!(2), 4, 3, 43) && !due(json!(2), 5, 0, 50));
        assert!(due(json!({"steps": 7}), 1, 4, 14) && !due(json!({"steps": 7}), 2, 0, 20));
        assert!(!due(json!({"every": "1h"}), 2, 0, 20));
        for wrong in [json!(0), json!({"steps": 0}), json!({"every": "now"}), json!({"steps": 1, "every": "1s"})] {
            let error = from_value::<Cadence>(wrong).unwrap_err().to_string();
            assert!(error.contains("expected a number of epochs, { steps = 500 }"), "{error}");
        }
    }
}
