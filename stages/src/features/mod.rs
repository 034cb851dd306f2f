//! Columns that a model can learn from: `features.fit` learns the steps from the training rows, `features.apply`
//! repeats them on any rows.
//!
//! Each column of the table goes its own way through the steps, from left to right; a step takes the columns that it is
//! for (all of them, or those that it names) and leaves the others alone. At the end every column must be numbers
//! without gaps; they come out as `Float32`. What `onehot`, `hash` and `text` make and the sines and cosines of `date`
//! are finished: later steps leave them alone. The columns of `onehot` and `hash` hold nothing but 0 and 1, so that a
//! byte is enough: they are `UInt8`. Vectors (`FixedSizeList` of `UInt8` or `Float32`: images, embeddings) pass through
//! untouched, and the target column comes last, unchanged.
//!
//! Rows are independent: one row alone gives the same bits as in any batch. What is learnt does not depend on threads
//! or on how the rows were cut into batches: one column is one job, and its sums have a fixed tree.

mod apply;
mod categories;
mod chain;
mod column;
mod date;
mod exact;
mod fit;
mod fixed_hash;
mod operation;
mod params;
mod plan;
mod short;
mod stats;
mod words;

#[cfg(test)]
mod tests;

pub use apply::{Features, load};
use ropeway_framework::stage::{Registry, stage};

/// The kind of the models that `features.fit` gives.
pub const KIND: &str = "features";

/// The stages of this folder, and the kind of model that they share.
pub fn registry() -> Registry {
    Registry::new()
        .stage(
            "features.fit",
            stage(fit::fit)
                .inputs(["rows"])
                .outputs(["model"])
                .version(1)
                .about("Learns from the training rows how to turn columns into features."),
        )
        .stage(
            "features.apply",
            stage(apply::apply)
                .inputs(["rows", "features"])
                .outputs(["rows"])
                .version(2)
                .about("Turns columns into features, as features.fit learnt it."),
        )
        .model(KIND, load)
}
