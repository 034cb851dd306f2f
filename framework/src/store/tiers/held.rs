//! Canonical bytes in memory that are counted for as long as anybody shares them.

use super::budget::{Lease, Passage};
use crate::data::{Digest, Pieces};
use bytes::Bytes;
use memmap2::{Mmap, UncheckedAdvice};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The content of a blob, and what kind of memory it takes.
pub(in crate::store) enum Content {
    /// Memory that nothing else shares.
    Heap(Pieces),
    /// Memory that is held and counted anyway.
    Shared(Pieces),
    /// Pages of a file, which the system can take away and bring back.
    Mapped(Mmap),
}

impl Content {
    pub(in crate::store) fn heap(bytes: Bytes) -> Self {
        Content::Heap(bytes.into())
    }

    pub(in crate::store) fn len(&self) -> usize {
        match self {
            Content::Heap(pieces) | Content::Shared(pieces) => pieces.len(),
            Content::Mapped(map) => map.len(),
        }
    }

    pub(in crate::store) fn digest(&self) -> Digest {
        match self {
            Content::Heap(pieces) | Content::Shared(pieces) => Digest::of_pieces(pieces),
            Content::Mapped(map) => Digest::of(map),
        }
    }

    /// The bytes in one row, not counted.
    pub(in crate::store) fn into_bytes(self) -> Bytes {
        match self {
            Content::Heap(pieces) | Content::Shared(pieces) => pieces.join(),
            Content::Mapped(map) => Bytes::from_owner(map),
        }
    }

    /// The same in one row: what lies in several pieces is copied.
    pub(super) fn in_one_row(self) -> Self {
        match self {
            Content::Heap(pieces) | Content::Shared(pieces) if pieces.iter().len() > 1 => Content::heap(pieces.join()),
            other => other,
        }
    }
}

/// What an artifact costs besides its canonical bytes: its place in memory's books, and its decoded form.
const EACH: u64 = 512;

/// The bytes that an artifact of so many canonical bytes is counted with.
pub(super) fn cost(bytes: u64) -> u64 {
    bytes.saturating_add(EACH)
}

/// Content that is in memory, and counted.
pub(super) struct Held {
    content: Content,
    /// `None` while it is cold.
    lease: Mutex<Option<Lease>>,
}

impl Held {
    /// Holds content that an operation made or read, counted with that operation's bytes.
    pub(super) fn new(content: Content, passage: &mut Passage) -> Arc<Self> {
        let bytes = match &content {
            Content::Shared(_) => 0,
            Content::Heap(_) | Content::Mapped(_) => content.len() as u64,
        };
        let lease = Mutex::new(Some(passage.lease(cost(bytes))));
        Arc::new(Self { content, lease })
    }

    /// The bytes; each piece is held as long as any clone or slice of it lives.
    pub(super) fn pieces(self: &Arc<Self>) -> Pieces {
        let pieces = match &self.content {
            Content::Heap(pieces) | Content::Shared(pieces) => pieces.iter().len(),
            Content::Mapped(_) => 1,
        };
        (0..pieces).map(|place| Bytes::from_owner(Share(self.clone(), place))).collect()
    }

    /// Whether it is a file's and so can be [cooled](Held::cool).
    pub(super) fn is_mapped(&self) -> bool {
        matches!(self.content, Content::Mapped(_))
    }

    /// Whether it is not counted.
    pub(super) fn is_cold(&self) -> bool {
        self.lease().is_none()
    }

    /// Counts it no more. Its pages must be [given back](Held::give_back) then.
    pub(super) fn cool(&self) -> Option<Lease> {
        self.lease().take()
    }

    /// Lets the system have the pages back, even if somebody holds them: whoever reads them gets them from the file.
    pub(super) fn give_back(&self) {
        let Content::Mapped(map) = &self.content else { return };
        // SAFETY: the mapping is of a file, shared and read-only, and the file is complete and never written again:
        // the pages come back with the same content.
        let advised = unsafe { map.unchecked_advise(UncheckedAdvice::DontNeed) };
        if let Err(error) = advised {
            tracing::debug!("the system keeps the pages of a mapped file: {error}");
        }
    }

    /// Counts it again.
    pub(super) fn warm(&self, lease: Lease) {
        let before = self.lease().replace(lease);
        drop(before);
    }

    fn lease(&self) -> MutexGuard<'_, Option<Lease>> {
        self.lease.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Owns a part in something held: one of its pieces.
struct Share(Arc<Held>, usize);

impl AsRef<[u8]> for Share {
    fn as_ref(&self) -> &[u8] {
        match &self.0.content {
            Content::Heap(pieces) | Content::Shared(pieces) => pieces.iter().nth(self.1).map_or(&[], |piece| piece),
            Content::Mapped(map) => map,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::budget::{Budget, Rule};
    use super::*;
    use std::io::Write;

    #[test]
    fn bytes_are_counted_as_long_as_any_slice_of_them_lives() {
        let budget = Budget::new(10_000);
        let mut passage = budget.pass(cost(1000), Rule::Room).unwrap();
        let held = Held::new(Content::Heap(vec![7; 1000].into()), &mut passage);
        drop(passage);
        let slice = held.pieces().join().slice(10..20);
        drop(held);
        assert_eq!(budget.count().used, cost(1000));
        assert_eq!(slice, [7; 10].as_slice());
        drop(slice);
        assert_eq!(budget.count().used, 0);
    }

    #[test]
    fn what_is_cold_keeps_its_content_and_is_not_counted() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&vec![9; 100_000]).unwrap();
        // SAFETY: nobody else knows the file.
        let map = unsafe { Mmap::map(&file) }.unwrap();
        let budget = Budget::new(1 << 20);
        let mut passage = budget.pass(cost(100_000), Rule::Room).unwrap();
        let held = Held::new(Content::Mapped(map), &mut passage);
        drop(passage);
        let bytes = held.pieces().join();
        drop(held.cool());
        held.give_back();
        assert!(held.is_mapped() && held.is_cold());
        assert_eq!(budget.count().used, 0);
        assert!(bytes.iter().all(|byte| *byte == 9));
        held.warm(budget.pass(cost(100_000), Rule::Room).unwrap().lease(cost(100_000)));
        assert_eq!(budget.count().used, cost(100_000));
    }
}
