//! Features as small numbers: which of a few ranges each value is in.

use crate::train::columns::Features;
use crate::train::pool::Pool;

/// One feature: the upper ends of its ranges but the last, in order, and each row's range.
pub(super) struct Binned {
    pub(super) ends: Vec<f32>,
    pub(super) rows: Vec<u8>,
}

/// Every feature in at most `most` ranges (256 at most), of about as many rows each.
pub(super) fn bin(features: &Features, most: usize, pool: &Pool) -> Vec<Binned> {
    let (rows, width) = (features.rows(), features.width());
    let mut values = vec![0.0; rows * width];
    features.gather(0..rows, &mut values);
    pool.map(
        width,
        || (),
        |_, feature| {
            let column: Vec<f32> = values.iter().skip(feature).step_by(width).copied().collect();
            let ends = ends(column.clone(), most);
            // At most 255 ends: their number fits a byte.
            let rows = column.iter().map(|value| ends.partition_point(|end| end < value) as u8).collect();
            Binned { ends, rows }
        },
    )
}

/// Ends between neighbouring values, so that as many rows lie between them as can be.
fn ends(mut values: Vec<f32>, most: usize) -> Vec<f32> {
    values.sort_unstable_by(f32::total_cmp);
    let (count, mut ends) = (values.len(), Vec::new());
    for part in 1..most {
        let place = count * part / most;
        // The next value that differs from the one at the place.
        let Some(first) = values.get(place.saturating_sub(1)) else { break };
        let next = values.partition_point(|value| value <= first);
        let Some(after) = values.get(next) else { break };
        let middle = first + (after - first) / 2.0;
        let end = if middle < *after { middle } else { *first };
        if ends.last().is_none_or(|last| *last < end) {
            ends.push(end);
        }
    }
    ends
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_lie_between_values() {
        assert_eq!(ends(vec![3.0, 1.0, 2.0, 1.0], 255), [1.5, 2.5]);
        assert_eq!(ends(vec![5.0; 9], 255), [0.0f32; 0]);
        let many = ends((0..10_000).map(|value| value as f32).collect(), 4);
        assert_eq!(many, [2499.5, 4999.5, 7499.5]);
        // Neighbours without a number between them.
        let (a, b) = (1.0f32, f32::from_bits(1.0f32.to_bits() + 1));
        assert_eq!(ends(vec![a, b], 255), [a]);
        assert!(ends(vec![f32::MIN, f32::MAX], 255).iter().all(|end| end.is_finite()));
    }
}
