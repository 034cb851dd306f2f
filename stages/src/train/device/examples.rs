//! The rows of a part, as a device finds them.

use crate::train::augment::Augmenter;
use crate::train::engine::{Examples, Target};
use candle_core::{DType, Device, Result, Tensor};
use ropeway_framework::stage::Seed;

/// Rows that are sent to a device at once when it is to keep all.
const PART: usize = 4096;

/// Examples, and their features on the device if it has room for all of them.
pub(super) struct Source<'a> {
    pub(super) examples: &'a Examples,
    there: Option<Tensor>,
}

impl<'a> Source<'a> {
    /// Examples whose rows are sent when they are needed.
    pub(super) fn of(examples: &'a Examples) -> Self {
        Self { examples, there: None }
    }

    pub(super) fn rows(&self) -> usize {
        self.examples.features.rows()
    }

    /// Bytes of all features.
    pub(super) fn bytes(&self, dtype: DType) -> u64 {
        (self.rows() * self.examples.features.width() * dtype.size_in_bytes()) as u64
    }

    /// Sends all features, to stay there.
    pub(super) fn send(&mut self, dtype: DType, device: &Device) -> Result<()> {
        let starts = (0..self.rows()).step_by(PART);
        let parts = starts.map(|start| self.gather(start..self.rows().min(start + PART), dtype, device));
        self.there = Some(Tensor::cat(&parts.collect::<Result<Vec<_>>>()?, 0)?);
        Ok(())
    }

    fn gather(&self, rows: impl ExactSizeIterator<Item = usize>, dtype: DType, device: &Device) -> Result<Tensor> {
        let shape = (rows.len(), self.examples.features.width());
        let mut values = vec![0.0; shape.0 * shape.1];
        self.examples.features.gather(rows, &mut values);
        Tensor::from_vec(values, shape, device)?.to_dtype(dtype)
    }

    /// The features of some rows; `changed` is how their images are changed, if they are.
    pub(super) fn features(
        &self,
        rows: &[u32],
        changed: Option<(&Augmenter, &Seed)>,
        dtype: DType,
        device: &Device,
    ) -> Result<Tensor> {
        if let Some((augmenter, chance)) = changed {
            let width = self.examples.features.width();
            let mut values = vec![0.0; rows.len() * width];
            self.examples.features.gather(rows.iter().map(|row| *row as usize), &mut values);
            augmenter.apply(rows, &mut values, chance);
            return Tensor::from_vec(values, (rows.len(), width), device)?.to_dtype(dtype);
        }
        match &self.there {
            Some(all) => all.index_select(&Tensor::new(rows, device)?, 0),
            None => self.gather(rows.iter().map(|row| *row as usize), dtype, device),
        }
    }

    /// What some rows are to give: a class or a number each.
    pub(super) fn truth(&self, rows: &[u32]) -> Vec<f32> {
        match &self.examples.target {
            Target::Classes(classes) => rows.iter().map(|row| classes[*row as usize] as f32).collect(),
            Target::Numbers(numbers) => rows.iter().map(|row| numbers[*row as usize]).collect(),
        }
    }

    /// How much a row counts in the loss.
    pub(super) fn weight(&self, row: u32, classes: &[f32]) -> f32 {
        match &self.examples.target {
            Target::Classes(of) => classes.get(of[row as usize] as usize).copied().unwrap_or(1.0),
            Target::Numbers(_) => 1.0,
        }
    }
}
