//! Convolutions on a device.
//!
//! As on the processor a convolution is a product of the matrix of all patches with the kernel. The patches are gathered
//! by a list of pixels, in which one beyond the last stands for the zeros around the image. So is the gradient of the
//! input: each pixel gathers the outputs that it went into, and nothing is added up out of order.

use super::layer::{Carried, Gradients, Kept, Layer, Takes, product, sum_rows};
use crate::train::Activation;
use crate::train::network::conv::Image;
use candle_core::{Device, Result, Tensor};

/// `activation(input * kernel + bias)` with stride 1, of images with the channels last.
pub(in crate::train) struct Conv {
    input: Image,
    output: Image,
    kernel: usize,
    activation: Activation,
    /// The pixels of every output pixel's patch.
    patches: Tensor,
    /// The output pixels that every input pixel goes into, by place in the kernel.
    back: Tensor,
}

impl Conv {
    /// `padding` is the rows and columns of zeros that are thought above and left of the image.
    pub(in crate::train) fn new(
        (input, output): (Image, Image),
        (kernel, padding): (usize, usize),
        activation: Activation,
        device: &Device,
    ) -> Result<Self> {
        // Which pixel of the other image a pixel meets at a place of the kernel.
        let met = |from: Image, to: Image, meet: &dyn Fn(usize, usize) -> Option<usize>| {
            let mut pixels = Vec::with_capacity(from.height * from.width * kernel * kernel);
            for (y, x) in (0..from.height).flat_map(|y| (0..from.width).map(move |x| (y, x))) {
                for (ky, kx) in (0..kernel).flat_map(|ky| (0..kernel).map(move |kx| (ky, kx))) {
                    let y = meet(y, ky).filter(|y| *y < to.height);
                    let x = meet(x, kx).filter(|x| *x < to.width);
                    let pixel = y.zip(x).map_or(to.height * to.width, |(y, x)| y * to.width + x);
                    pixels.push(pixel as u32);
                }
            }
            Tensor::new(pixels, device)
        };
        let patches = met(output, input, &|at, step| (at + step).checked_sub(padding))?;
        let back = met(input, output, &|at, step| (at + padding).checked_sub(step))?;
        Ok(Self { input, output, kernel, activation, patches, back })
    }

    fn places(&self) -> usize {
        self.kernel * self.kernel
    }

    /// The matrix of the patches: a row for each of the `image`'s counterparts that `list` is of.
    fn gather(&self, pixels: &Tensor, image: Image, list: &Tensor) -> Result<Tensor> {
        let pixels = pixels.reshape(((), image.height * image.width, image.channels))?.pad_with_zeros(1, 0, 1)?;
        pixels.index_select(list, 1)?.reshape(((), self.places() * image.channels))
    }

    fn matrix(&self, kernel: &Tensor) -> Result<Tensor> {
        kernel.reshape((self.places() * self.input.channels, self.output.channels))
    }
}

impl Layer for Conv {
    fn forward(&self, weights: &[Tensor], input: &Tensor, _: &mut Carried<'_>) -> Result<(Tensor, Kept)> {
        let sums = product(&self.gather(input, self.input, &self.patches)?, &self.matrix(&weights[0])?)?;
        let output = self.activation.activate(&sums, &weights[1])?;
        Ok((output.reshape(((), self.output.values()))?, Kept::of([input.clone(), output])))
    }

    fn backward(&self, weights: &[Tensor], kept: Kept, gradient: &Tensor, wanted: bool) -> Result<Gradients> {
        let [input, output] = kept.take()?;
        let channels = self.output.channels;
        let sums = self.activation.slope(&output, &gradient.reshape(((), channels))?)?;
        // Gathered again rather than kept: it is the largest of all.
        let columns = self.gather(&input, self.input, &self.patches)?;
        let weight = product(&columns.t()?, &sums)?.reshape(weights[0].shape())?;
        let own = vec![weight, sum_rows(&sums)?];
        drop(columns);
        let inner = || {
            let kernel = weights[0].reshape((self.places(), self.input.channels, channels))?;
            let kernel = kernel.transpose(1, 2)?.contiguous()?.reshape(((), self.input.channels))?;
            let inner = product(&self.gather(&sums, self.output, &self.back)?, &kernel)?;
            inner.reshape(((), self.input.values()))
        };
        Ok(Gradients { weights: own, input: wanted.then(inner).transpose()? })
    }

    fn takes(&self, width: usize) -> Takes {
        let output = self.output.values();
        let patches = self.places() * width.max(output);
        Takes { output, kept: output, scratch: patches + width + 3 * output, apart: 0 }
    }
}
