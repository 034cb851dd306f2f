//! Convolutions over images, channels last.
//!
//! A convolution is a product of the matrix of all patches with the kernel (im2col; Chellapilla et al., "High
//! Performance Convolutional Neural Networks for Document Processing", 2006). A few images at a time, so that the
//! patches stay in the processor's cache; the backward pass gathers them again rather than keep them.

use super::activation::Activation;
use super::layer::{Kept, Layer, Parameter, Pass, Start};
use super::matrix::{Matrix, multiply};
use super::simd::vectorized;
use crate::train::device;
use candle_core::Device;
use rand::Rng;

/// Values of the patch matrix that are held at once, unless one image has more.
const BLOCK: usize = 48 * 1024;

/// The sides of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::train) struct Image {
    pub(in crate::train) height: usize,
    pub(in crate::train) width: usize,
    pub(in crate::train) channels: usize,
}

impl Image {
    pub(in crate::train) fn values(self) -> usize {
        self.height * self.width * self.channels
    }
}

/// `activation(input * kernel + bias)` with stride 1, with a weight of shape
/// `[kernel, kernel, input channels, output channels]`.
pub(in crate::train) struct Conv {
    pub(in crate::train) name: String,
    pub(in crate::train) input: Image,
    pub(in crate::train) output: Image,
    pub(in crate::train) kernel: usize,
    /// Rows and columns of zeros that are thought above and left of the image.
    pub(in crate::train) padding: usize,
    pub(in crate::train) activation: Activation,
    pub(in crate::train) start: Start,
}

impl Conv {
    fn patch(&self) -> usize {
        self.kernel * self.kernel * self.input.channels
    }

    fn pixels(&self) -> usize {
        self.output.height * self.output.width
    }

    /// How many images are worked on at once.
    fn images(&self) -> usize {
        (BLOCK / (self.pixels() * self.patch())).max(1)
    }

    /// The part of a patch row that lies in the image: where it starts in the patch, in the image's row, and its
    /// length, in pixels.
    #[inline(always)]
    fn overlap(&self, x: usize) -> (usize, usize, usize) {
        let skip = self.padding.saturating_sub(x);
        let from = (x + skip) - self.padding;
        (skip, from, (self.kernel - skip).min(self.input.width - from))
    }

    /// Writes one row a pixel: the patch around it.
    #[inline(always)]
    fn gather(&self, images: &[f32], columns: &mut [f32]) {
        let (channels, run) = (self.input.channels, self.kernel * self.input.channels);
        let inside = self.padding..(self.input.width + self.padding + 1).saturating_sub(self.kernel);
        let mut patches = columns.chunks_exact_mut(self.patch());
        for image in images.chunks_exact(self.input.values()) {
            for y in 0..self.output.height {
                for (x, patch) in (0..self.output.width).zip(&mut patches) {
                    let (skip, from, count) = self.overlap(x);
                    for (ky, part) in patch.chunks_exact_mut(run).enumerate() {
                        let row = (y + ky).wrapping_sub(self.padding);
                        if row >= self.input.height {
                            part.fill(0.0);
                            continue;
                        }
                        let start = (row * self.input.width + from) * channels;
                        if inside.contains(&x) {
                            copy(&image[start..start + run], part);
                        } else {
                            part.fill(0.0);
                            let part = &mut part[skip * channels..(skip + count) * channels];
                            copy(&image[start..start + count * channels], part);
                        }
                    }
                }
            }
        }
    }

    /// Adds every patch's gradient to the pixels that it was made of.
    #[inline(always)]
    fn scatter(&self, columns: &[f32], images: &mut [f32]) {
        images.fill(0.0);
        let (channels, run) = (self.input.channels, self.kernel * self.input.channels);
        let mut patches = columns.chunks_exact(self.patch());
        for image in images.chunks_exact_mut(self.input.values()) {
            for y in 0..self.output.height {
                for (x, patch) in (0..self.output.width).zip(&mut patches) {
                    let (skip, from, count) = self.overlap(x);
                    for (ky, part) in patch.chunks_exact(run).enumerate() {
                        let row = (y + ky).wrapping_sub(self.padding);
                        if row >= self.input.height {
                            continue;
                        }
                        let start = (row * self.input.width + from) * channels;
                        let pixels = &mut image[start..start + count * channels];
                        for (pixel, value) in pixels.iter_mut().zip(&part[skip * channels..]) {
                            *pixel += value;
                        }
                    }
                }
            }
        }
    }
}

/// Copies a short run: a plain loop beats a call of `memcpy` for a few values.
#[inline(always)]
fn copy(from: &[f32], to: &mut [f32]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to = *from;
    }
}

impl Layer for Conv {
    fn name(&self) -> &str {
        &self.name
    }

    fn inputs(&self) -> usize {
        self.input.values()
    }

    fn outputs(&self) -> usize {
        self.output.values()
    }

    fn parameters(&self) -> Vec<Parameter> {
        let shape = vec![self.kernel, self.kernel, self.input.channels, self.output.channels];
        vec![
            Parameter { name: "weight".into(), shape, start: self.start },
            Parameter { name: "bias".into(), shape: vec![self.output.channels], start: Start::Zero },
        ]
    }

    fn on_device(&self, device: &Device) -> candle_core::Result<Box<dyn device::Layer>> {
        let sides = (self.kernel, self.padding);
        Ok(Box::new(device::Conv::new((self.input, self.output), sides, self.activation, device)?))
    }

    fn forward(&self, weights: &[f32], input: &[f32], output: &mut [f32], kept: &mut Kept, _: Option<&mut dyn Rng>) {
        let (patch, channels) = (self.patch(), self.output.channels);
        let (weight, bias) = weights.split_at(patch * channels);
        let weight = Matrix::new(weight, patch, channels);
        kept.columns.resize(self.images() * self.pixels() * patch, 0.0);
        let blocks = input.chunks(self.images() * self.inputs()).zip(output.chunks_mut(self.images() * self.outputs()));
        for (input, output) in blocks {
            let pixels = output.len() / channels;
            let columns = &mut kept.columns[..pixels * patch];
            vectorized(
                #[inline(always)]
                || self.gather(input, columns),
            );
            multiply(Matrix::new(columns, pixels, patch), weight, false, output);
            self.activation.forward(bias, output);
        }
    }

    fn backward(&self, weights: &[f32], pass: Pass<'_>, gradient: &mut [f32], kept: &mut Kept) {
        let (patch, channels) = (self.patch(), self.output.channels);
        let weight = Matrix::new(&weights[..patch * channels], patch, channels);
        let (weight_gradient, bias_gradient) = gradient.split_at_mut(patch * channels);
        self.activation.backward(pass.output, pass.output_gradient, bias_gradient);
        let held = self.images() * self.pixels() * patch;
        kept.columns.resize(held, 0.0);
        let mut input_gradient = pass.input_gradient;
        if input_gradient.is_some() {
            kept.column_gradients.resize(held, 0.0);
        }
        let images = self.images();
        let inputs = pass.input.chunks(images * self.inputs());
        let sums = pass.output_gradient.chunks(images * self.outputs());
        for (block, (input, sums)) in inputs.zip(sums).enumerate() {
            let pixels = sums.len() / channels;
            let sums = Matrix::new(sums, pixels, channels);
            let columns = &mut kept.columns[..pixels * patch];
            vectorized(
                #[inline(always)]
                || self.gather(input, columns),
            );
            multiply(Matrix::new(columns, pixels, patch).transposed(), sums, block > 0, weight_gradient);
            if let Some(input_gradient) = &mut input_gradient {
                let start = block * images * self.inputs();
                let columns = &mut kept.column_gradients[..pixels * patch];
                multiply(sums, weight.transposed(), false, columns);
                let images = &mut input_gradient[start..start + input.len()];
                vectorized(
                    #[inline(always)]
                    || self.scatter(columns, images),
                );
            }
        }
    }
}
