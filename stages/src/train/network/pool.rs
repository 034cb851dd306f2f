//! Max pooling, and the turn from channels first to channels last.

use super::conv::Image;
use super::layer::{Kept, Layer, Pass};
use super::simd::vectorized;
use crate::train::device;
use candle_core::Device;
use rand::Rng;

/// The largest value of every square of `size` by `size` pixels; pixels beyond the last whole square are dropped.
pub(in crate::train) struct MaxPool {
    pub(in crate::train) name: String,
    pub(in crate::train) input: Image,
    /// At most 16, so that a place in the square fits a byte.
    pub(in crate::train) size: usize,
}

impl MaxPool {
    pub(in crate::train) fn output(&self) -> Image {
        Image { height: self.input.height / self.size, width: self.input.width / self.size, ..self.input }
    }

    /// Calls `visit` with every square: where it begins in the input, and in the output.
    #[inline(always)]
    fn squares(&self, rows: usize, mut visit: impl FnMut(usize, usize)) {
        let (input, output) = (self.input, self.output());
        for row in 0..rows {
            for y in 0..output.height {
                for x in 0..output.width {
                    let from = ((row * input.height + y * self.size) * input.width + x * self.size) * input.channels;
                    let to = ((row * output.height + y) * output.width + x) * output.channels;
                    visit(from, to);
                }
            }
        }
    }

    #[inline(always)]
    fn pool(&self, input: &[f32], output: &mut [f32], marks: &mut [u8]) {
        let channels = self.input.channels;
        self.squares(input.len() / self.input.values(), |from, to| {
            let (best, marks) = (&mut output[to..to + channels], &mut marks[to..to + channels]);
            best.copy_from_slice(&input[from..from + channels]);
            marks.fill(0);
            for place in 1..self.size * self.size {
                let start = from + (place / self.size * self.input.width + place % self.size) * channels;
                let values = &input[start..start + channels];
                for ((best, mark), value) in best.iter_mut().zip(marks.iter_mut()).zip(values) {
                    let larger = *value > *best;
                    *best = if larger { *value } else { *best };
                    *mark = if larger { place as u8 } else { *mark };
                }
            }
        });
    }

    #[inline(always)]
    fn unpool(&self, output_gradient: &[f32], marks: &[u8], input_gradient: &mut [f32]) {
        let channels = self.input.channels;
        if !self.input.height.is_multiple_of(self.size) || !self.input.width.is_multiple_of(self.size) {
            input_gradient.fill(0.0);
        }
        self.squares(input_gradient.len() / self.input.values(), |from, to| {
            let (gradient, marks) = (&output_gradient[to..to + channels], &marks[to..to + channels]);
            for place in 0..self.size * self.size {
                let start = from + (place / self.size * self.input.width + place % self.size) * channels;
                let values = &mut input_gradient[start..start + channels];
                for ((value, gradient), mark) in values.iter_mut().zip(gradient).zip(marks) {
                    *value = if usize::from(*mark) == place { *gradient } else { 0.0 };
                }
            }
        });
    }
}

impl Layer for MaxPool {
    fn name(&self) -> &str {
        &self.name
    }

    fn inputs(&self) -> usize {
        self.input.values()
    }

    fn outputs(&self) -> usize {
        self.output().values()
    }

    fn on_device(&self, device: &Device) -> candle_core::Result<Box<dyn device::Layer>> {
        Ok(Box::new(device::MaxPool::new(self.input, self.output(), self.size, device)?))
    }

    fn forward(&self, _: &[f32], input: &[f32], output: &mut [f32], kept: &mut Kept, _: Option<&mut dyn Rng>) {
        kept.marks.resize(output.len(), 0);
        vectorized(
            #[inline(always)]
            || self.pool(input, output, &mut kept.marks),
        );
    }

    fn backward(&self, _: &[f32], pass: Pass<'_>, _: &mut [f32], kept: &mut Kept) {
        if let Some(input_gradient) = pass.input_gradient {
            vectorized(
                #[inline(always)]
                || self.unpool(pass.output_gradient, &kept.marks, input_gradient),
            );
        }
    }
}

/// Turns images that lie channel by channel, as data sets give them, into images with the channels last.
pub(super) struct ChannelsLast {
    pub(super) name: String,
    pub(super) image: Image,
}

impl Layer for ChannelsLast {
    fn name(&self) -> &str {
        &self.name
    }

    fn inputs(&self) -> usize {
        self.image.values()
    }

    fn outputs(&self) -> usize {
        self.image.values()
    }

    fn on_device(&self, _: &Device) -> candle_core::Result<Box<dyn device::Layer>> {
        Ok(Box::new(device::ChannelsLast(self.image)))
    }

    fn forward(&self, _: &[f32], input: &[f32], output: &mut [f32], _: &mut Kept, _: Option<&mut dyn Rng>) {
        let (pixels, channels) = (self.image.height * self.image.width, self.image.channels);
        let images = input.chunks_exact(self.inputs()).zip(output.chunks_exact_mut(self.inputs()));
        for (from, to) in images {
            for (pixel, to) in to.chunks_exact_mut(channels).enumerate() {
                for (channel, value) in to.iter_mut().enumerate() {
                    *value = from[channel * pixels + pixel];
                }
            }
        }
    }

    fn backward(&self, _: &[f32], pass: Pass<'_>, _: &mut [f32], _: &mut Kept) {
        let Some(input_gradient) = pass.input_gradient else { return };
        let (pixels, channels) = (self.image.height * self.image.width, self.image.channels);
        let images =
            pass.output_gradient.chunks_exact(self.inputs()).zip(input_gradient.chunks_exact_mut(self.inputs()));
        for (from, to) in images {
            for (pixel, from) in from.chunks_exact(channels).enumerate() {
                for (channel, value) in from.iter().enumerate() {
                    to[channel * pixels + pixel] = *value;
                }
            }
        }
    }
}
