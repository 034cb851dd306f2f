//! The built-in stages of Ropeway, and how to read this crate.
//!
//! A tour, in the order in which data goes through a pipeline:
//!
//! 1. [`sources`] read files into frames: `read.csv`, `read.json`, `read.parquet`, `read.arrow`, `read.idx`; from local
//!    paths, globs and object stores.
//! 2. [`tables`] turn frames into frames: `sql`, `split`, `sample`, `join`.
//! 3. [`features`] are fitted on one frame and applied to others: `features.fit`, `features.apply`.
//! 4. [`train`] fits linear models, perceptrons and convolutional networks; its `Trainer` fits any candle module.
//! 5. [`evaluate`] scores models on rows with known answers, or adds their predictions to rows.
//! 6. [`command`] hands frames to any program and takes a frame back: Arrow IPC on stdin and stdout.
//! 7. [`map`] runs any stage over the items of a list, the slices of a frame, many files or many values.
//!
//! Each folder has a `registry()` of its stages; [`registry()`] has them all.

pub mod command;
pub mod evaluate;
pub mod features;
pub mod map;
mod parallel;
mod period;
pub mod sources;
pub mod tables;
pub mod train;

pub use period::Period;

use ropeway_framework::stage::Registry;

/// All stages and kinds of model of this crate.
pub fn registry() -> Registry {
    Registry::new()
        .merge(sources::registry())
        .merge(tables::registry())
        .merge(features::registry())
        .merge(train::registry())
        .merge(evaluate::registry())
        .merge(command::registry())
        .merge(map::registry())
}
