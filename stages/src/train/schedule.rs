//! Learning-rate schedules.
//!
//! A schedule has a length of its own, in epochs, apart from `epochs`: so a training that stops early, or is resumed
//! with more epochs, walks the same path. Past its end the rate stays what it was there.

use super::numbers::{NonNegative, Positive, Share};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::num::NonZeroUsize;

/// What the optimiser's rate is multiplied with at each step.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    /// 1 throughout.
    #[default]
    Constant,
    /// Drops after every so many epochs.
    Step(StepDecay),
    /// Half a cosine wave down (Loshchilov and Hutter, "SGDR", 2017).
    Cosine(Decay),
    /// A straight line down.
    Linear(Decay),
    /// Up, and then further down (Smith and Topin, "Super-Convergence", 2018), with cosine flanks.
    OneCycle(OneCycle),
}

/// A rate that drops in steps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StepDecay {
    /// Epochs between drops.
    pub every: NonZeroUsize,
    /// What a drop multiplies the rate with.
    #[serde(default = "tenth")]
    pub factor: Positive,
}

/// A rate that falls smoothly.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Decay {
    /// Its length, warm-up included.
    pub epochs: NonZeroUsize,
    /// Epochs, or a part of one, in which the rate first rises from zero in a straight line.
    #[serde(default)]
    pub warmup: NonNegative,
    /// What it ends at, as a share of the rate.
    #[serde(default)]
    pub floor: Share,
}

/// One cycle: the optimiser's rate is the peak.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OneCycle {
    /// Its length.
    pub epochs: NonZeroUsize,
    /// The share of the length in which the rate rises.
    #[serde(default = "rise")]
    pub rise: Share,
    /// What it starts at, as a share of the peak.
    #[serde(default = "start")]
    pub start: Share,
    /// What it ends at, as a share of the peak.
    #[serde(default = "end")]
    pub end: Share,
}

fn tenth() -> Positive {
    Positive::known(0.1)
}

fn rise() -> Share {
    Share::known(0.3)
}

fn start() -> Share {
    Share::known(0.04)
}

fn end() -> Share {
    Share::known(1e-4)
}

impl Schedule {
    /// The factor at a step, counted from 0 over the whole training.
    pub fn factor(&self, step: u64, steps_an_epoch: u64) -> f64 {
        let epoch = step as f64 / steps_an_epoch.max(1) as f64;
        match self {
            Schedule::Constant => 1.0,
            Schedule::Step(decay) => {
                let drops = step / steps_an_epoch.max(1) / decay.every.get() as u64;
                decay.factor.get().powi(i32::try_from(drops).unwrap_or(i32::MAX))
            }
            Schedule::Cosine(decay) => decay.factor(step, steps_an_epoch, half_cosine),
            Schedule::Linear(decay) => decay.factor(step, steps_an_epoch, |done| 1.0 - done),
            Schedule::OneCycle(cycle) => {
                let (length, rise) = (cycle.epochs.get() as f64, cycle.rise.get());
                let done = (epoch / length).min(1.0);
                if done < rise {
                    cycle.start.get() + (1.0 - cycle.start.get()) * (1.0 - half_cosine(done / rise))
                } else {
                    cycle.end.get() + (1.0 - cycle.end.get()) * half_cosine((done - rise) / (1.0 - rise))
                }
            }
        }
    }
}

impl Decay {
    fn factor(&self, step: u64, steps_an_epoch: u64, shape: impl Fn(f64) -> f64) -> f64 {
        let steps = steps_an_epoch.max(1) as f64;
        let (warmup, length) = (self.warmup.get() * steps, self.epochs.get() as f64 * steps);
        let step = step as f64;
        if step < warmup {
            // The first step counts: a rate of exactly zero would waste it.
            return ((step + 1.0) / warmup).min(1.0);
        }
        let done = if length > warmup { ((step - warmup) / (length - warmup)).min(1.0) } else { 1.0 };
        self.floor.get() + (1.0 - self.floor.get()) * shape(done)
    }
}

/// From 1 at 0 to 0 at 1.
fn half_cosine(done: f64) -> f64 {
    0.5 * (1.0 + (std::f64::consts::PI * done).cos())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{from_value, json};

    fn factors(schedule: serde_json::Value, steps: &[u64]) -> Vec<f64> {
        let schedule: Schedule = from_value(schedule).unwrap();
        steps.iter().map(|step| (schedule.factor(*step, 10) * 1e6).round() / 1e6).collect()
    }

    #[test]
    fn each_schedule_has_its_shape() {
        assert_eq!(factors(json!("constant"), &[0, 99]), [1.0, 1.0]);
        assert_eq!(factors(json!({"step": {"every": 2, "factor": 0.5}}), &[0, 19, 20, 40]), [1.0, 1.0, 0.5, 0.25]);
        assert_eq!(factors(json!({"cosine": {"epochs": 4}}), &[0, 20, 40, 99]), [1.0, 0.5, 0.0, 0.0]);
        let warm = json!({"linear": {"epochs": 5, "warmup": 1, "floor": 0.2}});
        assert_eq!(factors(warm, &[0, 9, 10, 30, 50]), [0.1, 1.0, 1.0, 0.6, 0.2]);
        let cycle = json!({"one_cycle": {"epochs": 10, "rise": 0.5, "start": 0.1, "end": 0.0}});
        assert_eq!(factors(cycle, &[0, 25, 50, 75, 100, 900]), [0.1, 0.55, 1.0, 0.5, 0.0, 0.0]);
    }

    #[test]
    fn a_length_is_asked_for() {
        let error = from_value::<Schedule>(json!({"cosine": {}})).unwrap_err();
        assert!(error.to_string().contains("missing field `epochs`"));
    }
}
