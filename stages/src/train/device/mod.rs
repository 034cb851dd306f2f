//! Training on a device: the networks of `train` over candle tensors, on whatever device those are.
//!
//! Weights, moments and what belongs to a step stay on the device; a step sends row numbers and classes there (the rows
//! themselves where they are changed, come in parts, or are many) and reads back a loss a row and the norm of the
//! gradient. Members of a gang exchange gradients through the processor's memory, and step on their devices. Every layer has its own forward and backward pass here too, of
//! operations whose sums have a fixed order: products, reductions of rows, and gathers. Nothing is added up where
//! threads meet (no scatter, no atomic operation), so the same device gives the same bits again.
//!
//! Shards, their tree and all chance are those of the processor's engine; the bits are not, for a device sums in another
//! order. Several devices share the shards of a step out, and what they give is added up in the same tree: any number of
//! devices of one kind gives the same bits. (NCCL's reductions would not: the order of their sums is that of the ring.)
//!
//! To read it: `layer` (what a layer is), `network`, `replica` (gradients on one device), `engine` (steps), `room` (a
//! device's memory).

mod activation;
mod attention;
mod conv;
mod dense;
mod descent;
mod dropout;
mod embedding;
mod engine;
mod examples;
mod layer;
mod loss;
mod network;
mod norm;
mod place;
mod pool;
mod replica;
mod residual;
pub(super) mod room;
mod validation;

pub(super) use attention::Attention;
pub(super) use conv::Conv;
pub(super) use dense::Dense;
pub(super) use dropout::Dropout;
pub(super) use embedding::{Embedding, Mean, Tokens};
pub(super) use engine::DeviceEngine;
pub(super) use layer::Layer;
pub(super) use network::Network;
pub(super) use norm::LayerNorm;
pub(super) use place::{Place, places};
pub(super) use pool::{ChannelsLast, MaxPool};
pub(super) use residual::Residual;
