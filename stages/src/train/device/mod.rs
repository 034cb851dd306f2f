//! Training on a device: the networks of `train` over candle tensors, on whatever device those are.
//!
//! Weights, moments and what belongs to a step stay on the device; a step sends row numbers and classes there and reads
//! back a loss a row and the norm of the gradient. Every layer has its own forward and backward pass here too, of
//! operations whose sums have a fixed order: products, reductions of rows, and gathers. Nothing is added up where
//! threads meet (no scatter, no atomic operation), so the same device gives the same bits again.
//!
//! Shards, their tree and all chance are those of the processor's engine; the bits are not, for a device sums in another
//! order. To read it: `layer` (what a layer is), `network`, `engine` (gradients and steps), `room` (its memory).

mod activation;
mod conv;
mod dense;
mod descent;
mod dropout;
mod engine;
mod examples;
mod layer;
mod loss;
mod network;
mod norm;
mod place;
mod pool;
mod residual;
pub(super) mod room;

pub(super) use conv::Conv;
pub(super) use dense::Dense;
pub(super) use dropout::Dropout;
pub(super) use engine::DeviceEngine;
pub(super) use layer::Layer;
pub(super) use network::Network;
pub(super) use norm::LayerNorm;
pub(super) use place::{Place, place};
pub(super) use pool::{ChannelsLast, MaxPool};
pub(super) use residual::Residual;
