//! Where an engine finds the rows of a step.

use super::engine::{Examples, Picked, Target};
use super::labels::Labels;
use super::loss::Truth;
use super::stream::{Here, Source, Stream};
use ropeway_framework::Result;
use ropeway_framework::stage::Cancel;
use std::ops::Range;
use std::sync::Arc;

/// The rows that are trained on.
pub(super) enum Training<'a> {
    Whole(&'a Examples),
    Streamed(Box<Stream>, Option<Arc<Labels>>),
}

/// The rows that are validated with.
pub(super) enum Validation<'a> {
    Whole(&'a Examples),
    Streamed(Arc<Source>, Cancel),
}

/// The rows of one step.
pub(super) enum Lesson<'a> {
    Whole(&'a Examples, &'a [u32]),
    Streamed(Here<'a>),
}

impl<'a> Training<'a> {
    /// All rows, if they are in memory.
    pub(super) fn whole(&self) -> Option<&'a Examples> {
        match self {
            Training::Whole(examples) => Some(examples),
            Training::Streamed(..) => None,
        }
    }

    /// Gets ready for a step.
    ///
    /// # Errors
    /// Rows that can't be read, or the training is to stop.
    pub(super) fn seek(&mut self, epoch: u64, step: usize, mine: &Range<usize>) -> Result<()> {
        match self {
            Training::Whole(_) => Ok(()),
            Training::Streamed(stream, _) => stream.seek(epoch, step, mine),
        }
    }

    /// The step that it is ready for, which takes these rows.
    ///
    /// # Errors
    /// It is not ready for any.
    pub(super) fn lesson<'l>(&'l self, rows: &'l [u32]) -> Result<Lesson<'l>> {
        match self {
            Training::Whole(examples) => Ok(Lesson::Whole(examples, rows)),
            Training::Streamed(stream, _) => stream.here().map(Lesson::Streamed),
        }
    }

    /// The weights of some rows in the loss, in all: of their classes, or 1 each if there are none.
    pub(super) fn weight(&self, rows: &[u32], weights: &[f32]) -> f64 {
        let sum =
            |class: &dyn Fn(usize) -> usize| rows.iter().map(|row| f64::from(weights[class(*row as usize)])).sum();
        match self {
            _ if weights.is_empty() => rows.len() as f64,
            Training::Whole(Examples { target: Target::Classes(classes), .. }) => sum(&|row| classes[row] as usize),
            Training::Streamed(_, Some(labels)) => sum(&|row| labels.get(row)),
            Training::Whole(_) | Training::Streamed(..) => rows.len() as f64,
        }
    }
}

impl Lesson<'_> {
    /// Writes the features of a part of its rows, one after the other.
    pub(super) fn gather(&self, part: &Range<usize>, out: &mut [f32]) {
        match self {
            Lesson::Whole(examples, rows) => {
                examples.features.gather(rows[part.clone()].iter().map(|row| *row as usize), out);
            }
            Lesson::Streamed(here) => here.rows.gather(here.place(part), out),
        }
    }

    /// What a part of its rows is to give.
    pub(super) fn truth<'a>(&self, part: &Range<usize>, picked: &'a mut Picked) -> Truth<'a> {
        match self {
            Lesson::Whole(examples, rows) => examples.truth(rows[part.clone()].iter().map(|row| *row as usize), picked),
            Lesson::Streamed(here) => here.rows.truth(here.place(part), picked),
        }
    }
}

impl<'a> Validation<'a> {
    /// All rows, if they are in memory.
    pub(super) fn whole(&self) -> Option<&'a Examples> {
        match self {
            Validation::Whole(examples) => Some(examples),
            Validation::Streamed(..) => None,
        }
    }

    pub(super) fn rows(&self) -> usize {
        match self {
            Validation::Whole(examples) => examples.features.rows(),
            Validation::Streamed(source, _) => source.rows(),
        }
    }
}
