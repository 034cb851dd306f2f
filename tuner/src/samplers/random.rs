//! Random search.

use super::{Sampler, View};
use crate::Values;
use rand::RngExt;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Draws every parameter by chance, evenly over its domain (evenly in the logarithm where the domain says so).
///
/// Hard to beat when few of many parameters matter: Bergstra and Bengio, "Random Search for Hyper-Parameter
/// Optimization", JMLR 13, 2012. Each parameter has a stream of its own, so that one more parameter in the space
/// leaves the draws of the others as they are.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Random {}

impl Sampler for Random {
    fn sample(&self, view: View<'_>) -> Values {
        let seed = view.seed.child("random").child(&view.index.to_string());
        view.space.fill(|path, domain| domain.at(seed.rng(path).random()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Direction, Domain, Space};
    use ropeway_framework::stage::Seed;

    fn draw(space: &Space, count: u64) -> Vec<Values> {
        let seed = Seed::new(3, "study");
        let view = |index| View { space, direction: Direction::Minimize, seed: &seed, index, trials: &[] };
        (0..count).map(|index| Random::default().sample(view(index))).collect()
    }

    #[test]
    fn draws_spread_over_the_domain() {
        let space = Space::new([
            ("flat", Domain::float(-1.0, 1.0)),
            ("log", Domain::log(1e-4, 1.0)),
            ("count", Domain::int(1, 4)),
            ("name", Domain::choice(["a", "b"])),
        ])
        .unwrap();
        let draws = draw(&space, 4000);
        let share = |path: &str, test: &dyn Fn(&serde_json::Value) -> bool| {
            draws.iter().filter(|values| values.get(path).is_some_and(test)).count() as f64 / 4000.0
        };
        let below = |limit: f64| move |value: &serde_json::Value| value.as_f64().is_some_and(|value| value < limit);
        // Five standard deviations of a share of 4000 are below 0.04.
        assert!((share("flat", &below(0.0)) - 0.5).abs() < 0.04);
        assert!((share("log", &below(1e-2)) - 0.5).abs() < 0.04);
        assert!((share("log", &below(1e-3)) - 0.25).abs() < 0.04);
        for count in 1..=4 {
            assert!((share("count", &|value| *value == count) - 0.25).abs() < 0.04);
        }
        assert!((share("name", &|value| value == "a") - 0.5).abs() < 0.04);
    }

    #[test]
    fn another_parameter_leaves_the_draws_alone() {
        let one = draw(&Space::new([("b", Domain::float(0.0, 1.0))]).unwrap(), 5);
        let two = draw(&Space::new([("a", Domain::float(0.0, 1.0)), ("b", Domain::float(0.0, 1.0))]).unwrap(), 5);
        for (one, two) in one.iter().zip(&two) {
            assert_eq!(one.get("b"), two.get("b"));
            assert_ne!(two.get("a"), two.get("b"));
        }
    }
}
