//! Canonical columns: equal values in equal buffers, however they were laid out.
//!
//! Layouts that only save space are written out: dictionaries and run ends become their values, string and binary
//! views become `Utf8` and `Binary`, list views become lists. Every other type stays as it is, and so do names,
//! order and nullability of fields; metadata of schema and fields is dropped. Then, in every column and child:
//! - there is no validity buffer where there are no nulls, and its padding bits are zero where there are some;
//! - a null slot holds zero bytes: a zero, an empty string, an empty list; a null struct or fixed-size list has null
//!   children, or zeros where the child has no nulls by its schema;
//! - offsets start at zero and values follow one another without gaps;
//! - floats keep their bits: `-0.0` and the payload of a NaN are part of the value.

use crate::{Context, Error, Result};
use arrow::array::{
    Array, ArrayData, ArrayRef, AsArray, BooleanArray, BooleanBufferBuilder, FixedSizeListArray, GenericByteArray,
    GenericListArray, MapArray, OffsetSizeTrait, RecordBatch, RecordBatchOptions, StructArray, make_array,
};
use arrow::buffer::{BooleanBuffer, Buffer, MutableBuffer, NullBuffer, OffsetBuffer};
use arrow::compute::{cast, concat, filter, take};
use arrow::datatypes::{
    ArrowNativeType, BinaryType, ByteArrayType, DataType, Field, FieldRef, Fields, LargeBinaryType, LargeUtf8Type,
    Schema, Utf8Type,
};
use rayon::prelude::*;
use std::sync::Arc;

/// The schema that the canonical form of a frame has.
pub(super) fn schema(schema: &Schema) -> Result<Schema> {
    let fields = schema
        .fields()
        .iter()
        .map(|field| plain_field(field).map_err(|error| error.context(format!("column {:?}", field.name()))));
    Ok(Schema::new(fields.collect::<Result<Fields>>()?))
}

/// The canonical batch of the rows of some batches, one after the other. `schema` is canonical.
pub(super) fn batch(schema: &Arc<Schema>, parts: &[RecordBatch]) -> Result<RecordBatch> {
    /// Fewer values are sooner brought into form by one thread.
    const MANY: usize = 65_536;

    let column = |position: usize, field: &Field| -> Result<ArrayRef> {
        let parts = parts
            .iter()
            .map(|part| plain(part.column(position), field.data_type()))
            .collect::<Result<Vec<ArrayRef>>>()?;
        let joined = match &*parts {
            [one] => one.clone(),
            parts => concat(&parts.iter().map(AsRef::as_ref).collect::<Vec<_>>())?,
        };
        tidy(&joined, field.is_nullable(), None)
    };
    let column = |(position, field): (usize, &FieldRef)| {
        column(position, field).map_err(|error| error.context(format!("column {:?}", field.name())))
    };
    let rows = parts.iter().map(RecordBatch::num_rows).sum::<usize>();
    let columns: Vec<Result<ArrayRef>> = match rows.saturating_mul(schema.fields().len()) > MANY {
        true => schema.fields().par_iter().enumerate().map(column).collect(),
        false => schema.fields().iter().enumerate().map(column).collect(),
    };
    // The first of several errors, whichever was found first.
    let columns = columns.into_iter().collect::<Result<Vec<_>>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    Ok(RecordBatch::try_new_with_options(schema.clone(), columns, &options)?)
}

fn plain_field(field: &FieldRef) -> Result<FieldRef> {
    Ok(Arc::new(Field::new(field.name(), plain_type(field.data_type())?, field.is_nullable())))
}

fn plain_type(data_type: &DataType) -> Result<DataType> {
    Ok(match data_type {
        DataType::Dictionary(_, values) => plain_type(values)?,
        DataType::RunEndEncoded(_, values) => plain_type(values.data_type())?,
        DataType::Utf8View => DataType::Utf8,
        DataType::BinaryView => DataType::Binary,
        DataType::List(item) | DataType::ListView(item) => DataType::List(plain_field(item)?),
        DataType::LargeList(item) | DataType::LargeListView(item) => DataType::LargeList(plain_field(item)?),
        DataType::FixedSizeList(item, size) if *size >= 0 => DataType::FixedSizeList(plain_field(item)?, *size),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(plain_field).collect::<Result<Fields>>()?),
        DataType::Map(entries, sorted) => DataType::Map(plain_field(entries)?, *sorted),
        DataType::FixedSizeList(_, size) | DataType::FixedSizeBinary(size) if *size < 0 => {
            return Err(Error::new(format!("a value can't have the negative size {size}")));
        }
        DataType::Union(..) => {
            return Err(Error::new("a frame can't keep a union").help("make one column of each of its types"));
        }
        other => other.clone(),
    })
}

/// The same values in the plain layout `to`.
fn plain(array: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
    if array.data_type() == to {
        return Ok(array.clone());
    }
    match (array.data_type(), to) {
        (DataType::Dictionary(..), _) => {
            let dictionary = array.as_any_dictionary();
            plain(&take(dictionary.values(), dictionary.keys(), None)?, to)
        }
        (DataType::RunEndEncoded(_, values), _) => plain(&cast(array, values.data_type())?, to),
        (DataType::ListView(item), _) => plain(&cast(array, &DataType::List(item.clone()))?, to),
        (DataType::LargeListView(item), _) => plain(&cast(array, &DataType::LargeList(item.clone()))?, to),
        (DataType::List(_), DataType::List(item)) => plain_list::<i32>(array, item),
        (DataType::LargeList(_), DataType::LargeList(item)) => plain_list::<i64>(array, item),
        (DataType::FixedSizeList(..), DataType::FixedSizeList(item, size)) => {
            let list = array.as_fixed_size_list();
            let values = plain(list.values(), item.data_type())?;
            let nulls = list.nulls().cloned();
            Ok(Arc::new(FixedSizeListArray::try_new_with_length(item.clone(), *size, values, nulls, list.len())?))
        }
        (DataType::Struct(_), DataType::Struct(fields)) => {
            let columns = array.as_struct().columns().iter().zip(fields);
            let columns = columns.map(|(column, field)| plain(column, field.data_type())).collect::<Result<_>>()?;
            let nulls = array.nulls().cloned();
            Ok(Arc::new(StructArray::try_new_with_length(fields.clone(), columns, nulls, array.len())?))
        }
        (DataType::Map(..), DataType::Map(entries, sorted)) => {
            let map = array.as_map();
            let (offsets, values) = compact(map.offsets(), &(Arc::new(map.entries().clone()) as ArrayRef), None)?;
            let values = plain(&values, entries.data_type())?.as_struct().clone();
            Ok(Arc::new(MapArray::try_new(entries.clone(), offsets, values, map.nulls().cloned(), *sorted)?))
        }
        _ => Ok(cast(array, to)?),
    }
}

fn plain_list<O: OffsetSizeTrait>(array: &ArrayRef, item: &FieldRef) -> Result<ArrayRef> {
    let list = array.as_list::<O>();
    let (offsets, values) = compact(list.offsets(), list.values(), None)?;
    let values = plain(&values, item.data_type())?;
    Ok(Arc::new(GenericListArray::<O>::try_new(item.clone(), offsets, values, list.nulls().cloned())?))
}

/// The same values in canonical buffers. Slots that are null in `mask` lie under a null of the parent.
fn tidy(array: &ArrayRef, nullable: bool, mask: Option<&NullBuffer>) -> Result<ArrayRef> {
    let own = array.nulls().filter(|nulls| nulls.null_count() > 0);
    if let Some(own) = own.filter(|_| !nullable)
        && !mask.is_some_and(|mask| mask.contains(own))
    {
        return Err(Error::new("the schema says that there are no nulls, but there are"));
    }
    let valid = if nullable { NullBuffer::union(own, mask) } else { mask.cloned() };
    let valid = valid.filter(|valid| valid.null_count() > 0).map(|valid| NullBuffer::new(tidy_bits(valid.inner())));
    let nulls = valid.clone().filter(|_| nullable);
    let valid = valid.as_ref();
    match array.data_type() {
        DataType::Null => Ok(array.clone()),
        DataType::Boolean => {
            let values = array.as_boolean().values();
            let values = valid.map_or_else(|| values.clone(), |valid| values & valid.inner());
            Ok(Arc::new(BooleanArray::new(tidy_bits(&values), nulls)))
        }
        DataType::Utf8 => tidy_bytes::<Utf8Type>(array, valid, nulls),
        DataType::LargeUtf8 => tidy_bytes::<LargeUtf8Type>(array, valid, nulls),
        DataType::Binary => tidy_bytes::<BinaryType>(array, valid, nulls),
        DataType::LargeBinary => tidy_bytes::<LargeBinaryType>(array, valid, nulls),
        DataType::List(item) => tidy_list::<i32>(array, item, valid, nulls),
        DataType::LargeList(item) => tidy_list::<i64>(array, item, valid, nulls),
        DataType::FixedSizeList(item, size) => {
            let values = array.as_fixed_size_list().values();
            let mask = valid.map(|valid| valid.expand(size.as_usize()));
            let values = tidy(values, item.is_nullable(), mask.as_ref())?;
            Ok(Arc::new(FixedSizeListArray::try_new_with_length(item.clone(), *size, values, nulls, array.len())?))
        }
        DataType::Struct(fields) => {
            let columns = array.as_struct().columns().iter().zip(fields);
            let columns = columns.map(|(column, field)| tidy(column, field.is_nullable(), valid));
            let columns = columns.collect::<Result<_>>()?;
            Ok(Arc::new(StructArray::try_new_with_length(fields.clone(), columns, nulls, array.len())?))
        }
        DataType::Map(entries, sorted) => {
            let map = array.as_map();
            let (offsets, values) = compact(map.offsets(), &(Arc::new(map.entries().clone()) as ArrayRef), valid)?;
            let values = tidy(&values, entries.is_nullable(), None)?.as_struct().clone();
            Ok(Arc::new(MapArray::try_new(entries.clone(), offsets, values, nulls, *sorted)?))
        }
        DataType::FixedSizeBinary(width) => tidy_fixed(array, width.as_usize(), valid, nulls),
        other => match other.primitive_width() {
            Some(width) => tidy_fixed(array, width, valid, nulls),
            None => Err(Error::new(format!("a frame can't keep values of type {other}"))),
        },
    }
}

/// Bits from the first bit of a byte on, with zeros after the last one.
fn tidy_bits(bits: &BooleanBuffer) -> BooleanBuffer {
    let mut buffer = bits.sliced();
    let used = bits.len() % 8;
    let padding = if used == 0 { 0 } else { u8::MAX << used };
    if buffer.last().is_some_and(|last| last & padding != 0) {
        let mut bytes = buffer.to_vec();
        if let Some(last) = bytes.last_mut() {
            *last &= !padding;
        }
        buffer = Buffer::from_vec(bytes);
    }
    BooleanBuffer::new(buffer, 0, bits.len())
}

/// The slots that hold no value, in order.
fn absent(valid: &NullBuffer) -> BooleanBuffer {
    !valid.inner()
}

fn tidy_fixed(
    array: &ArrayRef,
    width: usize,
    valid: Option<&NullBuffer>,
    nulls: Option<NullBuffer>,
) -> Result<ArrayRef> {
    let data = array.to_data();
    let values = data.buffers().first().context("a column without values")?;
    let mut values = values.slice_with_length(data.offset() * width, data.len() * width);
    if let Some(valid) = valid {
        let slot = |index: usize| index * width..(index + 1) * width;
        let absent = absent(valid);
        // Most null slots are zero already, and then the buffer is shared.
        if absent.set_indices().any(|index| values[slot(index)].iter().any(|byte| *byte != 0)) {
            let mut zeroed = MutableBuffer::with_capacity(values.len());
            zeroed.extend_from_slice(&values);
            absent.set_indices().for_each(|index| zeroed.as_slice_mut()[slot(index)].fill(0));
            values = zeroed.into();
        }
    }
    let data = ArrayData::builder(array.data_type().clone()).len(array.len()).add_buffer(values).nulls(nulls);
    Ok(make_array(data.build()?))
}

fn tidy_bytes<T: ByteArrayType>(
    array: &ArrayRef,
    valid: Option<&NullBuffer>,
    nulls: Option<NullBuffer>,
) -> Result<ArrayRef> {
    let array = array.as_bytes::<T>();
    let filled = |index: usize| array.value_length(index).as_usize() > 0;
    let Some(valid) = valid.filter(|valid| absent(valid).set_indices().any(filled)) else {
        let (first, last) = match (array.offsets().first(), array.offsets().last()) {
            (Some(first), Some(last)) => (first.as_usize(), last.as_usize()),
            _ => (0, 0),
        };
        let values = array.values().slice_with_length(first, last - first);
        let offsets = match first {
            0 => array.offsets().clone(),
            _ => OffsetBuffer::from_lengths(array.offsets().lengths()),
        };
        // SAFETY: offsets and values are those of a valid array, without what lies before and behind its part of the
        // values; `nulls` has its length, since `tidy` makes it of the array's own validity and of a mask of the same
        // length.
        return Ok(Arc::new(unsafe { GenericByteArray::<T>::new_unchecked(offsets, values, nulls) }));
    };
    let length = |index: usize| if valid.is_valid(index) { array.value_length(index).as_usize() } else { 0 };
    let offsets = OffsetBuffer::<T::Offset>::from_lengths((0..array.len()).map(length));
    let mut values = MutableBuffer::new(array.value_data().len());
    for index in valid.valid_indices() {
        values.extend_from_slice(AsRef::<[u8]>::as_ref(array.value(index)));
    }
    Ok(Arc::new(GenericByteArray::<T>::try_new(offsets, values.into(), nulls)?))
}

fn tidy_list<O: OffsetSizeTrait>(
    array: &ArrayRef,
    item: &FieldRef,
    valid: Option<&NullBuffer>,
    nulls: Option<NullBuffer>,
) -> Result<ArrayRef> {
    let list = array.as_list::<O>();
    let (offsets, values) = compact(list.offsets(), list.values(), valid)?;
    let values = tidy(&values, item.is_nullable(), None)?;
    Ok(Arc::new(GenericListArray::<O>::try_new(item.clone(), offsets, values, nulls)?))
}

/// Offsets from zero on and the values that they mean; null slots are empty.
fn compact<O: OffsetSizeTrait>(
    offsets: &OffsetBuffer<O>,
    values: &ArrayRef,
    valid: Option<&NullBuffer>,
) -> Result<(OffsetBuffer<O>, ArrayRef)> {
    let (first, last) = match (offsets.first(), offsets.last()) {
        (Some(first), Some(last)) => (first.as_usize(), last.as_usize()),
        _ => (0, 0),
    };
    let values = values.slice(first, last - first);
    let lengths = || offsets.lengths().enumerate();
    let Some(valid) = valid.filter(|valid| lengths().any(|(slot, length)| length > 0 && valid.is_null(slot))) else {
        return Ok((if first == 0 { offsets.clone() } else { OffsetBuffer::from_lengths(offsets.lengths()) }, values));
    };
    let mut keep = BooleanBufferBuilder::new(values.len());
    lengths().for_each(|(slot, length)| keep.append_n(length, valid.is_valid(slot)));
    let values = filter(&values, &BooleanArray::new(keep.build(), None))?;
    let lengths = lengths().map(|(slot, length)| if valid.is_valid(slot) { length } else { 0 });
    Ok((OffsetBuffer::from_lengths(lengths), values))
}
