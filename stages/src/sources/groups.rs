//! Small batches, done in any order, joined to large ones while more of them are being read.

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use ropeway_framework::data::BATCH_ROWS;
use ropeway_framework::{Error, Result};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// Joins batches to batches of [`BATCH_ROWS`], as a frame keeps them. Whoever brings the last missing one joins them, so
/// that there are never two copies of the whole table, and the memory of small batches is soon used again.
pub(super) struct Groups {
    schema: SchemaRef,
    state: Mutex<State>,
}

struct State {
    /// Batches that came before those in front of them.
    early: BTreeMap<usize, RecordBatch>,
    /// Which batch goes on.
    next: usize,
    /// How many rows are still wanted.
    left: u64,
    open: Vec<RecordBatch>,
    joined: Vec<Option<RecordBatch>>,
}

/// The batches that make up a large one, and its place.
type Group = (usize, Vec<RecordBatch>);

impl Groups {
    /// Joins batches of this schema, up to so many rows.
    pub(super) fn new(schema: SchemaRef, limit: Option<u64>) -> Self {
        let state = State {
            early: BTreeMap::new(),
            next: 0,
            left: limit.unwrap_or(u64::MAX),
            open: Vec::new(),
            joined: Vec::new(),
        };
        Self { schema, state: Mutex::new(state) }
    }

    /// Takes the batch at a place, from 0.
    pub(super) fn put(&self, place: usize, batch: RecordBatch) -> Result<()> {
        let ready = self.with(|state| state.put(place, batch));
        ready.into_iter().try_for_each(|group| self.join(group))
    }

    /// All rows up to the first missing batch.
    pub(super) fn finish(self) -> Result<Vec<RecordBatch>> {
        let rest = self.with(State::close);
        rest.into_iter().try_for_each(|group| self.join(group))?;
        let state = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok(state.joined.into_iter().flatten().collect())
    }

    /// Joins a group, while others go on.
    fn join(&self, (place, parts): Group) -> Result<()> {
        let joined = concat_batches(&self.schema, &parts).map_err(Error::new)?;
        drop(parts);
        self.with(|state| {
            if let Some(slot) = state.joined.get_mut(place) {
                *slot = Some(joined);
            }
        });
        Ok(())
    }

    fn with<R>(&self, work: impl FnOnce(&mut State) -> R) -> R {
        work(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl State {
    fn put(&mut self, place: usize, batch: RecordBatch) -> Vec<Group> {
        self.early.insert(place, batch);
        let mut ready = Vec::new();
        while let Some(batch) = self.early.remove(&self.next) {
            self.next += 1;
            let mut start = 0;
            while start < batch.num_rows() && self.left > 0 {
                let open: usize = self.open.iter().map(RecordBatch::num_rows).sum();
                let wanted = (BATCH_ROWS - open).min(usize::try_from(self.left).unwrap_or(usize::MAX));
                let rows = wanted.min(batch.num_rows() - start);
                self.open.push(batch.slice(start, rows));
                self.left -= rows as u64;
                start += rows;
                if open + rows == BATCH_ROWS {
                    ready.extend(self.close());
                }
            }
        }
        ready
    }

    fn close(&mut self) -> Option<Group> {
        let parts = std::mem::take(&mut self.open);
        if parts.is_empty() {
            return None;
        }
        self.joined.push(None);
        Some((self.joined.len() - 1, parts))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, AsArray, UInt64Array};
    use arrow::datatypes::UInt64Type;
    use proptest::prelude::*;
    use std::sync::Arc;

    fn batch(values: std::ops::Range<u64>) -> RecordBatch {
        RecordBatch::try_from_iter([("n", Arc::new(UInt64Array::from_iter_values(values)) as ArrayRef)]).unwrap()
    }

    proptest! {
        #[test]
        fn rows_come_in_order_and_in_batches_of_one_size(
            sizes in prop::collection::vec(0..90_000u64, 0..6),
            order in any::<prop::sample::Index>(),
            limit in prop::option::of(0..400_000u64),
        ) {
            let groups = Groups::new(batch(0..0).schema(), limit);
            let mut start = 0;
            let mut parts: Vec<(usize, RecordBatch)> = Vec::new();
            for (place, size) in sizes.iter().enumerate() {
                parts.push((place, batch(start..start + size)));
                start += size;
            }
            // Some order of their coming.
            let (count, mut code) = (parts.len(), order.index(720));
            for place in 0..count {
                parts.swap(place, place + code % (count - place));
                code /= count - place;
            }
            for (place, part) in parts {
                groups.put(place, part).unwrap();
            }
            let joined = groups.finish().unwrap();
            let values: Vec<u64> =
                joined.iter().flat_map(|batch| batch.column(0).as_primitive::<UInt64Type>().values().to_vec()).collect();
            prop_assert_eq!(values, (0..start.min(limit.unwrap_or(u64::MAX))).collect::<Vec<_>>());
            let full = joined.len().saturating_sub(1);
            prop_assert!(joined.iter().take(full).all(|batch| batch.num_rows() == BATCH_ROWS));
        }
    }
}
