//! Parts, and their rows as examples.

use super::ahead::Ahead;
use super::window::Rows;
use crate::train::engine::Examples;
use crate::train::fitted::Description;
use crate::train::stage::examples;
use arrow::array::UInt32Array;
use arrow::compute::take_record_batch;
use ropeway_framework::data::Frame;
use ropeway_framework::stage::{Apply, Cancel, Parts};
use ropeway_framework::{Context, Result};
use std::ops::Range;
use std::sync::Arc;

/// Rows that are turned into numbers at once.
pub(super) const CHUNK: usize = 4096;

/// An input that comes in parts.
#[derive(Clone)]
pub(in crate::train) struct Given {
    /// The input's name.
    pub(in crate::train) input: &'static str,
    pub(in crate::train) parts: Parts<Frame>,
    /// The fitted transform that its rows go through.
    pub(in crate::train) features: Option<Arc<dyn Apply>>,
}

/// An input in parts whose rows a model can read.
pub(in crate::train) struct Source {
    given: Given,
    description: Description,
    /// Where each part's rows begin, and where the last one's end.
    starts: Vec<u32>,
}

impl Given {
    /// A part as it was given.
    pub(super) fn part(&self, index: usize) -> Result<Frame> {
        self.parts.get(index).context(format!("input {:?}", self.input))
    }

    /// What the features make of rows.
    pub(in crate::train) fn transformed(&self, rows: Frame, threads: usize) -> Result<Frame> {
        match &self.features {
            Some(features) => features.apply_on(&rows, threads),
            None => Ok(rows),
        }
    }

    /// What to call a part in an error.
    pub(super) fn name(&self, part: usize) -> String {
        format!("input {:?}: part {part}", self.input)
    }
}

impl Source {
    pub(in crate::train) fn new(given: Given, description: Description, sizes: &[usize]) -> Self {
        let mut starts = vec![0];
        let mut end = 0u32;
        for size in sizes {
            // Checked where rows are numbered for their order.
            end = end.saturating_add(u32::try_from(*size).unwrap_or(u32::MAX));
            starts.push(end);
        }
        Self { given, description, starts }
    }

    /// How many rows.
    pub(in crate::train) fn rows(&self) -> usize {
        self.starts.last().map_or(0, |end| *end as usize)
    }

    fn part(&self, index: usize) -> Range<u32> {
        self.starts[index]..self.starts[index + 1]
    }

    /// Reads rows one after the other, so many together.
    ///
    /// # Errors
    /// The system gives no thread.
    pub(in crate::train) fn in_order(
        self: &Arc<Self>,
        rows: Range<usize>,
        together: usize,
        cancel: &Cancel,
    ) -> Result<Ahead<Rows>> {
        let (source, cancel) = (self.clone(), cancel.clone());
        Ahead::start(move |stop| {
            let mut gatherer = Gatherer::new(source, cancel, stop);
            rows.clone().step_by(together).map(move |start| {
                let wanted: Vec<u32> = (start..rows.end.min(start + together)).map(|row| row as u32).collect();
                let parts: Vec<usize> = (0..gatherer.source.starts.len() - 1).collect();
                gatherer.gather(&parts, &wanted)
            })
        })
    }
}

/// Reads rows of a source; it holds the part that it read last.
pub(super) struct Gatherer {
    source: Arc<Source>,
    cancel: Cancel,
    stop: Cancel,
    last: Option<(usize, Frame)>,
}

impl Gatherer {
    /// One that fails soon after it is told to stop by either.
    pub(super) fn new(source: Arc<Source>, cancel: Cancel, stop: Cancel) -> Self {
        Self { source, cancel, stop, last: None }
    }

    /// Reads rows of these parts, each part once, in this order.
    pub(super) fn gather(&mut self, parts: &[usize], rows: &[u32]) -> Result<Rows> {
        let mut sorted = rows.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        let mut places = vec![(0, 0); sorted.len()];
        let mut chunks = Vec::new();
        for part in parts {
            let all = self.source.part(*part);
            let within = |end: u32| sorted.partition_point(|row| *row < end);
            let (rows, places) =
                (&sorted[within(all.start)..within(all.end)], &mut places[within(all.start)..within(all.end)]);
            for (rows, places) in rows.chunks(CHUNK).zip(places.chunks_mut(CHUNK)) {
                self.cancel.check().and(self.stop.check())?;
                let within: Vec<usize> = rows.iter().map(|row| (row - all.start) as usize).collect();
                places.iter_mut().enumerate().for_each(|(row, place)| *place = (chunks.len() as u32, row as u32));
                chunks.push(self.chunk(*part, &within)?);
            }
        }
        let place = |row: &u32| places[sorted.partition_point(|other| other < row)];
        Ok(Rows::new(chunks, rows.iter().map(place).collect()))
    }

    fn chunk(&mut self, part: usize, rows: &[usize]) -> Result<Examples> {
        let Source { given, description, .. } = &*self.source;
        let frame = match &self.last {
            Some((last, frame)) if *last == part => frame.clone(),
            _ => {
                // Let go of before the next is read.
                self.last = None;
                let frame = given.part(part)?;
                self.last = Some((part, frame.clone()));
                frame
            }
        };
        let read = || {
            let rows = given.transformed(pick(&frame, rows)?, 1)?;
            let examples = examples(&rows, description, 1)?;
            // A part is let go of when its rows are read.
            Ok(Examples { features: examples.features.detached(), ..examples })
        };
        read().map_err(|error: ropeway_framework::Error| error.context(given.name(part)))
    }
}

/// Some rows of a frame, in their order.
fn pick(frame: &Frame, rows: &[usize]) -> Result<Frame> {
    if let (Some(first), Some(last)) = (rows.first(), rows.last())
        && last - first + 1 == rows.len()
    {
        return Ok(frame.slice(*first, rows.len()));
    }
    let (mut batches, mut start, mut rest) = (Vec::new(), 0, rows);
    for batch in frame.batches() {
        let end = start + batch.num_rows();
        let (here, others) = rest.split_at(rest.partition_point(|row| *row < end));
        if !here.is_empty() {
            let places = UInt32Array::from_iter_values(here.iter().map(|row| (row - start) as u32));
            batches.push(take_record_batch(batch, &places)?);
        }
        (start, rest) = (end, others);
    }
    Frame::new(frame.schema().clone(), batches)
}
