//! The rows of a step, as a device finds them.

use crate::train::augment::Augmenter;
use crate::train::engine::{Examples, Picked};
use crate::train::lesson::Lesson;
use crate::train::loss::Truth;
use candle_core::{DType, Device, Result, Tensor};
use ropeway_framework::stage::Seed;
use std::ops::Range;

/// Rows that are sent to a device at once when it is to keep all.
const PART: usize = 4096;

/// Rows that are computed on together. Parts of them are named by their places among them.
pub(super) struct Batch<'a> {
    pub(super) lesson: Lesson<'a>,
    /// Their numbers.
    pub(super) rows: &'a [u32],
    /// Values of a row.
    pub(super) width: usize,
}

impl Batch<'_> {
    /// The features of a part: from those of all rows by their numbers, if they are `there`. `changed` is how their
    /// images are changed, if they are.
    pub(super) fn features(
        &self,
        part: &Range<usize>,
        there: Option<&Tensor>,
        changed: Option<(&Augmenter, &Seed)>,
        dtype: DType,
        device: &Device,
    ) -> Result<Tensor> {
        let numbers = &self.rows[part.clone()];
        if let (Some(all), None) = (there, changed) {
            return all.index_select(&Tensor::new(numbers, device)?, 0);
        }
        let mut values = vec![0.0; part.len() * self.width];
        self.lesson.gather(part, &mut values);
        if let Some((augmenter, chance)) = changed {
            augmenter.apply(part.clone(), &mut values, chance);
        }
        Tensor::from_vec(values, (part.len(), self.width), device)?.to_dtype(dtype)
    }

    /// What a part is to give: a class or a number a row.
    pub(super) fn truth(&self, part: &Range<usize>) -> Vec<f32> {
        match self.lesson.truth(part, &mut Picked::default()) {
            Truth::Classes(classes) => classes.iter().map(|class| *class as f32).collect(),
            Truth::Numbers(numbers) => numbers.to_vec(),
        }
    }

    /// How much each row of a part counts in the loss, by the weights of the classes.
    pub(super) fn weights(&self, part: &Range<usize>, classes: &[f32]) -> Vec<f32> {
        match self.lesson.truth(part, &mut Picked::default()) {
            Truth::Classes(of) => of.iter().map(|class| classes.get(*class as usize).copied().unwrap_or(1.0)).collect(),
            Truth::Numbers(numbers) => vec![1.0; numbers.len()],
        }
    }
}

/// Sends the features of all rows to a device, to stay there.
pub(super) fn send(examples: &Examples, dtype: DType, device: &Device) -> Result<Tensor> {
    let (rows, width) = (examples.features.rows(), examples.features.width());
    let part = |start: usize| {
        let place = start..rows.min(start + PART);
        let (shape, mut values) = ((place.len(), width), vec![0.0; place.len() * width]);
        examples.features.gather(place, &mut values);
        Tensor::from_vec(values, shape, device)?.to_dtype(dtype)
    };
    Tensor::cat(&(0..rows).step_by(PART).map(part).collect::<Result<Vec<_>>>()?, 0)
}
