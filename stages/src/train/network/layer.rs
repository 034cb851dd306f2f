//! What a layer is.

use super::Workspace;
use crate::train::device;
use candle_core::Device;
use rand::Rng;
use std::borrow::Cow;

/// One layer of a network: a function of rows with weights, and its gradient. Rows are dense `f32`, one after the
/// other; images are channels last.
///
/// The flat weight slice that a layer gets is its own part of the network's, its parameters in order.
pub(in crate::train) trait Layer: Send + Sync {
    /// Its name in messages and in the names of its weights: `conv2`.
    fn name(&self) -> &str;

    /// Values of a row of its input. A layer may work on a part of a row by itself, such as a pixel or a token of a
    /// sequence; then these are its values.
    fn inputs(&self) -> usize;

    /// Values of a row of its output.
    fn outputs(&self) -> usize;

    /// Its weights, in the order in which they lie in the flat slice.
    fn parameters(&self) -> Vec<Parameter> {
        Vec::new()
    }

    /// Whether its forward pass in training takes chance.
    fn uses_chance(&self) -> bool {
        false
    }

    /// The same layer over tensors of a device.
    ///
    /// # Errors
    /// The device has no memory for what the layer needs.
    fn on_device(&self, device: &Device) -> candle_core::Result<Box<dyn device::Layer>>;

    /// Computes `output` from `input`; `chance` is there in training only.
    fn forward(
        &self,
        weights: &[f32],
        input: &[f32],
        output: &mut [f32],
        kept: &mut Kept,
        chance: Option<&mut dyn Rng>,
    );

    /// Computes the gradients of the weights and, if asked for, of the input. `output_gradient` may be overwritten.
    fn backward(&self, weights: &[f32], pass: Pass<'_>, gradient: &mut [f32], kept: &mut Kept);

    /// Whether its first parameter is a matrix whose gradient is the product of its input and the gradient of its sums,
    /// and so can be computed later, piece by piece ([`Layer::backward_sums`]).
    fn is_product(&self) -> bool {
        false
    }

    /// As [`Layer::backward`], but leaves the gradient of the first parameter out and that of the sums in
    /// `output_gradient`. For layers that are a product.
    fn backward_sums(&self, _weights: &[f32], _pass: Pass<'_>, _gradient: &mut [f32]) {}
}

/// What the backward pass of a layer reads and writes besides weights.
pub(in crate::train) struct Pass<'a> {
    pub(in crate::train) input: &'a [f32],
    pub(in crate::train) output: &'a [f32],
    pub(in crate::train) output_gradient: &'a mut [f32],
    pub(in crate::train) input_gradient: Option<&'a mut [f32]>,
}

/// What a layer keeps between its forward and its backward pass, and its scratch space. Reused from step to step.
#[derive(Default)]
pub(in crate::train) struct Kept {
    pub(in crate::train) marks: Vec<u8>,
    pub(in crate::train) columns: Vec<f32>,
    pub(in crate::train) column_gradients: Vec<f32>,
    /// The gradient of its sums, if that of its matrix is computed later.
    pub(in crate::train) sums: Vec<f32>,
    /// How many tokens each row has, where rows are sequences; handed on from layer to layer.
    pub(in crate::train) lengths: Vec<u32>,
    /// The buffers of the layers that it is made of.
    pub(in crate::train) branch: Option<Box<Workspace>>,
}

/// A weight tensor of a layer.
#[derive(Clone, Debug)]
pub(in crate::train) struct Parameter {
    /// `weight` or `bias`; with layers inside, theirs first: `dense1.weight`.
    pub(in crate::train) name: Cow<'static, str>,
    pub(in crate::train) shape: Vec<usize>,
    pub(in crate::train) start: Start,
}

/// How a weight tensor begins.
#[derive(Clone, Copy, Debug)]
pub(in crate::train) enum Start {
    Zero,
    One,
    /// Uniform in `-bound..bound`.
    Uniform(f32),
    /// Some zeros, and then uniform in `-bound..bound`.
    UniformAfter {
        zeros: usize,
        bound: f32,
    },
}

impl Parameter {
    pub(in crate::train) fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}
