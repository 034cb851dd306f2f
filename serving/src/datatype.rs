//! The element types of the protocol.

use arrow::datatypes::{DataType, TimeUnit};
use ropeway_framework::{Error, Result, nearest};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The type of a tensor's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[allow(missing_docs)]
pub enum Datatype {
    Bool,
    Uint8,
    Uint16,
    Uint32,
    Uint64,
    Int8,
    Int16,
    Int32,
    Int64,
    Fp16,
    Fp32,
    Fp64,
    /// The upper half of an `FP32`; binary data only.
    Bf16,
    /// Any bytes, usually UTF-8 text.
    Bytes,
}

const NAMES: [(&str, Datatype); 14] = [
    ("BOOL", Datatype::Bool),
    ("UINT8", Datatype::Uint8),
    ("UINT16", Datatype::Uint16),
    ("UINT32", Datatype::Uint32),
    ("UINT64", Datatype::Uint64),
    ("INT8", Datatype::Int8),
    ("INT16", Datatype::Int16),
    ("INT32", Datatype::Int32),
    ("INT64", Datatype::Int64),
    ("FP16", Datatype::Fp16),
    ("FP32", Datatype::Fp32),
    ("FP64", Datatype::Fp64),
    ("BF16", Datatype::Bf16),
    ("BYTES", Datatype::Bytes),
];

impl Datatype {
    /// The datatype of a column's values, or nothing for a type that has none. Lists are not values.
    pub(crate) fn of(values: &DataType) -> Option<Self> {
        Some(match values {
            DataType::Boolean => Self::Bool,
            DataType::UInt8 => Self::Uint8,
            DataType::UInt16 => Self::Uint16,
            DataType::UInt32 => Self::Uint32,
            DataType::UInt64 => Self::Uint64,
            DataType::Int8 => Self::Int8,
            DataType::Int16 => Self::Int16,
            DataType::Int32 => Self::Int32,
            DataType::Int64 => Self::Int64,
            DataType::Float16 => Self::Fp16,
            DataType::Float32 => Self::Fp32,
            DataType::Float64 => Self::Fp64,
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Self::Bytes,
            DataType::Binary | DataType::LargeBinary | DataType::BinaryView => Self::Bytes,
            DataType::Date32 | DataType::Date64 | DataType::Timestamp(..) => Self::Bytes,
            DataType::Time32(TimeUnit::Second | TimeUnit::Millisecond) => Self::Bytes,
            DataType::Time64(TimeUnit::Microsecond | TimeUnit::Nanosecond) => Self::Bytes,
            DataType::Decimal32(..) | DataType::Decimal64(..) => Self::Bytes,
            DataType::Decimal128(..) | DataType::Decimal256(..) => Self::Bytes,
            DataType::Dictionary(_, values) => Self::of(values)?,
            _ => return None,
        })
    }

    /// The Arrow type in which elements of this datatype are held on their way: one for each, and `Float32` for
    /// `BF16`, which Arrow lacks.
    pub(crate) fn arrow(self) -> DataType {
        match self {
            Self::Bool => DataType::Boolean,
            Self::Uint8 => DataType::UInt8,
            Self::Uint16 => DataType::UInt16,
            Self::Uint32 => DataType::UInt32,
            Self::Uint64 => DataType::UInt64,
            Self::Int8 => DataType::Int8,
            Self::Int16 => DataType::Int16,
            Self::Int32 => DataType::Int32,
            Self::Int64 => DataType::Int64,
            Self::Fp16 => DataType::Float16,
            Self::Fp32 | Self::Bf16 => DataType::Float32,
            Self::Fp64 => DataType::Float64,
            Self::Bytes => DataType::Binary,
        }
    }

    /// The bytes of one element in binary form, or nothing for `BYTES`, whose elements differ in length.
    pub(crate) fn size(self) -> Option<usize> {
        match self {
            Self::Bool | Self::Uint8 | Self::Int8 => Some(1),
            Self::Uint16 | Self::Int16 | Self::Fp16 | Self::Bf16 => Some(2),
            Self::Uint32 | Self::Int32 | Self::Fp32 => Some(4),
            Self::Uint64 | Self::Int64 | Self::Fp64 => Some(8),
            Self::Bytes => None,
        }
    }

    /// Whether the elements are numbers.
    pub(crate) fn is_number(self) -> bool {
        !matches!(self, Self::Bool | Self::Bytes)
    }

    /// The name in the protocol: `FP32`.
    pub fn name(self) -> &'static str {
        NAMES.iter().find(|(_, datatype)| *datatype == self).map_or("", |(name, _)| name)
    }
}

impl fmt::Display for Datatype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Datatype {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if let Some((_, datatype)) = NAMES.iter().find(|(name, _)| *name == text) {
            return Ok(*datatype);
        }
        let error = Error::usage(format!("{text:?} is no datatype"));
        Err(match nearest(&text.to_uppercase(), NAMES.iter().map(|(name, _)| *name)) {
            Some(near) => error.help(format!("did you mean {near:?}?")),
            None => error.help(format!("the datatypes are {}", NAMES.map(|(name, _)| name).join(", "))),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_both_ways() {
        for (name, datatype) in NAMES {
            assert_eq!(name.parse::<Datatype>().unwrap(), datatype);
            assert_eq!(datatype.to_string(), name);
            assert_eq!(serde_json::to_value(datatype).unwrap(), name);
        }
    }

    #[test]
    fn an_unknown_name_is_explained() {
        let error = "fp32".parse::<Datatype>().unwrap_err();
        assert_eq!(error.to_string(), "\"fp32\" is no datatype");
        assert_eq!(error.advice(), Some("did you mean \"FP32\"?"));
        assert!("complex".parse::<Datatype>().unwrap_err().advice().unwrap().starts_with("the datatypes are BOOL"));
    }

    #[test]
    fn every_datatype_is_that_of_its_arrow_type() {
        for (_, datatype) in NAMES.into_iter().filter(|(_, datatype)| *datatype != Datatype::Bf16) {
            assert_eq!(Datatype::of(&datatype.arrow()), Some(datatype));
        }
    }
}
