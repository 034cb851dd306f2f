//! Scores of predicted classes.

use super::ranking::auc;
use super::stage::Average;
use ropeway_framework::data::Metrics;

/// What a model said of rows whose class is known.
pub(super) struct Answers {
    pub(super) classes: usize,
    /// By row: the class.
    pub(super) truth: Vec<usize>,
    /// By row: the class that was predicted.
    pub(super) predicted: Vec<usize>,
    /// By row, then class; if the model says.
    pub(super) probabilities: Option<Vec<f32>>,
}

/// The least probability that the log loss takes for true, as in scikit-learn: the spacing of `f32` at 1.
const LEAST: f64 = f32::EPSILON as f64;

impl Answers {
    /// Rows by true class, then predicted class.
    pub(super) fn confusion(&self) -> Vec<Vec<u64>> {
        let mut counts = vec![vec![0; self.classes]; self.classes];
        for (truth, predicted) in self.truth.iter().zip(&self.predicted) {
            counts[*truth][*predicted] += 1;
        }
        counts
    }

    /// All scores.
    pub(super) fn metrics(&self, average: Average) -> Metrics {
        let confusion = self.confusion();
        let rows = self.truth.len() as f64;
        let right: u64 = (0..self.classes).map(|class| confusion[class][class]).sum();
        let mut metrics = Metrics::new().with("rows", rows).with("accuracy", right as f64 / rows);
        for (name, value) in self.averages(&confusion, average) {
            metrics.insert(name, value);
        }
        if let Some(probabilities) = &self.probabilities {
            metrics.insert("log_loss", self.log_loss(probabilities));
            if let Some(auc) = self.auc(probabilities) {
                metrics.insert("auc", auc);
            }
        }
        metrics
    }

    /// Precision, recall and F1 (van Rijsbergen, 1979). Of two classes, those of the second; of more, the average.
    fn averages(&self, confusion: &[Vec<u64>], average: Average) -> [(&'static str, f64); 3] {
        let scores: Vec<[f64; 4]> = (0..self.classes).map(|class| scores(confusion, class)).collect();
        let of = |index: usize| match average {
            Average::Auto if self.classes == 2 => scores[1][index],
            Average::Weighted => weighted(scores.iter().map(|row| (row[index], row[3]))),
            Average::Micro => {
                let right: u64 = (0..self.classes).map(|class| confusion[class][class]).sum();
                right as f64 / self.truth.len() as f64
            }
            // Over the classes that occur, in the rows or in the predictions: another has no score.
            Average::Auto | Average::Macro => weighted(scores.iter().enumerate().map(|(class, row)| {
                let seen = row[3] > 0.0 || confusion.iter().any(|row| row[class] > 0);
                (row[index], f64::from(u8::from(seen)))
            })),
        };
        [("precision", of(0)), ("recall", of(1)), ("f1", of(2))]
    }

    /// The mean negative log probability of the true class.
    fn log_loss(&self, probabilities: &[f32]) -> f64 {
        let rows = probabilities.chunks_exact(self.classes).zip(&self.truth);
        let sum: f64 = rows
            .map(|(row, truth)| {
                let total: f64 = row.iter().map(|p| f64::from(*p)).sum();
                -(f64::from(row[*truth]) / total).clamp(LEAST, 1.0 - LEAST).ln()
            })
            .sum();
        sum / self.truth.len() as f64
    }

    /// Of two classes, the area under the ROC curve; of more, the mean over the classes of each against the rest.
    fn auc(&self, probabilities: &[f32]) -> Option<f64> {
        let of = |class: usize| {
            let scores: Vec<f32> = probabilities.chunks_exact(self.classes).map(|row| row[class]).collect();
            let positive: Vec<bool> = self.truth.iter().map(|truth| *truth == class).collect();
            auc(&scores, &positive)
        };
        if self.classes == 2 {
            return of(1);
        }
        let areas: Vec<f64> = (0..self.classes).filter_map(of).collect();
        if areas.is_empty() { None } else { Some(areas.iter().sum::<f64>() / areas.len() as f64) }
    }
}

/// Precision, recall, F1 and number of rows of a class; zero where they are undefined.
pub(super) fn scores(confusion: &[Vec<u64>], class: usize) -> [f64; 4] {
    let right = confusion[class][class] as f64;
    let rows = confusion[class].iter().sum::<u64>() as f64;
    let predicted = confusion.iter().map(|row| row[class]).sum::<u64>() as f64;
    let share = |whole: f64| if whole > 0.0 { right / whole } else { 0.0 };
    let f1 = if rows + predicted > 0.0 { 2.0 * right / (rows + predicted) } else { 0.0 };
    [share(predicted), share(rows), f1, rows]
}

fn weighted(values: impl Iterator<Item = (f64, f64)>) -> f64 {
    let (sum, weight) = values.fold((0.0, 0.0), |(sum, all), (value, weight)| (sum + value * weight, all + weight));
    sum / weight
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(metrics: &Metrics, name: &str, expected: f64) {
        let found = metrics.get(name).unwrap();
        assert!((found - expected).abs() < 1e-6, "{name}: {found} is not {expected}");
    }

    #[test]
    fn two_classes_worked_by_hand() {
        let answers = Answers {
            classes: 2,
            truth: vec![0, 0, 0, 1, 1, 1, 1, 0],
            predicted: vec![0, 0, 1, 1, 1, 0, 1, 1],
            probabilities: Some(
                [0.1, 0.4, 0.6, 0.8, 0.9, 0.4, 0.7, 0.5].into_iter().flat_map(|p: f32| [1.0 - p, p]).collect(),
            ),
        };
        let metrics = answers.metrics(Average::Auto);
        close(&metrics, "accuracy", 5.0 / 8.0);
        close(&metrics, "precision", 3.0 / 5.0);
        close(&metrics, "recall", 3.0 / 4.0);
        close(&metrics, "f1", 2.0 / 3.0);
        // Of 16 pairs 13 are in order and 1 is tied.
        close(&metrics, "auc", 13.5 / 16.0);
        let truth = [0.9, 0.6, 0.4, 0.8, 0.9, 0.4, 0.7, 0.5f64];
        close(&metrics, "log_loss", -truth.iter().map(|p| p.ln()).sum::<f64>() / 8.0);
    }

    #[test]
    fn three_classes_worked_by_hand() {
        // scikit-learn's example of classification_report: precision 0.5, 0, 1; recall 1, 0, 2/3.
        let answers =
            Answers { classes: 3, truth: vec![0, 1, 2, 2, 2], predicted: vec![0, 0, 2, 2, 1], probabilities: None };
        let metrics = answers.metrics(Average::Auto);
        close(&metrics, "precision", 0.5);
        close(&metrics, "recall", 5.0 / 9.0);
        close(&metrics, "f1", (2.0 / 3.0 + 0.0 + 0.8) / 3.0);
        let metrics = answers.metrics(Average::Weighted);
        close(&metrics, "precision", 0.7);
        close(&metrics, "recall", 0.6);
        close(&metrics, "f1", (2.0 / 3.0 + 3.0 * 0.8) / 5.0);
        close(&answers.metrics(Average::Micro), "f1", 0.6);
        assert_eq!(answers.confusion(), [[1, 0, 0], [1, 0, 0], [0, 1, 2]]);
        assert!(metrics.get("auc").is_none() && metrics.get("log_loss").is_none());
    }

    #[test]
    fn certain_mistakes_stay_finite() {
        let answers = Answers {
            classes: 2,
            truth: vec![0, 1],
            predicted: vec![1, 1],
            probabilities: Some(vec![0.0, 1.0, 0.0, 1.0]),
        };
        let metrics = answers.metrics(Average::Auto);
        assert!(metrics.get("log_loss").unwrap().is_finite());
        close(&metrics, "auc", 0.5);
    }
}
