//! Successive halving, asynchronous but in logical order.

use super::{Pruner, Standing};
use crate::{State, Trial};
use ropeway_framework::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::num::NonZeroU64;

/// Gives every trial a small budget and the best of them more, again and again.
///
/// Successive halving (Jamieson and Talwalkar, "Non-stochastic Best Arm Identification and Hyperparameter
/// Optimization", AISTATS 2016) trains all trials up to a first rung, the best `1/reduction` of them up to the next,
/// and so on. ASHA (Li et al., "A System for Massively Parallel Hyperparameter Tuning", MLSys 2020, algorithm 2) does
/// not wait for a rung to fill: whenever there is room for work, it lets the best trial go on that is in the top
/// `1/reduction` of its rung as far as known, from the highest rung down, and begins a new trial if there is none.
///
/// There, "as far as known" depends on which worker was faster. Here it does not: the study shows the pruner exactly
/// the results that this decision may see by its number (see [`study`](mod@crate::study)), so the decisions are those
/// of ASHA on `lag` workers of equal speed, whatever the real ones are.
///
/// When nothing else is left, the best trial of each rung goes on even if the rung holds fewer than `reduction`, so
/// that one is trained to the end; a trial that failed on the way leaves its place to the next best.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Asha {
    /// One in how many goes on from a rung; the budget grows by the same factor.
    #[serde(deserialize_with = "reduction")]
    #[schemars(range(min = 2))]
    reduction: u64,
    /// The budget of the first rung.
    min: NonZeroU64,
}

impl Default for Asha {
    fn default() -> Self {
        Self { reduction: 3, min: NonZeroU64::MIN }
    }
}

impl Pruner for Asha {
    fn check(&self, whole: u64) -> Result<()> {
        match self.min.get() <= whole {
            true => Ok(()),
            false => Err(Error::usage(format!(
                "the first rung of asha, `min` = {}, is beyond a whole training of {whole}",
                self.min
            ))),
        }
    }

    fn rungs(&self, _: u64, whole: u64) -> Vec<u64> {
        // A rung less than half a step (in the logarithm) below the end would tell nothing new.
        let far = |rung: u64| u128::from(rung).pow(2).saturating_mul(self.reduction.into()) <= u128::from(whole).pow(2);
        let ladder = std::iter::successors(Some(self.min.get()), |rung| rung.checked_mul(self.reduction));
        ladder.take_while(|rung| far(*rung)).chain([whole]).collect()
    }

    fn promote(&self, standing: Standing<'_>) -> Option<u64> {
        let highest = standing.trials.iter().map(|trial| trial.results.len()).max()?;
        (0..highest).rev().find_map(|rung| self.promote_from(rung, standing))
    }
}

impl Asha {
    /// The best trial that rests at a rung and is in its top part.
    fn promote_from(&self, rung: usize, standing: Standing<'_>) -> Option<u64> {
        let mut ranked: Vec<(f64, &Trial)> = standing
            .trials
            .iter()
            .filter(|trial| !matches!(trial.state, State::Failed(_)))
            .filter_map(|trial| Some((standing.direction.cost(*trial.results.get(rung)?), trial)))
            .collect();
        // The sort is stable: among equals the earlier trial is first.
        ranked.sort_by(|(a, _), (b, _)| a.total_cmp(b));
        let top = ranked.len() / usize::try_from(self.reduction).unwrap_or(usize::MAX);
        let top = if standing.last { top.max(1) } else { top };
        let rests = |trial: &Trial| trial.state == State::Pruned && trial.results.len() == rung + 1;
        ranked.into_iter().take(top).find(|(_, trial)| rests(trial)).map(|(_, trial)| trial.index)
    }
}

fn reduction<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    match u64::deserialize(deserializer)? {
        small @ 0..=1 => Err(serde::de::Error::custom(format!("must be at least 2, not {small}"))),
        reduction => Ok(reduction),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Direction, Values};

    fn trial(index: u64, results: &[f64], state: State) -> Trial {
        Trial { index, values: Values::new(), rungs: vec![1, 3, 9], results: results.to_vec(), state }
    }

    fn promote(trials: &[Trial], last: bool) -> Option<u64> {
        Asha::default().promote(Standing { direction: Direction::Minimize, trials, last })
    }

    #[test]
    fn rungs_grow_by_the_reduction() {
        let rungs = |whole| Asha::default().rungs(0, whole);
        assert_eq!(rungs(27), [1, 3, 9, 27]);
        assert_eq!(rungs(20), [1, 3, 9, 20]);
        assert_eq!(rungs(10), [1, 3, 10]);
        assert_eq!(rungs(1), [1]);
        assert_eq!(rungs(u64::MAX).last(), Some(&u64::MAX));
        let wide = Asha { reduction: 4, min: NonZeroU64::new(5).unwrap() };
        assert_eq!(wide.rungs(0, 100), [5, 20, 100]);
        assert!(wide.check(4).unwrap_err().to_string().contains("`min` = 5, is beyond a whole training of 4"));
    }

    #[test]
    fn a_third_of_a_rung_goes_on_best_first_and_from_the_top() {
        let rest = |index, value| trial(index, &[value], State::Pruned);
        let mut trials = vec![rest(0, 0.5), rest(1, 0.4)];
        assert_eq!(promote(&trials, false), None);
        trials.push(rest(2, 0.4));
        assert_eq!(promote(&trials, false), Some(1), "the earlier of two equals");
        trials[1].state = State::Running;
        assert_eq!(promote(&trials, false), None, "one of three is on its way");
        trials[1] = trial(1, &[0.4, 0.3], State::Pruned);
        trials.extend([rest(3, 0.1), rest(4, 0.6), rest(5, 0.7)]);
        assert_eq!(promote(&trials, false), Some(3));
        trials[3] = trial(3, &[0.1, 0.2], State::Pruned);
        assert_eq!(promote(&trials, false), None);
        trials.push(trial(6, &[0.3, 0.25], State::Pruned));
        assert_eq!(promote(&trials, false), Some(3), "the second rung has three");
    }

    #[test]
    fn at_the_end_the_best_goes_on() {
        let mut trials = vec![trial(0, &[0.5], State::Pruned), trial(1, &[0.4], State::Pruned)];
        assert_eq!(promote(&trials, true), Some(1));
        trials[1].state = State::Failed("it broke".into());
        assert_eq!(promote(&trials, true), Some(0));
        trials[0] = trial(0, &[0.5, 0.5, 0.5], State::Complete);
        assert_eq!(promote(&trials, true), None);
    }
}
