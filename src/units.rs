//! Amounts as people type them.

use std::ops::RangeInclusive;

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
}
