//! What pipelines are made of, and what runs them: artifacts, stages, pipelines, the store, the scheduler, workers, runs.
//!
//! This crate has no stages of its own and imports none of the crates above it. What it computes, where results are
//! kept and who works is given from outside: a [`Registry`](stage::Registry) of stages, a [`Store`](store::Store), the
//! [`Options`](run::Options) of a run.
//!
//! ```
//! use ropeway_framework::data::Metrics;
//! use ropeway_framework::pipeline::Pipeline;
//! use ropeway_framework::run::{Line, Options, Outcome, run};
//! use ropeway_framework::stage::{Registry, stage};
//! use ropeway_framework::store::Store;
//! use std::sync::Arc;
//!
//! // A stage is a function; its arguments say what it needs.
//! fn three() -> Metrics {
//!     Metrics::new().with("value", 3.0)
//! }
//! fn double(given: Metrics) -> Metrics {
//!     Metrics::new().with("value", 2.0 * given.get("value").unwrap_or_default())
//! }
//! let registry = Registry::new().stage("three", stage(three).version(1)).stage("double", stage(double).version(1));
//! let registry = Arc::new(registry);
//!
//! // A pipeline wires stages, and is checked as a whole before anything runs.
//! let pipeline =
//!     Pipeline::build("six").stage("begin", "three").stage("end", "double").from("begin").resolve(&registry)?;
//!
//! // A run does what the store does not know yet, and tells what happens.
//! let store = Store::memory();
//! let mut events = 0;
//! let report = run(&pipeline, &registry, &store, &Options::default(), &mut |_: &Line| events += 1)?;
//! assert!(report.succeeded() && events > 0);
//! assert_eq!(report.stages[1].metrics.get("value"), Some(6.0));
//! let again = run(&pipeline, &registry, &store, &Options::default(), &mut |_: &Line| {})?;
//! assert!(again.stages.iter().all(|stage| stage.outcome == Outcome::Cached));
//! # Ok::<_, ropeway_framework::Error>(())
//! ```
//!
//! # A tour
//!
//! Each folder opens with its one trait or type. In reading order:
//!
//! | module | holds | begin at |
//! |---|---|---|
//! | [`data`] | what flows: [`Frame`](data::Frame), [`Tensors`](data::Tensors), [`Model`](data::Model), [`Metrics`](data::Metrics), [`List`](data::List), bytes, and their one canonical form | [`Artifact`](data::Artifact) |
//! | [`stage`] | what computes: functions whose arguments say what they need | [`Stage`](stage::Stage), [`Argument`](stage::Argument) |
//! | [`pipeline`] | what was asked: TOML with places, or a [`Builder`](pipeline::Builder), resolved as a whole | [`resolve`](pipeline::resolve) |
//! | [`store`] | what is kept: blobs by digest, memos by key, numbered logs; memory, machine and peers before it | [`Store`](store::Store) |
//! | [`schedule`] | who runs what: [`Autoscaler`](schedule::Autoscaler), [`Lane`](schedule::Lane), [`Costs`](schedule::Costs), all pure | [`Scheduler::step`](schedule::Scheduler::step) |
//! | [`worker`] | where it runs: threads, the commit, the wire protocol and both its ends | [`work`](worker::work), [`Assignment`](worker::Assignment) |
//! | [`fleet`] | who brings workers: child processes of this machine | [`Fleet`](fleet::Fleet) |
//! | [`run`] | what happens: the coordinator, its crew and pools, [events](run::Event), reports, plans | [`run()`](run::run) |
//! | [`observe`] | what is seen: timeline, cost, trace, all read from a run's events | [`Timeline`](observe::Timeline) |
//!
//! Imports go one way: `data <- stage <- pipeline`, `data <- store`, `schedule` knows only plain types, and all of these
//! `<- worker <- fleet <- run <- observe`.
//!
//! # What holds everywhere
//!
//! * Equal artifacts have equal bytes, and a task's key names all that its result depends on: so a result is known by
//!   its key, and nothing runs twice.
//! * The store only creates: blobs first, then the memo. Whoever writes the memo first wins, so that a run may be killed
//!   at any moment, and goes on when it is started again.
//! * Chance comes from a [`Seed`](stage::Seed) only, and no result depends on the order in which tasks end.
//! * What goes wrong is an [`Error`] for people: a message, advice, and whose [`Fault`] it is. Nothing here prints, reads
//!   the environment or ends the process.
//! * Stages run on threads of their own; [`runtime()`] drives the store, servers and async stages.

#[cfg(test)]
mod damage;
mod error;
mod fast_map;
mod machine;
mod nearest;
mod process_folder;
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
pub(crate) use runtime::links;
pub use runtime::runtime;
pub use trace_context::{join_trace, trace_parent};
pub use units::{parse_size, parse_time};
