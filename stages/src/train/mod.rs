//! Training: the `train` stage, and the [`Trainer`] for candle modules.
//!
//! The result of a training depends on its data, parameters and seed, and on nothing else: not on threads, on
//! interruptions, or on whether it was done in one go. Each batch is cut into shards that the pipeline fixes, their
//! gradients are summed in a fixed tree, and whoever computes a shard computes the same bits.
//!
//! To read it: [`TrainSpec`] (what a pipeline says), `stage` (data to examples), `order` (which rows a step takes),
//! `stream` (rows in parts), `fit` (the loop), `engine` (passes through our own networks), `device` (the same on CUDA),
//! `gradient` (what a step follows) and `products` (computed where it is used), `descent` (the step), `state` (what a
//! training needs to go on), `writer` (checkpoints, kept beside it), `watch` (what is seen of it), `fitted` (models,
//! applied).

mod augment;
mod bounds;
mod cadence;
mod columns;
mod data;
mod descent;
mod device;
mod encoding;
mod engine;
mod fit;
mod fitted;
pub mod fused;
mod gradient;
mod init;
mod labels;
mod lesson;
mod loss;
mod models;
mod network;
mod numbers;
mod optimizer;
mod order;
mod phases;
mod pool;
mod products;
mod rates;
mod reader;
mod reduce;
mod sampler;
mod schedule;
mod shuffle;
mod sparse;
mod spec;
mod stage;
mod state;
mod stream;
mod target;
mod team;
#[cfg(test)]
mod tests;
mod trainer;
mod trees;
mod variables;
mod watch;
mod writer;

pub use augment::Augment;
pub use cadence::{Cadence, EverySteps, EveryTime};
pub use fit::Surroundings;
pub use fitted::{KIND, load};
pub use loss::{Huber, Loss};
pub use models::{Cnn, Embed, Mlp, ModelSpec, Padding, Transformer, Trees};
pub use network::Activation;
pub use numbers::{Bins, NonNegative, Positive, Shards, Share};
pub use optimizer::{Adam, AdamW, Optimizer, Sgd};
pub use rates::FindRate;
pub use reader::Reader;
pub use sampler::Balance;
pub use schedule::{Decay, OneCycle, Schedule, StepDecay};
pub use shuffle::{Shuffle, ShuffleBuffer};
pub use spec::{ClassWeights, CurvePoints, EarlyStop, Precision, TrainSpec, WeightRule};
pub use trainer::{Batch, Examples, Trained, Trainer, weights};

use ropeway_framework::stage::{Registry, stage};

/// The stage `train` and the kind of model that it gives.
pub fn registry() -> Registry {
    let train = stage(stage::train)
        .inputs(["train", "valid", "features", "resume", "init"])
        .outputs(["model", "metrics", "curve", "state"])
        .version(3)
        .most_workers(TrainSpec::most_workers)
        .about(
            "Trains a model (linear, logistic, softmax, mlp, cnn, transformer, trees) to predict a column from the others. \
             `train` and `valid` may be lists of tables, which are read part by part and never all in memory. \
             `features` is a fitted transform that all rows go through; `resume` is the `state` of a shorter \
             training, to go on from; `init` is a model or tensors whose weights it begins with, by name.",
        );
    Registry::new().stage("train", train).model(KIND, load).model(trees::KIND, load)
}
