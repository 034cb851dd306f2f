//! The parameters of `train`.

use super::cadence::Cadence;
use super::loss::Loss;
use super::network::Activation;
use super::numbers::{NonNegative, Positive, Shards, Share};
use super::optimizer::Optimizer;
use super::schedule::Schedule;
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
    /// Weights of the classes in the loss: `"balanced"` (by inverse frequency), or a table by class.
    #[serde(default)]
    pub class_weights: Option<ClassWeights>,
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
    /// power of two that leaves 32 rows a part, at most 8. Threads and workers beyond it have nothing to do.
    #[serde(default)]
    pub shards: Option<Shards>,
    /// Whether each epoch takes the rows in another order.
    #[serde(default = "yes")]
    pub shuffle: bool,
}

/// What is trained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ModelSpec {
    /// Linear regression.
    Linear {},
    /// Logistic regression: two classes.
    Logistic {},
    /// Multinomial logistic regression: any number of classes.
    Softmax {},
    /// A multi-layer perceptron.
    Mlp(Mlp),
    /// A convolutional network.
    Cnn(Cnn),
    /// A transformer encoder for text and other sequences of tokens.
    Transformer(Transformer),
}

/// A multi-layer perceptron.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Mlp {
    /// The widths of the hidden layers.
    #[serde(default = "hidden")]
    pub hidden: Vec<NonZeroUsize>,
    /// What hidden layers do to their sums.
    #[serde(default)]
    pub activation: Activation,
    /// The share of hidden values that training drops by chance.
    #[serde(default)]
    pub dropout: Share,
    /// Columns of categories that get vectors of their own: text, integers or booleans as they are, without
    /// `features.fit`. The vectors are learned with the rest and stand beside the numbers of the other columns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub embed: Option<Embed>,
    /// Whether a hidden layer as wide as the one before it adds to that one's values instead of replacing them (a
    /// residual block), which lets deep networks learn.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub residual: bool,
    /// Whether the values before each hidden layer but the first are brought to mean 0 and variance 1, row by row (layer
    /// normalisation). There is no batch normalisation: its means run over the batch, so the result would depend on how
    /// a batch is shared out, and a prediction on its company.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub norm: bool,
}

/// Columns of categories that get vectors of their own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Embed {
    /// The columns. A category that the training part does not have, and a null, has a vector too: one for all of them,
    /// of zeros unless `rare` lets it learn.
    pub columns: Vec<String>,
    /// The length of a vector; by default half the number of categories, at most 50.
    #[serde(default)]
    pub width: Option<NonZeroUsize>,
    /// Categories with fewer rows than this in the training part share the vector of those not seen.
    #[serde(default = "one")]
    pub rare: NonZeroUsize,
}

/// A convolutional network: convolutions with pooling, then dense layers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cnn {
    /// `[channels, height, width]` of an image, as its values lie in the feature columns.
    pub input: [NonZeroUsize; 3],
    /// The channels of each convolution.
    #[serde(default = "channels")]
    pub channels: Vec<NonZeroUsize>,
    /// The side of the kernels.
    #[serde(default = "three")]
    pub kernel: NonZeroUsize,
    /// Whether convolutions keep the size (`same`) or lose the border (`valid`).
    #[serde(default)]
    pub padding: Padding,
    /// The side of the squares that are pooled after each convolution; 1 for none.
    #[serde(default = "two")]
    pub pool: NonZeroUsize,
    /// Residual blocks after each convolution, of two more convolutions and a layer normalisation over the channels of
    /// each pixel.
    #[serde(default, skip_serializing_if = "none")]
    pub blocks: usize,
    /// The widths of the dense hidden layers.
    #[serde(default)]
    pub hidden: Vec<NonZeroUsize>,
    /// What layers do to their sums.
    #[serde(default)]
    pub activation: Activation,
    /// The share of values before each dense layer that training drops by chance.
    #[serde(default)]
    pub dropout: Share,
}

/// A transformer encoder: tokens and positions as vectors, blocks of self-attention and dense layers, the mean over the
/// tokens, and one dense layer.
///
/// It reads one feature column: text, whose bytes (UTF-8) are its tokens, or lists of integers, which are token numbers,
/// negative ones at the end for shorter sequences.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Transformer {
    /// Bytes of a text that are read; the rest of a longer one is cut off. Lists have their own length. Time and memory
    /// of a step grow with its square.
    #[serde(default = "length")]
    pub length: NonZeroUsize,
    /// Token numbers there are: 0 to below this. Bytes need 256.
    #[serde(default = "bytes")]
    pub vocabulary: NonZeroUsize,
    /// The length of a token's vector.
    #[serde(default = "width")]
    pub width: NonZeroUsize,
    /// Heads of each self-attention; they divide the width.
    #[serde(default = "four")]
    pub heads: NonZeroUsize,
    /// Blocks of self-attention and dense layers.
    #[serde(default = "two")]
    pub layers: NonZeroUsize,
    /// The width between the dense layers of a block; by default 4 times `width`.
    #[serde(default)]
    pub feed_forward: Option<NonZeroUsize>,
    /// The share of values that training drops by chance after the embedding and in each block.
    #[serde(default)]
    pub dropout: Share,
}

/// What a convolution does at the border.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Padding {
    /// Zeros around the image: the size stays.
    #[default]
    Same,
    /// No zeros: the border goes.
    Valid,
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

impl ModelSpec {
    /// Its name in a pipeline.
    pub fn name(&self) -> &'static str {
        match self {
            ModelSpec::Linear {} => "linear",
            ModelSpec::Logistic {} => "logistic",
            ModelSpec::Softmax {} => "softmax",
            ModelSpec::Mlp(_) => "mlp",
            ModelSpec::Cnn(_) => "cnn",
            ModelSpec::Transformer(_) => "transformer",
        }
    }
}

fn target() -> String {
    "label".to_owned()
}

fn epochs() -> NonZeroUsize {
    NonZeroUsize::MIN.saturating_add(9)
}

fn none(count: &usize) -> bool {
    *count == 0
}

fn one() -> NonZeroUsize {
    NonZeroUsize::MIN
}

fn four() -> NonZeroUsize {
    NonZeroUsize::MIN.saturating_add(3)
}

fn width() -> NonZeroUsize {
    NonZeroUsize::MIN.saturating_add(63)
}

fn length() -> NonZeroUsize {
    NonZeroUsize::MIN.saturating_add(127)
}

fn bytes() -> NonZeroUsize {
    NonZeroUsize::MIN.saturating_add(255)
}

fn two() -> NonZeroUsize {
    NonZeroUsize::MIN.saturating_add(1)
}

fn three() -> NonZeroUsize {
    NonZeroUsize::MIN.saturating_add(2)
}

fn five() -> NonZeroUsize {
    NonZeroUsize::MIN.saturating_add(4)
}

fn hidden() -> Vec<NonZeroUsize> {
    vec![NonZeroUsize::MIN.saturating_add(63)]
}

fn channels() -> Vec<NonZeroUsize> {
    [15, 31].map(|more| NonZeroUsize::MIN.saturating_add(more)).to_vec()
}

fn yes() -> bool {
    true
}
