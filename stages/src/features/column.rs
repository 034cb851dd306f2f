//! Columns in the few forms in which steps work on them.

use super::fixed_hash::Fixed;
use arrow::array::{Array, ArrayRef, AsArray, FixedSizeListArray};
use arrow::compute::{CastOptions, cast, cast_with_options};
use arrow::datatypes::{DataType, Field, Float64Type, Int64Type, TimeUnit};
use ropeway_framework::{Context, Error, Result};
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

/// What a column is to the steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Integers, floats, decimals and booleans.
    Numbers,
    /// Text; the categories of a dictionary are text too.
    Text,
    /// Points in time; `clock` says whether they have a time of day.
    Times { clock: bool },
    /// Lists of numbers of one length: images, embeddings.
    Vectors,
}

impl Kind {
    /// The kind of an Arrow type, if steps can work on it.
    pub(super) fn of(data_type: &DataType) -> Option<Self> {
        match data_type {
            DataType::Boolean => Some(Kind::Numbers),
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Some(Kind::Text),
            DataType::Dictionary(_, values) => Self::of(values).filter(|kind| *kind == Kind::Text),
            DataType::Date32 | DataType::Date64 => Some(Kind::Times { clock: false }),
            DataType::Timestamp(..) => Some(Kind::Times { clock: true }),
            DataType::FixedSizeList(item, _) if item.data_type().is_numeric() => Some(Kind::Vectors),
            other if other.is_numeric() => Some(Kind::Numbers),
            _ => None,
        }
    }

    /// What to call it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Kind::Numbers => "numbers",
            Kind::Text => "text",
            Kind::Times { clock: true } => "times",
            Kind::Times { clock: false } => "dates",
            Kind::Vectors => "vectors",
        }
    }
}

/// The one type that stands for all types with the same values: text is `Utf8`, a vector's item is called `item`.
pub(super) fn plain_type(data_type: &DataType) -> DataType {
    match (Kind::of(data_type), data_type) {
        (Some(Kind::Text), _) => DataType::Utf8,
        (_, DataType::FixedSizeList(item, size)) => {
            DataType::FixedSizeList(Arc::new(Field::new_list_field(item.data_type().clone(), true)), *size)
        }
        (_, other) => other.clone(),
    }
}

/// A column, or a piece of one.
pub(super) enum Column {
    /// Numbers; NaN is a missing value.
    Numbers(Vec<f64>),
    /// Text by its distinct values.
    Text(Text),
    /// Seconds since 1970; [`NO_TIME`] is a missing value.
    Times(Vec<i64>),
    /// Vectors, as they came.
    Vectors(ArrayRef),
}

/// A missing time.
pub(super) const NO_TIME: i64 = i64::MIN;

/// A missing text.
pub(super) const NO_TEXT: u32 = u32::MAX;

/// Text: each distinct value once, and which one each row has.
#[derive(Default)]
pub(super) struct Text {
    /// The distinct values in the order in which they first appear.
    pub(super) values: Vec<String>,
    /// The position in `values` of each row; [`NO_TEXT`] where it is missing.
    pub(super) codes: Vec<u32>,
}

impl Column {
    /// Reads the pieces of one column of a table, or one piece, as `kind`.
    ///
    /// # Errors
    /// A type whose values can't be read so without loss.
    pub(super) fn read(pieces: &[ArrayRef], data_type: &DataType) -> Result<Self> {
        match Kind::of(data_type) {
            Some(Kind::Numbers) => numbers(pieces).map(Column::Numbers),
            Some(Kind::Text) => texts(pieces).map(Column::Text),
            Some(Kind::Times { clock }) => times(pieces, clock).map(Column::Times),
            Some(Kind::Vectors) => vectors(pieces, data_type).map(Column::Vectors),
            None => Err(Error::usage(format!("no feature can be made of {data_type}"))),
        }
    }
}

fn wrong(expected: &str, found: &DataType) -> Error {
    Error::usage(format!("expected {expected}, found {found}")).help("convert it with `sql`: CAST(column AS type)")
}

fn numbers(pieces: &[ArrayRef]) -> Result<Vec<f64>> {
    let mut values = Vec::with_capacity(pieces.iter().map(Array::len).sum());
    for piece in pieces {
        if Kind::of(piece.data_type()) != Some(Kind::Numbers) && piece.data_type() != &DataType::Null {
            return Err(wrong("numbers", piece.data_type()));
        }
        let piece = cast(piece, &DataType::Float64)?;
        let piece = piece.as_primitive::<Float64Type>();
        let start = values.len();
        values.extend_from_slice(piece.values());
        if let Some(nulls) = piece.nulls().filter(|nulls| nulls.null_count() > 0) {
            for (value, valid) in values[start..].iter_mut().zip(nulls) {
                *value = if valid { *value } else { f64::NAN };
            }
        }
    }
    Ok(values)
}

fn texts(pieces: &[ArrayRef]) -> Result<Text> {
    let plain = pieces
        .iter()
        .map(|piece| match piece.data_type() {
            DataType::Utf8 => Ok(piece.clone()),
            // An integer or a truth value has one text; a float has many.
            other if Kind::of(other) == Some(Kind::Text) || other.is_integer() || other.is_null() => {
                Ok(cast(piece, &DataType::Utf8)?)
            }
            DataType::Boolean => Ok(cast(piece, &DataType::Utf8)?),
            other => Err(wrong("text", other)),
        })
        .collect::<Result<Vec<_>>>()?;
    let rows = plain.iter().flat_map(|piece| piece.as_string::<i32>().iter());
    Ok(Text::of(rows, str::to_owned))
}

/// What tells texts apart before they are text.
trait Key: Copy + Eq + Hash {
    /// A number below [`SPOTS`]; other keys may have it too.
    fn spot(self) -> usize;
}

/// Keys that are remembered beside the map: most rows have one of few, and are found without a hash.
const SPOTS: usize = 1024;

impl Key for &str {
    fn spot(self) -> usize {
        let head = self.bytes().take(8).fold(self.len(), |sum, byte| sum.wrapping_mul(37) ^ usize::from(byte));
        head % SPOTS
    }
}

impl Key for u64 {
    fn spot(self) -> usize {
        // The upper bits of the product with the golden ratio (Knuth, "The Art of Computer Programming", section 6.4).
        (self.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 54) as usize
    }
}

impl Text {
    /// Text of keys: equal keys are one value.
    fn of<K: Key>(rows: impl Iterator<Item = Option<K>>, write: impl Fn(K) -> String) -> Self {
        let mut known: HashMap<K, u32, Fixed> = HashMap::default();
        let mut text = Text { values: Vec::new(), codes: Vec::with_capacity(rows.size_hint().0) };
        let mut lately: [Option<(K, u32)>; SPOTS] = [None; SPOTS];
        for row in rows {
            let Some(key) = row else {
                text.codes.push(NO_TEXT);
                continue;
            };
            let spot = &mut lately[key.spot() % SPOTS];
            let code = match spot {
                Some((same, code)) if *same == key => *code,
                _ => {
                    let code = *known.entry(key).or_insert_with(|| {
                        text.values.push(write(key));
                        (text.values.len() - 1) as u32
                    });
                    *spot = Some((key, code));
                    code
                }
            };
            text.codes.push(code);
        }
        text
    }

    /// Numbers as text: the shortest that reads back to the same number (`3`, `0.25`).
    pub(super) fn of_numbers(numbers: &[f64]) -> Self {
        // Zero has two signs; adding makes them one.
        let keys = numbers.iter().map(|number| (!number.is_nan()).then_some((number + 0.0).to_bits()));
        Self::of(keys, |bits| f64::from_bits(bits).to_string())
    }

    /// How many rows each value has.
    pub(super) fn counts(&self) -> Vec<usize> {
        let mut counts = vec![0; self.values.len()];
        for code in &self.codes {
            if let Some(count) = counts.get_mut(*code as usize) {
                *count += 1;
            }
        }
        counts
    }
}

fn times(pieces: &[ArrayRef], clock: bool) -> Result<Vec<i64>> {
    let mut seconds = Vec::with_capacity(pieces.iter().map(Array::len).sum());
    for piece in pieces {
        let piece = as_times(piece, clock)?;
        let convert: fn(i64) -> i64 = match piece.data_type() {
            DataType::Date32 => |days| days * 86_400,
            DataType::Timestamp(TimeUnit::Second, _) => |seconds| seconds,
            DataType::Timestamp(TimeUnit::Microsecond, _) => |micros| micros.div_euclid(1_000_000),
            DataType::Timestamp(TimeUnit::Nanosecond, _) => |nanos| nanos.div_euclid(1_000_000_000),
            _ => |millis| millis.div_euclid(1000),
        };
        let raw = match piece.data_type() {
            DataType::Date32 => cast(&cast(&piece, &DataType::Int32)?, &DataType::Int64)?,
            _ => cast(&piece, &DataType::Int64)?,
        };
        let raw = raw.as_primitive::<Int64Type>();
        seconds.extend(raw.iter().map(|time| time.map_or(NO_TIME, convert)));
    }
    Ok(seconds)
}

/// Times as Arrow times: text is read as ISO 8601, which is how they come in a request.
fn as_times(piece: &ArrayRef, clock: bool) -> Result<ArrayRef> {
    let expected = if clock { DataType::Timestamp(TimeUnit::Millisecond, None) } else { DataType::Date32 };
    match Kind::of(piece.data_type()) {
        Some(Kind::Times { clock: found }) if clock || !found => Ok(piece.clone()),
        Some(Kind::Text) => {
            let strict = CastOptions { safe: false, ..CastOptions::default() };
            cast_with_options(piece, &expected, &strict).context("expected times as 2026-01-31T12:00:00")
        }
        _ if piece.data_type().is_null() => Ok(cast(piece, &expected)?),
        _ => Err(wrong(if clock { "times" } else { "dates" }, piece.data_type())),
    }
}

fn vectors(pieces: &[ArrayRef], expected: &DataType) -> Result<ArrayRef> {
    let parts: Vec<&dyn Array> = pieces.iter().map(AsRef::as_ref).collect();
    let whole = match pieces {
        [one] => one.clone(),
        _ => arrow::compute::concat(&parts)?,
    };
    if plain_type(whole.data_type()) != *expected {
        return Err(wrong(&expected.to_string(), whole.data_type()));
    }
    let DataType::FixedSizeList(item, size) = expected else { return Ok(whole) };
    let list = whole.as_fixed_size_list();
    let list = FixedSizeListArray::try_new(item.clone(), *size, list.values().clone(), list.nulls().cloned())?;
    Ok(Arc::new(list))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Date32Array, DictionaryArray, Int32Array, StringArray, TimestampNanosecondArray};
    use arrow::datatypes::Int32Type;

    fn array(array: impl Array + 'static) -> ArrayRef {
        Arc::new(array)
    }

    #[test]
    fn every_number_is_a_float_and_null_is_nan() {
        let pieces = [array(Int32Array::from(vec![Some(1), None])), array(Int32Array::from(vec![3]))];
        let values = numbers(&pieces).unwrap();
        assert!(values[0] == 1.0 && values[1].is_nan() && values[2] == 3.0);
        assert!(numbers(&[array(StringArray::from(vec!["1"]))]).is_err());
    }

    #[test]
    fn text_is_kept_once() {
        let words: DictionaryArray<Int32Type> = vec![Some("b"), None, Some("a"), Some("b")].into_iter().collect();
        let text = texts(&[array(words), array(StringArray::from(vec!["a"]))]).unwrap();
        assert_eq!(text.values, ["b", "a"]);
        assert_eq!(text.codes, [0, NO_TEXT, 1, 0, 1]);
        assert_eq!(text.counts(), [2, 2]);
        assert_eq!(Text::of_numbers(&[1.0, 0.25, f64::NAN, -0.0]).values, ["1", "0.25", "0"]);
    }

    #[test]
    fn times_are_seconds_whatever_their_unit() {
        let nanos = array(TimestampNanosecondArray::from(vec![Some(-1), Some(1_000_000_000), None]));
        assert_eq!(times(&[nanos], true).unwrap(), [-1, 1, NO_TIME]);
        assert_eq!(times(&[array(Date32Array::from(vec![2]))], false).unwrap(), [172_800]);
        let text = array(StringArray::from(vec!["1970-01-02T00:00:01", "1970-01-02"]));
        assert_eq!(times(&[text], true).unwrap(), [86_401, 86_400]);
        assert!(times(&[array(StringArray::from(vec!["noon"]))], true).is_err());
    }
}
