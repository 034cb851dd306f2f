//! What type the values of a column have.

use super::column::Nulls;
use super::record::Field;
use super::value::{boolean, date, float, int, moment};
use arrow::datatypes::{DataType, TimeUnit};

/// What the values seen so far have in common.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Guess {
    /// There was no value.
    #[default]
    Nothing,
    Bool,
    Int,
    Float,
    Date,
    Moment {
        /// More than six digits of a second.
        fine: bool,
        zoned: bool,
    },
    Text,
}

impl Guess {
    /// What one value is by itself.
    pub(super) fn of(text: &str) -> Self {
        if int(text).is_some() {
            Guess::Int
        } else if too_long(text) {
            // Digits that don't fit a whole number of 64 bits are a name, not a quantity.
            Guess::Text
        } else if float(text).is_some() {
            Guess::Float
        } else if boolean(text).is_some() {
            Guess::Bool
        } else if date(text).is_some() {
            Guess::Date
        } else if let Some(at) = moment(text) {
            Guess::Moment { fine: at.digits > 6, zoned: at.zoned }
        } else {
            Guess::Text
        }
    }

    /// What both have in common.
    pub(super) fn join(self, other: Self) -> Self {
        match (self, other) {
            (one, other) if one == other => one,
            (Guess::Nothing, one) | (one, Guess::Nothing) => one,
            (Guess::Int, Guess::Float) | (Guess::Float, Guess::Int) => Guess::Float,
            (Guess::Moment { fine: a, zoned: x }, Guess::Moment { fine: b, zoned: y }) if x == y => {
                Guess::Moment { fine: a || b, zoned: x }
            }
            (Guess::Date, Guess::Moment { fine, zoned: false })
            | (Guess::Moment { fine, zoned: false }, Guess::Date) => Guess::Moment { fine, zoned: false },
            _ => Guess::Text,
        }
    }

    /// Takes the values of one column of some records into account.
    pub(super) fn see(&mut self, text: &str, fields: impl Iterator<Item = Field>, nulls: &Nulls) {
        for field in fields {
            let raw = field.raw(text);
            match self {
                Guess::Text => return,
                Guess::Int if int(raw).is_some() => {}
                _ if nulls.contain(raw.trim_ascii().as_bytes()) => {}
                _ => *self = self.join(Guess::of(raw)),
            }
        }
    }

    /// The Arrow type. A column without values is text, so that whatever comes later can be read.
    pub(super) fn arrow(self) -> DataType {
        match self {
            Guess::Bool => DataType::Boolean,
            Guess::Int => DataType::Int64,
            Guess::Float => DataType::Float64,
            Guess::Date => DataType::Date32,
            Guess::Moment { fine, zoned } => {
                let unit = if fine { TimeUnit::Nanosecond } else { TimeUnit::Microsecond };
                DataType::Timestamp(unit, zoned.then(|| "UTC".into()))
            }
            Guess::Nothing | Guess::Text => DataType::Utf8,
        }
    }
}

fn too_long(text: &str) -> bool {
    let digits = text.trim_ascii().trim_start_matches(['-', '+']);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn guess(values: &[&str]) -> DataType {
        values.iter().fold(Guess::Nothing, |guess, value| guess.join(Guess::of(value))).arrow()
    }

    #[test]
    fn columns_get_the_narrowest_type() {
        assert_eq!(guess(&["1", "-2"]), DataType::Int64);
        assert_eq!(guess(&["1", "2.5", "1e9", "inf"]), DataType::Float64);
        assert_eq!(guess(&["12345678901234567890"]), DataType::Utf8);
        assert_eq!(guess(&["true", "FALSE"]), DataType::Boolean);
        assert_eq!(guess(&["true", "1"]), DataType::Utf8);
        assert_eq!(guess(&["2013-01-01"]), DataType::Date32);
        assert_eq!(guess(&["2013-01-01", "2013-01-01 10:00"]), DataType::Timestamp(TimeUnit::Microsecond, None));
        let utc = Some("UTC".into());
        assert_eq!(guess(&["2013-01-01T10:00:00Z"]), DataType::Timestamp(TimeUnit::Microsecond, utc.clone()));
        assert_eq!(guess(&["2013-01-01T10:00:00.123456789Z"]), DataType::Timestamp(TimeUnit::Nanosecond, utc));
        assert_eq!(guess(&["2013-01-01T10:00:00Z", "2013-01-01T10:00:00"]), DataType::Utf8);
        assert_eq!(guess(&[]), DataType::Utf8);
    }

    fn any() -> impl Strategy<Value = Guess> {
        const TEXTS: &[&str] = &[
            "1",
            "1.5",
            "true",
            "x",
            "2013-01-01",
            "2013-01-01 10:00",
            "2013-01-01 10:00Z",
            "2013-01-01 10:00:00.1234567",
        ];
        prop::sample::select(TEXTS).prop_map(Guess::of)
    }

    proptest! {
        // The type must not depend on the order of the rows or of the files.
        #[test]
        fn the_order_of_values_does_not_matter(a in any(), b in any(), c in any()) {
            prop_assert_eq!(a.join(b), b.join(a));
            prop_assert_eq!(a.join(b).join(c), a.join(b.join(c)));
            prop_assert_eq!(a.join(a), a);
        }
    }
}
