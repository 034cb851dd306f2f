//! Ropeway: serverless machine-learning pipelines that give the same bytes at any scale.
//!
//! A pipeline is a chain of stages: a feature transform, a training, a search, an evaluation. A stage is a plain
//! function, whose arguments say what it needs; the framework runs it on the cores there are, keeps what it gives by
//! digest, and commits every result once. The same pipeline, seed and data give the same bytes.
//!
//! # A program of one's own
//!
//! ```no_run
//! use ropeway::prelude::*;
//! use std::process::ExitCode;
//!
//! #[derive(Serialize, Deserialize, JsonSchema)]
//! #[serde(deny_unknown_fields)]
//! struct Clip {
//!     low: f64,
//!     high: f64,
//! }
//!
//! /// Clips every numeric column into `low..=high`.
//! fn clip(rows: Frame, Params(p): Params<Clip>) -> Result<Frame> {
//!     rows.map_numeric(|value| value.clamp(p.low, p.high))
//! }
//!
//! fn main() -> ExitCode {
//!     ropeway::main(ropeway::standard().stage("clip", clip))
//! }
//! ```
//!
//! That program has every command of the `ropeway` binary: `run`, `check`, `plan`, `show`, `stages`, `serve`, `infer`,
//! `export`, `worker`, `gc`, `schema` and `new`.
//!
//! # A tour
//!
//! * [`data`]: what flows between stages: [`data::Frame`], [`data::Tensors`], [`data::Model`], [`data::Metrics`].
//! * [`stage`]: what computes: the [`stage::Argument`]s of a stage, and the [`stage::Registry`] that knows it by name.
//! * [`pipeline`]: what was asked: TOML or a builder, checked as a whole before anything runs.
//! * [`store`]: what is kept, by digest and by key.
//! * [`run`]: what happens: [`run::run`] sees a pipeline through.
//! * [`observe`]: what is seen of it: a timeline, what it cost, a trace.
//! * [`stages`], [`tuner`], [`serving`], [`datasets`]: what comes with it.

mod allocator;
mod cli;
mod commands;
mod diagnostics;
mod live;
mod rows;
mod table;
mod telemetry;
mod timeline;
mod units;

pub use allocator::Allocator;
pub use arrow;
pub use cli::main;
pub use ropeway_datasets as datasets;
pub use ropeway_framework::{
    Context, Error, Fault, Result, data, fleet, nearest, observe, pipeline, run, runtime, schedule, stage, store,
    worker,
};
pub use ropeway_serving as serving;
pub use ropeway_stages as stages;
pub use ropeway_tuner as tuner;

use stage::Registry;

/// The stages and models that come with Ropeway.
pub fn standard() -> Registry {
    datasets::registry().merge(stages::registry()).merge(tuner::registry())
}

/// What a program with stages of its own needs.
pub mod prelude {
    pub use crate::data::{Artifact, Frame, List, Metrics, Model, Tensor, Tensors};
    pub use crate::pipeline::Pipeline;
    pub use crate::stage::{
        Apply, Cancel, Checkpoint, Collective, Gang, Inputs, Keep, Models, Once, OneOrMany, Outputs, Params, Progress,
        Registry, Scratch, Seed, Stage, Stored, Tasks, Template, Threads, stage,
    };
    pub use crate::store::Store;
    pub use crate::{Context, Error, Result};
    pub use schemars::JsonSchema;
    pub use serde::{Deserialize, Serialize};
}
