//! Statistics of a column. NaN is a missing value and does not count.
//!
//! Every sum has one order: eight lanes within a block, the blocks in a binary tree. So it is fast, its error grows
//! with the logarithm of the length (Higham, "The accuracy of floating point summation", 1993), and its bits depend on
//! nothing but the values.

use super::fixed_hash::Fixed;
use std::cmp::Ordering;
use std::collections::HashMap;

const LANES: usize = 8;
const BLOCK: usize = 1024;

/// The sum of `map` over the values that are there.
pub(super) fn sum(values: &[f64], map: impl Fn(f64) -> f64 + Copy) -> f64 {
    if values.len() > BLOCK {
        let middle = (values.len() / 2).next_multiple_of(BLOCK);
        let (left, right) = values.split_at(middle.min(values.len()));
        return sum(left, map) + sum(right, map);
    }
    let mut lanes = [0.0; LANES];
    let (whole, rest) = values.as_chunks::<LANES>();
    for chunk in whole {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane += if value.is_nan() { 0.0 } else { map(*value) };
        }
    }
    for (lane, value) in lanes.iter_mut().zip(rest) {
        *lane += if value.is_nan() { 0.0 } else { map(*value) };
    }
    let [a, b, c, d, e, f, g, h] = lanes;
    ((a + b) + (c + d)) + ((e + f) + (g + h))
}

/// How many values are there.
pub(super) fn count(values: &[f64]) -> usize {
    values.iter().filter(|value| !value.is_nan()).count()
}

/// The mean; nothing if every value is missing.
pub(super) fn mean(values: &[f64]) -> Option<f64> {
    let count = count(values);
    (count > 0).then(|| sum(values, |value| value) / count as f64)
}

/// The mean and the population's standard deviation, in two passes.
pub(super) fn mean_and_deviation(values: &[f64]) -> Option<(f64, f64)> {
    if let Some(value) = constant(values) {
        return Some((value, 0.0));
    }
    let mean = mean(values)?;
    let squares = sum(values, |value| (value - mean) * (value - mean));
    Some((mean, (squares / count(values) as f64).sqrt()))
}

/// The value that all values have, if they are all alike.
fn constant(values: &[f64]) -> Option<f64> {
    let first = *values.iter().find(|value| !value.is_nan())?;
    values.iter().all(|value| *value == first || value.is_nan()).then_some(first)
}

/// The least and the greatest value.
pub(super) fn range(values: &[f64]) -> Option<(f64, f64)> {
    let (mut low, mut high) = ([f64::INFINITY; LANES], [f64::NEG_INFINITY; LANES]);
    let (whole, rest) = values.as_chunks::<LANES>();
    let mut see = |lane: usize, value: f64| {
        // Comparisons with NaN are false, so it changes nothing.
        low[lane] = if value < low[lane] { value } else { low[lane] };
        high[lane] = if value > high[lane] { value } else { high[lane] };
    };
    for chunk in whole {
        for (lane, value) in chunk.iter().enumerate() {
            see(lane, *value);
        }
    }
    for (lane, value) in rest.iter().enumerate() {
        see(lane, *value);
    }
    let low = low.into_iter().fold(f64::INFINITY, f64::min);
    let high = high.into_iter().fold(f64::NEG_INFINITY, f64::max);
    (low <= high).then_some((low, high))
}

/// The values at these parts of the sorted column, with linear interpolation between neighbours (type 7 of Hyndman and
/// Fan, "Sample quantiles in statistical packages", 1996). `parts` must ascend.
pub(super) fn quantiles(values: &[f64], parts: &[f64]) -> Option<Vec<f64>> {
    let mut present: Vec<f64> = values.iter().copied().filter(|value| !value.is_nan()).collect();
    let last = present.len().checked_sub(1)?;
    // Each quantile orders only what lies behind the one before it.
    let mut done = 0;
    let found = parts.iter().map(|part| {
        let place = part.clamp(0.0, 1.0) * last as f64;
        let index = (place.floor() as usize).min(last);
        let rest = &mut present[done..];
        let (_, &mut at, behind) = rest.select_nth_unstable_by(index - done, f64::total_cmp);
        let next = behind.iter().copied().min_by(f64::total_cmp).unwrap_or(at);
        done = index;
        let between = place - index as f64;
        if between == 0.0 { at } else { at + (next - at) * between }
    });
    Some(found.collect())
}

/// The value that is there most often; of several the least.
pub(super) fn mode(values: &[f64]) -> Option<f64> {
    let mut counts: HashMap<u64, usize, Fixed> = HashMap::default();
    for value in values.iter().filter(|value| !value.is_nan()) {
        // Zero has two signs; adding makes them one.
        *counts.entry((value + 0.0).to_bits()).or_default() += 1;
    }
    let most = |a: &(f64, usize), b: &(f64, usize)| match a.1.cmp(&b.1) {
        Ordering::Equal => b.0.total_cmp(&a.0),
        other => other,
    };
    counts.into_iter().map(|(bits, count)| (f64::from_bits(bits), count)).max_by(most).map(|(value, _)| value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn missing_values_do_not_count() {
        let values = [1.0, f64::NAN, 3.0, f64::NAN, 3.0];
        assert_eq!(count(&values), 3);
        assert_eq!(mean(&values), Some(7.0 / 3.0));
        assert_eq!(range(&values), Some((1.0, 3.0)));
        assert_eq!(mode(&values), Some(3.0));
        assert_eq!(quantiles(&values, &[0.0, 0.5, 1.0]).unwrap(), [1.0, 3.0, 3.0]);
        for none in [&[][..], &[f64::NAN]] {
            assert!(mean(none).is_none() && range(none).is_none() && quantiles(none, &[0.5]).is_none());
            assert!(mode(none).is_none() && mean_and_deviation(none).is_none());
        }
    }

    #[test]
    fn a_constant_has_no_deviation() {
        assert_eq!(mean_and_deviation(&[0.1; 12_345]), Some((0.1, 0.0)));
    }

    #[test]
    fn the_most_frequent_value_and_of_several_the_least() {
        assert_eq!(mode(&[2.0, -0.0, 0.0, 2.0, 5.0]), Some(0.0));
    }

    proptest! {
        #[test]
        fn sums_are_near_the_true_sum(values in proptest::collection::vec(-1000i32..1000, 0..5000)) {
            let floats: Vec<f64> = values.iter().map(|value| f64::from(*value)).collect();
            let whole: i64 = values.iter().map(|value| i64::from(*value)).sum();
            prop_assert_eq!(sum(&floats, |value| value), whole as f64);
        }

        #[test]
        fn quantiles_are_those_of_the_sorted_values(
            values in proptest::collection::vec(-100.0f64..100.0, 1..200),
            mut parts in proptest::collection::vec(0.0f64..=1.0, 1..6),
        ) {
            parts.sort_unstable_by(f64::total_cmp);
            let mut sorted = values.clone();
            sorted.sort_unstable_by(f64::total_cmp);
            let got = quantiles(&values, &parts).unwrap();
            for (part, got) in parts.iter().zip(got) {
                let place = part * (sorted.len() - 1) as f64;
                let (low, high) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
                prop_assert!((got - (low + (high - low) * place.fract())).abs() < 1e-9);
            }
        }
    }
}
