//! Lengths of time, as pipelines write them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// A length of time with its unit: `"500ms"`, `"60s"`, `"5m"`, `"2h"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct Period(Duration);

impl Period {
    /// The length.
    pub fn get(self) -> Duration {
        self.0
    }
}

impl TryFrom<String> for Period {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
        let unit = match text.get(digits.len()..) {
            Some("ms") => Some(1),
            Some("s") => Some(1000),
            Some("m") => Some(60_000),
            Some("h") => Some(3_600_000),
            _ => None,
        };
        let millis = digits.parse::<u64>().ok().zip(unit).and_then(|(number, unit)| number.checked_mul(unit));
        match millis {
            Some(millis) if millis > 0 => Ok(Self(Duration::from_millis(millis))),
            _ => Err(format!("expected a time like \"500ms\", \"60s\", \"5m\" or \"2h\", found {text:?}")),
        }
    }
}

impl From<Period> for String {
    fn from(period: Period) -> Self {
        // One form for equal times, since parameters are part of the key.
        match period.0.as_millis() {
            millis if millis % 1000 == 0 => format!("{}s", millis / 1000),
            millis => format!("{millis}ms"),
        }
    }
}
