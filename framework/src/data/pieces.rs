//! Bytes that lie in several places.

use bytes::Bytes;
use std::sync::Arc;

/// A sequence of bytes in pieces, so that what already lies somewhere need not be copied to stand in one row. Cloning
/// is cheap: the pieces are shared.
///
/// ```
/// use bytes::Bytes;
/// use ropeway_framework::data::Pieces;
///
/// let pieces: Pieces = [Bytes::from_static(b"one "), Bytes::from_static(b"two")].into_iter().collect();
/// assert_eq!((pieces.len(), &*pieces.join()), (7, &b"one two"[..]));
/// ```
#[derive(Clone, Debug, Default)]
pub struct Pieces {
    pieces: Arc<[Bytes]>,
    length: usize,
}

impl Pieces {
    /// How many bytes.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The pieces in order; none of them is empty.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Bytes> {
        self.pieces.iter()
    }

    /// The bytes from `start` to `end`, or as many of them as there are: shared where they lie in one piece.
    pub fn part(&self, start: usize, end: usize) -> Bytes {
        let mut found = Vec::new();
        let mut before = 0;
        for piece in self.pieces.iter() {
            let cut = |place: usize| place.saturating_sub(before).min(piece.len());
            if cut(start) < cut(end) {
                found.push(piece.slice(cut(start)..cut(end)));
            }
            before += piece.len();
        }
        found.into_iter().collect::<Self>().join()
    }

    /// All bytes in one row: shared when they are one piece, else copied.
    pub fn join(&self) -> Bytes {
        match &*self.pieces {
            [] => Bytes::new(),
            [one] => one.clone(),
            _ => {
                let mut all = Vec::with_capacity(self.length);
                self.pieces.iter().for_each(|piece| all.extend_from_slice(piece));
                all.into()
            }
        }
    }
}

impl FromIterator<Bytes> for Pieces {
    fn from_iter<I: IntoIterator<Item = Bytes>>(pieces: I) -> Self {
        let pieces: Arc<[Bytes]> = pieces.into_iter().filter(|piece| !piece.is_empty()).collect();
        let length = pieces.iter().map(Bytes::len).sum();
        Self { pieces, length }
    }
}

impl From<Bytes> for Pieces {
    fn from(bytes: Bytes) -> Self {
        [bytes].into_iter().collect()
    }
}

impl From<Vec<u8>> for Pieces {
    fn from(bytes: Vec<u8>) -> Self {
        Bytes::from(bytes).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_piece_is_shared_and_empty_ones_are_left_out() {
        let one = Bytes::from(vec![1, 2, 3]);
        let pieces: Pieces = [Bytes::new(), one.clone(), Bytes::new()].into_iter().collect();
        assert_eq!((pieces.len(), pieces.iter().len()), (3, 1));
        assert_eq!(pieces.join().as_ptr(), one.as_ptr());
        let two: Pieces = [one.clone(), one.clone()].into_iter().collect();
        for (start, end) in (0..8).flat_map(|start| (0..8).map(move |end| (start, end))) {
            let row = [1, 2, 3, 1, 2, 3];
            assert_eq!(two.part(start, end), row.get(start..end.min(6)).unwrap_or_default());
        }
        assert!(Pieces::default().is_empty() && Pieces::from(Vec::new()).join().is_empty());
    }
}
