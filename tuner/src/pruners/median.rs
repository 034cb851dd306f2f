//! The median rule.

use super::{Pruner, Standing};
use crate::{State, Trial};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::num::NonZeroU64;

/// Lets a trial go on while it is no worse than the median of the trials that came as far.
///
/// Golovin et al., "Google Vizier: A Service for Black-Box Optimization", KDD 2017, section 3.2.2, with the results
/// at a rung in place of running averages.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Median {
    /// How many trials must have come as far before any is held back.
    startup: NonZeroU64,
    /// The budget between two looks at a trial.
    every: NonZeroU64,
}

impl Default for Median {
    fn default() -> Self {
        Self { startup: NonZeroU64::MIN.saturating_add(4), every: NonZeroU64::MIN }
    }
}

impl Pruner for Median {
    fn rungs(&self, _: u64, whole: u64) -> Vec<u64> {
        let looks = std::iter::successors(Some(self.every.get()), |rung| rung.checked_add(self.every.get()));
        looks.take_while(|rung| *rung < whole).chain([whole]).collect()
    }

    fn promote(&self, standing: Standing<'_>) -> Option<u64> {
        let rests = |trial: &&Trial| trial.state == State::Pruned;
        let good = standing.trials.iter().filter(rests).find(|trial| self.goes_on(trial, standing));
        let good = good.or_else(|| standing.last.then(|| self.fallback(standing)).flatten());
        good.map(|trial| trial.index)
    }
}

impl Median {
    fn goes_on(&self, trial: &Trial, standing: Standing<'_>) -> bool {
        let Some(rung) = trial.results.len().checked_sub(1) else { return false };
        let results = standing.trials.iter().filter_map(|one| one.results.get(rung));
        let mut costs: Vec<f64> = results.map(|value| standing.direction.cost(*value)).collect();
        costs.sort_by(f64::total_cmp);
        let own = trial.results.get(rung).map(|value| standing.direction.cost(*value));
        let median = costs.get((costs.len().saturating_sub(1)) / 2).copied();
        (costs.len() as u64) < self.startup.get() || own <= median
    }

    /// When all rest and none was trained to the end: the best of those that came farthest.
    fn fallback<'a>(&self, standing: Standing<'a>) -> Option<&'a Trial> {
        if standing.trials.iter().any(|trial| trial.state == State::Complete) {
            return None;
        }
        let cost = |trial: &Trial| trial.value().map_or(f64::INFINITY, |value| standing.direction.cost(value));
        let resting = standing.trials.iter().filter(|trial| trial.state == State::Pruned);
        resting.min_by(|a, b| b.results.len().cmp(&a.results.len()).then(cost(a).total_cmp(&cost(b))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Direction, Values};

    #[test]
    fn the_worse_half_rests() {
        let trial = |index: u64, value: f64| Trial {
            index,
            values: Values::new(),
            rungs: vec![1, 2],
            results: vec![value],
            state: State::Pruned,
        };
        let promote = |trials: &[Trial]| {
            Median::default().promote(Standing { direction: Direction::Maximize, trials, last: false })
        };
        let mut trials: Vec<Trial> = (0u8..4).map(|index| trial(index.into(), f64::from(index))).collect();
        assert_eq!(promote(&trials), Some(0), "too few to judge");
        trials.push(trial(4, 4.0));
        assert_eq!(promote(&trials), Some(2));
        trials.truncate(2);
        trials.extend([trial(5, 9.0), trial(6, 8.0), trial(7, 7.0)]);
        assert_eq!(promote(&trials), Some(5));
        assert_eq!(Median::default().rungs(0, 3), [1, 2, 3]);
    }
}
