//! The area under the ROC curve.

/// The chance that a row of the class scores above a row of no such class; ties count half. `None` if there are no
/// rows of one of both.
///
/// It is the Mann-Whitney statistic, from the sum of ranks, with the mean rank for ties (Hanley and McNeil, "The
/// Meaning and Use of the Area under a ROC Curve", 1982).
pub(super) fn auc(scores: &[f32], positive: &[bool]) -> Option<f64> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_unstable_by(|a, b| scores[*a].total_cmp(&scores[*b]));
    let (mut ranks, mut positives) = (0.0f64, 0.0f64);
    let mut start = 0;
    // Not by `total_cmp`, to which 0 and -0 differ.
    for group in order.chunk_by(|a, b| scores[*a] == scores[*b]) {
        let end = start + group.len();
        let mean = (start + 1 + end) as f64 / 2.0;
        let count = group.iter().filter(|row| positive[**row]).count() as f64;
        ranks += mean * count;
        positives += count;
        start = end;
    }
    let negatives = scores.len() as f64 - positives;
    if positives == 0.0 || negatives == 0.0 {
        return None;
    }
    Some((ranks - positives * (positives + 1.0) / 2.0) / (positives * negatives))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_values() {
        // The example of scikit-learn's roc_auc_score.
        assert_eq!(auc(&[0.1, 0.4, 0.35, 0.8], &[false, false, true, true]), Some(0.75));
        assert_eq!(auc(&[0.5; 4], &[false, true, true, false]), Some(0.5));
        assert_eq!(auc(&[0.0, -0.0], &[false, true]), Some(0.5));
        assert_eq!(auc(&[0.5, 0.7], &[true, true]), None);
        assert_eq!(auc(&[], &[]), None);
    }

    proptest! {
        #[test]
        fn it_is_the_share_of_ordered_pairs(rows in prop::collection::vec((0u8..6, any::<bool>()), 0..40)) {
            let scores: Vec<f32> = rows.iter().map(|(score, _)| f32::from(*score)).collect();
            let positive: Vec<bool> = rows.iter().map(|(_, positive)| *positive).collect();
            let (mut sum, mut pairs) = (0.0, 0.0);
            for (a, _) in rows.iter().filter(|(_, positive)| *positive) {
                for (b, _) in rows.iter().filter(|(_, positive)| !*positive) {
                    sum += if a > b { 1.0 } else if a == b { 0.5 } else { 0.0 };
                    pairs += 1.0;
                }
            }
            match auc(&scores, &positive) {
                None => prop_assert_eq!(pairs, 0.0),
                Some(found) => prop_assert!((found - sum / pairs).abs() < 1e-12),
            }
        }
    }
}
