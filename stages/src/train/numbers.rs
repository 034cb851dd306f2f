//! Numbers with a range: a value outside is refused where it stands in the pipeline file.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

macro_rules! number {
    ($(#[$about:meta])* $name:ident, $range:literal, $schema:tt, $ok:expr) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(try_from = "f64", into = "f64")]
        pub struct $name(f64);

        impl $name {
            /// The number.
            pub fn get(self) -> f64 {
                self.0
            }

            /// A number that is known to be in range.
            #[allow(dead_code)]
            pub(super) const fn known(value: f64) -> Self {
                Self(value)
            }
        }

        impl TryFrom<f64> for $name {
            type Error = String;

            fn try_from(value: f64) -> Result<Self, String> {
                let ok: fn(f64) -> bool = $ok;
                if ok(value) { Ok(Self(value)) } else { Err(format!(concat!("{} is not ", $range), value)) }
            }
        }

        impl From<$name> for f64 {
            fn from(value: $name) -> f64 {
                value.0
            }
        }

        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    };
}

number!(
    /// A finite number above zero: a learning rate, a norm, a weight.
    Positive, "a finite number above 0", { "type": "number", "exclusiveMinimum": 0 },
    |value| value > 0.0 && value.is_finite()
);

number!(
    /// A finite number from zero on.
    #[derive(Default)]
    NonNegative, "a finite number from 0 on", { "type": "number", "minimum": 0 },
    |value| value >= 0.0 && value.is_finite()
);

number!(
    /// A share: from 0 to just below 1.
    #[derive(Default)]
    Share, "at least 0 and below 1", { "type": "number", "minimum": 0, "exclusiveMaximum": 1 },
    |value| (0.0..1.0).contains(&value)
);

/// A power of two, at most 64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "usize", into = "usize")]
pub struct Shards(usize);

impl Shards {
    /// The number.
    pub fn get(self) -> usize {
        self.0
    }

    /// The largest power of two that leaves 32 rows of a batch a shard, at most 8.
    pub fn for_batch(batch: usize) -> Self {
        Self(1 << (batch / 32).clamp(1, 8).ilog2())
    }
}

impl TryFrom<usize> for Shards {
    type Error = String;

    fn try_from(value: usize) -> Result<Self, String> {
        if value.is_power_of_two() && value <= 64 {
            return Ok(Self(value));
        }
        Err(format!("{value} is not a power of two from 1 to 64"))
    }
}

impl From<Shards> for usize {
    fn from(value: Shards) -> usize {
        value.0
    }
}

impl JsonSchema for Shards {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Shards".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "integer", "enum": [1, 2, 4, 8, 16, 32, 64] })
    }
}

/// A number of ranges, from 2 to 256.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "usize", into = "usize")]
pub struct Bins(usize);

impl Bins {
    /// The number.
    pub fn get(self) -> usize {
        self.0
    }
}

impl Default for Bins {
    fn default() -> Self {
        Self(256)
    }
}

impl TryFrom<usize> for Bins {
    type Error = String;

    fn try_from(value: usize) -> Result<Self, String> {
        match (2..=256).contains(&value) {
            true => Ok(Self(value)),
            false => Err(format!("{value} is not a number from 2 to 256")),
        }
    }
}

impl From<Bins> for usize {
    fn from(value: Bins) -> usize {
        value.0
    }
}

impl JsonSchema for Bins {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Bins".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "integer", "minimum": 2, "maximum": 256 })
    }
}
