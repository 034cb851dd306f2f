//! How an epoch's rows are mixed and drawn, as pipelines write it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::num::NonZeroUsize;

/// Whether, and how far, each epoch mixes the rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected true, false or { buffer = 10_000 }")]
pub enum Shuffle {
    /// Whether each epoch takes the rows in another order.
    Switch(bool),
    /// It does, through a buffer.
    Buffer(ShuffleBuffer),
}

/// How far rows are mixed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ShuffleBuffer {
    /// Rows that are mixed with each other, rounded up to whole batches.
    pub buffer: NonZeroUsize,
}

impl Default for Shuffle {
    fn default() -> Self {
        Shuffle::Switch(true)
    }
}
