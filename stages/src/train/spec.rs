//! The parameters of `train`.

use super::augment::Augment;
use super::cadence::Cadence;
use super::loss::Loss;
use super::models::ModelSpec;
use super::numbers::{NonNegative, Positive, Shards};
use super::optimizer::{Optimizer, check_number};
use super::rates::FindRate;
use super::sampler::Balance;
use super::schedule::Schedule;
use super::shuffle::Shuffle;
use ropeway_framework::Result;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::num::NonZeroUsize;

/// The `with` table of `train`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TrainSpec {
    /// The column to predict; every other column is a feature.
    #[serde(default = "target")]
    pub target: String,
    /// What is trained.
    pub model: ModelSpec,
    /// Passes over the training part.
    #[serde(default = "epochs")]
    pub epochs: NonZeroUsize,
    /// Rows a step; by default 64, or all rows where there are fewer. The last step of an epoch takes what is left.
    #[serde(default)]
    pub batch: Option<NonZeroUsize>,
    /// How weights follow gradients.
    #[serde(default)]
    pub optimizer: Optimizer,
    /// How the rate changes from step to step.
    #[serde(default)]
    pub schedule: Schedule,
    /// What is made small. `auto`: `cross_entropy` for classes (`bce` for `logistic`), `mse` for numbers.
    #[serde(default)]
    pub loss: Loss,
    /// The largest norm that the gradient of all weights may have; a longer one is scaled down.
    #[serde(default)]
    pub clip: Option<Positive>,
    /// Stops when the validation loss no longer falls, and keeps the best epoch's weights. Needs `valid`.
    #[serde(default)]
    pub early_stop: Option<EarlyStop>,
    /// Images of the training part, changed a little at every step: `{ shift = 2, flip = true }`. For a `cnn`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub augment: Option<Augment>,
    /// Layers whose weights stay what they are at the input `init`: `["conv1", "conv2"]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub freeze: Vec<String>,
    /// Instead of a training, a sweep of the learning rate, one step at each: `find_rate = {}`. The metric `rate` is a
    /// good one, `curve` has the loss at each; the model keeps its first weights. `schedule`, `epochs`, `early_stop` and
    /// the optimiser's own rate do not matter then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub find_rate: Option<FindRate>,
    /// Weights of the classes in the loss: `"balanced"` (by inverse frequency), or a table by class.
    #[serde(default)]
    pub class_weights: Option<ClassWeights>,
    /// What is done about rare classes besides: `"oversample"` takes their rows more often. An epoch is longer then: it
    /// has as many rows of every class as of the largest, each row at least once, and which are taken once more than
    /// others comes from the seed. `train.loss` and `train.accuracy` are over what was taken, validation is over the
    /// rows as they are. Copies of a row are mixed as far as the buffer of `shuffle` reaches. With a list of parts, the
    /// class of every row is in memory: one byte a row up to 256 classes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub balance: Option<Balance>,
    /// When a checkpoint is kept, for an attempt after a crash to go on from: after so many epochs (`checkpoint = 2`),
    /// steps (`{ steps = 500 }`) or so much time (`{ every = "30s" }`). They are written beside the training, the last
    /// two are kept, and none when it is done; the result is the same with any.
    #[serde(default)]
    pub checkpoint: Cadence,
    /// Rows of the curve within epochs: `{ steps = 50 }` adds one after every 50 steps, whose losses are means since
    /// the row before. Without it the curve has a row an epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub curve: Option<CurvePoints>,
    /// Parts that each batch's gradient is summed over, a power of two; part of the result. By default the largest
    /// power of two that leaves 32 rows a part, at most 8. Threads beyond it have nothing to do, and more workers than parts are
    /// refused.
    #[serde(default)]
    pub shards: Option<Shards>,
    /// The numbers that a CUDA device computes with: `f32`, or `bf16` with weights and sums in f32 (mixed precision). The
    /// processor computes in f32 either way.
    #[serde(default, skip_serializing_if = "Precision::is_f32")]
    pub precision: Precision,
    /// Whether each epoch takes the rows in another order, and how far they are mixed: `true` for all of them,
    /// `{ buffer = 10_000 }` for so many at a time. A list of parts is never all in memory: each epoch takes the parts in
    /// another order and mixes as many rows as the buffer has, 16,384 with `true`. Up to two such buffers of rows, and
    /// one part, are in memory. The order comes from the seed, and depends on the sizes and the order of the parts and
    /// on `batch`, unless the buffer takes all rows: then it is that of the same rows in one frame.
    #[serde(default)]
    pub shuffle: Shuffle,
}

/// Rows a step where the pipeline does not say.
pub(super) const BATCH: usize = 64;

impl TrainSpec {
    /// Refuses numbers that are nothing where they are computed with.
    ///
    /// # Errors
    /// Such a number, named.
    pub(super) fn check_numbers(&self) -> Result<()> {
        if let Some(clip) = self.clip {
            check_number("`clip`", clip.get())?;
        }
        if let Loss::Huber(huber) = self.loss {
            check_number("`loss.huber.delta`", huber.delta.get())?;
        }
        let Some(ClassWeights::Table(table)) = &self.class_weights else { return Ok(()) };
        table.iter().try_for_each(|(name, weight)| check_number(&format!("`class_weights.{name}`"), weight.get()))
    }

    /// How many workers can share a step: each computes a shard at least.
    pub(super) fn most_workers(self) -> Option<(usize, &'static str)> {
        let batch = self.batch.map_or(BATCH, NonZeroUsize::get);
        let shards = self.shards.unwrap_or(Shards::for_batch(batch)).get();
        match self.model {
            ModelSpec::Trees(_) => return Some((1, "training of trees: it runs on the threads of one")),
            _ if self.find_rate.is_some() => return Some((1, "sweep of `find_rate`: it runs on one")),
            _ => {}
        }
        let why = "shards, of which each computes one at least: ask for fewer workers, a larger `batch`, or more `shards`, \
                   which change the result";
        Some((shards, why))
    }
}

/// The numbers that a CUDA device computes with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32-bit floating point numbers.
    #[default]
    F32,
    /// 16-bit numbers with the range of `f32` for values and gradients of rows; weights, moments and sums stay `f32`.
    Bf16,
}

impl Precision {
    fn is_f32(&self) -> bool {
        *self == Self::F32
    }
}

/// Rows of the learning curve within epochs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CurvePoints {
    /// Steps from one to the next.
    pub steps: NonZeroUsize,
}

/// When to stop early.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EarlyStop {
    /// Epochs without a better validation loss until it stops.
    #[serde(default = "five")]
    pub patience: NonZeroUsize,
    /// How much lower the loss must be to count as better.
    #[serde(default)]
    pub min_delta: NonNegative,
}

/// Weights of the classes in the loss.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected \"balanced\" or a table of positive weights by class")]
pub enum ClassWeights {
    /// A rule.
    Rule(WeightRule),
    /// A weight a class; 1 for those not named.
    Table(BTreeMap<String, Positive>),
}

/// A rule for class weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WeightRule {
    /// `rows / (classes * rows of the class)`
    Balanced,
}

fn target() -> String {
    "label".to_owned()
}

fn epochs() -> NonZeroUsize {
    NonZeroUsize::MIN.saturating_add(9)
}

fn five() -> NonZeroUsize {
    NonZeroUsize::MIN.saturating_add(4)
}
