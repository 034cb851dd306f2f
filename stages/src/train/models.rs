//! The models that `train` knows, as pipelines write them.

use super::network::Activation;
use super::numbers::{Bins, NonNegative, Positive, Share};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::num::NonZeroUsize;

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
    /// Gradient-boosted decision trees.
    Trees(Trees),
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

/// Gradient-boosted decision trees. They need no scaled features, and take no chance.
///
/// Of the parameters of `train`, `loss`, `early_stop` (in rounds) and `class_weights` count; those of gradient descent
/// (`epochs`, `batch`, `optimizer`, `schedule`, `shards`) do not matter. They are grown by the threads
/// of one worker, without checkpoints: more `workers` gain nothing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Trees {
    /// Trees, one after the other; with more than two classes, so many for each.
    #[serde(default = "rounds")]
    pub rounds: NonZeroUsize,
    /// How much of each tree counts.
    #[serde(default = "tenth")]
    pub rate: Positive,
    /// Questions from the top of a tree to a leaf, at most.
    #[serde(default = "six")]
    pub depth: NonZeroUsize,
    /// The fewest rows of a leaf.
    #[serde(default = "twenty")]
    pub min_rows: NonZeroUsize,
    /// How far the loss must fall for a split, summed over its rows and doubled.
    #[serde(default)]
    pub min_gain: NonNegative,
    /// The weight of the squared leaf values in the loss, halved.
    #[serde(default = "unit")]
    pub l2: Positive,
    /// Ranges that each feature's values are put in.
    #[serde(default)]
    pub bins: Bins,
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
            ModelSpec::Trees(_) => "trees",
        }
    }
}

fn rounds() -> NonZeroUsize {
    NonZeroUsize::MIN.saturating_add(99)
}

fn twenty() -> NonZeroUsize {
    NonZeroUsize::MIN.saturating_add(19)
}

fn six() -> NonZeroUsize {
    NonZeroUsize::MIN.saturating_add(5)
}

fn tenth() -> Positive {
    Positive::known(0.1)
}

fn unit() -> Positive {
    Positive::known(1.0)
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

fn hidden() -> Vec<NonZeroUsize> {
    vec![NonZeroUsize::MIN.saturating_add(63)]
}

fn channels() -> Vec<NonZeroUsize> {
    [15, 31].map(|more| NonZeroUsize::MIN.saturating_add(more)).to_vec()
}
