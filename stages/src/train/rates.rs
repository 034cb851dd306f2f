//! The learning-rate finder (Smith, "Cyclical Learning Rates for Training Neural Networks", 2017): the rate rises from
//! step to step, and the loss tells which are good.

use super::descent::Step;
use super::fit::{Engine, Plan, Surroundings};
use super::loss::Sums;
use super::numbers::Positive;
use super::phases::Phases;
use super::pool::Pool;
use super::state::State;
use arrow::array::{ArrayRef, Float64Array, Int64Array};
use ropeway_framework::data::{Frame, Metrics};
use ropeway_framework::stage::Seed;
use ropeway_framework::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::num::NonZeroUsize;
use std::sync::Arc;

/// How much of the smoothed loss stays from step to step.
const SMOOTH: f64 = 0.9;

/// How many times the lowest smoothed loss ends the sweep.
const DIVERGED: f64 = 4.0;

/// Steps that are needed to tell anything.
const FEWEST: usize = 8;

/// A sweep of the learning rate, instead of a training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FindRate {
    /// The first rate.
    #[serde(default = "lowest")]
    pub from: Positive,
    /// The last rate, unless the loss grows beyond measure before.
    #[serde(default = "highest")]
    pub to: Positive,
    /// Steps from one to the other; each has the same factor.
    #[serde(default = "steps")]
    pub steps: NonZeroUsize,
}

fn lowest() -> Positive {
    Positive::known(1e-6)
}

fn highest() -> Positive {
    Positive::known(10.0)
}

fn steps() -> NonZeroUsize {
    NonZeroUsize::MIN.saturating_add(99)
}

/// What a sweep saw: by step, the rate, the loss at the weights before it, and that loss smoothed.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Sweep(Vec<[f64; 3]>);

impl FindRate {
    /// # Errors
    /// A range that does not rise, or too few steps.
    pub(super) fn check(&self) -> Result<()> {
        let (from, to, steps) = (self.from.get(), self.to.get(), self.steps);
        if from >= to {
            return Err(Error::usage(format!("`find_rate.from` is {from:e}, which is not below `to` = {to:e}")));
        }
        match steps.get() < FEWEST {
            true => Err(Error::usage(format!("`find_rate.steps` is {steps}; it needs {FEWEST} or more"))),
            false => Ok(()),
        }
    }

    fn rate(&self, step: usize) -> f64 {
        let done = step as f64 / (self.steps.get() - 1) as f64;
        self.from.get() * (self.to.get() / self.from.get()).powf(done)
    }

    /// Sweeps: one step at each rate, on batches like those of the training, from its first weights.
    pub(super) fn sweep(
        &self,
        plan: &Plan,
        engine: &mut dyn Engine,
        mut state: State,
        (pool, around): (&Pool, &Surroundings),
    ) -> Result<Sweep> {
        let chance = Seed::new(state.chance, "train");
        let (mut sum, mut phases) = (Vec::new(), Phases::default());
        let (mut sweep, mut mean, mut least) = (Sweep::default(), 0.0, f64::INFINITY);
        let mut order = plan.order.epoch(&chance, 0);
        for index in 0..self.steps.get() {
            around.cancel.check()?;
            let (epoch, position) = ((index / plan.order.steps()) as u64, index % plan.order.steps());
            if position == 0 {
                order = plan.order.epoch(&chance, epoch);
            }
            engine.seek(epoch, position, &(0..engine.shards()))?;
            let batch = order.step(position);
            let (rate, number) = (self.rate(index), index as u64 + 1);
            let shards = 0..engine.shards();
            let sums = engine.gradients(&state.weights, batch, &chance.child(&format!("step-{index}")), shards)?;
            let loss = Sums::total(sums).mean();
            mean = SMOOTH * mean + (1.0 - SMOOTH) * loss;
            let smooth = mean / (1.0 - SMOOTH.powi(i32::try_from(number)?));
            if !smooth.is_finite() || smooth > DIVERGED * least {
                break;
            }
            least = least.min(smooth);
            sweep.0.push([rate, loss, smooth]);
            let gradient = engine.gradient();
            let step = Step { optimizer: &plan.optimizer, number, rate, clip: plan.clip };
            step.take(&*gradient, pool, &mut sum, &mut state.weights, &mut state.moments, &mut phases);
            engine.restore(&mut state.weights);
            let seen = [("rate", rate), ("train.loss", smooth)];
            around.progress.step(number, Some(self.steps.get() as u64), "step", &seen);
        }
        if sweep.0.len() < FEWEST {
            let rate = self.rate(sweep.0.len());
            return Err(Error::new(format!(
                "`find_rate`: the loss grows beyond measure at once, at the rate {rate:e}"
            ))
            .help("set a lower `find_rate.from`"));
        }
        Ok(sweep)
    }
}

impl Sweep {
    /// The curve: `step`, `rate`, `train.loss`, and that smoothed.
    pub(super) fn curve(&self) -> Result<Frame> {
        let column = |index: usize| -> ArrayRef {
            Arc::new(Float64Array::from_iter_values(self.0.iter().map(|row| row[index])))
        };
        let steps: ArrayRef = Arc::new(Int64Array::from_iter_values(1..=i64::try_from(self.0.len())?));
        let columns = [("step", steps), ("rate", column(0)), ("train.loss", column(1)), ("smooth.loss", column(2))];
        Frame::from_columns(columns)
    }

    /// `rate`: where the smoothed loss falls most steeply over the logarithm of the rate, a good one to train with;
    /// `rate.lowest`: where it is lowest, which is too high already.
    pub(super) fn metrics(&self) -> Metrics {
        let smooth = |at: usize| self.0[at][2];
        let lowest = (0..self.0.len()).fold(0, |best, at| if smooth(at) < smooth(best) { at } else { best });
        // The rates are even in their logarithm, so differences are slopes; over several steps, against noise.
        let slope = |at: usize| smooth((at + 2).min(lowest)) - smooth(at.saturating_sub(2));
        let steepest = (0..=lowest).fold(0, |best, at| if slope(at) < slope(best) { at } else { best });
        Metrics::new()
            .with("rate", self.0[steepest][0])
            .with("rate.lowest", self.0[lowest][0])
            .with("loss", smooth(lowest))
            .with("steps", self.0.len() as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_suggestion_lies_on_the_slope() {
        let losses = [2.0, 2.0, 2.0, 1.9, 1.6, 1.1, 0.8, 0.7, 0.7, 1.5];
        let sweep = Sweep((0..10).map(|at| [10f64.powi(at - 6), losses[at as usize], losses[at as usize]]).collect());
        let metrics = sweep.metrics();
        assert_eq!((metrics.get("rate"), metrics.get("rate.lowest")), (Some(1e-2), Some(1e1)));
        assert_eq!(sweep.curve().unwrap().rows(), 10);
    }

    #[test]
    fn ranges_that_tell_nothing_are_refused() {
        let check = |spec: serde_json::Value| serde_json::from_value::<FindRate>(spec).unwrap().check();
        assert!(check(serde_json::json!({})).is_ok());
        let error = check(serde_json::json!({"from": 1.0, "to": 0.1})).unwrap_err().to_string();
        assert_eq!(error, "`find_rate.from` is 1e0, which is not below `to` = 1e-1");
        assert!(check(serde_json::json!({"steps": 3})).unwrap_err().to_string().contains("it needs 8 or more"));
    }
}
