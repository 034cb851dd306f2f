//! Hyperparameter search: spaces, studies, samplers, pruners, and the `tune` stage that brings them to pipelines.
//!
//! A [`Space`] says which parameters may vary and how. A [`Study`] hands out work ([`Study::ask`]) and hears how it
//! went ([`Study::tell`]); a [`samplers::Sampler`] proposes the parameters of each trial and a [`pruners::Pruner`]
//! says which trials are worth a larger budget. What a study does depends on its seed and on the results, never on
//! the order in which results arrive: see [`study`](mod@study).
//!
//! ```
//! use ropeway_tuner::{Direction, Domain, Space, Study, samplers::Random};
//!
//! let space = Space::new([("rate", Domain::log(1e-4, 1.0)), ("layers", Domain::int(1, 4))])?;
//! let mut study = Study::new(space, Random::default(), Direction::Minimize).trials(20);
//! while let Some(job) = study.ask() {
//!     let rate = job.values.get("rate").and_then(|rate| rate.as_f64()).unwrap_or(1.0);
//!     study.tell(&job, (rate.ln() + 3.0).powi(2))?;
//! }
//! let best = study.best().map(|trial| trial.index);
//! assert!(best.is_some());
//! # Ok::<_, ropeway_framework::Error>(())
//! ```
//!
//! # Adding an algorithm
//! One file under `samplers/` or `pruners/`: a struct with the algorithm's own parameters (`Deserialize`, `JsonSchema`,
//! `deny_unknown_fields`) that implements the trait; then its line in the enum of the folder's `mod.rs`, and its line
//! in the conformance suite there. The `tune` stage, its checks and its schema follow from these.

mod named;
pub mod pruners;
pub mod samplers;
pub mod space;
pub mod study;
pub mod trial;
pub mod tune;

pub use space::{Domain, Parameter, Space, Values};
pub use study::{Job, Study};
pub use trial::{Direction, State, Trial};

use ropeway_framework::stage::{Registry, stage};

/// The stages of this crate: `tune`.
pub fn registry() -> Registry {
    let tune = stage(tune::tune)
        .inputs(["trial"])
        .outputs(["model", "params", "metrics", "trials"])
        .version(1)
        .about("Runs another stage again and again to find its best parameters");
    Registry::new().stage("tune", tune)
}
