//! Fully connected layers.

use super::activation::Activation;
use super::layer::{Kept, Layer, Parameter, Pass, Start, add_apart};
use super::matrix::{Matrix, adds_whole, multiply};
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

    fn on_device(&self, _: &Device) -> candle_core::Result<Option<Box<dyn device::Layer>>> {
        let Dense { inputs, outputs, activation, .. } = *self;
        Ok(Some(Box::new(device::Dense { inputs, outputs, activation })))
    }

    fn forward(&self, weights: &[f32], input: &[f32], output: &mut [f32], _: &mut Kept, _: Option<&mut dyn Rng>) {
        let (weight, bias) = weights.split_at(self.inputs * self.outputs);
        let input = Matrix::new(input, output.len() / self.outputs, self.inputs);
        multiply(input, Matrix::new(weight, self.inputs, self.outputs), false, output);
        self.activation.forward(bias, output);
    }

    fn backward(&self, weights: &[f32], mut pass: Pass<'_>, gradient: &mut [f32], _: &mut Kept) {
        let (weight_gradient, bias_gradient) = gradient.split_at_mut(self.inputs * self.outputs);
        self.activation.backward(pass.output, pass.output_gradient, bias_gradient);
        self.weight_gradient(&pass, false, weight_gradient);
        self.input_gradient(weights, &mut pass);
    }

    fn backward_adding(&self, weights: &[f32], mut pass: Pass<'_>, gradient: &mut [f32], kept: &mut Kept) {
        if !adds_whole((self.inputs, pass.output.len() / self.outputs, self.outputs)) {
            return add_apart(self, weights, pass, gradient, kept);
        }
        let (weight_gradient, bias_gradient) = gradient.split_at_mut(self.inputs * self.outputs);
        self.add_bias_gradient(&mut pass, bias_gradient, kept);
        self.weight_gradient(&pass, true, weight_gradient);
        self.input_gradient(weights, &mut pass);
    }

    /// Vectors have bits of their own, whole or in parts.
    fn is_product(&self) -> bool {
        self.inputs > 1 && self.outputs > 1
    }

    fn backward_sums(&self, weights: &[f32], mut pass: Pass<'_>, adding: bool, gradient: &mut [f32], kept: &mut Kept) {
        let bias_gradient = &mut gradient[self.inputs * self.outputs..];
        match adding {
            true => self.add_bias_gradient(&mut pass, bias_gradient, kept),
            false => self.activation.backward(pass.output, pass.output_gradient, bias_gradient),
        }
        self.input_gradient(weights, &mut pass);
    }
}

impl Dense {
    /// Turns the gradient of the output into that of the sums, and adds the bias's to what is there.
    fn add_bias_gradient(&self, pass: &mut Pass<'_>, bias_gradient: &mut [f32], kept: &mut Kept) {
        let own = &mut kept.gradient;
        own.resize(self.outputs, 0.0);
        self.activation.backward(pass.output, pass.output_gradient, own);
        bias_gradient.iter_mut().zip(own).for_each(|(sum, own)| *sum += *own);
    }

    /// The gradient of the weight, once the sums' is there.
    fn weight_gradient(&self, pass: &Pass<'_>, adding: bool, weight_gradient: &mut [f32]) {
        let rows = pass.output.len() / self.outputs;
        let sums = Matrix::new(pass.output_gradient, rows, self.outputs);
        multiply(Matrix::new(pass.input, rows, self.inputs).transposed(), sums, adding, weight_gradient);
    }

    /// The gradient of the input, once the sums' is there.
    fn input_gradient(&self, weights: &[f32], pass: &mut Pass<'_>) {
        let sums = Matrix::new(pass.output_gradient, pass.output.len() / self.outputs, self.outputs);
        if let Some(input_gradient) = &mut pass.input_gradient {
            let weight = Matrix::new(&weights[..self.inputs * self.outputs], self.inputs, self.outputs);
            multiply(sums, weight.transposed(), false, input_gradient);
        }
    }
}
