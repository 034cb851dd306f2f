//! Feed-forward networks on flat buffers: the arithmetic of `train`'s own models.
//!
//! All weights lie in one flat slice, as do their gradients, so that sums over shards, clipping and the optimiser are
//! single passes. Buffers are kept from step to step. Nothing here starts a thread or takes chance from anywhere but
//! its arguments, so a part of a batch has the same bits wherever it is computed.

mod activation;
mod attention;
mod build;
#[cfg(test)]
mod candle;
pub(super) mod conv;
mod dense;
mod dropout;
mod embedding;
pub(super) mod layer;
pub(super) mod matrices;
pub(super) mod matrix;
mod norm;
pub(super) mod pool;
mod residual;
pub(crate) mod simd;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
mod wide;

pub use activation::Activation;
pub(crate) use activation::sigmoid;
pub(super) use build::bound;
pub(crate) use embedding::{Field, Table};
#[cfg(test)]
pub(in crate::train) use matrix::tests::gigaflops;

use crate::train::device;
use candle_core::Device;
use layer::{Kept, Layer, Parameter, Pass, Start};
use rand::{Rng, RngExt};
use ropeway_framework::data::{Tensor, Tensors};
use ropeway_framework::stage::Seed;
use ropeway_framework::{Error, Result};
use std::ops::Range;

/// A feed-forward network: layers, one after the other.
pub(crate) struct Network {
    layers: Vec<(Box<dyn Layer>, Range<usize>)>,
    inputs: usize,
    outputs: usize,
    parameters: usize,
}

/// The buffers of one pass through a network: reused, and of the caller's own, so that passes can run side by side.
#[derive(Default)]
pub(crate) struct Workspace {
    /// The input, and the output of every layer.
    values: Vec<Vec<f32>>,
    kept: Vec<Kept>,
    /// The gradients of a layer's output and input, by turns.
    gradient: Vec<f32>,
    next_gradient: Vec<f32>,
}

/// How to go back through a network.
#[derive(Clone, Copy, Default)]
struct Backward {
    /// To the gradient of the input.
    through: bool,
    /// Without the gradients of the matrices.
    sums: bool,
}

impl Workspace {
    /// Says how long the sequences are that lie in it.
    fn hand_on(&mut self, lengths: &[u32]) {
        if let Some(first) = self.kept.first_mut() {
            first.lengths.clear();
            first.lengths.extend_from_slice(lengths);
        }
    }
}

impl Network {
    fn of(layers: Vec<Box<dyn Layer>>, inputs: usize) -> Self {
        let mut parameters = 0;
        let layers: Vec<_> = layers
            .into_iter()
            .map(|layer| {
                let start = parameters;
                parameters += layer.parameters().iter().map(|parameter| parameter.elements()).sum::<usize>();
                (layer, start..parameters)
            })
            .collect();
        let outputs = layers.last().map_or(inputs, |(layer, _)| layer.outputs());
        Self { layers, inputs, outputs, parameters }
    }

    /// Values of a row of the input.
    pub(crate) fn inputs(&self) -> usize {
        self.inputs
    }

    /// Values of a row of the output.
    pub(crate) fn outputs(&self) -> usize {
        self.outputs
    }

    /// Weights in all.
    pub(crate) fn parameters(&self) -> usize {
        self.parameters
    }

    /// Whether training it takes chance at every step.
    pub(crate) fn uses_chance(&self) -> bool {
        self.layers.iter().any(|(layer, _)| layer.uses_chance())
    }

    /// The weights to begin with.
    pub(crate) fn initial(&self, seed: &Seed) -> Vec<f32> {
        let mut weights = Vec::with_capacity(self.parameters);
        for (layer, _) in &self.layers {
            for parameter in layer.parameters() {
                let mut rng = seed.rng(&format!("init/{}.{}", layer.name(), parameter.name));
                let mut uniform = |bound: f32| (2.0 * rng.random::<f32>() - 1.0) * bound;
                let values = (0..parameter.elements()).map(|index| match parameter.start {
                    Start::Zero => 0.0,
                    Start::One => 1.0,
                    Start::Uniform(bound) => uniform(bound),
                    Start::UniformAfter { zeros, .. } if index < zeros => 0.0,
                    Start::UniformAfter { bound, .. } => uniform(bound),
                });
                weights.extend(values);
            }
        }
        weights
    }

    /// The place for `rows` rows of input; fill it, then call [`Network::forward`].
    pub(crate) fn input<'w>(&self, workspace: &'w mut Workspace, rows: usize) -> &'w mut [f32] {
        workspace.values.resize_with(self.layers.len() + 1, Vec::new);
        workspace.kept.resize_with(self.layers.len(), Kept::default);
        let input = &mut workspace.values[0];
        input.resize(rows * self.inputs, 0.0);
        input
    }

    /// Runs the rows that lie in the workspace through the layers; `chance` is there in training only.
    pub(crate) fn forward<'w>(
        &self,
        weights: &[f32],
        workspace: &'w mut Workspace,
        mut chance: Option<&mut dyn Rng>,
    ) -> &'w [f32] {
        for (index, (layer, place)) in self.layers.iter().enumerate() {
            let (before, after) = workspace.values.split_at_mut(index + 1);
            let (input, output) = (&before[index], &mut after[0]);
            output.resize(input.len() / layer.inputs() * layer.outputs(), 0.0);
            // Not `as_deref_mut`: the trait object's lifetime is invariant behind `&mut`.
            let chance = chance.as_mut().map(|rng| &mut **rng as &mut dyn Rng);
            let (done, kept) = workspace.kept.split_at_mut(index);
            if let Some(before) = done.last() {
                kept[0].lengths.clone_from(&before.lengths);
            }
            layer.forward(&weights[place.clone()], input, output, &mut kept[0], chance);
        }
        workspace.values.last().map_or(&[], Vec::as_slice)
    }

    /// The output of the last forward pass, and the place for its gradient.
    pub(crate) fn output<'w>(&self, workspace: &'w mut Workspace) -> (&'w [f32], &'w mut [f32]) {
        let output = workspace.values.last().map_or(&[][..], Vec::as_slice);
        workspace.gradient.resize(output.len(), 0.0);
        (output, &mut workspace.gradient)
    }

    /// Computes the gradient of all weights from the gradient of the output that lies in the workspace.
    pub(crate) fn backward(&self, weights: &[f32], workspace: &mut Workspace, gradient: &mut [f32]) {
        self.backward_through(weights, workspace, gradient, Backward::default());
    }

    /// As [`Network::backward`], but without the gradients of the [matrices](Network::matrices).
    pub(crate) fn backward_sums(&self, weights: &[f32], workspace: &mut Workspace, gradient: &mut [f32]) {
        self.backward_through(weights, workspace, gradient, Backward { sums: true, ..Backward::default() });
    }

    /// As [`Network::backward`], and gives the gradient of the input if it goes through to it.
    fn backward_through<'w>(
        &self,
        weights: &[f32],
        workspace: &'w mut Workspace,
        gradient: &mut [f32],
        Backward { through, sums }: Backward,
    ) -> &'w [f32] {
        for (index, (layer, place)) in self.layers.iter().enumerate().rev() {
            let (input, output) = (&workspace.values[index], &workspace.values[index + 1]);
            // Below the first layer with weights nothing is asked for, unless the input's gradient is.
            let wanted = through || place.start > 0;
            workspace.next_gradient.resize(if wanted { input.len() } else { 0 }, 0.0);
            let pass = Pass {
                input,
                output,
                output_gradient: &mut workspace.gradient,
                input_gradient: wanted.then_some(workspace.next_gradient.as_mut_slice()),
            };
            let (gradient, kept) = (&mut gradient[place.clone()], &mut workspace.kept[index]);
            if sums && layer.is_product() {
                layer.backward_sums(&weights[place.clone()], pass, gradient);
                std::mem::swap(&mut kept.sums, &mut workspace.gradient);
            } else {
                layer.backward(&weights[place.clone()], pass, gradient, kept);
            }
            if !wanted {
                break;
            }
            std::mem::swap(&mut workspace.gradient, &mut workspace.next_gradient);
        }
        &workspace.gradient
    }

    /// The same network over tensors of a device.
    ///
    /// # Errors
    /// A device without memory for it.
    pub(super) fn on_device(&self, device: &Device) -> candle_core::Result<device::Network> {
        let twin = |layer: &dyn Layer| Ok((layer.on_device(device)?, layer.parameters().len()));
        let layers = self.layers.iter().map(|(layer, _)| twin(layer.as_ref()));
        layers.collect::<candle_core::Result<_>>().map(device::Network::new)
    }

    /// The weight tensors under their full names, in the order of the flat slice.
    fn named(&self) -> Vec<Parameter> {
        let of = |layer: &dyn Layer| -> Vec<Parameter> {
            let name = |parameter: &Parameter| format!("{}.{}", layer.name(), parameter.name).into();
            layer.parameters().into_iter().map(|one| Parameter { name: name(&one), ..one }).collect()
        };
        self.layers.iter().flat_map(|(layer, _)| of(layer.as_ref())).collect()
    }

    /// The weight tensors: full name, shape and place in the flat slice.
    pub(crate) fn places(&self) -> impl Iterator<Item = (String, Vec<usize>, Range<usize>)> {
        self.layers.iter().flat_map(|(layer, place)| {
            let mut start = place.start;
            layer.parameters().into_iter().map(move |parameter| {
                let range = start..start + parameter.elements();
                start = range.end;
                (format!("{}.{}", layer.name(), parameter.name), parameter.shape, range)
            })
        })
    }

    /// The weights as named tensors: `dense1.weight` of shape `[inputs, outputs]`, `conv1.weight` of shape
    /// `[height, width, inputs, outputs]`, biases of shape `[outputs]`; those of a block under the block's name:
    /// `block1.conv2.weight`.
    pub(crate) fn tensors(&self, weights: &[f32]) -> Result<Tensors> {
        self.places()
            .map(|(name, shape, range)| Ok((name, Tensor::from_vec(shape, weights[range].to_vec())?)))
            .collect()
    }

    /// The flat weights of named tensors.
    pub(crate) fn weights(&self, tensors: &Tensors) -> Result<Vec<f32>> {
        let mut weights = Vec::with_capacity(self.parameters);
        for (name, shape, _) in self.places() {
            let tensor = tensors.get(&name)?;
            if tensor.shape() != shape {
                let found = tensor.shape();
                return Err(Error::new(format!("the weights {name:?} have the shape {found:?}, not {shape:?}")));
            }
            weights.extend_from_slice(tensor.values::<f32>()?);
        }
        Ok(weights)
    }
}
