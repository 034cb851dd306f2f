//! The validation part, on devices: block by block, by turns.

use super::engine::DeviceEngine;
use super::examples::Batch;
use super::replica::Replica;
use crate::train::engine::VALIDATED;
use crate::train::lesson::{Lesson, Validation};
use crate::train::loss::Sums;
use candle_core::Tensor;
use ropeway_framework::Result;
use std::ops::Range;

/// Rows that are looked at together.
pub(super) const BLOCK: usize = 1024;

const _: () = assert!(VALIDATED.is_multiple_of(BLOCK));

impl DeviceEngine<'_> {
    /// The losses of blocks of the validation part.
    ///
    /// # Errors
    /// A device that fails, or rows that can't be read.
    pub(super) fn evaluate_there(&self, weights: &[f32], blocks: Range<usize>) -> Result<Vec<Sums>> {
        let Some(valid) = &self.valid else { return Ok(Vec::new()) };
        let (views, width) = (self.views(&self.flat(weights)?)?, self.width);
        let place = blocks.start * BLOCK..valid.rows().min(blocks.end * BLOCK);
        let numbers = |count: usize| (0..count).map(|row| row as u32).collect::<Vec<u32>>();
        match valid {
            Validation::Whole(examples) => {
                let rows = numbers(valid.rows());
                let batch = Batch { lesson: Lesson::Whole(examples, &rows), rows: &rows, width };
                self.validate(&views, &batch, place)
            }
            Validation::Streamed(source, cancel) => {
                let (mut windows, mut sums) = (source.in_order(place, VALIDATED, cancel)?, Vec::new());
                while let Some(window) = windows.next()? {
                    let rows = numbers(window.len());
                    let batch = Batch { lesson: Lesson::Streamed(window.all()), rows: &rows, width };
                    sums.extend(self.validate(&views, &batch, 0..rows.len())?);
                }
                Ok(sums)
            }
        }
    }

    /// What the rows of a batch lose, block by block; the devices take turns.
    fn validate(&self, views: &[Vec<Tensor>], batch: &Batch<'_>, rows: Range<usize>) -> Result<Vec<Sums>> {
        let starts = rows.clone().step_by(BLOCK);
        let look = |(start, (replica, weights)): (usize, (&Replica, &Vec<Tensor>))| {
            let block = start..rows.end.min(start + BLOCK);
            Ok((replica.losses(weights, batch, block.clone())?, block))
        };
        // All are set to work before any is waited for.
        let found = starts.zip(self.replicas.iter().zip(views).cycle()).map(look).collect::<Result<Vec<_>>>()?;
        let read = |(losses, block): (Tensor, Range<usize>)| {
            let losses = losses.flatten_all()?.to_vec1::<f32>()?;
            Ok(self.sums(batch, &block, losses.split_at(block.len())))
        };
        found.into_iter().map(read).collect()
    }
}
