//! The column types that users can name.

use arrow::datatypes::{DataType, TimeUnit};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The type of a column, as `types = { column = "float64" }` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ColumnType {
    /// `true` or `false`, in any case.
    Bool,
    /// Whole numbers of 8 bits.
    Int8,
    /// Whole numbers of 16 bits.
    Int16,
    /// Whole numbers of 32 bits.
    Int32,
    /// Whole numbers of 64 bits.
    Int64,
    /// Whole numbers from 0 on, of 8 bits.
    #[serde(rename = "uint8")]
    UInt8,
    /// Whole numbers from 0 on, of 16 bits.
    #[serde(rename = "uint16")]
    UInt16,
    /// Whole numbers from 0 on, of 32 bits.
    #[serde(rename = "uint32")]
    UInt32,
    /// Whole numbers from 0 on, of 64 bits.
    #[serde(rename = "uint64")]
    UInt64,
    /// Floating point of 32 bits.
    Float32,
    /// Floating point of 64 bits.
    Float64,
    /// Text.
    String,
    /// Days: `2013-01-31`.
    Date,
    /// Moments without a time zone, in microseconds: `2013-01-31 23:59:59.5`.
    Timestamp,
    /// Moments in UTC, in microseconds: `2013-01-31T23:59:59Z`, `2013-01-31 23:59+01:00`.
    TimestampUtc,
}

impl ColumnType {
    /// The Arrow type.
    pub fn arrow(self) -> DataType {
        match self {
            ColumnType::Bool => DataType::Boolean,
            ColumnType::Int8 => DataType::Int8,
            ColumnType::Int16 => DataType::Int16,
            ColumnType::Int32 => DataType::Int32,
            ColumnType::Int64 => DataType::Int64,
            ColumnType::UInt8 => DataType::UInt8,
            ColumnType::UInt16 => DataType::UInt16,
            ColumnType::UInt32 => DataType::UInt32,
            ColumnType::UInt64 => DataType::UInt64,
            ColumnType::Float32 => DataType::Float32,
            ColumnType::Float64 => DataType::Float64,
            ColumnType::String => DataType::Utf8,
            ColumnType::Date => DataType::Date32,
            ColumnType::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
            ColumnType::TimestampUtc => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        }
    }
}

/// An Arrow type, as users would name it.
pub(super) fn name_of(data_type: &DataType) -> String {
    match data_type {
        DataType::Boolean => "bool".into(),
        DataType::Utf8 => "string".into(),
        DataType::Date32 => "date".into(),
        DataType::Timestamp(_, None) => "timestamp".into(),
        DataType::Timestamp(_, Some(zone)) if &**zone == "UTC" => "timestamp_utc".into(),
        other => other.to_string().to_lowercase(),
    }
}

/// `types = { column = "type" }`, as it must stand in TOML.
pub(super) fn declare(column: &str, name: &str) -> String {
    let bare = !column.is_empty() && column.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
    match bare {
        true => format!("types = {{ {column} = {name:?} }}"),
        false => format!("types = {{ {column:?} = {name:?} }}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_users_write() {
        for name in ["bool", "int8", "uint64", "float32", "string", "date", "timestamp", "timestamp_utc"] {
            let column: ColumnType = serde_json::from_str(&format!("{name:?}")).unwrap();
            assert_eq!(name_of(&column.arrow()), name);
        }
        assert_eq!(declare("dep_time", "string"), r#"types = { dep_time = "string" }"#);
        assert_eq!(declare("dep time", "string"), r#"types = { "dep time" = "string" }"#);
    }
}
