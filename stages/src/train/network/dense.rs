//! Fully connected layers.

use super::activation::Activation;
use super::layer::{Kept, Layer, Parameter, Pass, Start};
use super::matrix::{Matrix, multiply};
use crate::train::device;
use candle_core::Device;
use rand::Rng;

/// `activation(input · weight + bias)`, with a weight of shape `[inputs, outputs]`.
pub(super) struct Dense {
    pub(super) name: String,
    pub(super) inputs: usize,
    pub(super) outputs: usize,
    pub(super) activation: Activation,
    pub(super) start: Start,
}

impl Layer for Dense {
    fn name(&self) -> &str {
        &self.name
    }

    fn inputs(&self) -> usize {
        self.inputs
    }

    fn outputs(&self) -> usize {
        self.outputs
    }

    fn parameters(&self) -> Vec<Parameter> {
        vec![
            Parameter { name: "weight".into(), shape: vec![self.inputs, self.outputs], start: self.start },
            Parameter { name: "bias".into(), shape: vec![self.outputs], start: Start::Zero },
        ]
    }

    fn on_device(&self, _: &Device) -> candle_core::Result<Box<dyn device::Layer>> {
        let Dense { inputs, outputs, activation, .. } = *self;
        Ok(Box::new(device::Dense { inputs, outputs, activation }))
    }

    fn forward(&self, weights: &[f32], input: &[f32], output: &mut [f32], _: &mut Kept, _: Option<&mut dyn Rng>) {
        let (weight, bias) = weights.split_at(self.inputs * self.outputs);
        let input = Matrix::new(input, output.len() / self.outputs, self.inputs);
        multiply(input, Matrix::new(weight, self.inputs, self.outputs), false, output);
        self.activation.forward(bias, output);
    }

    fn backward(&self, weights: &[f32], mut pass: Pass<'_>, gradient: &mut [f32], _: &mut Kept) {
        let (weight_gradient, bias_gradient) = gradient.split_at_mut(self.inputs * self.outputs);
        let rows = self.back_to_sums(weights, &mut pass, bias_gradient);
        let sums = Matrix::new(pass.output_gradient, rows, self.outputs);
        multiply(Matrix::new(pass.input, rows, self.inputs).transposed(), sums, false, weight_gradient);
    }

    /// Vectors have bits of their own, whole or in parts.
    fn is_product(&self) -> bool {
        self.inputs > 1 && self.outputs > 1
    }

    fn backward_sums(&self, weights: &[f32], mut pass: Pass<'_>, gradient: &mut [f32]) {
        self.back_to_sums(weights, &mut pass, &mut gradient[self.inputs * self.outputs..]);
    }
}

impl Dense {
    /// Turns the gradient of the output into that of the sums; gives the bias's and the input's. Says how many rows there
    /// are.
    fn back_to_sums(&self, weights: &[f32], pass: &mut Pass<'_>, bias_gradient: &mut [f32]) -> usize {
        let rows = pass.output.len() / self.outputs;
        self.activation.backward(pass.output, pass.output_gradient, bias_gradient);
        if let Some(input_gradient) = &mut pass.input_gradient {
            let sums = Matrix::new(pass.output_gradient, rows, self.outputs);
            let weight = Matrix::new(&weights[..self.inputs * self.outputs], self.inputs, self.outputs);
            multiply(sums, weight.transposed(), false, input_gradient);
        }
        rows
    }
}
