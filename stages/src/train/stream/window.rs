//! Rows that were read, in the order in which they are used.

use super::Here;
use crate::train::engine::{Examples, Picked, Target};
use crate::train::loss::Truth;
use std::ops::Range;

/// Rows in the order in which they were asked for; one that occurs several times is kept once.
pub(in crate::train) struct Rows {
    /// As they were read, some together.
    chunks: Vec<Examples>,
    /// For each row the chunk and the place there.
    places: Vec<(u32, u32)>,
}

impl Rows {
    pub(super) fn new(chunks: Vec<Examples>, places: Vec<(u32, u32)>) -> Self {
        Self { chunks, places }
    }

    pub(in crate::train) fn len(&self) -> usize {
        self.places.len()
    }

    /// All of them, as a batch.
    pub(in crate::train) fn all(&self) -> Here<'_> {
        Here { rows: self, start: 0, first: 0 }
    }

    /// Writes the features of some of them, one row after the other.
    pub(in crate::train) fn gather(&self, rows: Range<usize>, out: &mut [f32]) {
        let width = self.chunks.first().map_or(1, |chunk| chunk.features.width()).max(1);
        for ((chunk, row), out) in self.places[rows].iter().zip(out.chunks_exact_mut(width)) {
            self.chunks[*chunk as usize].features.gather(std::iter::once(*row as usize), out);
        }
    }

    /// What some of them are to give.
    pub(in crate::train) fn truth<'a>(&self, rows: Range<usize>, picked: &'a mut Picked) -> Truth<'a> {
        picked.clear();
        for (chunk, row) in &self.places[rows] {
            match &self.chunks[*chunk as usize].target {
                Target::Classes(classes) => picked.classes.push(classes[*row as usize]),
                Target::Numbers(numbers) => picked.numbers.push(numbers[*row as usize]),
            }
        }
        // All chunks have targets of one kind.
        match self.chunks.first().map(|chunk| &chunk.target) {
            Some(Target::Numbers(_)) => Truth::Numbers(&picked.numbers),
            _ => Truth::Classes(&picked.classes),
        }
    }
}
