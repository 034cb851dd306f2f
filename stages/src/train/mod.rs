//! Training: the `train` stage, and the [`Trainer`] for candle modules.
//!
//! The result of a training depends on its data, parameters and seed, and on nothing else: not on threads, on
//! interruptions, or on whether it was done in one go. Each batch is cut into shards that the pipeline fixes, their
//! gradients are summed in a fixed tree, and whoever computes a shard computes the same bits.
//!
//! To read it: [`TrainSpec`] (what a pipeline says), `stage` (data to examples), `fit` (the loop), `engine` (gradients
//! of our own networks), `descent` (the step), `state` (what a training needs to go on), `writer` (checkpoints, kept
//! beside it), `watch` (what is seen of it), `fitted` (models, applied).

mod bounds;
mod cadence;
mod columns;
mod descent;
mod encoding;
mod engine;
mod fit;
mod fitted;
pub mod fused;
mod loss;
mod network;
mod numbers;
mod optimizer;
mod phases;
mod pool;
mod reader;
mod reduce;
mod schedule;
mod spec;
mod stage;
mod state;
mod target;
mod team;
#[cfg(test)]
mod tests;
mod trainer;
mod variables;
mod watch;
mod writer;

pub use cadence::{Cadence, EverySteps, EveryTime};
pub use fit::Surroundings;
pub use fitted::{KIND, load};
pub use loss::{Huber, Loss};
pub use network::Activation;
pub use numbers::{NonNegative, Positive, Shards, Share};
pub use optimizer::{Adam, AdamW, Optimizer, Sgd};
pub use reader::Reader;
pub use schedule::{Decay, OneCycle, Schedule, StepDecay};
pub use spec::{
    ClassWeights, Cnn, CurvePoints, EarlyStop, Embed, Mlp, ModelSpec, Padding, TrainSpec, Transformer, WeightRule,
};
pub use trainer::{Batch, Examples, Trained, Trainer, weights};

use ropeway_framework::stage::{Registry, stage};

/// The stage `train` and the kind of model that it gives.
pub fn registry() -> Registry {
    let train = stage(stage::train)
        .inputs(["train", "valid", "features", "resume"])
        .outputs(["model", "metrics", "curve", "state"])
        .version(2)
        .about(
            "Trains a model (linear, logistic, softmax, mlp, cnn) to predict a column from the others. \
             `features` is a fitted transform that both parts go through; `resume` is the `state` of a shorter \
             training, to go on from.",
        );
    Registry::new().stage("train", train).model(KIND, load)
}
