//! The parameters of `map`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::num::NonZeroUsize;

/// What the `map` stage is told.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MapParams {
    /// The input of the stage that takes the items; by default the one that the pipeline leaves open.
    pub into: Option<String>,
    /// `over` is a frame: a task for each slice of so many rows.
    pub rows: Option<NonZeroUsize>,
    /// The parameter of the stage that names files: a task for each file.
    pub files: Option<String>,
    /// A task for each of these values of a parameter of the stage; several parameters take their values side by side.
    pub values: BTreeMap<String, Vec<Value>>,
    /// The output of the stage that is kept; its default one if nothing is said.
    pub take: Option<String>,
    /// What becomes of the results.
    pub gather: Gather,
}

/// What becomes of the results of `map`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Gather {
    /// A list of them.
    #[default]
    List,
    /// One frame of all their rows.
    Concat,
}
