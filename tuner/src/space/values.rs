//! The parameters of one trial.

use super::path;
use ropeway_framework::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// The parameters of one trial: a value for every parameter of the space that matters in it, by path.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Values(BTreeMap<String, Value>);

impl Values {
    /// No values.
    pub fn new() -> Self {
        Self::default()
    }

    /// The value of a parameter; `None` if it does not matter in this trial.
    pub fn get(&self, path: &str) -> Option<&Value> {
        self.0.get(path)
    }

    /// Sets a value.
    pub fn insert(&mut self, path: impl Into<String>, value: impl Into<Value>) {
        self.0.insert(path.into(), value.into());
    }

    /// Takes a value away.
    pub fn remove(&mut self, path: &str) {
        self.0.remove(path);
    }

    /// The values in the order of their paths.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(path, value)| (path.as_str(), value))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Parameters of a stage with these values put in their places.
    ///
    /// # Errors
    /// A place that can't be: something on the way to it is no table.
    pub fn apply(&self, params: &Value) -> Result<Value> {
        let mut params = params.clone();
        // In the order of paths a table comes before what is in it.
        for (path, value) in self.iter() {
            path::set(&mut params, path, value.clone()).context(format!("can't set `{path}`"))?;
        }
        Ok(params)
    }
}
