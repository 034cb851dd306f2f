//! What to try next: one file an algorithm.

mod grid;
mod random;

pub use grid::Grid;
pub use random::Random;

use crate::{Direction, Space, Trial, Values};
use ropeway_framework::Result;
use ropeway_framework::stage::Seed;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a sampler may know when it proposes a trial.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// What may vary.
    pub space: &'a Space,
    /// Whether less or more is better.
    pub direction: Direction,
    /// The source of all chance; ask it for a [`Seed::child`] of the trial.
    pub seed: &'a Seed,
    /// The number of the trial to propose.
    pub index: u64,
    /// The trials before it: their parameters, and such results as this trial may see.
    pub trials: &'a [Trial],
}

/// Proposes the parameters of trials.
///
/// A sampler is a pure function of what it is shown: two equal views give equal values, and it keeps nothing between
/// calls. That is what makes a study repeatable, and what the conformance suite at the foot of this file checks.
pub trait Sampler: Send + Sync {
    /// Whether it can search a space.
    ///
    /// # Errors
    /// A parameter that it can't deal with, by name.
    fn check(&self, space: &Space) -> Result<()> {
        let _ = space;
        Ok(())
    }

    /// How many trials it has to offer; `None` if there is no end to them.
    fn limit(&self, space: &Space) -> Option<u64> {
        let _ = space;
        None
    }

    /// The parameters of trial `view.index`: values that the space contains.
    fn sample(&self, view: View<'_>) -> Values;
}

/// A sampler as a pipeline names it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "Sampler")]
pub enum AnySampler {
    /// Every trial by chance.
    Random(Random),
    /// Every combination once, in scrambled order.
    Grid(Grid),
}

impl AnySampler {
    fn inner(&self) -> &dyn Sampler {
        match self {
            AnySampler::Random(sampler) => sampler,
            AnySampler::Grid(sampler) => sampler,
        }
    }
}

impl Default for AnySampler {
    fn default() -> Self {
        AnySampler::Random(Random::default())
    }
}

impl Sampler for AnySampler {
    fn check(&self, space: &Space) -> Result<()> {
        self.inner().check(space)
    }

    fn limit(&self, space: &Space) -> Option<u64> {
        self.inner().limit(space)
    }

    fn sample(&self, view: View<'_>) -> Values {
        self.inner().sample(view)
    }
}

#[cfg(test)]
mod conformance {
    //! What every sampler must do.

    use super::*;
    use crate::Study;
    use proptest::prelude::*;
    use serde_json::{Value, json};
    use std::collections::VecDeque;

    /// All samplers.
    fn samplers() -> Vec<AnySampler> {
        ["random", "grid"].map(|name| serde_json::from_value(json!({ name: {} })).unwrap()).into()
    }

    fn space(written: Value) -> Space {
        serde_json::from_value(written).unwrap()
    }

    fn spaces() -> Vec<Space> {
        vec![
            space(json!({
                "a": {"int": [0, 10], "step": 5},
                "b": {"choice": ["x", "y"]},
                "b.y.c": {"float": [0.0, 1.0], "step": 0.5, "when": {"b": "y"}},
                "d": {"choice": [1, 2], "when": {"b.y.c": 0.5}},
            })),
            space(json!({"rate": {"log": [1e-4, 1e-1]}, "width": {"int": [1, 512], "log": true}})),
            space(json!({"only": {"choice": [null]}})),
        ]
    }

    /// A result that a sampler could learn from.
    fn value(values: &Values) -> f64 {
        values.iter().filter_map(|(_, value)| value.as_f64()).sum()
    }

    /// Runs a study of 24 trials; the results under way arrive as `order` says.
    fn study(sampler: AnySampler, space: &Space, seed: u64, lag: usize, order: &[usize]) -> Vec<Trial> {
        let study = Study::new(space.clone(), sampler, Direction::Minimize);
        let mut study = study.trials(24).lag(lag).seed(Seed::new(seed, "study"));
        let (mut under_way, mut order) = (VecDeque::new(), order.iter().cycle());
        loop {
            match study.ask() {
                Some(job) => under_way.push_back(job),
                None if under_way.is_empty() => return study.into_trials(),
                None => {
                    let next = order.next().map_or(0, |choice| choice % under_way.len());
                    let job = under_way.remove(next).unwrap();
                    study.tell(&job, value(&job.values)).unwrap();
                }
            }
        }
    }

    fn cases() -> impl Iterator<Item = (AnySampler, Space)> {
        let all =
            samplers().into_iter().flat_map(|sampler| spaces().into_iter().map(move |space| (sampler.clone(), space)));
        all.filter(|(sampler, space)| sampler.check(space).is_ok())
    }

    #[test]
    fn values_are_in_the_space_and_depend_on_the_seed_alone() {
        for (sampler, space) in cases() {
            let trials = study(sampler.clone(), &space, 1, 4, &[0]);
            assert!(!trials.is_empty());
            for trial in &trials {
                assert!(space.contains(&trial.values), "{sampler:?}: {:?}", trial.values);
            }
            assert_eq!(trials, study(sampler.clone(), &space, 1, 4, &[0]));
            // Where there is only one point, every seed must give it.
            if space.iter().any(|(_, parameter)| parameter.domain.size() != Some(1)) {
                assert_ne!(trials, study(sampler, &space, 2, 4, &[0]));
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn the_order_of_results_does_not_matter(order in prop::collection::vec(0usize..8, 1..40), lag in 1usize..9) {
            for (sampler, space) in cases() {
                prop_assert_eq!(
                    study(sampler.clone(), &space, 7, lag, &[0]),
                    study(sampler, &space, 7, lag, &order)
                );
            }
        }
    }
}
