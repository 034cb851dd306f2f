//! Arrow IPC streams of unknown origin: from files, and from programs.

use super::table::plain;
use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::buffer::Buffer;
use arrow::compute::cast;
use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::ipc::reader::StreamDecoder;
use ropeway_framework::Result;
use ropeway_framework::data::Frame;
use std::io::{self, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// Why bytes are no Arrow IPC stream.
#[derive(Debug)]
pub(crate) enum Fault {
    /// They begin with something else; these bytes.
    Other(Vec<u8>),
    /// There are none.
    Nothing,
    /// They end before the end-of-stream marker.
    Cut {
        /// Rows that had come whole.
        rows: usize,
    },
    /// Something stands after the end-of-stream marker.
    Trailing,
    /// They can't be read as Arrow.
    Damaged(String),
    /// They are wrong in this way, and go on and on.
    Endless(Box<Fault>),
    /// They can't be read at all.
    Io(io::Error),
}

/// Bytes read at once.
const CHUNK: u64 = 1 << 20;

/// Reads a whole stream, up to and with its end-of-stream marker and the end of the bytes.
pub(crate) fn read_stream(mut reader: impl Read) -> Result<Frame, Fault> {
    let mut decoder = StreamDecoder::new();
    let mut batches: Vec<RecordBatch> = Vec::new();
    let mut empty = true;
    loop {
        let mut chunk = Vec::with_capacity(1 << 16);
        // The first read is short, so that text is found out at once.
        let size = if empty { 8 } else { CHUNK };
        reader.by_ref().take(size).read_to_end(&mut chunk).map_err(Fault::Io)?;
        if chunk.is_empty() {
            break;
        }
        if empty && !chunk.starts_with(&[0xff; 4]) {
            reader.by_ref().take(56).read_to_end(&mut chunk).map_err(Fault::Io)?;
            return Err(Fault::Other(chunk));
        }
        empty = false;
        let mut buffer = Buffer::from_vec(chunk);
        while !buffer.is_empty() {
            match decode(&mut decoder, &mut buffer) {
                Ok(Some(batch)) => batches.push(batch),
                Ok(None) => {}
                Err(_) if ended(&mut decoder) => return Err(Fault::Trailing),
                Err(message) => return Err(Fault::Damaged(message)),
            }
        }
    }
    let rows = batches.iter().map(RecordBatch::num_rows).sum();
    match decoder.schema() {
        None if empty => Err(Fault::Nothing),
        Some(schema) if decoder.finish().is_ok() && ended(&mut decoder) => {
            normalise(&schema, batches).map_err(|error| Fault::Damaged(error.to_string()))
        }
        _ => Err(Fault::Cut { rows }),
    }
}

/// Decodes; the decoder panics on some damaged messages.
fn decode(decoder: &mut StreamDecoder, buffer: &mut Buffer) -> Result<Option<RecordBatch>, String> {
    match catch_unwind(AssertUnwindSafe(|| decoder.decode(buffer))) {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(_) => Err("a message is damaged".into()),
    }
}

/// Whether the end-of-stream marker has come: only then the decoder refuses one more byte.
fn ended(decoder: &mut StreamDecoder) -> bool {
    decoder.finish().is_ok() && decode(decoder, &mut Buffer::from_vec(vec![0_u8])).is_err()
}

/// A frame whose text and bytes have the one plain layout, without what writers note in schemas.
pub(super) fn normalise(schema: &Schema, batches: Vec<RecordBatch>) -> Result<Frame> {
    let fields = schema
        .fields()
        .iter()
        .map(|field| Field::new(field.name(), plain(field.data_type()), field.is_nullable()))
        .collect::<Vec<_>>();
    let schema: SchemaRef = Arc::new(Schema::new(fields));
    let batches = batches
        .into_iter()
        .filter(|batch| batch.num_rows() > 0)
        .map(|batch| {
            let columns = batch
                .columns()
                .iter()
                .zip(schema.fields())
                .map(|(column, field)| Ok(cast(column, field.data_type())?))
                .collect::<Result<Vec<ArrayRef>>>()?;
            let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
            Ok(RecordBatch::try_new_with_options(schema.clone(), columns, &options)?)
        })
        .collect::<Result<Vec<_>>>()?;
    Frame::new(schema, batches)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use arrow::array::{Int64Array, StringArray};
    use arrow::ipc::writer::StreamWriter;

    /// A frame of some rows in several batches.
    pub(crate) fn frame(rows: i64) -> Frame {
        let columns: [(&str, ArrayRef); 2] = [
            ("n", Arc::new(Int64Array::from_iter_values(0..rows))),
            ("text", Arc::new(StringArray::from_iter_values((0..rows).map(|row| format!("row {row}"))))),
        ];
        let batch = Frame::from_columns(columns).unwrap().to_batch().unwrap();
        let size = 1 + rows as usize / 3;
        let parts = (0..batch.num_rows()).step_by(size);
        let parts = parts.map(|start| batch.slice(start, size.min(batch.num_rows() - start))).collect();
        Frame::new(batch.schema(), parts).unwrap()
    }

    /// A frame as a stream.
    pub(crate) fn stream(frame: &Frame) -> Vec<u8> {
        let mut writer = StreamWriter::try_new(Vec::new(), frame.schema()).unwrap();
        frame.batches().iter().for_each(|batch| writer.write(batch).unwrap());
        writer.finish().unwrap();
        writer.into_inner().unwrap()
    }

    #[test]
    fn streams_come_back() {
        for rows in [0, 1, 100, 400_000] {
            let frame = frame(rows);
            let read = read_stream(&*stream(&frame)).unwrap();
            assert_eq!(read.schema(), frame.schema());
            assert_eq!(read.to_batch().unwrap(), frame.to_batch().unwrap());
        }
    }

    #[test]
    fn every_cut_is_noticed() {
        let whole = stream(&frame(50));
        for length in 0..whole.len() {
            let fault = read_stream(&whole[..length]).unwrap_err();
            match length {
                0 => assert!(matches!(fault, Fault::Nothing)),
                1..4 => assert!(matches!(fault, Fault::Other(_))),
                _ => assert!(matches!(fault, Fault::Cut { .. } | Fault::Damaged(_)), "{length}: {fault:?}"),
            }
        }
        assert!(matches!(read_stream(&whole[..whole.len() - 8]), Err(Fault::Cut { rows: 50 })));
    }

    #[test]
    fn other_bytes_are_noticed() {
        let whole = stream(&frame(50));
        assert!(matches!(read_stream(&b"loss: 0.5\n"[..]), Err(Fault::Other(found)) if found == b"loss: 0.5\n"));
        assert!(matches!(read_stream([&*whole, b"done\n"].concat().as_slice()), Err(Fault::Trailing)));
        assert!(
            read_stream([&whole[..whole.len() - 8], b"half way\n", &whole[whole.len() - 8..]].concat().as_slice())
                .is_err()
        );
    }

    #[test]
    fn damage_is_no_panic() {
        let whole = stream(&frame(20));
        for place in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[place] ^= 0x55;
            let _ = read_stream(&*damaged);
        }
    }
}
