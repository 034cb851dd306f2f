//! `[pool.NAME]`: workers that come when there is work for them and go when there is none.

use crate::stage::ParamError;
use crate::units;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The fleets that this build has.
const FLEETS: [&str; 1] = ["local"];

/// Workers of one kind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Pool {
    /// Its name in the pipeline.
    #[serde(skip)]
    pub name: String,
    /// Who starts and stops the workers: `local` for processes on this machine.
    pub fleet: String,
    /// The fewest workers; with 0, the first task after a pause waits for one.
    pub min: u32,
    /// The most workers.
    #[schemars(range(min = 1))]
    pub max: u32,
    /// How long a worker may be idle before it goes: a number with `us`, `ms`, `s`, `m` or `h`.
    #[serde(with = "units::time")]
    #[schemars(schema_with = "units::time::schema")]
    pub idle: Duration,
    /// The cores of one worker.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub cpus: f64,
    /// The memory of one worker: `"4GiB"`, `"512MB"` or a number of bytes; 0 for as much as
    /// others have, of this machine's.
    #[serde(with = "units::size")]
    #[schemars(schema_with = "units::size::schema")]
    pub memory: u64,
    /// The CUDA devices of one worker.
    pub gpus: u32,
    /// The memory of each of its CUDA devices; 0 if it is not known.
    #[serde(with = "units::size")]
    #[schemars(schema_with = "units::size::schema")]
    pub gpu_memory: u64,
    /// What an hour of one worker costs, in whatever money the pipeline counts.
    #[schemars(range(min = 0.0))]
    pub price: f64,
    /// How long a worker takes to start, where that is known: a number with `us`, `ms`, `s`, `m` or `h`.
    #[serde(with = "units::time::optional", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "units::time::schema")]
    pub start: Option<Duration>,
}

impl Default for Pool {
    fn default() -> Self {
        Self {
            name: String::new(),
            fleet: "local".into(),
            min: 0,
            max: 1,
            idle: Duration::from_secs(60),
            cpus: 1.0,
            memory: 0,
            gpus: 0,
            gpu_memory: 0,
            price: 0.0,
            start: None,
        }
    }
}

impl Pool {
    /// What the schema can't say.
    pub(super) fn check(&self) -> Result<(), ParamError> {
        let wrong = |key: &str, message: String| Err(ParamError { path: vec![key.to_owned()], message });
        let Self { min, max, .. } = *self;
        if !FLEETS.contains(&self.fleet.as_str()) {
            let message = format!("this build has no fleet {:?}, only {:?}", self.fleet, FLEETS.join("\", \""));
            return wrong("fleet", message);
        }
        if min > max {
            return wrong("min", format!("{min} is more than `max`, {max}"));
        }
        if self.gpu_memory > 0 && self.gpus == 0 {
            return wrong("gpu_memory", "its workers have no CUDA device: `gpus` is 0".into());
        }
        Ok(())
    }
}
