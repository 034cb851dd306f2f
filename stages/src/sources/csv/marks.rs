//! Records of text without quotes, found by their delimiters and line ends: 64 bytes are looked at together.

use super::record::{Field, SHORT, same_width};
use crate::sources::rows::RecordError;

/// Reads all records from `at` on; each must have `width` fields.
pub(super) fn records(delimiter: u8, text: &[u8], at: usize, width: usize) -> Result<Vec<Field>, RecordError> {
    let fields = Vec::with_capacity(text.len() / SHORT);
    let mut found = Found { text, width, fields, start: at, before: 0 };
    let (blocks, rest) = text.get(at..).unwrap_or_default().as_chunks::<64>();
    for (place, block) in blocks.iter().enumerate() {
        found.block(block, at + place * 64, delimiter)?;
    }
    // What is left, with zeros behind it; a mark among those would lie behind the text.
    let mut last = [0; 64];
    if let Some(head) = last.get_mut(..rest.len()) {
        head.copy_from_slice(rest);
    }
    found.block(&last, at + blocks.len() * 64, delimiter)?;
    found.end()
}

/// What was found so far.
struct Found<'a> {
    text: &'a [u8],
    width: usize,
    fields: Vec<Field>,
    /// Where the field under way begins.
    start: usize,
    /// How many fields there were before the record under way.
    before: usize,
}

impl Found<'_> {
    fn block(&mut self, block: &[u8; 64], at: usize, delimiter: u8) -> Result<(), RecordError> {
        let ends = places(block, b'\n');
        let mut marks = places(block, delimiter) | ends;
        while marks != 0 {
            let place = marks.trailing_zeros();
            marks &= marks - 1;
            let end = at + place as usize;
            if end >= self.text.len() {
                return Ok(());
            }
            match ends >> place & 1 {
                0 => self.fields.push(Field::new(self.start, end, 0)),
                _ => self.line(end)?,
            }
            self.start = end + 1;
        }
        Ok(())
    }

    /// A line ends at `end`. One with nothing in it is no record.
    fn line(&mut self, end: usize) -> Result<(), RecordError> {
        let carriage = end > self.start && self.text.get(end - 1) == Some(&b'\r');
        let end = end - usize::from(carriage);
        if end == self.start && self.fields.len() == self.before {
            return Ok(());
        }
        self.fields.push(Field::new(self.start, end, 0));
        if self.fields.len() - self.before != self.width {
            same_width(self.text, &self.fields, self.before, self.width)?;
        }
        self.before = self.fields.len();
        Ok(())
    }

    /// The text ends; its last line may have no end.
    fn end(mut self) -> Result<Vec<Field>, RecordError> {
        if self.start < self.text.len() || self.fields.len() > self.before {
            self.line(self.text.len())?;
        }
        Ok(self.fields)
    }
}

/// A bit for each of 64 bytes: whether it is `mark`.
fn places(block: &[u8; 64], mark: u8) -> u64 {
    const LOW: u64 = u64::from_ne_bytes([0x01; 8]);
    const SEVEN: u64 = u64::from_ne_bytes([0x7f; 8]);
    let (words, _) = block.as_chunks::<8>();
    let mut places = 0;
    for (index, word) in words.iter().enumerate() {
        let differs = u64::from_le_bytes(*word) ^ (LOW * u64::from(mark));
        // The high bit of each byte that is zero (Warren, "Hacker's Delight", section 6-1), brought together by a
        // multiplication whose partial products do not meet.
        let zero = !(((differs & SEVEN) + SEVEN) | differs | SEVEN);
        places |= ((zero >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56) << (index * 8);
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_mark_is_found(bytes: [u8; 32], few in prop::collection::vec(0..3u8, 32), mark: u8) {
            let mut block = [0; 64];
            block[..32].copy_from_slice(&bytes);
            block[32..].copy_from_slice(&few);
            for mark in [mark, 0, 1, 2, 0x80, 0xff] {
                let expected = block.iter().enumerate().filter(|(_, byte)| **byte == mark);
                prop_assert_eq!(places(&block, mark), expected.fold(0, |bits, (place, _)| bits | 1 << place));
            }
        }
    }
}
