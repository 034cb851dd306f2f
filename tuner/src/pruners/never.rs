//! No pruning.

use super::{Pruner, Standing};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Trains every trial to the end.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Never {}

impl Pruner for Never {
    fn rungs(&self, _: u64, whole: u64) -> Vec<u64> {
        vec![whole]
    }

    fn promote(&self, _: Standing<'_>) -> Option<u64> {
        None
    }
}
