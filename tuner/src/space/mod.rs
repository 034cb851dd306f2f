//! What may vary: parameters by path, the values that each may take, and when each matters.

mod domain;
pub mod path;
mod values;
mod written;

pub use domain::{Domain, same};
pub use values::Values;

use ropeway_framework::{Error, Result, nearest};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// One parameter of a space.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "written::Written", into = "written::Written")]
pub struct Parameter {
    /// The values that it may take.
    pub domain: Domain,
    /// It matters only in trials where these other parameters have these values.
    pub when: BTreeMap<String, Value>,
}

impl From<Domain> for Parameter {
    fn from(domain: Domain) -> Self {
        Self { domain, when: BTreeMap::new() }
    }
}

impl Domain {
    /// A parameter that matters only where another one has this value; more conditions may follow.
    pub fn when(self, path: &str, value: impl Into<Value>) -> Parameter {
        Parameter::from(self).when(path, value)
    }
}

impl Parameter {
    /// Adds a condition: it matters only where another parameter has this value.
    pub fn when(mut self, path: &str, value: impl Into<Value>) -> Self {
        self.when.insert(path.to_owned(), value.into());
        self
    }
}

/// What may vary: parameters by dotted path.
///
/// ```
/// use ropeway_tuner::{Domain, Parameter, Space};
///
/// let space = Space::new([
///     ("optimizer", Parameter::from(Domain::choice(["sgd", "adamw"]))),
///     ("optimizer.sgd.momentum", Domain::float(0.0, 0.99).when("optimizer", "sgd")),
/// ])?;
/// let first = space.fill(|_, domain| domain.at(0.0));
/// assert_eq!(first.get("optimizer.sgd.momentum"), Some(&0.0.into()));
/// let last = space.fill(|_, domain| domain.at(1.0));
/// assert_eq!(last.get("optimizer.sgd.momentum"), None);
/// # Ok::<_, ropeway_framework::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "BTreeMap<String, Parameter>", into = "BTreeMap<String, Parameter>")]
pub struct Space {
    parameters: BTreeMap<String, Parameter>,
    /// The paths, each after those that its conditions name.
    order: Vec<String>,
}

impl Space {
    /// A space of parameters.
    ///
    /// # Errors
    /// No parameter; a path that occurs twice or is badly written; a domain that makes no sense; a condition on
    /// something that is not in the space, or that can never hold.
    pub fn new<N, P>(parameters: impl IntoIterator<Item = (N, P)>) -> Result<Self>
    where
        N: Into<String>,
        P: Into<Parameter>,
    {
        let mut map = BTreeMap::new();
        for (path, parameter) in parameters {
            let path = path.into();
            if map.insert(path.clone(), parameter.into()).is_some() {
                return Err(Error::usage(format!("`{path}` occurs twice in the space")));
            }
        }
        Self::try_from(map)
    }

    /// The parameters in the order of their paths.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Parameter)> {
        self.parameters.iter().map(|(path, parameter)| (path.as_str(), parameter))
    }

    /// The parameters in an order in which each comes after those that its conditions name.
    pub fn ordered(&self) -> impl Iterator<Item = (&str, &Parameter)> {
        self.order.iter().filter_map(|path| self.parameters.get_key_value(path)).map(|(path, one)| (path.as_str(), one))
    }

    /// The parameter of a path.
    pub fn get(&self, path: &str) -> Option<&Parameter> {
        self.parameters.get(path)
    }

    /// Whether a parameter matters, given the values of those before it.
    pub fn active(&self, path: &str, values: &Values) -> bool {
        self.get(path).is_some_and(|parameter| {
            parameter.when.iter().all(|(other, wanted)| values.get(other).is_some_and(|value| same(value, wanted)))
        })
    }

    /// One value for every parameter that matters; `value` is asked for each in turn, conditions first.
    pub fn fill(&self, mut value: impl FnMut(&str, &Domain) -> Value) -> Values {
        let mut values = Values::new();
        for (path, parameter) in self.ordered() {
            if self.active(path, &values) {
                values.insert(path, value(path, &parameter.domain));
            }
        }
        values
    }

    /// Whether these are values of exactly the parameters that matter, all in their domains.
    pub fn contains(&self, values: &Values) -> bool {
        let fits = |(path, parameter): (&str, &Parameter)| match values.get(path) {
            Some(value) => self.active(path, values) && parameter.domain.contains(value),
            None => !self.active(path, values),
        };
        self.ordered().all(fits) && values.iter().all(|(path, _)| self.get(path).is_some())
    }

    /// Values in which a parameter matters and has this value; the others have their first.
    pub fn corner(&self, path: &str, value: &Value) -> Values {
        let needed = self.needed(path).unwrap_or_default();
        self.fill(|other, domain| match needed.get(other) {
            _ if other == path => value.clone(),
            Some(wanted) => (*wanted).clone(),
            None => domain.corners().into_iter().next().unwrap_or_default(),
        })
    }

    /// The values that other parameters must have for this one to matter: its conditions, and theirs.
    fn needed(&self, path: &str) -> Result<BTreeMap<&str, &Value>> {
        let mut needed: BTreeMap<&str, &Value> = BTreeMap::new();
        let mut open = vec![path];
        while let Some(one) = open.pop() {
            for (other, wanted) in self.get(one).into_iter().flat_map(|parameter| &parameter.when) {
                if other == path {
                    return Err(Error::usage(format!("the conditions of `{path}` go in a circle")));
                }
                match needed.insert(other, wanted) {
                    None => open.push(other),
                    Some(before) if same(before, wanted) => {}
                    Some(before) => {
                        return Err(Error::usage(format!(
                            "`{path}` never matters: `{other}` would have to be both {before} and {wanted}"
                        )));
                    }
                }
            }
        }
        Ok(needed)
    }

    fn check(&self, path: &str, parameter: &Parameter) -> Result<()> {
        if path.split('.').any(str::is_empty) {
            return Err(Error::usage(format!("`{path}` is no path: write names with single dots between them")));
        }
        parameter.domain.check().map_err(|error| error.context(format!("`{path}`")))?;
        for (other, wanted) in &parameter.when {
            let Some(on) = self.get(other) else {
                let near = nearest(other, self.parameters.keys().map(String::as_str));
                let hint = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
                return Err(Error::usage(format!(
                    "`{path}` has a condition on `{other}`, which is not in the space{hint}"
                )));
            };
            if !on.domain.contains(wanted) {
                return Err(Error::usage(format!("`{path}` never matters: `{other}` is never {wanted}")));
            }
        }
        let needed = self.needed(path)?;
        for (dot, _) in path.match_indices('.') {
            let whole = path.get(..dot).unwrap_or_default();
            if self.parameters.contains_key(whole) && !needed.contains_key(whole) {
                return Err(Error::usage(format!(
                    "`{path}` is a part of `{whole}`, which varies too: say with `when` for which value of `{whole}`"
                )));
            }
        }
        Ok(())
    }
}

impl TryFrom<BTreeMap<String, Parameter>> for Space {
    type Error = Error;

    fn try_from(parameters: BTreeMap<String, Parameter>) -> Result<Self> {
        if parameters.is_empty() {
            return Err(Error::usage("the space is empty: name at least one parameter that may vary"));
        }
        let mut space = Self { parameters, order: Vec::new() };
        let mut depths: Vec<(usize, String)> = Vec::new();
        for (path, parameter) in &space.parameters {
            space.check(path, parameter)?;
            // Whatever a condition needs, needs less itself: the number of needs is an order.
            depths.push((space.needed(path)?.len(), path.clone()));
        }
        depths.sort();
        space.order = depths.into_iter().map(|(_, path)| path).collect();
        Ok(space)
    }
}

impl From<Space> for BTreeMap<String, Parameter> {
    fn from(space: Space) -> Self {
        space.parameters
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(space: Value) -> Result<Space, String> {
        serde_json::from_value(space).map_err(|error| error.to_string())
    }

    #[test]
    fn conditions_reach_through_conditions() {
        let space = read(json!({
            "a.rate": {"log": [0.1, 1.0], "when": {"b": 1}},
            "b": {"int": [0, 3], "when": {"c": "on"}},
            "c": {"choice": ["off", "on"]},
        }))
        .unwrap();
        assert_eq!(space.ordered().map(|(path, _)| path).collect::<Vec<_>>(), ["c", "b", "a.rate"]);
        let corner = space.corner("a.rate", &json!(1.0));
        assert_eq!(serde_json::to_value(&corner).unwrap(), json!({"c": "on", "b": 1, "a.rate": 1.0}));
        assert!(space.contains(&corner));
        let off = space.fill(|_, domain| domain.at(0.0));
        assert_eq!(serde_json::to_value(&off).unwrap(), json!({"c": "off"}));
        assert!(space.contains(&off));
        let mut more = off;
        more.insert("b", 1);
        assert!(!space.contains(&more));
    }

    #[test]
    fn an_algorithm_and_its_parameters_vary_together() {
        let space = read(json!({
            "optimizer": {"choice": ["sgd", "adamw"]},
            "optimizer.adamw.rate": {"float": [0.0, 1.0], "when": {"optimizer": "adamw"}},
        }))
        .unwrap();
        let params = json!({"optimizer": {"sgd": {"momentum": 0.9}}, "epochs": 3});
        let adamw = space.corner("optimizer.adamw.rate", &json!(0.5)).apply(&params).unwrap();
        assert_eq!(adamw, json!({"optimizer": {"adamw": {"rate": 0.5}}, "epochs": 3}));
        let sgd = space.corner("optimizer", &json!("sgd")).apply(&params).unwrap();
        assert_eq!(sgd, json!({"optimizer": "sgd", "epochs": 3}));
    }

    #[test]
    fn mistakes_are_named() {
        let mistakes = [
            (json!({}), "the space is empty"),
            (json!({"a..b": {"int": [1, 2]}}), "`a..b` is no path"),
            (
                json!({"a": {"int": [1, 2], "when": {"momentun": 1}}, "momentum": {"int": [1, 2]}}),
                "did you mean `momentum`?",
            ),
            (json!({"a": {"int": [1, 2], "when": {"b": 3}}, "b": {"int": [1, 2]}}), "`b` is never 3"),
            (json!({"a": {"int": [1, 2], "when": {"a": 1}}}), "go in a circle"),
            (json!({"a": {"int": [1, 2], "when": {"b": 1}}, "b": {"int": [1, 2], "when": {"a": 1}}}), "go in a circle"),
            (
                json!({
                    "a": {"int": [1, 2], "when": {"b": 1, "c": 1}},
                    "b": {"int": [1, 2], "when": {"c": 2}},
                    "c": {"int": [1, 2]}
                }),
                "`c` would have to be both",
            ),
            (json!({"a": {"choice": ["x"]}, "a.x.y": {"int": [1, 2]}}), "say with `when`"),
        ];
        for (space, why) in mistakes {
            let message = read(space.clone()).unwrap_err();
            assert!(message.contains(why), "{space}: {message}");
        }
        let twice = Space::new([("a", Domain::int(1, 2)), ("a", Domain::int(1, 3))]).unwrap_err();
        assert!(twice.to_string().contains("occurs twice"));
    }
}
