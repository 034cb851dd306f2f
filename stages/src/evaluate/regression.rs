//! Scores of predicted numbers.

use ropeway_framework::data::Metrics;

/// `rmse`, `mae` and `r2`. R² is left out where all true values are equal: it is not defined there.
pub(super) fn metrics(truth: &[f64], predicted: &[f64]) -> Metrics {
    let rows = truth.len() as f64;
    let mean = truth.iter().sum::<f64>() / rows;
    let (mut squares, mut absolute, mut spread) = (0.0, 0.0, 0.0);
    for (truth, predicted) in truth.iter().zip(predicted) {
        let error = truth - predicted;
        squares += error * error;
        absolute += error.abs();
        spread += (truth - mean) * (truth - mean);
    }
    let metrics = Metrics::new().with("rows", rows).with("rmse", (squares / rows).sqrt()).with("mae", absolute / rows);
    if spread > 0.0 { metrics.with("r2", 1.0 - squares / spread) } else { metrics }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_values() {
        // The examples of scikit-learn's r2_score, mean_absolute_error and mean_squared_error.
        let found = metrics(&[3.0, -0.5, 2.0, 7.0], &[2.5, 0.0, 2.0, 8.0]);
        assert_eq!((found.get("mae"), found.get("rmse")), (Some(0.5), Some(0.375f64.sqrt())));
        assert!((found.get("r2").unwrap() - 0.9486081370449679).abs() < 1e-12);
        assert_eq!(metrics(&[1.0, 1.0], &[1.0, 2.0]).get("r2"), None);
    }
}
