//! BLAKE3 digests.

use super::Pieces;
use blake3::hazmat::{ChainingValue, HasherExt, Mode, left_subtree_len, merge_subtrees_non_root, merge_subtrees_root};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::convert::Infallible;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::str::FromStr;

/// Bytes from which on several threads are sooner done than one.
const MANY: usize = 1 << 20;
/// Bytes of a leaf, which one thread hashes: a power of two, so that each is a subtree of BLAKE3's own tree.
const LEAF: u64 = 256 << 10;

/// A BLAKE3 digest: 32 bytes, written as 64 hexadecimal digits.
///
/// ```
/// use ropeway_framework::data::Digest;
/// let digest = Digest::of(b"abc");
/// assert_eq!(digest.to_string().parse::<Digest>().unwrap(), digest);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of some bytes; of many, on all cores.
    pub fn of(bytes: &[u8]) -> Self {
        if bytes.len() < MANY {
            return Self(*blake3::hash(bytes).as_bytes());
        }
        Self(*blake3::Hasher::new().update_rayon(bytes).finalize().as_bytes())
    }

    /// The digest of bytes in pieces, which is that of the bytes in one row; of many, on all cores.
    pub fn of_pieces(pieces: &Pieces) -> Self {
        let length = pieces.len() as u64;
        if length <= LEAF {
            let mut hasher = blake3::Hasher::new();
            for piece in pieces.iter() {
                hasher.update(piece);
            }
            return Self(*hasher.finalize().as_bytes());
        }
        let row = Row::new(pieces);
        let Ok(digest) = tree(length, &|from, to| Ok::<_, Infallible>(row.leaf(from, to)));
        digest
    }

    /// Writes bytes in pieces to the head of a file and digests them on the way, part by part, so that they come from
    /// memory once; many on all cores.
    ///
    /// # Errors
    /// The file can't be written; what it has then is of no use.
    pub(crate) fn while_writing(pieces: &Pieces, file: &File) -> io::Result<Self> {
        let length = pieces.len() as u64;
        let row = Row::new(pieces);
        let write = |part: &[u8], at: u64| file.write_all_at(part, at);
        if length <= LEAF {
            let mut hasher = blake3::Hasher::new();
            row.each(0, length, |part, at| {
                hasher.update(part);
                write(part, at)
            })?;
            return Ok(Self(*hasher.finalize().as_bytes()));
        }
        tree(length, &|from, to| {
            let mut hasher = blake3::Hasher::new();
            hasher.set_input_offset(from);
            row.each(from, to, |part, at| {
                hasher.update(part);
                write(part, at)
            })?;
            Ok(hasher.finalize_non_root())
        })
    }

    /// The digest of the first `length` bytes of a file; of many, on all cores.
    ///
    /// # Errors
    /// It can't be read, or has fewer bytes.
    pub fn of_file(file: &File, length: u64) -> io::Result<Self> {
        let read = |from: u64, to: u64| {
            let mut bytes = vec![0; (to - from) as usize];
            file.read_exact_at(&mut bytes, from).map(|()| bytes)
        };
        if length <= LEAF {
            return read(0, length).map(|bytes| Self::of(&bytes));
        }
        tree(length, &|from, to| {
            let bytes = read(from, to)?;
            Ok(blake3::Hasher::new().set_input_offset(from).update(&bytes).finalize_non_root())
        })
    }

    /// The digest of several fields, each with its length, so that no two field lists share one.
    pub fn of_fields<'a>(fields: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut hasher = blake3::Hasher::new();
        for field in fields {
            hasher.update(&(field.len() as u64).to_le_bytes());
            hasher.update(field);
        }
        Self(*hasher.finalize().as_bytes())
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The first twelve hexadecimal digits, for people.
    pub fn short(&self) -> String {
        self.to_string()[..12].to_owned()
    }
}

impl From<[u8; 32]> for Digest {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

/// Pieces and where each of them begins.
struct Row<'a> {
    starts: Vec<u64>,
    pieces: Vec<&'a [u8]>,
}

impl<'a> Row<'a> {
    fn new(pieces: &'a Pieces) -> Self {
        let mut starts = Vec::with_capacity(pieces.iter().len());
        let mut end = 0;
        for piece in pieces.iter() {
            starts.push(end);
            end += piece.len() as u64;
        }
        Self { starts, pieces: pieces.iter().map(|piece| &**piece).collect() }
    }

    /// The value of the subtree of some bytes.
    fn leaf(&self, from: u64, to: u64) -> ChainingValue {
        let mut hasher = blake3::Hasher::new();
        hasher.set_input_offset(from);
        let Ok(()) = self.each(from, to, |part, _| {
            hasher.update(part);
            Ok::<_, Infallible>(())
        });
        hasher.finalize_non_root()
    }

    /// Goes through some bytes in order: those of each piece, and where they stand.
    fn each<E>(&self, from: u64, to: u64, mut visit: impl FnMut(&[u8], u64) -> Result<(), E>) -> Result<(), E> {
        let first = self.starts.partition_point(|start| *start <= from).saturating_sub(1);
        for (piece, start) in self.pieces.iter().zip(&self.starts).skip(first) {
            if *start >= to {
                break;
            }
            let begin = from.saturating_sub(*start) as usize;
            let end = piece.len().min((to - start) as usize);
            visit(&piece[begin..end], start + begin as u64)?;
        }
        Ok(())
    }
}

/// How the value of a leaf's bytes, from here to there, is found.
type Leaf<'a, E> = &'a (dyn Fn(u64, u64) -> Result<ChainingValue, E> + Sync);

/// The digest of more bytes than a leaf has.
fn tree<E: Send>(length: u64, leaf: Leaf<'_, E>) -> Result<Digest, E> {
    let (left, right) = halves(0, length, leaf)?;
    Ok(Digest(*merge_subtrees_root(&left, &right, Mode::Hash).as_bytes()))
}

/// The values of the two subtrees of more bytes than a leaf has.
fn halves<E: Send>(from: u64, to: u64, leaf: Leaf<'_, E>) -> Result<(ChainingValue, ChainingValue), E> {
    let middle = from + left_subtree_len(to - from);
    let (left, right) = rayon::join(|| subtree(from, middle, leaf), || subtree(middle, to, leaf));
    Ok((left?, right?))
}

fn subtree<E: Send>(from: u64, to: u64, leaf: Leaf<'_, E>) -> Result<ChainingValue, E> {
    if to - from <= LEAF {
        return leaf(from, to);
    }
    let (left, right) = halves(from, to, leaf)?;
    Ok(merge_subtrees_non_root(&left, &right, Mode::Hash))
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&blake3::Hash::from(self.0).to_hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = crate::Error;

    fn from_str(text: &str) -> crate::Result<Self> {
        blake3::Hash::from_hex(text)
            .map(|hash| Self(*hash.as_bytes()))
            .map_err(|_| crate::Error::usage(format!("`{text}` is no digest: expected 64 hexadecimal digits")))
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(|error: crate::Error| serde::de::Error::custom(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use proptest::prelude::*;
    use std::io::Write;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn pieces_have_the_digest_of_their_bytes(
            leaves in 0..9u64,
            beyond in prop::sample::select(vec![-1025, -1, 0, 1, 1023, 1024, 1025, 70_000]),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
        ) {
            let length = (leaves * LEAF).saturating_add_signed(beyond) as usize;
            let bytes: Vec<u8> = (0..length).map(|index| (index ^ (index >> 8) ^ (index >> 16)) as u8).collect();
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(length + 1)).chain([0, length]).collect();
            cuts.sort_unstable();
            let pieces: Pieces = cuts.windows(2).map(|cut| Bytes::copy_from_slice(&bytes[cut[0]..cut[1]])).collect();
            let digest = Digest(*blake3::hash(&bytes).as_bytes());
            prop_assert_eq!(Digest::of_pieces(&pieces), digest);
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&bytes).unwrap();
            prop_assert_eq!(Digest::of_file(&file, length as u64).unwrap(), digest);
            prop_assert!(Digest::of_file(&file, length as u64 + 1).is_err());
            let copy = tempfile::NamedTempFile::new().unwrap();
            prop_assert_eq!(Digest::while_writing(&pieces, copy.as_file()).unwrap(), digest);
            prop_assert!(std::fs::read(copy.path()).unwrap() == bytes);
        }
    }
}
