//! Many messages in one, each with its length before it: they are encoded as they are made, and read one after the other,
//! so that no more of them is in memory than what is looked at.

use crate::{Context, Error, Result};
use bytes::{Bytes, BytesMut};
use prost::Message;

/// Messages in a row.
#[derive(Default)]
pub(super) struct Row {
    bytes: BytesMut,
    messages: usize,
}

impl Row {
    /// Adds a message that is encoded already.
    pub(super) fn push(&mut self, message: &[u8]) {
        prost::encoding::encode_varint(message.len() as u64, &mut self.bytes);
        self.bytes.extend_from_slice(message);
        self.messages += 1;
    }

    /// Encodes a message and adds it.
    ///
    /// # Errors
    /// The row is longer than memory.
    pub(super) fn encode(&mut self, message: &impl Message) -> Result<()> {
        message.encode_length_delimited(&mut self.bytes).context("a message is too long")?;
        self.messages += 1;
        Ok(())
    }

    /// How many messages there are.
    pub(super) fn messages(&self) -> usize {
        self.messages
    }

    /// How many bytes they take.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// What was added so far, if anything was; the row is empty then.
    pub(super) fn take(&mut self) -> Option<Bytes> {
        (std::mem::take(&mut self.messages) > 0).then(|| self.bytes.split().freeze())
    }
}

/// The messages of a row, up to one that is cut off.
pub(super) fn messages(mut row: Bytes) -> impl Iterator<Item = Result<Bytes>> {
    std::iter::from_fn(move || {
        if row.is_empty() {
            return None;
        }
        let length = prost::decode_length_delimiter(&mut row).ok().filter(|length| *length <= row.len());
        let Some(length) = length else {
            row.clear();
            return Some(Err(Error::new("a row of messages is cut off")));
        };
        Some(Ok(row.split_to(length)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_put_in_a_row_comes_out_of_it(all in prop::collection::vec(any::<Vec<u8>>(), 0..20), cut in any::<usize>()) {
            let mut row = Row::default();
            all.iter().for_each(|message| row.push(message));
            prop_assert_eq!((row.messages(), row.bytes() > 0), (all.len(), !all.is_empty()));
            let bytes = row.take().unwrap_or_default();
            prop_assert!(row.take().is_none());
            let read: Vec<Bytes> = messages(bytes.clone()).map(Result::unwrap).collect();
            prop_assert!(read.iter().eq(all.iter()));
            // Of one that is cut off, all before the cut come out.
            let cut = cut % (bytes.len() + 1);
            let whole = messages(bytes.slice(..cut)).map_while(Result::ok);
            prop_assert!(whole.zip(&all).all(|(read, message)| read == message));
        }

        #[test]
        fn any_bytes_are_read_to_an_end(bytes in any::<Vec<u8>>()) {
            let read: usize = messages(bytes.clone().into()).map(|message| message.map_or(0, |message| message.len())).sum();
            prop_assert!(read <= bytes.len());
        }
    }
}
