//! Fully connected layers.

use super::sink::{add, deliver};
use super::{look, misfit, values};
use crate::train::network::matrix::{Matrix, multiply};
use crate::train::network::{Activation, bound};
use candle_core::{CpuStorage, CustomOp3, Layout, Module, Result, Shape, Tensor};
use candle_nn::{Init, VarBuilder};
use rayon::prelude::*;

/// Multiplications that are worth a thread's while.
const PART: usize = 1 << 20;

/// A fully connected layer: `activation(input · weight + bias)`.
#[derive(Clone, Debug)]
pub struct Linear {
    weight: Tensor,
    bias: Tensor,
    activation: Activation,
}

/// A fully connected layer with a `weight` of shape `[inputs, outputs]` and a `bias` of shape `[outputs]`, begun as
/// those of `train` are.
///
/// # Errors
/// Weights of another shape.
pub fn linear(inputs: usize, outputs: usize, activation: Activation, vb: VarBuilder<'_>) -> Result<Linear> {
    let bound = f64::from(bound(activation, inputs, outputs));
    Ok(Linear {
        weight: vb.get_with_hints((inputs, outputs), "weight", Init::Uniform { lo: -bound, up: bound })?,
        bias: vb.get_with_hints(outputs, "bias", Init::Const(0.0))?,
        activation,
    })
}

impl Module for Linear {
    /// For rows in the last dimension, whatever dimensions come before it.
    fn forward(&self, input: &Tensor) -> Result<Tensor> {
        let (inputs, outputs) = self.weight.dims2()?;
        let mut shape = input.dims().to_vec();
        match shape.last_mut() {
            Some(last) if *last == inputs => *last = outputs,
            _ => return misfit("a linear layer", &format!("rows of {inputs} values"), input),
        }
        let rows = input.reshape(((), inputs))?.contiguous()?;
        let output = rows.apply_op3(&self.weight.contiguous()?, &self.bias.contiguous()?, Fused(self.activation))?;
        output.reshape(shape)
    }
}

/// The product with the bias and activation after it.
struct Fused(Activation);

impl CustomOp3 for Fused {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(
        &self,
        input: &CpuStorage,
        input_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (rows, inputs) = input_layout.shape().dims2()?;
        let (_, outputs) = weight_layout.shape().dims2()?;
        let mut output = vec![0.0; rows * outputs];
        let input = Matrix::new(values(input, input_layout)?, rows, inputs);
        let weight = Matrix::new(values(weight, weight_layout)?, inputs, outputs);
        let bias = values(bias, bias_layout)?;
        product(input, weight, false, &mut output, |part| self.0.forward(bias, part));
        Ok((CpuStorage::F32(output), (rows, outputs).into()))
    }

    fn bwd(
        &self,
        input: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        output: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let ((rows, inputs), (_, outputs), device) = (input.dims2()?, weight.dims2()?, input.device());
        let mut sums = look(gradient, <[f32]>::to_vec)?;
        let mut bias_gradient = vec![0.0; outputs];
        look(output, |output| self.0.backward(output, &mut sums, &mut bias_gradient))?;
        let sums = Matrix::new(&sums, rows, outputs);

        let weight_gradient = deliver(weight, |gradient| {
            look(input, |input| {
                product(Matrix::new(input, rows, inputs).transposed(), sums, true, gradient, |_| {});
            })
        })?;
        let bias_gradient = deliver(bias, |gradient| {
            add(gradient, &bias_gradient);
            Ok(())
        })?;
        // What comes from no variable, such as the rows of the data, asks for no gradient.
        let input_gradient = match input.track_op() {
            false => None,
            true => {
                let mut gradient = vec![0.0; rows * inputs];
                look(weight, |weight| {
                    let weight = Matrix::new(weight, inputs, outputs).transposed();
                    product(sums, weight, false, &mut gradient, |_| {});
                })?;
                Some(Tensor::from_vec(gradient, (rows, inputs), device)?)
            }
        };
        Ok((input_gradient, weight_gradient, bias_gradient))
    }
}

/// `out = a · b`, or `out += a · b`: some rows at a time on every thread, and then `more` with them.
fn product(a: Matrix<'_>, b: Matrix<'_>, accumulate: bool, out: &mut [f32], more: impl Fn(&mut [f32]) + Sync) {
    let (width, depth) = (b.columns(), a.columns());
    // Whole blocks of the product's inner loop; how many depends on the shapes only.
    let rows = (PART / (width * depth).max(1)).next_multiple_of(16).max(16);
    let parts = out.par_chunks_mut((rows * width).max(1)).with_max_len(1).enumerate();
    parts.for_each(|(index, out)| {
        let start = index * rows;
        multiply(a.part(start, out.len() / width), b, accumulate, out);
        more(out);
    });
}
