//! Convolutions and pooling over images with their channels last: `train`'s own layers.

use super::sink::{add, deliver};
use super::{look, misfit, values};
use crate::train::network::conv::{Conv, Image};
use crate::train::network::layer::{Kept, Layer, Pass, Start};
use crate::train::network::pool::MaxPool;
use crate::train::network::{Activation, bound};
use candle_core::{CpuStorage, CustomOp1, CustomOp3, Error, Layout, Module, Result, Shape, Tensor};
use candle_nn::{Init, VarBuilder};
use rayon::prelude::*;
use std::sync::{Mutex, PoisonError};

/// Images that one thread takes at a time; the gradients of the weights are summed over as many, and then over the
/// parts in their order.
const PART: usize = 8;

/// `activation(input * kernel + bias)` with stride 1, and zeros around the image, so that its size stays.
#[derive(Clone, Debug)]
pub struct Conv2d {
    weight: Tensor,
    bias: Tensor,
    activation: Activation,
}

/// A convolution with a `weight` of shape `[kernel, kernel, inputs, outputs]` and a `bias` of shape `[outputs]`, begun
/// as those of `train` are, over images of shape `[rows, height, width, inputs]`.
///
/// # Errors
/// Weights of another shape.
pub fn conv2d(
    inputs: usize,
    outputs: usize,
    kernel: usize,
    activation: Activation,
    vb: VarBuilder<'_>,
) -> Result<Conv2d> {
    let area = kernel * kernel;
    let bound = f64::from(bound(activation, area * inputs, area * outputs));
    let start = Init::Uniform { lo: -bound, up: bound };
    Ok(Conv2d {
        weight: vb.get_with_hints((kernel, kernel, inputs, outputs), "weight", start)?,
        bias: vb.get_with_hints(outputs, "bias", Init::Const(0.0))?,
        activation,
    })
}

impl Module for Conv2d {
    fn forward(&self, images: &Tensor) -> Result<Tensor> {
        let (kernel, _, inputs, outputs) = self.weight.dims4()?;
        let Ok((_, height, width, channels)) = images.dims4() else {
            return misfit("a convolution", "[rows, height, width, channels]", images);
        };
        if channels != inputs || kernel > height.min(width) {
            let wanted = format!("at least {kernel} x {kernel} pixels of {inputs} channels (last)");
            return misfit("a convolution", &wanted, images);
        }
        let layer = Conv {
            name: String::new(),
            input: Image { height, width, channels },
            output: Image { height, width, channels: outputs },
            kernel,
            padding: (kernel - 1) / 2,
            activation: self.activation,
            start: Start::Zero,
        };
        let weight = self.weight.contiguous()?;
        images.contiguous()?.apply_op3(&weight, &self.bias.contiguous()?, Convolution(layer))
    }
}

struct Convolution(Conv);

impl CustomOp3 for Convolution {
    fn name(&self) -> &'static str {
        "conv2d"
    }

    fn cpu_fwd(
        &self,
        images: &CpuStorage,
        images_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let Conv { output: Image { height, width, channels }, .. } = self.0;
        let images = values(images, images_layout)?;
        let weights = [values(weight, weight_layout)?, values(bias, bias_layout)?].concat();
        let rows = images.len() / self.0.inputs();
        let mut output = vec![0.0; rows * self.0.outputs()];
        let outputs = output.par_chunks_mut(PART * self.0.outputs()).with_max_len(1);
        outputs.zip(images.par_chunks(PART * self.0.inputs())).for_each_init(
            Kept::default,
            |kept, (output, images)| {
                self.0.forward(&weights, images, output, kept, None);
            },
        );
        Ok((CpuStorage::F32(output), (rows, height, width, channels).into()))
    }

    fn bwd(
        &self,
        images: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        output: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (inputs, outputs) = (PART * self.0.inputs(), PART * self.0.outputs());
        let weights = [look(weight, <[f32]>::to_vec)?, look(bias, <[f32]>::to_vec)?].concat();
        let mut sums = look(gradient, <[f32]>::to_vec)?;
        // What comes from no variable, such as the rows of the data, asks for no gradient.
        let mut input_gradient = vec![0.0; if images.track_op() { images.elem_count() } else { 0 }];
        let parts = sums.len().div_ceil(outputs);
        let mut input_parts: Vec<Option<&mut [f32]>> = input_gradient.chunks_mut(inputs).map(Some).collect();
        input_parts.resize_with(parts, || None);

        let gradients: Vec<Vec<f32>> = look(images, |images| {
            look(output, |output| {
                let parts = images.par_chunks(inputs).zip(output.par_chunks(outputs));
                let parts = parts.zip(sums.par_chunks_mut(outputs)).zip(input_parts).with_max_len(1);
                let part = |kept: &mut Kept, (((input, output), output_gradient), input_gradient)| {
                    let mut gradient = vec![0.0; weights.len()];
                    let pass = Pass { input, output, output_gradient, input_gradient };
                    self.0.backward(&weights, pass, &mut gradient, kept);
                    gradient
                };
                parts.map_init(Kept::default, part).collect()
            })
        })??;
        let mut gradients = gradients.into_iter();
        let mut total = gradients.next().unwrap_or_else(|| vec![0.0; weights.len()]);
        for gradient in gradients {
            add(&mut total, &gradient);
        }
        let (weight_total, bias_total) = total.split_at(weight.elem_count());
        let give = |to: &Tensor, total: &[f32]| {
            deliver(to, |gradient| {
                add(gradient, total);
                Ok(())
            })
        };
        let input_gradient = match images.track_op() {
            true => Some(Tensor::from_vec(input_gradient, images.shape(), images.device())?),
            false => None,
        };
        Ok((input_gradient, give(weight, weight_total)?, give(bias, bias_total)?))
    }
}

/// The largest value of every square of `size` by `size` pixels, of images of shape `[rows, height, width, channels]`;
/// pixels beyond the last whole square are dropped. The first of equal values gets the gradient.
///
/// # Errors
/// A size of 0, beyond 16, or beyond the image.
pub fn max_pool2d(images: &Tensor, size: usize) -> Result<Tensor> {
    let Ok((_, height, width, channels)) = images.dims4() else {
        return misfit("max_pool2d", "[rows, height, width, channels]", images);
    };
    if !(1..=height.min(width).min(16)).contains(&size) {
        return Err(Error::Msg(format!("max_pool2d: squares of {size} pixels a side do not fit {height} x {width}")));
    }
    let layer = MaxPool { name: String::new(), input: Image { height, width, channels }, size };
    images.contiguous()?.apply_op1(Pooling { layer, kept: Mutex::default() })
}

struct Pooling {
    layer: MaxPool,
    /// Where the largest values were, by part.
    kept: Mutex<Vec<Kept>>,
}

impl CustomOp1 for Pooling {
    fn name(&self) -> &'static str {
        "max_pool2d"
    }

    fn cpu_fwd(&self, images: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let images = values(images, layout)?;
        let (rows, Image { height, width, channels }) = (images.len() / self.layer.inputs(), self.layer.output());
        let mut output = vec![0.0; rows * self.layer.outputs()];
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.resize_with(rows.div_ceil(PART), Kept::default);
        let outputs = output.par_chunks_mut(PART * self.layer.outputs());
        let parts = outputs.zip(images.par_chunks(PART * self.layer.inputs())).zip(kept.par_iter_mut()).with_max_len(1);
        parts.for_each(|((output, images), kept)| self.layer.forward(&[], images, output, kept, None));
        Ok((CpuStorage::F32(output), (rows, height, width, channels).into()))
    }

    fn bwd(&self, images: &Tensor, output: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let mut output_gradient = look(gradient, <[f32]>::to_vec)?;
        let mut input_gradient = vec![0.0; images.elem_count()];
        look(output, |output| {
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            let (inputs, outputs) = (PART * self.layer.inputs(), PART * self.layer.outputs());
            let gradients = output_gradient.par_chunks_mut(outputs).zip(input_gradient.par_chunks_mut(inputs));
            let parts = gradients.zip(output.par_chunks(outputs)).zip(kept.par_iter_mut()).with_max_len(1);
            parts.for_each(|(((output_gradient, input_gradient), output), kept)| {
                let pass = Pass { input: &[], output, output_gradient, input_gradient: Some(input_gradient) };
                self.layer.backward(&[], pass, &mut [], kept);
            });
        })?;
        Tensor::from_vec(input_gradient, images.shape(), images.device()).map(Some)
    }
}
