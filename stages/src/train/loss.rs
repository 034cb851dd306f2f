//! Losses: what is made small, and its gradient.

use super::network::sigmoid;
use super::numbers::Positive;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is made small.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Loss {
    /// `cross_entropy` for classes, `bce` for `logistic`, `mse` for numbers.
    #[default]
    Auto,
    /// The negative log likelihood of the class, over a softmax.
    CrossEntropy,
    /// The negative log likelihood of one of two classes, over a sigmoid.
    Bce,
    /// The squared error.
    Mse,
    /// The absolute error.
    Mae,
    /// The squared error, halved, up to `delta`, and the absolute one beyond (Huber, 1964).
    Huber(Huber),
}

/// The Huber loss.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Huber {
    /// Where the square ends.
    #[serde(default = "unit")]
    pub delta: Positive,
}

fn unit() -> Positive {
    Positive::known(1.0)
}

/// A loss that was decided on.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Objective {
    CrossEntropy,
    BinaryCrossEntropy,
    SquaredError,
    AbsoluteError,
    Huber(f32),
}

/// Sums over rows.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Sums {
    /// Of the rows' losses, times their weights.
    pub(crate) loss: f64,
    /// Of the weights.
    pub(crate) weight: f64,
    /// How many rows' class was predicted.
    pub(crate) correct: u64,
    /// How many rows.
    pub(crate) rows: u64,
}

impl Sums {
    pub(crate) fn add(&mut self, other: Sums) {
        self.loss += other.loss;
        self.weight += other.weight;
        self.correct += other.correct;
        self.rows += other.rows;
    }

    /// The sums as numbers: counts of rows are below 2^53.
    pub(crate) fn packed(&self) -> [f64; 4] {
        [self.loss, self.weight, self.correct as f64, self.rows as f64]
    }

    /// The sums of such numbers.
    pub(crate) fn unpacked([loss, weight, correct, rows]: [f64; 4]) -> Self {
        Self { loss, weight, correct: correct as u64, rows: rows as u64 }
    }

    /// The sum of sums, in their order.
    pub(crate) fn total(sums: Vec<Sums>) -> Self {
        let mut total = Self::default();
        sums.into_iter().for_each(|sums| total.add(sums));
        total
    }

    /// The mean loss.
    pub(crate) fn mean(&self) -> f64 {
        self.loss / self.weight
    }

    /// The share of rows whose class was predicted.
    pub(crate) fn accuracy(&self) -> f64 {
        self.correct as f64 / self.rows as f64
    }
}

/// What rows are to give: classes or numbers.
#[derive(Clone, Copy, Debug)]
pub(super) enum Truth<'a> {
    Classes(&'a [u32]),
    Numbers(&'a [f32]),
}

impl Objective {
    /// Whether it is about classes.
    pub(super) fn classifies(self) -> bool {
        matches!(self, Objective::CrossEntropy | Objective::BinaryCrossEntropy)
    }

    /// The values a row that a network must give.
    pub(super) fn outputs(self, classes: usize) -> usize {
        if self == Objective::CrossEntropy { classes } else { 1 }
    }

    /// The losses of rows, and, if there is a place for it, their gradient, times `scale`. `weights` are those of the
    /// classes; empty for none.
    pub(super) fn losses(
        self,
        outputs: &[f32],
        truth: Truth<'_>,
        weights: &[f32],
        scale: f32,
        mut gradient: Option<&mut [f32]>,
    ) -> Sums {
        let mut sums = Sums::default();
        match truth {
            Truth::Classes(classes) => {
                let width = outputs.len() / classes.len().max(1);
                for (row, (outputs, &class)) in outputs.chunks_exact(width.max(1)).zip(classes).enumerate() {
                    let weight = weights.get(class as usize).copied().unwrap_or(1.0);
                    let gradient = gradient.as_deref_mut().map(|all| &mut all[row * width..(row + 1) * width]);
                    let (loss, correct) = match self {
                        Objective::BinaryCrossEntropy => binary(outputs, class, weight * scale, gradient),
                        _ => softmax_loss(outputs, class as usize, weight * scale, gradient),
                    };
                    sums.add(Sums {
                        loss: f64::from(loss) * f64::from(weight),
                        weight: f64::from(weight),
                        correct: u64::from(correct),
                        rows: 1,
                    });
                }
            }
            Truth::Numbers(numbers) => {
                for (row, (output, number)) in outputs.iter().zip(numbers).enumerate() {
                    let (loss, slope) = self.distance(output - number);
                    if let Some(gradient) = &mut gradient {
                        gradient[row] = slope * scale;
                    }
                    sums.add(Sums { loss: f64::from(loss), weight: 1.0, correct: 0, rows: 1 });
                }
            }
        }
        sums
    }

    /// The loss of an error, and its slope.
    fn distance(self, error: f32) -> (f32, f32) {
        match self {
            Objective::AbsoluteError => (error.abs(), if error == 0.0 { 0.0 } else { error.signum() }),
            Objective::Huber(delta) if error.abs() > delta => {
                (delta * (error.abs() - 0.5 * delta), delta * error.signum())
            }
            Objective::Huber(_) => (0.5 * error * error, error),
            _ => (error * error, 2.0 * error),
        }
    }
}

fn binary(outputs: &[f32], class: u32, scale: f32, gradient: Option<&mut [f32]>) -> (f32, bool) {
    let (Some(&x), y) = (outputs.first(), class as f32) else { return (f32::NAN, false) };
    if let Some([gradient]) = gradient {
        *gradient = (sigmoid(x) - y) * scale;
    }
    // max(x, 0) - x y + log(1 + exp(-|x|)): no overflow on either side.
    let loss = (if x > 0.0 { x } else { 0.0 * x }) - x * y + (-x.abs()).exp().ln_1p();
    (loss, (x >= 0.0) == (class == 1))
}

fn softmax_loss(outputs: &[f32], class: usize, scale: f32, gradient: Option<&mut [f32]>) -> (f32, bool) {
    let largest = outputs.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let own = outputs.get(class).copied().unwrap_or(f32::NAN);
    let mut total = 0.0;
    match gradient {
        Some(gradient) => {
            for (gradient, output) in gradient.iter_mut().zip(outputs) {
                *gradient = (output - largest).exp();
                total += *gradient;
            }
            let factor = scale / total;
            gradient.iter_mut().for_each(|gradient| *gradient *= factor);
            if let Some(gradient) = gradient.get_mut(class) {
                *gradient -= scale;
            }
        }
        None => outputs.iter().for_each(|output| total += (output - largest).exp()),
    }
    (total.ln() - (own - largest), best(outputs) == class)
}

/// The place of the largest value: the first of equals.
pub(super) fn best(values: &[f32]) -> usize {
    let mut best = 0;
    for (index, value) in values.iter().enumerate() {
        if *value > values[best] {
            best = index;
        }
    }
    best
}

/// Turns a row of outputs into probabilities that sum to one.
pub(super) fn softmax(outputs: &mut [f32]) {
    let largest = outputs.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut total = 0.0;
    for output in outputs.iter_mut() {
        *output = (*output - largest).exp();
        total += *output;
    }
    outputs.iter_mut().for_each(|output| *output /= total);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every loss's gradient against the difference quotient.
    #[test]
    fn gradients_are_the_slopes() {
        let outputs = [0.3f32, -1.2, 2.0, 0.9, 0.1, -0.4];
        let classes = [2u32, 0];
        let numbers = [0.1f32, 0.2, -1.5, 0.6, 0.9, -0.3];
        let binary_classes = [1u32, 0, 0, 1, 1, 0];
        let cases = [
            (Objective::CrossEntropy, Truth::Classes(&classes), vec![0.5f32, 1.0, 2.0]),
            (Objective::BinaryCrossEntropy, Truth::Classes(&binary_classes), vec![1.0, 3.0]),
            (Objective::SquaredError, Truth::Numbers(&numbers), vec![]),
            (Objective::AbsoluteError, Truth::Numbers(&numbers), vec![]),
            (Objective::Huber(0.5), Truth::Numbers(&numbers), vec![]),
        ];
        for (objective, truth, weights) in cases {
            let mut gradient = [0.0; 6];
            let sums = objective.losses(&outputs, truth, &weights, 1.0, Some(&mut gradient));
            let without = objective.losses(&outputs, truth, &weights, 1.0, None);
            assert!((sums.loss - without.loss).abs() < 1e-6);
            for index in 0..6 {
                let at = |shift: f32| {
                    let mut outputs = outputs;
                    outputs[index] += shift;
                    objective.losses(&outputs, truth, &weights, 1.0, None).loss
                };
                let slope = (at(1e-2) - at(-1e-2)) / 2e-2;
                let found = f64::from(gradient[index]);
                assert!((slope - found).abs() < 2e-3, "{objective:?} {index}: {slope} is not {found}");
            }
        }
    }

    #[test]
    fn extreme_outputs_stay_finite() {
        let sums = Objective::BinaryCrossEntropy.losses(&[500.0, -500.0], Truth::Classes(&[1, 1]), &[], 1.0, None);
        assert_eq!((sums.loss, sums.correct), (500.0, 1));
        let sums = Objective::CrossEntropy.losses(&[1e4, -1e4], Truth::Classes(&[0]), &[], 1.0, None);
        assert_eq!((sums.loss, sums.correct), (0.0, 1));
        assert!(Objective::CrossEntropy.losses(&[f32::NAN, 0.0], Truth::Classes(&[0]), &[], 1.0, None).loss.is_nan());
    }
}
