//! A writer's output as pieces: the buffers that it writes are shared, and only what lies between them is copied.

use super::Pieces;
use arrow::array::{Array, ArrayData, RecordBatch};
use arrow::buffer::Buffer;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::io::{self, Write};

/// Fewer bytes are sooner copied than shared. (Tests share all, so that small tables go the way of large ones.)
const SHARED: usize = if cfg!(test) { 1 } else { 4096 };

/// Collects what is written. A slice that lies in a buffer that was [lent](Gather::lend) becomes a piece of its own.
#[derive(Default)]
pub(super) struct Gather {
    /// The lent buffers by address. They are held, so that no other memory can have these addresses.
    lent: BTreeMap<usize, Buffer>,
    pieces: Vec<Bytes>,
    /// What was copied since the last piece.
    copied: Vec<u8>,
}

impl Gather {
    /// Lends the buffers of the batch that is written next.
    pub(super) fn lend(&mut self, batch: &RecordBatch) {
        self.lent.clear();
        for column in batch.columns() {
            self.lend_data(&column.to_data());
        }
    }

    fn lend_data(&mut self, data: &ArrayData) {
        let validity = data.nulls().map(|nulls| nulls.buffer());
        for buffer in data.buffers().iter().chain(validity).filter(|buffer| buffer.len() >= SHARED) {
            let lent = self.lent.entry(buffer.as_ptr() as usize).or_insert_with(|| buffer.clone());
            if lent.len() < buffer.len() {
                *lent = buffer.clone();
            }
        }
        data.child_data().iter().for_each(|child| self.lend_data(child));
    }

    /// All that was written.
    pub(super) fn pieces(mut self) -> Pieces {
        self.flush_copied();
        self.pieces.into_iter().collect()
    }

    fn flush_copied(&mut self) {
        if !self.copied.is_empty() {
            self.pieces.push(std::mem::take(&mut self.copied).into());
        }
    }

    /// The lent buffer that has these very bytes, cut to them.
    fn owner(&self, bytes: &[u8]) -> Option<Buffer> {
        let start = bytes.as_ptr() as usize;
        let (address, buffer) = self.lent.range(..=start).next_back()?;
        let offset = start - address;
        (offset.checked_add(bytes.len())? <= buffer.len()).then(|| buffer.slice_with_length(offset, bytes.len()))
    }
}

impl Write for Gather {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match Some(bytes).filter(|bytes| bytes.len() >= SHARED).and_then(|bytes| self.owner(bytes)) {
            Some(buffer) => {
                self.flush_copied();
                self.pieces.push(Bytes::from_owner(Lent(buffer)));
            }
            None => self.copied.extend_from_slice(bytes),
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A buffer as an owner of [`Bytes`].
pub(super) struct Lent(pub(super) Buffer);

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        self.0.as_slice()
    }
}
