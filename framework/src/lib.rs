//! Artifacts, stages, pipelines, the store, the scheduler and workers of Ropeway.

#[cfg(test)]
mod damage;
mod error;
mod nearest;
mod runtime;
mod soon;
mod trace_context;
mod units;

pub mod data;
pub mod fleet;
pub mod observe;
#[cfg(feature = "otel")]
pub mod otel;
pub mod pipeline;
pub mod run;
pub mod schedule;
pub mod stage;
pub mod store;
pub mod worker;

pub use error::{Context, Error, Fault, Result};
pub use nearest::nearest;
pub use runtime::runtime;
pub use trace_context::{join_trace, trace_parent};
pub use units::parse_size;
