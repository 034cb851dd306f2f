//! The parameters of the `tune` stage.

use crate::pruners::AnyPruner;
use crate::samplers::{AnySampler, Sampler};
use crate::{Direction, Space, named};
use ropeway_framework::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::num::NonZeroU32;

/// What to search for, where, how and how long.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "Written", into = "Written")]
pub struct Tune {
    /// The metric that decides, one of the trial's `metrics`.
    pub metric: String,
    /// Whether less or more of it is better.
    pub direction: Direction,
    /// How many trials.
    pub trials: u32,
    /// What proposes them.
    pub sampler: AnySampler,
    /// What stops the bad ones early.
    pub pruner: AnyPruner,
    /// The parameter that is the length of a training; its value in the trial stage is a whole training.
    pub budget: String,
    /// What may vary.
    pub space: Space,
    /// How many trainings may be under way at once.
    pub lag: NonZeroU32,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Tune")]
struct Written {
    /// The metric that should be small, one of the trial's `metrics`. Either this or `maximize`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    minimize: Option<String>,
    /// The metric that should be large.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    maximize: Option<String>,
    /// How many trials. A grid may leave it out: then all its points.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    trials: Option<NonZeroU32>,
    /// What proposes the trials.
    #[serde(default, deserialize_with = "named::read")]
    #[schemars(schema_with = "named::schema::<AnySampler>")]
    sampler: AnySampler,
    /// What stops bad trials early.
    #[serde(default, deserialize_with = "named::read")]
    #[schemars(schema_with = "named::schema::<AnyPruner>")]
    pruner: AnyPruner,
    /// The trial's parameter that is the length of a training; a pruner gives less of it to bad trials.
    #[serde(default = "epochs")]
    budget: String,
    /// What may vary: the trial's parameters by dotted path, each with the values that it may take.
    space: Space,
    /// How many trainings may be under way at once. The trials depend on it, so it should not depend on the machine.
    #[serde(default = "lag")]
    lag: NonZeroU32,
}

fn epochs() -> String {
    "epochs".to_owned()
}

fn lag() -> NonZeroU32 {
    NonZeroU32::MIN.saturating_add(7)
}

impl TryFrom<Written> for Tune {
    type Error = Error;

    fn try_from(written: Written) -> Result<Self> {
        let Written { minimize, maximize, trials, sampler, pruner, budget, space, lag } = written;
        let (direction, metric) = match (minimize, maximize) {
            (Some(metric), None) => (Direction::Minimize, metric),
            (None, Some(metric)) => (Direction::Maximize, metric),
            (None, None) => {
                return Err(Error::usage("say what to search for: `minimize` or `maximize`, and a metric"));
            }
            (Some(_), Some(_)) => return Err(Error::usage("write either `minimize` or `maximize`, not both")),
        };
        sampler.check(&space)?;
        let offered = sampler.limit(&space).map(|limit| u32::try_from(limit).unwrap_or(u32::MAX));
        let trials = match (trials.map(NonZeroU32::get), offered) {
            (Some(wanted), Some(offered)) => wanted.min(offered),
            (Some(count), None) | (None, Some(count)) => count,
            (None, None) => return Err(Error::usage("say how many `trials`")),
        };
        if pruner.prunes() && space.get(&budget).is_some() {
            return Err(Error::usage(format!(
                "`{budget}` can't vary in the space while the pruner decides it; take it out, or name another `budget`"
            )));
        }
        Ok(Self { metric, direction, trials, sampler, pruner, budget, space, lag })
    }
}

impl From<Tune> for Written {
    fn from(tune: Tune) -> Self {
        let (minimize, maximize) = match tune.direction {
            Direction::Minimize => (Some(tune.metric), None),
            Direction::Maximize => (None, Some(tune.metric)),
        };
        let trials = NonZeroU32::new(tune.trials);
        let Tune { sampler, pruner, budget, space, lag, .. } = tune;
        Self { minimize, maximize, trials, sampler, pruner, budget, space, lag }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ropeway_framework::stage::ParamSchema;
    use serde_json::{Value, json};

    fn normalise(change: &[(&str, Value)]) -> Result<Value, String> {
        let mut params = json!({"minimize": "loss", "trials": 4, "space": {"rate": {"log": [1e-3, 1.0]}}});
        for (key, value) in change {
            params[*key] = value.clone();
            if value.is_null() {
                params.as_object_mut().unwrap().remove(*key);
            }
        }
        ParamSchema::of::<Tune>().normalise(&params).map_err(|error| error.to_string())
    }

    #[test]
    fn defaults_are_filled_in_and_equal_meanings_are_equal() {
        let normal = normalise(&[]).unwrap();
        let full = json!({
            "minimize": "loss", "trials": 4, "budget": "epochs", "lag": 8,
            "sampler": {"random": {}}, "pruner": {"none": {}}, "space": {"rate": {"log": [1e-3, 1.0]}},
        });
        assert_eq!(normal, full);
        assert_eq!(ParamSchema::of::<Tune>().normalise(&full), Ok(full));
        let named = normalise(&[("pruner", json!("asha")), ("sampler", json!("random"))]).unwrap();
        let table = normalise(&[("pruner", json!({"asha": {"min": 1, "reduction": 3}}))]).unwrap();
        assert_eq!(named, table);
        let grid = [("sampler", json!("grid")), ("space", json!({"a": {"int": [1, 6]}}))];
        assert_eq!(normalise(&grid).unwrap()["trials"], 4);
        let whole = [grid.as_slice(), &[("trials", Value::Null)]].concat();
        assert_eq!(normalise(&whole).unwrap()["trials"], 6);
    }

    #[test]
    fn mistakes_are_placed_and_named() {
        let mistakes = [
            (vec![("minimize", Value::Null)], "say what to search for"),
            (vec![("maximize", json!("auc"))], "not both"),
            (vec![("trials", Value::Null)], "say how many `trials`"),
            (vec![("trials", json!(0))], "`trials`: invalid value: integer `0`"),
            (vec![("sampler", json!("gird"))], "`sampler`: unknown variant `gird`, expected `random` or `grid`"),
            (vec![("sampler", json!({"grid": {"n": 1}}))], "`sampler.grid.n`: unknown field `n`"),
            (vec![("sampler", json!("grid"))], "give `rate` a `step`"),
            (vec![("pruner", json!(7))], "`pruner`: invalid type: integer `7`, expected a name"),
            (vec![("pruner", json!({"asha": {"reduction": 1}}))], "`pruner.asha.reduction`: must be at least 2, not 1"),
            (vec![("space", json!({}))], "`space`: the space is empty"),
            (vec![("space", json!({"a": {"log": [1, 0]}}))], "`space.a`: the bounds must be finite and ascending"),
            (vec![("space", json!({"a": {"log": [0, "x"]}}))], "`space.a.log"),
            (vec![("sample", json!(1))], "`sample`: unknown field `sample`"),
            (vec![("pruner", json!("asha")), ("budget", json!("rate"))], "can't vary in the space"),
        ];
        for (change, why) in mistakes {
            let message = normalise(&change).unwrap_err();
            assert!(message.contains(why), "{change:?}: {message}");
        }
    }

    #[test]
    fn the_schema_knows_the_algorithms_by_name() {
        let schema = ParamSchema::of::<Tune>();
        let names = schema.schema().pointer("/properties/pruner/anyOf/0/enum").unwrap();
        assert_eq!(names, &json!(["none", "asha", "median"]));
    }
}
