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
}

/// A multi-layer perceptron.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
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
        }
    }
}

fn target() -> String {
    "label".to_owned()
}

fn epochs() -> NonZeroUsize {
    NonZeroUsize::MIN.saturating_add(9)
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
