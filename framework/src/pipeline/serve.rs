//! `[serve.NAME]`: what a request passes through, and how.

use crate::units;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How requests are put together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Batch {
    /// The most rows that are computed at once.
    #[schemars(range(min = 1))]
    pub rows: u32,
    /// How long a request waits for others: a number with `us`, `ms`, `s`, `m` or `h`.
    #[serde(with = "units::time")]
    #[schemars(schema_with = "units::time::schema")]
    pub wait: Duration,
}

/// How many servers there are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, try_from = "ReplicasAsWritten")]
pub struct Replicas {
    /// The fewest; with 0, the first request after a pause waits for a server.
    pub min: u32,
    /// The most.
    pub max: u32,
    /// How long a server may be idle: a number with `us`, `ms`, `s`, `m` or `h`.
    #[serde(with = "units::time")]
    #[schemars(schema_with = "units::time::schema")]
    pub idle: Duration,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct ReplicasAsWritten {
    /// The fewest; with 0, the first request after a pause waits for a server.
    min: u32,
    /// The most.
    #[schemars(range(min = 1))]
    max: u32,
    /// How long a server may be idle: a number with `us`, `ms`, `s`, `m` or `h`.
    #[serde(with = "units::time")]
    #[schemars(schema_with = "units::time::schema")]
    idle: Duration,
}

impl Default for Batch {
    fn default() -> Self {
        Self { rows: 64, wait: Duration::from_millis(1) }
    }
}

impl Default for Replicas {
    fn default() -> Self {
        Self { min: 1, max: 1, idle: Duration::from_secs(60) }
    }
}

impl Default for ReplicasAsWritten {
    fn default() -> Self {
        let Replicas { min, max, idle } = Replicas::default();
        Self { min, max, idle }
    }
}

impl TryFrom<ReplicasAsWritten> for Replicas {
    type Error = String;

    fn try_from(ReplicasAsWritten { min, max, idle }: ReplicasAsWritten) -> Result<Self, String> {
        if min > max {
            return Err(format!("`min` is {min}, which is more than `max`, {max}"));
        }
        Ok(Self { min, max, idle })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{from_value, json, to_value};

    #[test]
    fn a_batch_reads_what_it_writes() {
        let batch: Batch = from_value(json!({"wait": "90s"})).unwrap();
        assert_eq!(to_value(&batch).unwrap(), json!({"rows": 64, "wait": "90s"}));
        assert_eq!(from_value::<Batch>(to_value(&batch).unwrap()).unwrap(), batch);
    }

    #[test]
    fn the_fewest_are_at_most_the_most() {
        let error = from_value::<Replicas>(json!({"min": 3, "max": 2})).unwrap_err();
        assert_eq!(error.to_string(), "`min` is 3, which is more than `max`, 2");
    }
}
