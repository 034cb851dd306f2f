//! Which trials are worth a larger budget: one file an algorithm.

mod asha;
mod median;
mod never;

pub use asha::Asha;
pub use median::Median;
pub use never::Never;

use crate::{Direction, Trial};
use ropeway_framework::Result;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a pruner may know when it decides.
#[derive(Clone, Copy, Debug)]
pub struct Standing<'a> {
    /// Whether less or more is better.
    pub direction: Direction,
    /// All trials so far, with such results as this decision may see.
    pub trials: &'a [Trial],
    /// Whether no trial is under way and none will begin.
    pub last: bool,
}

/// Decides how much budget trials get.
///
/// A trial is trained up to its first rung and then rests ([`State::Pruned`](crate::State::Pruned)) until the pruner
/// lets it go on to its next. Like a sampler, a pruner is a pure function of what it is shown and keeps nothing
/// between calls. When nothing is left to do ([`Standing::last`]) it must let trials go on until one has come to the
/// end of a whole training, unless all have failed; the conformance suite at the foot of this file checks that.
pub trait Pruner: Send + Sync {
    /// Whether it can work with trainings of this length.
    ///
    /// # Errors
    /// Which of its parameters does not fit.
    fn check(&self, whole: u64) -> Result<()> {
        let _ = whole;
        Ok(())
    }

    /// The budgets at which a trial is looked at, ascending; the last is `whole`, the length of a whole training.
    fn rungs(&self, trial: u64, whole: u64) -> Vec<u64>;

    /// The resting trial that goes on to its next rung now, if any should.
    fn promote(&self, standing: Standing<'_>) -> Option<u64>;
}

/// A pruner as a pipeline names it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "Pruner")]
pub enum AnyPruner {
    /// Every trial is trained to the end.
    None(Never),
    /// Successive halving: the best part of each rung goes on to the next.
    Asha(Asha),
    /// A trial goes on while it is no worse than the median of the trials that came as far.
    Median(Median),
}

impl AnyPruner {
    fn inner(&self) -> &dyn Pruner {
        match self {
            AnyPruner::None(pruner) => pruner,
            AnyPruner::Asha(pruner) => pruner,
            AnyPruner::Median(pruner) => pruner,
        }
    }

    /// Whether trials may be given less than a whole training.
    pub fn prunes(&self) -> bool {
        !matches!(self, AnyPruner::None(_))
    }
}

impl Default for AnyPruner {
    fn default() -> Self {
        AnyPruner::None(Never::default())
    }
}

impl Pruner for AnyPruner {
    fn check(&self, whole: u64) -> Result<()> {
        self.inner().check(whole)
    }

    fn rungs(&self, trial: u64, whole: u64) -> Vec<u64> {
        self.inner().rungs(trial, whole)
    }

    fn promote(&self, standing: Standing<'_>) -> Option<u64> {
        self.inner().promote(standing)
    }
}

#[cfg(test)]
mod conformance {
    //! What every pruner must do.

    use super::*;
    use crate::samplers::Random;
    use crate::{Domain, Space, State, Study};
    use proptest::prelude::*;
    use ropeway_framework::stage::Seed;
    use serde_json::json;
    use std::collections::VecDeque;

    /// All pruners, some in more than one setting.
    fn pruners() -> Vec<AnyPruner> {
        [json!({"none": {}}), json!({"asha": {}}), json!({"asha": {"reduction": 2, "min": 2}}), json!({"median": {}})]
            .map(|written| serde_json::from_value(written).unwrap())
            .into()
    }

    #[derive(Clone, Debug)]
    struct Case {
        whole: u64,
        trials: u64,
        lag: usize,
        failing: Vec<bool>,
        order: Vec<usize>,
    }

    fn cases() -> impl Strategy<Value = Case> {
        let failing = prop::collection::vec(prop::bool::weighted(0.2), 20);
        let order = prop::collection::vec(0usize..8, 1..40);
        (2u64..40, 1u64..20, 1usize..9, failing, order).prop_map(|(whole, trials, lag, failing, order)| Case {
            whole,
            trials,
            lag,
            failing,
            order,
        })
    }

    fn study(pruner: AnyPruner, case: &Case, order: &[usize]) -> Vec<Trial> {
        let space = Space::new([("a", Domain::float(0.0, 1.0))]).unwrap();
        let study = Study::new(space, Random::default(), Direction::Minimize).pruner(pruner, case.whole);
        let mut study = study.trials(case.trials).lag(case.lag).seed(Seed::new(1, "study"));
        let (mut under_way, mut order) = (VecDeque::new(), order.iter().cycle());
        loop {
            match study.ask() {
                Some(job) => under_way.push_back(job),
                None if under_way.is_empty() => return study.into_trials(),
                None => {
                    let next = order.next().map_or(0, |choice| choice % under_way.len());
                    let job = under_way.remove(next).unwrap();
                    // A trial that fails does so at its second rung, or at its only one.
                    if case.failing[job.trial as usize] && (job.rung == 1 || job.last) {
                        study.fail(&job, "it broke").unwrap();
                    } else {
                        let value = job.values.get("a").and_then(|value| value.as_f64()).unwrap();
                        study.tell(&job, value + 1.0 / job.budget as f64).unwrap();
                    }
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn rungs_ascend_to_a_whole_training(whole in 2u64..1000, trial in 0u64..50) {
            for pruner in pruners() {
                let rungs = pruner.rungs(trial, whole);
                prop_assert!(rungs[0] > 0 && rungs.is_sorted_by(|a, b| a < b), "{:?}: {:?}", pruner, rungs);
                prop_assert_eq!(rungs.last(), Some(&whole));
            }
        }

        #[test]
        fn the_order_of_results_does_not_matter(case in cases()) {
            for pruner in pruners() {
                prop_assert_eq!(study(pruner.clone(), &case, &[0]), study(pruner, &case, &case.order));
            }
        }

        #[test]
        fn some_trial_is_trained_to_the_end(case in cases()) {
            for pruner in pruners() {
                let trials = study(pruner.clone(), &case, &[0]);
                prop_assert_eq!(trials.len() as u64, case.trials);
                let complete = trials.iter().filter(|trial| trial.state == State::Complete).count();
                let failed = trials.iter().filter(|trial| matches!(trial.state, State::Failed(_))).count();
                prop_assert!(complete > 0 || failed == trials.len(), "{:?}: {:?}", pruner, trials);
                for trial in trials {
                    let ended = trial.results.len() == trial.rungs.len();
                    prop_assert_eq!(ended, trial.state == State::Complete);
                    prop_assert!(trial.state != State::Running);
                }
            }
        }
    }
}
