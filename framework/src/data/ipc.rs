//! Frames as Arrow IPC files: uncompressed, in batches of equal size, every buffer on a boundary of 64 bytes.

use super::canonical;
use super::frame::{BATCH_ROWS, Frame};
use super::gather::Gather;
use super::pieces::Pieces;
use super::weight::light;
use crate::{Context, Error, Result};
use arrow::array::RecordBatch;
use arrow::buffer::Buffer;
use arrow::ipc::convert::fb_to_schema;
use arrow::ipc::reader::{FileDecoder, read_footer_length};
use arrow::ipc::writer::{FileWriter, IpcWriteOptions};
use arrow::ipc::{Block, Footer, MetadataVersion, root_as_footer, root_as_message};
use bytes::Bytes;
use rayon::iter::{IntoParallelIterator, ParallelIterator};
use std::sync::Arc;

const MAGIC: &[u8] = b"ARROW1";
/// A continuation marker and the length of the message that follows.
const PREFIX: usize = 8;
/// The footer's length and the magic at the end.
const TRAILER: usize = 10;
const ALIGNMENT: usize = 64;

/// The canonical bytes of a frame, and the frame as [`read`] gives it. Both share the columns that are in canonical form
/// already; of the others each is let go of once it is copied.
pub(super) fn write(frame: Frame) -> Result<(Pieces, Frame)> {
    write_batches(frame, BATCH_ROWS)
}

/// The frame of canonical bytes. Its columns share them where the bytes stand at an aligned address.
pub(super) fn read(bytes: Bytes) -> Result<Frame> {
    read_batches(&Buffer::from(bytes), BATCH_ROWS)
}

fn write_batches(frame: Frame, batch_rows: usize) -> Result<(Pieces, Frame)> {
    let schema = Arc::new(canonical::schema(frame.schema())?);
    let groups = regroup(frame.into_batches(), batch_rows);
    let form = |parts: Vec<RecordBatch>| canonical::batch(&schema, &parts);
    let batches: Vec<Result<RecordBatch>> = groups.into_par_iter().map(form).collect();
    let batches = batches.into_iter().collect::<Result<Vec<_>>>()?;
    let batches = light(batches)?;
    let options = IpcWriteOptions::try_new(ALIGNMENT, false, MetadataVersion::V5)?;
    let mut writer = FileWriter::try_new_with_options(Gather::default(), &schema, options)?;
    for batch in &batches {
        writer.get_mut().lend(batch);
        writer.write(batch)?;
    }
    writer.finish()?;
    Ok((writer.into_inner()?.pieces(), Frame::new(schema, batches)?))
}

/// The same rows in groups of exactly `batch_rows`, the last one shorter.
fn regroup(batches: Vec<RecordBatch>, batch_rows: usize) -> Vec<Vec<RecordBatch>> {
    let mut groups = Vec::new();
    let (mut group, mut room) = (Vec::new(), batch_rows);
    for batch in batches {
        let mut start = 0;
        while start < batch.num_rows() {
            let rows = room.min(batch.num_rows() - start);
            group.push(batch.slice(start, rows));
            (start, room) = (start + rows, room - rows);
            if room == 0 {
                groups.push(std::mem::take(&mut group));
                room = batch_rows;
            }
        }
    }
    if !group.is_empty() {
        groups.push(group);
    }
    groups
}

fn read_batches(file: &Buffer, batch_rows: usize) -> Result<Frame> {
    let footer = footer(file)?;
    let schema = footer.schema().context("the footer has no schema")?;
    if !schema.endianness().equals_to_target_endianness() {
        return Err(Error::new("the file is of a machine with another byte order"));
    }
    let schema = fb_to_schema(schema);
    if canonical::schema(&schema)? != schema || footer.dictionaries().is_some_and(|blocks| !blocks.is_empty()) {
        return Err(Error::new("the columns are not in canonical form"));
    }
    let schema = Arc::new(schema);
    let decoder = FileDecoder::new(schema.clone(), footer.version());
    let blocks = footer.recordBatches().context("the footer lists no batches")?;
    let mut batches = Vec::with_capacity(blocks.len());
    for (index, block) in blocks.iter().enumerate() {
        let data = message(file, block).context(format!("batch {index}"))?;
        let batch = decoder.read_record_batch(block, &data)?.context(format!("batch {index} is no batch"))?;
        let last = index + 1 == blocks.len();
        if batch.num_rows() != batch_rows && !(last && (1..batch_rows).contains(&batch.num_rows())) {
            return Err(Error::new(format!("batch {index} has {} rows", batch.num_rows())));
        }
        batches.push(batch);
    }
    Frame::new(schema, batches)
}

fn footer(file: &[u8]) -> Result<Footer<'_>> {
    if !file.starts_with(MAGIC) {
        return Err(Error::new("they don't begin as an Arrow IPC file does"));
    }
    let (body, trailer) = file.split_last_chunk::<TRAILER>().context("they are cut off")?;
    let length = read_footer_length(*trailer).context("they are cut off")?;
    let start = body.len().checked_sub(length).context("the footer is longer than the file")?;
    root_as_footer(&body[start..]).map_err(Error::new)
}

/// The message of a block, once every buffer that it names was found to lie inside of it: Arrow's decoder takes
/// these numbers on trust.
fn message(file: &Buffer, block: &Block) -> Result<Buffer> {
    let inside = || {
        let start = usize::try_from(block.offset()).ok()?;
        let metadata = usize::try_from(block.metaDataLength()).ok().filter(|length| *length >= PREFIX)?;
        let body = usize::try_from(block.bodyLength()).ok()?;
        let length = metadata.checked_add(body)?;
        (start.checked_add(length)? <= file.len()).then(|| (file.slice_with_length(start, length), metadata, body))
    };
    let (data, metadata, body) = inside().context("it lies outside of the file")?;
    let message = root_as_message(data.get(PREFIX..metadata).context("it has no header")?).map_err(Error::new)?;
    let header = message.header_as_record_batch().context("it has no header")?;
    if header.compression().is_some() || header.variadicBufferCounts().is_some_and(|counts| !counts.is_empty()) {
        return Err(Error::new("it is not in canonical form"));
    }
    let buffers_fit = header.buffers().into_iter().flatten().all(|buffer| {
        let end = buffer.offset().checked_add(buffer.length());
        buffer.offset() >= 0 && buffer.length() >= 0 && end.is_some_and(|end| end as u64 <= body as u64)
    });
    let nodes_fit = header.nodes().into_iter().flatten().all(|node| (0..=node.length()).contains(&node.null_count()));
    if !buffers_fit || !nodes_fit {
        return Err(Error::new("its columns lie outside of it"));
    }
    Ok(data)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::*;
    use arrow::buffer::{BooleanBuffer, NullBuffer, OffsetBuffer};
    use arrow::compute::{cast, take};
    use arrow::datatypes::{DataType, Field, FieldRef, Fields, Int32Type, Schema, TimeUnit};
    use proptest::prelude::*;

    /// Rows of a batch in these tests.
    const ROWS: usize = 7;

    fn mix(seed: u32, salt: u32) -> u32 {
        let mixed = (seed ^ salt.wrapping_mul(0x9E37_79B9)).wrapping_mul(0x85EB_CA6B);
        (mixed ^ (mixed >> 13)).wrapping_mul(0xC2B2_AE35) ^ (mixed >> 7)
    }

    /// A value of any type for each seed, and always the same one.
    fn values(data_type: &DataType, seeds: &[u32]) -> ArrayRef {
        let wide = |seed: &u32| (u64::from(*seed) << 32) | u64::from(mix(*seed, 1));
        let text = |seed: &u32| "añb☃c".chars().cycle().skip(*seed as usize % 5).take(*seed as usize % 9).collect();
        match data_type {
            DataType::Null => Arc::new(NullArray::new(seeds.len())),
            DataType::Boolean => Arc::new(seeds.iter().map(|seed| Some(seed % 2 == 1)).collect::<BooleanArray>()),
            DataType::Int32 => Arc::new(seeds.iter().map(|seed| *seed as i32).collect::<Int32Array>()),
            DataType::UInt8 => Arc::new(seeds.iter().map(|seed| *seed as u8).collect::<UInt8Array>()),
            DataType::Float64 => {
                Arc::new(seeds.iter().map(|seed| f64::from_bits(wide(seed))).collect::<Float64Array>())
            }
            DataType::Float32 => {
                let odd = [0.0, -0.0, f32::NAN, f32::from_bits(0xFFC0_1234), f32::INFINITY, 1.5];
                Arc::new(seeds.iter().map(|seed| odd[*seed as usize % odd.len()]).collect::<Float32Array>())
            }
            DataType::Decimal128(..) => {
                let decimals: Decimal128Array = seeds.iter().map(|seed| i128::from(wide(seed))).collect();
                Arc::new(decimals.with_data_type(data_type.clone()))
            }
            DataType::Timestamp(..) => {
                let times: Int64Array = seeds.iter().map(|seed| i64::from(*seed)).collect();
                Arc::new(cast(&times, data_type).unwrap())
            }
            DataType::FixedSizeBinary(_) => {
                let bytes: Vec<u8> = seeds.iter().flat_map(|seed| seed.to_le_bytes().into_iter().take(3)).collect();
                Arc::new(FixedSizeBinaryArray::new(3, Buffer::from_vec(bytes), None))
            }
            DataType::Utf8 => Arc::new(seeds.iter().map(|seed| Some::<String>(text(seed))).collect::<StringArray>()),
            DataType::LargeUtf8 | DataType::Binary | DataType::LargeBinary => {
                cast(&values(&DataType::Utf8, seeds), data_type).unwrap()
            }
            DataType::List(item) => {
                let (offsets, children) = children(item, seeds);
                Arc::new(ListArray::new(item.clone(), offsets, children, None))
            }
            DataType::LargeList(item) => {
                let (offsets, children) = children(item, seeds);
                let offsets = OffsetBuffer::from_lengths(offsets.lengths());
                Arc::new(LargeListArray::new(item.clone(), offsets, children, None))
            }
            DataType::Map(entries, sorted) => {
                let (offsets, children) = children(entries, seeds);
                Arc::new(MapArray::new(entries.clone(), offsets, children.as_struct().clone(), None, *sorted))
            }
            DataType::FixedSizeList(item, 2) => {
                let seeds: Vec<u32> = seeds.iter().flat_map(|seed| [mix(*seed, 2), mix(*seed, 3)]).collect();
                Arc::new(FixedSizeListArray::new(item.clone(), 2, field_values(item, &seeds), None))
            }
            DataType::Struct(fields) => {
                let column = |(salt, field): (usize, &FieldRef)| {
                    let seeds: Vec<u32> = seeds.iter().map(|seed| mix(*seed, 10 + salt as u32)).collect();
                    field_values(field, &seeds)
                };
                Arc::new(StructArray::new(fields.clone(), fields.iter().enumerate().map(column).collect(), None))
            }
            other => unreachable!("{other}"),
        }
    }

    fn children(item: &FieldRef, seeds: &[u32]) -> (OffsetBuffer<i32>, ArrayRef) {
        let lengths = seeds.iter().map(|seed| mix(*seed, 4) % 4);
        let items = seeds.iter().zip(lengths.clone()).flat_map(|(seed, n)| (0..n).map(|i| mix(*seed, 20 + i)));
        let items: Vec<u32> = items.collect();
        (OffsetBuffer::from_lengths(lengths.map(|n| n as usize)), field_values(item, &items))
    }

    /// Values of a field; a nullable one has a null for every third seed.
    fn field_values(field: &Field, seeds: &[u32]) -> ArrayRef {
        let nulls =
            NullBuffer::from_iter(seeds.iter().map(|seed| !(field.is_nullable() && mix(*seed, 5).is_multiple_of(3))));
        with_nulls(&values(field.data_type(), seeds), &nulls)
    }

    fn with_nulls(array: &ArrayRef, nulls: &NullBuffer) -> ArrayRef {
        match array.data_type() {
            DataType::Null => array.clone(),
            _ => make_array(array.to_data().into_builder().nulls(Some(nulls.clone())).build().unwrap()),
        }
    }

    fn field(name: &str, data_type: DataType, nullable: bool) -> FieldRef {
        Arc::new(Field::new(name, data_type, nullable))
    }

    fn types() -> Vec<DataType> {
        let pair = vec![field("n", DataType::Int32, false), field("s", DataType::Utf8, true)];
        let deep = vec![
            field("l", DataType::List(field("item", DataType::Utf8, true)), false),
            field("f", DataType::FixedSizeList(field("item", DataType::Float32, false), 2), true),
            field("x", DataType::Null, true),
        ];
        let entries = vec![field("keys", DataType::Utf8, false), field("values", DataType::Int32, true)];
        let item = |data_type, nullable| field("item", data_type, nullable);
        vec![
            DataType::Null,
            DataType::Boolean,
            DataType::Int32,
            DataType::UInt8,
            DataType::Float32,
            DataType::Float64,
            DataType::Decimal128(38, 2),
            DataType::Timestamp(TimeUnit::Nanosecond, Some("Europe/Rome".into())),
            DataType::FixedSizeBinary(3),
            DataType::Utf8,
            DataType::LargeUtf8,
            DataType::Binary,
            DataType::LargeBinary,
            DataType::List(item(DataType::Int32, true)),
            DataType::LargeList(item(DataType::Utf8, false)),
            DataType::FixedSizeList(item(DataType::Boolean, true), 2),
            DataType::Struct(pair.clone().into()),
            DataType::List(item(DataType::Struct(pair.into()), true)),
            DataType::Struct(deep.into()),
            DataType::Map(field("entries", DataType::Struct(entries.into()), false), false),
        ]
    }

    /// The same values in another layout, if there is one for the type.
    fn relaid(array: &ArrayRef, layout: usize) -> ArrayRef {
        let to = match (layout, array.data_type()) {
            (1, DataType::Utf8) => DataType::Utf8View,
            (1, DataType::Binary) => DataType::BinaryView,
            (1, DataType::List(item)) => DataType::ListView(item.clone()),
            (1, DataType::LargeList(item)) => DataType::LargeListView(item.clone()),
            (2, DataType::Utf8 | DataType::Int32 | DataType::LargeUtf8) => {
                let to = DataType::Dictionary(Box::new(DataType::Int32), Box::new(array.data_type().clone()));
                let dictionary = cast(array, &to).unwrap();
                let dictionary = dictionary.as_dictionary::<Int32Type>();
                // Another order, and values that nobody uses.
                let size = dictionary.values().len() as i32;
                let order: Int32Array = (0..size).rev().chain(0..size).collect();
                let values = take(dictionary.values(), &order, None).unwrap();
                let keys = dictionary.keys().unary::<_, Int32Type>(|key| size - 1 - key.clamp(0, size.max(1) - 1));
                return Arc::new(DictionaryArray::new(keys, values));
            }
            (3, DataType::Utf8 | DataType::Int32) => {
                let values = field("values", array.data_type().clone(), true);
                DataType::RunEndEncoded(field("run_ends", DataType::Int32, false), values)
            }
            (3, DataType::Struct(fields)) => {
                let columns: Vec<ArrayRef> =
                    array.as_struct().columns().iter().map(|column| relaid(column, 1 + column.len() % 2)).collect();
                let fields: Fields = fields
                    .iter()
                    .zip(&columns)
                    .map(|(field, column)| Arc::new(field.as_ref().clone().with_data_type(column.data_type().clone())))
                    .collect();
                return Arc::new(StructArray::new(fields, columns, array.nulls().cloned()));
            }
            _ => return array.clone(),
        };
        cast(array, &to).unwrap()
    }

    fn frame(columns: Vec<(ArrayRef, bool)>, rows: usize) -> Frame {
        let named = columns.iter().enumerate();
        let fields =
            named.map(|(i, (array, nullable))| Field::new(format!("c{i}"), array.data_type().clone(), *nullable));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let columns = columns.into_iter().map(|(array, _)| array).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        Frame::new(schema.clone(), vec![RecordBatch::try_new_with_options(schema, columns, &options).unwrap()]).unwrap()
    }

    /// The canonical bytes of a frame, once it was found that it is kept as it is read back.
    fn laid_out(frame: &Frame, batch_rows: usize) -> Vec<u8> {
        let (pieces, kept) = write_batches(frame.clone(), batch_rows).unwrap();
        let bytes = pieces.join().to_vec();
        let read = read_batches(&Buffer::from(&*bytes), batch_rows).unwrap();
        assert_eq!((kept.schema(), kept.batches()), (read.schema(), read.batches()));
        bytes
    }

    fn split(frame: &Frame, cuts: &[usize]) -> Frame {
        let batch = frame.to_batch().unwrap();
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (frame.rows() + 1)).chain([0, frame.rows()]).collect();
        cuts.sort_unstable();
        let parts = cuts.windows(2).map(|cut| batch.slice(cut[0], cut[1] - cut[0])).collect();
        Frame::new(frame.schema().clone(), parts).unwrap()
    }

    #[derive(Debug, Clone)]
    struct Column {
        data_type: DataType,
        nullable: bool,
        layout: usize,
        seeds: Vec<u32>,
        valid: Vec<bool>,
        garbage: Vec<u32>,
        before: usize,
    }

    fn column(rows: usize) -> impl Strategy<Value = Column> {
        let seeds = || prop::collection::vec(any::<u32>(), rows);
        let valid = prop::collection::vec(any::<bool>(), rows);
        (prop::sample::select(types()), any::<bool>(), 0..4usize, seeds(), valid, seeds(), 0..20usize).prop_map(
            |(data_type, nullable, layout, seeds, valid, garbage, before)| {
                let nullable = nullable || data_type == DataType::Null;
                let valid = valid.into_iter().map(|valid| valid || !nullable).collect();
                Column { data_type, nullable, layout, seeds, valid, garbage, before }
            },
        )
    }

    impl Column {
        /// Its values as one makes them: zeros under nulls.
        fn clean(&self) -> ArrayRef {
            let seeds: Vec<u32> =
                self.seeds.iter().zip(&self.valid).map(|(seed, valid)| if *valid { *seed } else { 0 }).collect();
            with_nulls(&values(&self.data_type, &seeds), &self.valid.clone().into())
        }

        /// The same values: garbage under nulls, in the middle of a longer array, in another layout.
        fn messy(&self) -> ArrayRef {
            let kept = self.seeds.iter().zip(&self.valid).zip(&self.garbage);
            let seeds: Vec<u32> = kept.map(|((seed, valid), junk)| if *valid { *seed } else { *junk }).collect();
            let junk = |salt| -> Vec<u32> { (0..self.before as u32).map(|i| mix(i, salt)).collect() };
            let seeds = [junk(6), seeds, junk(7)].concat();
            let around = vec![true; self.before];
            let valid = [around.clone(), self.valid.clone(), around].concat();
            let array = with_nulls(&values(&self.data_type, &seeds), &valid.into());
            relaid(&array, self.layout).slice(self.before, self.seeds.len())
        }
    }

    fn columns() -> impl Strategy<Value = (usize, Vec<Column>, Vec<usize>)> {
        (0..40usize).prop_flat_map(|rows| {
            (Just(rows), prop::collection::vec(column(rows), 0..5), prop::collection::vec(any::<usize>(), 0..5))
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn equal_frames_have_equal_bytes((rows, columns, cuts) in columns()) {
            let clean = frame(columns.iter().map(|column| (column.clean(), column.nullable)).collect(), rows);
            let messy = frame(columns.iter().map(|column| (column.messy(), column.nullable)).collect(), rows);
            let bytes = laid_out(&clean, ROWS);
            prop_assert_eq!(&bytes, &laid_out(&split(&messy, &cuts), ROWS));

            let read = read_batches(&Buffer::from_vec(bytes.clone()), ROWS).unwrap();
            prop_assert_eq!(read.rows(), rows);
            prop_assert_eq!(read.batches().len(), rows.div_ceil(ROWS));
            prop_assert_eq!(read.schema(), clean.schema());
            if rows > 0 {
                prop_assert_eq!(read.to_batch().unwrap(), clean.to_batch().unwrap());
            }
            prop_assert_eq!(bytes, laid_out(&read, ROWS));
        }

        #[test]
        fn frames_that_differ_have_different_bytes(column in column(9), row in 0..9usize, seed: u32) {
            let mut other = column.clone();
            other.seeds[row] = seed;
            let (one, two) = (column.clean(), other.clean());
            let write = |array: &ArrayRef| laid_out(&frame(vec![(array.clone(), column.nullable)], 9), ROWS);
            prop_assert_eq!(one.to_data() == two.to_data(), write(&one) == write(&two));
        }

        #[test]
        fn what_is_read_of_damaged_files_holds_together(
            (rows, columns, _) in columns(),
            edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u64>(), 1..=8usize), 1..8),
        ) {
            let clean = frame(columns.iter().map(|column| (column.clean(), column.nullable)).collect(), rows);
            let mut bytes = laid_out(&clean, ROWS);
            for (at, value, width) in edits {
                let at = at.index(bytes.len());
                bytes[at..].iter_mut().zip(value.to_le_bytes()).take(width).for_each(|(byte, new)| *byte = new);
            }
            // `decode` makes errors of the panics that Arrow's reader can't be kept from.
            let read = std::panic::catch_unwind(|| read_batches(&Buffer::from_vec(bytes), ROWS));
            if let Ok(Ok(frame)) = read {
                let _ = write_batches(frame, ROWS);
            }
        }
    }

    #[test]
    fn batches_have_one_size_and_share_the_file() {
        let count = 2 * BATCH_ROWS + 10;
        let numbers: ArrayRef = Arc::new((0..count as i64).collect::<Int64Array>());
        let frame = Frame::from_columns([("n", numbers)]).unwrap();
        let bytes = Bytes::from(laid_out(&frame, BATCH_ROWS));
        assert_eq!(laid_out(&split(&frame, &[1, BATCH_ROWS + 1, 2 * BATCH_ROWS]), BATCH_ROWS), bytes);
        let read = read(bytes.clone()).unwrap();
        let sizes: Vec<usize> = read.batches().iter().map(RecordBatch::num_rows).collect();
        assert_eq!(sizes, [BATCH_ROWS, BATCH_ROWS, 10]);
        for batch in read.batches() {
            let start = batch.column(0).to_data().buffers()[0].as_ptr();
            assert!(bytes.as_ptr_range().contains(&start), "the column was copied");
        }
    }

    #[test]
    fn columns_in_canonical_form_are_shared_and_not_copied() {
        // In allocations of their own size, as builders that were told their length make them.
        let rows = BATCH_ROWS + 10;
        let numbers: ArrayRef = Arc::new(Int64Array::from((0..rows as i64).collect::<Vec<_>>()));
        let mut words = StringBuilder::with_capacity(rows, 6 * rows);
        (0..rows).for_each(|row| words.append_value(format!("{row:06}")));
        let words: ArrayRef = Arc::new(words.finish());
        let frame = Frame::from_columns([("n", numbers), ("w", words)]).unwrap();
        let (pieces, kept) = write(frame.clone()).unwrap();
        for column in 0..2 {
            let data = |frame: &Frame| frame.batches()[0].column(column).to_data().buffers()[column].as_ptr();
            assert_eq!(data(&kept), data(&frame));
            assert!(pieces.iter().any(|piece| piece.as_ptr() == data(&frame)));
        }
    }

    #[test]
    fn an_empty_frame_keeps_its_schema_and_metadata_is_dropped() {
        let noted = |field: Field| field.with_metadata([("k".to_owned(), "v".to_owned())].into());
        let schema = Schema::new(vec![noted(Field::new("a", DataType::Utf8View, true))])
            .with_metadata([("k".to_owned(), "v".to_owned())].into());
        let read = read(laid_out(&Frame::new(Arc::new(schema), Vec::new()).unwrap(), BATCH_ROWS).into()).unwrap();
        assert_eq!((read.rows(), read.batches().len()), (0, 0));
        assert_eq!(**read.schema(), Schema::new(vec![Field::new("a", DataType::Utf8, true)]));
    }

    #[test]
    fn padding_bits_are_zero() {
        let bits = BooleanBuffer::new(Buffer::from_vec(vec![0xFFu8; 4]), 3, 11);
        let nulls = NullBuffer::new(BooleanBuffer::new(Buffer::from_vec(vec![0b1111_0111u8; 4]), 1, 11));
        let messy: ArrayRef = Arc::new(BooleanArray::new(bits, Some(nulls.clone())));
        let clean: ArrayRef = Arc::new(nulls.iter().map(|valid| valid.then_some(true)).collect::<BooleanArray>());
        let write = |array: ArrayRef| laid_out(&frame(vec![(array, true)], 11), BATCH_ROWS);
        assert_eq!(write(messy), write(clean));
    }

    #[test]
    fn what_has_no_canonical_form_is_refused() {
        let dictionary =
            DictionaryArray::new(Int32Array::from(vec![0, 1]), Arc::new(Int32Array::from(vec![Some(1), None])));
        let error = write(frame(vec![(Arc::new(dictionary), false)], 2)).unwrap_err();
        assert_eq!(error.to_string(), "column \"c0\": the schema says that there are no nulls, but there are");

        let mut union = UnionBuilder::new_dense();
        union.append::<Int32Type>("a", 1).unwrap();
        let error = write(frame(vec![(Arc::new(union.build().unwrap()), true)], 1)).unwrap_err();
        assert_eq!(error.to_string(), "column \"c0\": a frame can't keep a union");
    }
}
