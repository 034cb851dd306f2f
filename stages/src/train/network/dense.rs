//! Fully connected layers.

use super::activation::Activation;
use super::layer::{Kept, Layer, Parameter, Pass, Start};
use super::matrix::{Matrix, multiply};
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

    fn forward(&self, weights: &[f32], input: &[f32], output: &mut [f32], _: &mut Kept, _: Option<&mut dyn Rng>) {
        let (weight, bias) = weights.split_at(self.inputs * self.outputs);
        let input = Matrix::new(input, output.len() / self.outputs, self.inputs);
        multiply(input, Matrix::new(weight, self.inputs, self.outputs), false, output);
        self.activation.forward(bias, output);
    }

    fn backward(&self, weights: &[f32], pass: Pass<'_>, gradient: &mut [f32], _: &mut Kept) {
        let (weight, _) = weights.split_at(self.inputs * self.outputs);
        let (weight_gradient, bias_gradient) = gradient.split_at_mut(self.inputs * self.outputs);
        self.activation.backward(pass.output, pass.output_gradient, bias_gradient);
        let rows = pass.output.len() / self.outputs;
        let sums = Matrix::new(pass.output_gradient, rows, self.outputs);
        multiply(Matrix::new(pass.input, rows, self.inputs).transposed(), sums, false, weight_gradient);
        if let Some(input_gradient) = pass.input_gradient {
            multiply(sums, Matrix::new(weight, self.inputs, self.outputs).transposed(), false, input_gradient);
        }
    }
}
