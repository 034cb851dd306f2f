//! An object that another process sends, as long as it has not come whole.

use super::wire::CHUNK_BYTES;
use crate::store::folder_for_files;
use bytes::{Bytes, BytesMut};
use memmap2::Mmap;
use std::fs::File;
use std::io::{self, Write};
use tokio::task::block_in_place;

/// Content that comes in pieces. What is longer than one piece goes to a temporary file without a name: nobody counts
/// these bytes, so they must not be held in memory, and the file is gone with its process, however that ends.
#[derive(Default)]
pub(super) struct Incoming {
    short: BytesMut,
    long: Option<File>,
}

impl Incoming {
    /// Takes the next piece; on a runtime of several threads.
    pub(super) fn add(&mut self, piece: &[u8]) -> io::Result<()> {
        if self.long.is_none() && self.short.len() + piece.len() <= CHUNK_BYTES {
            self.short.extend_from_slice(piece);
            return Ok(());
        }
        block_in_place(|| self.write(piece))
    }

    fn write(&mut self, piece: &[u8]) -> io::Result<()> {
        let mut file = match self.long.take() {
            Some(file) => file,
            None => {
                let mut file = tempfile::tempfile_in(folder_for_files())?;
                file.write_all(&std::mem::take(&mut self.short))?;
                file
            }
        };
        file.write_all(piece)?;
        self.long = Some(file);
        Ok(())
    }

    /// The content, whole.
    pub(super) fn finish(self) -> io::Result<Bytes> {
        let Some(file) = self.long else { return Ok(self.short.freeze()) };
        // SAFETY: the file has no name and is written no more, and nobody else ever had it open.
        let map = unsafe { Mmap::map(&file) }?;
        Ok(Bytes::from_owner(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_in_pieces_is_whole_in_the_end() {
        for pieces in
            [vec![], vec![7], vec![CHUNK_BYTES], vec![CHUNK_BYTES, 1], vec![3, CHUNK_BYTES, 5, 2 * CHUNK_BYTES]]
        {
            let (mut incoming, mut expected) = (Incoming::default(), Vec::new());
            for length in &pieces {
                let piece: Vec<u8> = (0..*length).map(|at| (at % 251) as u8).collect();
                incoming.add(&piece).unwrap();
                expected.extend(piece);
            }
            assert_eq!(incoming.long.is_some(), expected.len() > CHUNK_BYTES, "{pieces:?}");
            assert!(incoming.finish().unwrap() == expected, "{pieces:?}");
        }
    }
}
