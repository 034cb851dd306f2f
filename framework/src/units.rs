//! Lengths of time and sizes as people write them: `1ms`, `60s`, `4GiB`. For serde: `#[serde(with = "units::time")]`.

use std::time::Duration;

/// A number and the unit behind it: `1.5` and `s`.
fn split(text: &str) -> Option<(&str, &str)> {
    let at = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    text.split_at_checked(at).filter(|(number, _)| number.starts_with(|c: char| c.is_ascii_digit()))
}

/// A size as people type it, such as `4GiB` or `512MB`, or a number of bytes.
///
/// # Errors
/// What was expected, in words.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let bytes = text.parse().ok().or_else(|| size::parse(text));
    bytes.ok_or_else(|| format!("expected a size like \"256MiB\" or \"2GB\", found {text:?}"))
}

/// A length of time as people type it, such as `90s`, `1.5h` or `7d`.
///
/// # Errors
/// What was expected, in words.
pub fn parse_time(text: &str) -> Result<Duration, String> {
    time::parse(text).ok_or_else(|| format!("expected a length of time like \"90s\" or \"7d\", found {text:?}"))
}

/// A length of time as text: `250us`, `1ms`, `1.5s`, `10m`, `1h`.
pub(crate) mod time {
    use schemars::{Schema, SchemaGenerator, json_schema};
    use serde::{Deserialize, Deserializer, Serializer, de::Error};
    use std::time::Duration;

    const UNITS: [(&str, u64); 6] = [
        ("us", 1_000),
        ("ms", 1_000_000),
        ("s", 1_000_000_000),
        ("m", 60_000_000_000),
        ("h", 3_600_000_000_000),
        ("d", 86_400_000_000_000),
    ];

    pub(crate) fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?(us|ms|s|m|h|d)$" })
    }

    pub(crate) fn serialize<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        let nanos = time.as_nanos();
        // Days are read but not written: what is in keys stays as it always was.
        let mut units = UNITS.iter().rev().skip(1);
        let whole = units.find(|(_, unit)| nanos.is_multiple_of(u128::from(*unit)) && nanos > 0);
        match whole {
            Some((name, unit)) => serializer.collect_str(&format_args!("{}{name}", nanos / u128::from(*unit))),
            None => serializer.collect_str(&format_args!("{}us", nanos / 1_000)),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse(&text).ok_or_else(|| D::Error::custom(format!("{text:?} is no length of time; write \"1ms\" or \"60s\"")))
    }

    pub(super) fn parse(text: &str) -> Option<Duration> {
        let (number, name) = super::split(text)?;
        let (_, unit) = UNITS.iter().find(|(unit, _)| *unit == name)?;
        Duration::try_from_secs_f64(number.parse::<f64>().ok()? * (*unit as f64 / 1e9)).ok()
    }

    /// A length of time that may be left out.
    pub(crate) mod optional {
        use serde::{Deserialize, Deserializer, Serializer};
        use std::time::Duration;

        #[derive(Deserialize)]
        #[serde(transparent)]
        struct Time(#[serde(with = "super")] Duration);

        pub(crate) fn serialize<S: Serializer>(time: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
            match time {
                Some(time) => super::serialize(time, serializer),
                None => serializer.serialize_none(),
            }
        }

        pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
            Ok(Option::<Time>::deserialize(deserializer)?.map(|Time(time)| time))
        }
    }
}

/// A number of bytes, or a size as text: `512MB`, `4GiB`, `1.5GiB`. It is written as a number.
pub(crate) mod size {
    use schemars::{Schema, SchemaGenerator, json_schema};
    use serde::{Deserializer, Serializer, de};
    use std::fmt;

    const UNITS: [(&str, u64); 9] = [
        ("B", 1),
        ("KB", 1_000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
        ("TB", 1_000_000_000_000),
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("TiB", 1 << 40),
    ];

    pub(crate) fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["integer", "string"],
            "minimum": 0,
            "pattern": r"^[0-9]+(\.[0-9]+)?(B|KB|MB|GB|TB|KiB|MiB|GiB|TiB)$",
        })
    }

    pub(crate) fn serialize<S: Serializer>(bytes: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(*bytes)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        deserializer.deserialize_any(Size)
    }

    struct Size;

    impl de::Visitor<'_> for Size {
        type Value = u64;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a size: \"4GiB\", \"512MB\" or a number of bytes")
        }

        fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<u64, E> {
            Ok(bytes)
        }

        fn visit_i64<E: de::Error>(self, bytes: i64) -> Result<u64, E> {
            u64::try_from(bytes).map_err(|_| E::invalid_value(de::Unexpected::Signed(bytes), &self))
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<u64, E> {
            parse(text).ok_or_else(|| E::custom(format!("{text:?} is no size; write \"4GiB\" or \"512MB\"")))
        }
    }

    pub(super) fn parse(text: &str) -> Option<u64> {
        let (number, name) = super::split(text)?;
        let (_, unit) = UNITS.iter().find(|(unit, _)| *unit == name)?;
        if let Ok(whole) = number.parse::<u64>() {
            return whole.checked_mul(*unit);
        }
        let bytes = number.parse::<f64>().ok()? * *unit as f64;
        (bytes < u64::MAX as f64).then_some(bytes as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        assert_eq!(time::parse("1ms"), Some(Duration::from_millis(1)));
        assert_eq!(super::parse_time("2d"), Ok(Duration::from_secs(2 * 86_400)));
        assert!(super::parse_time("2 days").unwrap_err().contains("like \"90s\""));
        assert_eq!(time::parse("1.5s"), Some(Duration::from_millis(1500)));
        for wrong in ["", "1", "ms", "-1s", "1 day", "1e99h", "infs", "+1s"] {
            assert_eq!(time::parse(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn sizes_have_units() {
        assert_eq!(size::parse("4GiB"), Some(4 << 30));
        assert_eq!(size::parse("512MB"), Some(512_000_000));
        assert_eq!(size::parse("1.5KiB"), Some(1536));
        assert_eq!(size::parse("0B"), Some(0));
        assert_eq!((parse_size("4096"), parse_size("256MiB")), (Ok(4096), Ok(256 << 20)));
        assert!(parse_size("12 apples").unwrap_err().contains("expected a size like"));
        for wrong in ["", "1", "GiB", "-1B", "4 GiB", "4gib", "99999999999TiB", "1e9B", "1.2.3MB"] {
            assert_eq!(size::parse(wrong), None, "{wrong:?}");
        }
    }
}
