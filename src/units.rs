//! Amounts as people type them.

use std::ops::RangeInclusive;

/// A number of bytes: `268435456`, `256MiB`, `1.5 GiB`, `2GB`.
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, u64); 10] = [
        ("", 1),
        ("b", 1),
        ("kib", 1 << 10),
        ("mib", 1 << 20),
        ("gib", 1 << 30),
        ("tib", 1 << 40),
        ("kb", 1_000),
        ("mb", 1_000_000),
        ("gb", 1_000_000_000),
        ("tb", 1_000_000_000_000),
    ];
    let wrong = || format!("expected a size like \"256MiB\" or \"2GB\", found {text:?}");
    let digits = text.trim().trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit = text.trim()[digits.len()..].to_ascii_lowercase();
    let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
    let digits = digits.trim_end();
    let size = match digits.parse::<u64>() {
        Ok(whole) => whole.checked_mul(*factor),
        Err(_) => {
            let plain = digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
            let size = digits.parse::<f64>().ok().filter(|_| plain).map(|number| number * *factor as f64);
            size.filter(|size| *size < 1e18).map(|size| size as u64)
        }
    };
    size.ok_or_else(wrong)
}

/// A number of cores: `4`, `0.5`.
pub(crate) fn cores(text: &str) -> Result<f64, String> {
    let cores = text.trim().parse::<f64>().ok().filter(|cores| (0.001..=65_535.0).contains(cores));
    cores.ok_or_else(|| format!("expected a number of cores like \"4\" or \"0.5\", found {text:?}"))
}

/// A number of workers, or the fewest and the most: `4`, `0..4`.
pub(crate) fn workers(text: &str) -> Result<RangeInclusive<u32>, String> {
    let number = |text: &str| text.trim().parse::<u16>().ok().map(u32::from);
    let range = match text.split_once("..") {
        Some((least, most)) => number(least).zip(number(most)),
        None => number(text).map(|number| (number, number)),
    };
    let range = range.filter(|(least, most)| least <= most).map(|(least, most)| least..=most);
    range.ok_or_else(|| format!("expected a number of workers like \"4\" or \"0..4\", found {text:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_have_parts_and_workers_have_none() {
        assert_eq!((cores("4"), cores("0.5")), (Ok(4.0), Ok(0.5)));
        assert_eq!((workers("4"), workers("0..4"), workers("0")), (Ok(4..=4), Ok(0..=4), Ok(0..=0)));
        for text in ["", "0", "-1", "NaN", "inf", "1e9", "four"] {
            assert!(cores(text).unwrap_err().contains("expected a number of cores"), "{text}");
        }
        for text in ["", "-1", "1.5", "4..0", "..4", "4..", "1..2..3", "70000"] {
            assert!(workers(text).unwrap_err().contains("expected a number of workers"), "{text}");
        }
    }

    #[test]
    fn sizes_have_units() {
        for (text, size) in [
            ("0", 0),
            ("4096", 4096),
            ("256MiB", 256 << 20),
            ("256 mib", 256 << 20),
            ("1.5GiB", 3 << 29),
            ("2GB", 2_000_000_000),
            ("1TiB", 1 << 40),
        ] {
            assert_eq!(bytes(text), Ok(size), "{text}");
        }
        for text in ["", "MiB", "-1", "1e9", "256M", "12 apples", "inf", "1.2.3MiB", "99999999999TiB"] {
            assert!(bytes(text).unwrap_err().contains("expected a size like"), "{text}");
        }
    }
}
