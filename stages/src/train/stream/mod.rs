//! Training on rows that come in parts and are never all in memory: a list of tables, such as `map` makes of many files.
//!
//! Every part is looked at once before the first step ([`survey`]): how many rows it has, which classes and categories
//! there are, whether a model can read it. Then each epoch reads the parts again, in an order of its own, and a thread
//! turns rows into numbers ahead of the steps ([`Ahead`]), a window at a time: while one window is trained on, the next
//! is made. Of a window, those who train together make only the rows of their own shards.

mod ahead;
mod source;
mod survey;
mod tally;
mod window;

pub(super) use source::{Given, Source};
pub(super) use survey::{check, survey};
pub(super) use window::Rows;

use super::order::{Epoch, Order};
use ahead::Ahead;
use ropeway_framework::stage::{Cancel, Seed};
use ropeway_framework::{Context, Result};
use source::Gatherer;
use std::ops::Range;
use std::sync::Arc;

/// The rows that one member trains on, step by step.
pub(super) struct Stream {
    source: Arc<Source>,
    order: Order,
    chance: Seed,
    shards: usize,
    cancel: Cancel,
    /// The shards whose rows are read.
    mine: Range<usize>,
    ahead: Option<Ahead<Ready>>,
    ready: Option<Ready>,
    /// The step that it stands at.
    step: usize,
}

/// Steps whose rows are in memory.
struct Ready {
    epoch: u64,
    steps: Range<usize>,
    /// Where each step's rows begin, and where the last one's end.
    starts: Vec<usize>,
    rows: Rows,
}

/// The rows of a step.
pub(super) struct Here<'a> {
    pub(super) rows: &'a Rows,
    /// Where the first of them is, and which row of the batch that is.
    start: usize,
    first: usize,
}

/// Reads one window after the other.
struct Windows {
    gatherer: Gatherer,
    order: Order,
    chance: Seed,
    epoch: u64,
    step: usize,
    at: Option<Epoch>,
    shards: usize,
    mine: Range<usize>,
}

/// Which rows of a batch some shards have.
fn share(rows: usize, mine: &Range<usize>, shards: usize) -> Range<usize> {
    rows * mine.start / shards..rows * mine.end / shards
}

impl Stream {
    pub(super) fn new(source: Arc<Source>, order: Order, chance: Seed, shards: usize, cancel: Cancel) -> Self {
        Self { source, order, chance, shards, cancel, mine: 0..0, ahead: None, ready: None, step: 0 }
    }

    /// Turns to a step, for some shards: their rows are in memory then.
    ///
    /// # Errors
    /// Rows that can't be read, or the training is to stop.
    pub(super) fn seek(&mut self, epoch: u64, step: usize, mine: &Range<usize>) -> Result<()> {
        self.step = step;
        let same = self.mine == *mine;
        if same && self.ready.as_ref().is_some_and(|ready| ready.epoch == epoch && ready.steps.contains(&step)) {
            return Ok(());
        }
        let follows = |ready: &Ready| match ready.steps.end < self.order.steps() {
            true => (ready.epoch, ready.steps.end) == (epoch, step),
            false => (ready.epoch + 1, 0) == (epoch, step),
        };
        if !same || !self.ready.as_ref().is_some_and(follows) {
            self.mine = mine.clone();
            // The old thread ends before the new one begins: there is memory for one of them.
            self.ahead = None;
            let windows = |stop| Windows {
                gatherer: Gatherer::new(self.source.clone(), self.cancel.clone(), stop),
                order: self.order.clone(),
                chance: self.chance.clone(),
                epoch,
                step,
                at: None,
                shards: self.shards,
                mine: self.mine.clone(),
            };
            self.ahead = Some(Ahead::start(windows)?);
        }
        self.ready = None;
        let next = self.ahead.as_mut().map(Ahead::next).transpose()?.flatten();
        self.ready = Some(next.context("there are no more rows to train on")?);
        Ok(())
    }

    /// The rows of the step that it stands at.
    ///
    /// # Errors
    /// It stands nowhere.
    pub(super) fn here(&self) -> Result<Here<'_>> {
        let ready = self.ready.as_ref().context("no rows were read for this step")?;
        let start = ready.starts[self.step - ready.steps.start];
        let first = share(self.order.rows_of(self.step), &self.mine, self.shards).start;
        Ok(Here { rows: &ready.rows, start, first })
    }
}

impl Here<'_> {
    /// Where the rows of a part of the batch lie, which must be of the shards that were sought.
    pub(super) fn place(&self, part: &Range<usize>) -> Range<usize> {
        self.start + part.start - self.first..self.start + part.end - self.first
    }
}

impl Windows {
    fn read(&mut self) -> Result<Ready> {
        let at = self.at.get_or_insert_with(|| self.order.epoch(&self.chance, self.epoch));
        let (parts, end) = {
            let window = at.window(self.step);
            (window.parts.clone(), window.steps.end)
        };
        let steps = self.step..end;
        let (mut rows, mut starts) = (Vec::new(), vec![0]);
        for step in steps.clone() {
            let all = at.step(step);
            rows.extend_from_slice(&all[share(all.len(), &self.mine, self.shards)]);
            starts.push(rows.len());
        }
        let rows = self.gatherer.gather(&parts, &rows)?;
        let ready = Ready { epoch: self.epoch, steps, starts, rows };
        (self.step, self.epoch, self.at) = match end < self.order.steps() {
            true => (end, self.epoch, self.at.take()),
            false => (0, self.epoch + 1, None),
        };
        Ok(ready)
    }
}

/// Without end: whoever needs no more of them stops.
impl Iterator for Windows {
    type Item = Result<Ready>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(self.read())
    }
}
