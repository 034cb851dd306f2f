//! Max pooling, and the turn from channels first to channels last, on a device.

use super::layer::{Carried, Gradients, Kept, Layer, Takes};
use crate::train::network::conv::Image;
use candle_core::{DType, Device, Result, Tensor};

/// The largest value of every square of pixels: the first of equals, as on the processor.
pub(in crate::train) struct MaxPool {
    input: Image,
    output: Image,
    /// By place in a square, the pixel at that place of every square.
    places: Vec<Tensor>,
    /// Which of the squares' places, one place after the other, each pixel is; one beyond the last for a pixel of none.
    back: Tensor,
}

impl MaxPool {
    pub(in crate::train) fn new(input: Image, output: Image, size: usize, device: &Device) -> Result<Self> {
        let (pixels, squares) = (input.height * input.width, output.height * output.width);
        let mut back = vec![(size * size * squares) as u32; pixels];
        let mut places = Vec::new();
        for place in 0..size * size {
            let pixel = |square: usize| {
                let (y, x) = (square / output.width * size, square % output.width * size);
                (y + place / size) * input.width + x + place % size
            };
            (0..squares).for_each(|square| back[pixel(square)] = (place * squares + square) as u32);
            let pixels: Vec<u32> = (0..squares).map(|square| pixel(square) as u32).collect();
            places.push(Tensor::new(pixels, device)?);
        }
        Ok(Self { input, output, places, back: Tensor::new(back, device)? })
    }
}

impl Layer for MaxPool {
    fn forward(&self, _: &[Tensor], input: &Tensor, _: &mut Carried<'_>) -> Result<(Tensor, Kept)> {
        let image = input.reshape(((), self.input.height * self.input.width, self.input.channels))?;
        let mut best = image.index_select(&self.places[0], 1)?;
        let mut marks = best.zeros_like()?.to_dtype(DType::U8)?;
        for (place, pixels) in self.places.iter().enumerate().skip(1) {
            let values = image.index_select(pixels, 1)?;
            let larger = values.gt(&best)?;
            best = larger.where_cond(&values, &best)?;
            marks = larger.where_cond(&Tensor::full(place as u8, marks.shape(), marks.device())?, &marks)?;
        }
        Ok((best.reshape(((), self.output.values()))?, Kept::of([marks])))
    }

    fn backward(&self, _: &[Tensor], kept: Kept, gradient: &Tensor, wanted: bool) -> Result<Gradients> {
        let [marks] = kept.take()?;
        let inner = || {
            let outer = gradient.reshape(marks.shape())?;
            let none = outer.zeros_like()?;
            let at = |place: usize| marks.eq(place as u8)?.where_cond(&outer, &none);
            let all = (0..self.places.len()).map(at).collect::<Result<Vec<_>>>()?;
            let all = Tensor::cat(&all, 1)?.pad_with_zeros(1, 0, 1)?;
            all.index_select(&self.back, 1)?.reshape(((), self.input.values()))
        };
        Ok(Gradients { weights: Vec::new(), input: wanted.then(inner).transpose()? })
    }

    fn takes(&self, _: usize) -> Takes {
        let output = self.output.values();
        Takes { output, kept: 2 * output, scratch: 4 * self.input.values() + 2 * output, apart: 0 }
    }
}

/// Turns images that lie channel by channel into images with the channels last.
pub(in crate::train) struct ChannelsLast(pub(in crate::train) Image);

impl ChannelsLast {
    fn turn(values: &Tensor, outer: usize, inner: usize) -> Result<Tensor> {
        values.reshape(((), outer, inner))?.transpose(1, 2)?.contiguous()?.reshape(((), outer * inner))
    }
}

impl Layer for ChannelsLast {
    fn forward(&self, _: &[Tensor], input: &Tensor, _: &mut Carried<'_>) -> Result<(Tensor, Kept)> {
        let Image { height, width, channels } = self.0;
        Ok((Self::turn(input, channels, height * width)?, Kept::default()))
    }

    fn backward(&self, _: &[Tensor], _: Kept, gradient: &Tensor, wanted: bool) -> Result<Gradients> {
        let Image { height, width, channels } = self.0;
        let input = wanted.then(|| Self::turn(gradient, height * width, channels)).transpose()?;
        Ok(Gradients { weights: Vec::new(), input })
    }

    fn takes(&self, width: usize) -> Takes {
        Takes { output: width, kept: width, scratch: width, apart: 0 }
    }
}
