//! Fields of text to typed columns.

use super::record::{Dialect, Field};
use super::value::{boolean, date, digits, float, int, moment};
use arrow::array::builder::{BooleanBuilder, NullBufferBuilder, StringBuilder};
use arrow::array::{ArrayRef, ArrowPrimitiveType, PrimitiveArray};
use arrow::buffer::ScalarBuffer;
use arrow::datatypes::{
    DataType, Date32Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, TimeUnit,
    TimestampMicrosecondType, TimestampNanosecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use std::sync::Arc;

/// Which texts stand for a missing value.
#[derive(Clone, Debug)]
pub(super) struct Nulls {
    empty: bool,
    texts: Vec<String>,
    /// The first bytes of `texts`: most values are told apart by theirs.
    first: [bool; 256],
}

impl Nulls {
    pub(super) fn new(texts: &[String]) -> Self {
        let mut nulls = Self { empty: false, texts: Vec::new(), first: [false; 256] };
        for text in texts {
            match text.as_bytes().first() {
                None => nulls.empty = true,
                Some(first) => {
                    if let Some(slot) = nulls.first.get_mut(usize::from(*first)) {
                        *slot = true;
                    }
                    nulls.texts.push(text.clone());
                }
            }
        }
        nulls
    }

    /// Whether a text stands for a missing value.
    pub(super) fn contain(&self, text: &[u8]) -> bool {
        match text.first() {
            None => self.empty,
            Some(first) => {
                self.first.get(usize::from(*first)).is_some_and(|may| *may)
                    && self.texts.iter().any(|null| null.as_bytes() == text)
            }
        }
    }
}

/// One column of a block.
pub(super) struct Cells<'a> {
    /// The block's text.
    pub(super) text: &'a str,
    /// The fields of all columns, row by row.
    pub(super) fields: &'a [Field],
    /// How many columns there are.
    pub(super) width: usize,
    /// Which one this is.
    pub(super) column: usize,
    /// What stands for a missing value.
    pub(super) nulls: &'a Nulls,
    /// How fields are enclosed.
    pub(super) dialect: Dialect,
}

impl<'a> Cells<'a> {
    fn rows(&self) -> usize {
        self.fields.len() / self.width.max(1)
    }

    fn iter(&self) -> impl Iterator<Item = Field> + use<'a> {
        self.fields.iter().skip(self.column).step_by(self.width.max(1)).copied()
    }

    /// The column as an array, or the row of the first value that is not of its type.
    pub(super) fn parse(&self, data_type: &DataType) -> Result<ArrayRef, usize> {
        Ok(match data_type {
            DataType::Boolean => self.booleans()?,
            DataType::Int8 => self.primitive::<Int8Type>(|value| value.int()?.try_into().ok())?,
            DataType::Int16 => self.primitive::<Int16Type>(|value| value.int()?.try_into().ok())?,
            DataType::Int32 => self.primitive::<Int32Type>(|value| value.int()?.try_into().ok())?,
            DataType::Int64 => self.primitive::<Int64Type>(|value| value.int())?,
            DataType::UInt8 => self.primitive::<UInt8Type>(|value| value.int()?.try_into().ok())?,
            DataType::UInt16 => self.primitive::<UInt16Type>(|value| value.int()?.try_into().ok())?,
            DataType::UInt32 => self.primitive::<UInt32Type>(|value| value.int()?.try_into().ok())?,
            DataType::UInt64 => self.primitive::<UInt64Type>(|value| value.text().trim_ascii().parse().ok())?,
            DataType::Float32 => self.primitive::<Float32Type>(|value| value.text().trim_ascii().parse().ok())?,
            DataType::Float64 => self.primitive::<Float64Type>(|value| float(value.text()))?,
            DataType::Date32 => self.primitive::<Date32Type>(lately(date))?,
            DataType::Timestamp(TimeUnit::Nanosecond, _) => {
                self.primitive::<TimestampNanosecondType>(lately(|text| moment(text)?.nanoseconds()))?
            }
            DataType::Timestamp(_, None) => {
                self.primitive::<TimestampMicrosecondType>(lately(|text| moment(text)?.micros()))?
            }
            DataType::Timestamp(_, Some(_)) => {
                self.primitive::<TimestampMicrosecondType>(lately(|text| moment(text).filter(|at| at.zoned)?.micros()))?
            }
            _ => self.strings(),
        })
        .map(|array: ArrayRef| match data_type {
            DataType::Timestamp(_, Some(_)) => zoned(array, data_type),
            _ => array,
        })
    }

    fn primitive<T: ArrowPrimitiveType>(
        &self,
        mut parse: impl FnMut(Value<'a>) -> Option<T::Native>,
    ) -> Result<ArrayRef, usize> {
        let mut values = Vec::with_capacity(self.rows());
        let mut valid = NullBufferBuilder::new(self.rows());
        for (row, field) in self.iter().enumerate() {
            let value = Value { text: self.text, field };
            if self.nulls.contain(value.bytes()) {
                values.push(T::Native::default());
                valid.append_null();
                continue;
            }
            match parse(value) {
                Some(value) => {
                    values.push(value);
                    valid.append_non_null();
                }
                None if self.nulls.contain(value.bytes().trim_ascii()) => {
                    values.push(T::Native::default());
                    valid.append_null();
                }
                None => return Err(row),
            }
        }
        Ok(Arc::new(PrimitiveArray::<T>::new(ScalarBuffer::from(values), valid.finish())))
    }

    fn booleans(&self) -> Result<ArrayRef, usize> {
        let mut values = BooleanBuilder::with_capacity(self.rows());
        for (row, field) in self.iter().enumerate() {
            let text = field.raw(self.text);
            match boolean(text) {
                Some(value) if !self.nulls.contain(text.as_bytes()) => values.append_value(value),
                _ if self.nulls.contain(text.as_bytes().trim_ascii()) => values.append_null(),
                _ => return Err(row),
            }
        }
        Ok(Arc::new(values.finish()))
    }

    /// Text is taken as it stands; what is enclosed in quotes is never a missing value.
    fn strings(&self) -> ArrayRef {
        let mut values = StringBuilder::with_capacity(self.rows(), self.text.len() / self.width.max(1));
        for field in self.iter() {
            let text = field.raw(self.text);
            if field.is_doubled() {
                values.append_value(self.dialect.single(text));
            } else if !field.is_quoted() && self.nulls.contain(text.as_bytes()) {
                values.append_null();
            } else {
                values.append_value(text);
            }
        }
        Arc::new(values.finish())
    }
}

/// One value, where it stands.
#[derive(Clone, Copy)]
struct Value<'a> {
    text: &'a str,
    field: Field,
}

impl<'a> Value<'a> {
    fn text(self) -> &'a str {
        self.field.raw(self.text)
    }

    fn bytes(self) -> &'a [u8] {
        self.field.bytes(self.text.as_bytes())
    }

    fn int(self) -> Option<i64> {
        digits(self.text.as_bytes(), self.field.start(), self.field.end()).or_else(|| int(self.text()))
    }
}

/// Reads values of which neighbours are often the same, as the hours of an hourly table are.
fn lately<'a, T: Copy>(read: impl Fn(&str) -> Option<T>) -> impl FnMut(Value<'a>) -> Option<T> {
    let mut last: (&[u8], Option<T>) = (b"", None);
    move |value| {
        if last.1.is_none() || last.0 != value.bytes() {
            last = (value.bytes(), read(value.text()));
        }
        last.1
    }
}

/// The same instants, with the zone in their type.
fn zoned(array: ArrayRef, data_type: &DataType) -> ArrayRef {
    let data = array.to_data().into_builder().data_type(data_type.clone());
    data.build().map_or(array, arrow::array::make_array)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Array, AsArray};

    fn parse(text: &str, data_type: &DataType) -> Result<ArrayRef, usize> {
        let dialect = Dialect { delimiter: b',', quote: Some(b'"') };
        let nulls = Nulls::new(&["".into(), "NA".into(), "-9".into()]);
        let fields = dialect.records(text.as_bytes(), 0, 2).unwrap();
        Cells { text, fields: &fields, width: 2, column: 1, nulls: &nulls, dialect }.parse(data_type)
    }

    #[test]
    fn columns_of_every_type() {
        let array = parse("a,1\nb,\nc,NA\nd,-9\ne, 7\n", &DataType::Int64).unwrap();
        let values: Vec<Option<i64>> = array.as_primitive::<Int64Type>().iter().collect();
        assert_eq!(values, [Some(1), None, None, None, Some(7)]);
        assert_eq!(parse("a,1\nb,x\n", &DataType::Int64).unwrap_err(), 1);
        assert_eq!(parse("a,300\n", &DataType::UInt8).unwrap_err(), 0);
        assert_eq!(parse("a,-1\n", &DataType::UInt64).unwrap_err(), 0);
        let array = parse("a,true\nb,FALSE\nc,NA\n", &DataType::Boolean).unwrap();
        assert_eq!(array.as_boolean().iter().collect::<Vec<_>>(), [Some(true), Some(false), None]);
        let utc = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        let array = parse("a,1970-01-01T00:00:01Z\nb,\n", &utc).unwrap();
        assert_eq!((array.data_type(), array.null_count()), (&utc, 1));
        assert_eq!(array.as_primitive::<TimestampMicrosecondType>().value(0), 1_000_000);
        assert_eq!(parse("a,1970-01-01T00:00:01\n", &utc).unwrap_err(), 0);
    }

    #[test]
    fn quoted_text_is_never_missing_but_quoted_numbers_may_be() {
        let array = parse("a,NA\nb,\"NA\"\nc,\"\"\nd,\"x\"\"y\"\ne,\n", &DataType::Utf8).unwrap();
        let values: Vec<Option<&str>> = array.as_string::<i32>().iter().collect();
        assert_eq!(values, [None, Some("NA"), Some(""), Some("x\"y"), None]);
        assert_eq!(parse("a,\"1\"\nb,\"\"\n", &DataType::Int64).unwrap().null_count(), 1);
    }
}
