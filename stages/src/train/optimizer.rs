//! Optimisers: one pass over flat slices, in place.

use super::network::simd::vectorized;
use super::numbers::{NonNegative, Positive, Share};
use ropeway_framework::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How weights follow gradients.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Optimizer {
    /// Stochastic gradient descent, with momentum if asked for.
    Sgd(Sgd),
    /// Adam (Kingma and Ba, 2015).
    Adam(Adam),
    /// Adam with decoupled weight decay (Loshchilov and Hutter, 2019).
    Adamw(AdamW),
}

/// Stochastic gradient descent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sgd {
    /// The learning rate.
    #[serde(default = "hundredth")]
    pub rate: Positive,
    /// How much of the last step goes into the next.
    #[serde(default)]
    pub momentum: Share,
    /// Whether the gradient is taken to be that after the momentum's step (Nesterov, 1983). Needs `momentum`.
    #[serde(default)]
    pub nesterov: bool,
    /// The weight of the squared weights in the loss, halved.
    #[serde(default)]
    pub weight_decay: NonNegative,
}

/// Adam.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Adam {
    /// The learning rate.
    #[serde(default = "thousandth")]
    pub rate: Positive,
    /// How slowly the mean of the gradients moves.
    #[serde(default = "beta1")]
    pub beta1: Share,
    /// How slowly the mean of their squares moves.
    #[serde(default = "beta2")]
    pub beta2: Share,
    /// What keeps the quotient finite.
    #[serde(default = "epsilon")]
    pub eps: Positive,
}

/// Adam with decoupled weight decay.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AdamW {
    /// The learning rate.
    #[serde(default = "thousandth")]
    pub rate: Positive,
    /// How slowly the mean of the gradients moves.
    #[serde(default = "beta1")]
    pub beta1: Share,
    /// How slowly the mean of their squares moves.
    #[serde(default = "beta2")]
    pub beta2: Share,
    /// What keeps the quotient finite.
    #[serde(default = "epsilon")]
    pub eps: Positive,
    /// The share of each weight that a step at rate 1 takes away.
    #[serde(default = "decay")]
    pub weight_decay: NonNegative,
}

fn hundredth() -> Positive {
    Positive::known(1e-2)
}

fn thousandth() -> Positive {
    Positive::known(1e-3)
}

fn beta1() -> Share {
    Share::known(0.9)
}

fn beta2() -> Share {
    Share::known(0.999)
}

fn epsilon() -> Positive {
    Positive::known(1e-8)
}

fn decay() -> NonNegative {
    NonNegative::known(1e-2)
}

impl Default for Optimizer {
    fn default() -> Self {
        Optimizer::adamw(thousandth())
    }
}

impl Optimizer {
    /// AdamW at a rate, and PyTorch's defaults for the rest.
    pub fn adamw(rate: Positive) -> Self {
        Optimizer::Adamw(AdamW { rate, beta1: beta1(), beta2: beta2(), eps: epsilon(), weight_decay: decay() })
    }

    /// Adam at a rate, and PyTorch's defaults for the rest.
    pub fn adam(rate: Positive) -> Self {
        Optimizer::Adam(Adam { rate, beta1: beta1(), beta2: beta2(), eps: epsilon() })
    }

    /// Gradient descent with momentum.
    pub fn sgd(rate: Positive, momentum: Share) -> Self {
        Optimizer::Sgd(Sgd { rate, momentum, nesterov: false, weight_decay: NonNegative::default() })
    }

    /// The rate that the schedule's factors multiply.
    pub fn rate(&self) -> f64 {
        match self {
            Optimizer::Sgd(sgd) => sgd.rate.get(),
            Optimizer::Adam(adam) => adam.rate.get(),
            Optimizer::Adamw(adamw) => adamw.rate.get(),
        }
    }

    /// How many numbers it keeps a weight.
    pub fn moments(&self) -> usize {
        match self {
            Optimizer::Sgd(sgd) => usize::from(sgd.momentum.get() > 0.0),
            Optimizer::Adam(_) | Optimizer::Adamw(_) => 2,
        }
    }

    /// Refuses settings that contradict each other.
    ///
    /// # Errors
    /// `nesterov` without `momentum`.
    pub fn check(&self) -> Result<()> {
        match self {
            Optimizer::Sgd(sgd) if sgd.nesterov && sgd.momentum.get() == 0.0 => {
                Err(Error::usage("`optimizer.sgd.nesterov` needs a `momentum` above 0"))
            }
            _ if !(self.rate() as f32).is_normal() => {
                let rate = self.rate();
                Err(Error::usage(format!(
                    "`optimizer`: the rate {rate:e} is beyond the numbers that weights are kept in"
                ))
                .help("rates are mostly between 1e-6 and 1; `find_rate` finds one"))
            }
            Optimizer::Sgd(_) => Ok(()),
            Optimizer::Adam(Adam { eps, .. }) | Optimizer::Adamw(AdamW { eps, .. }) => {
                check_number("`optimizer`: `eps`", eps.get())
            }
        }
    }

    /// Takes step `number`, counted from 1, in one pass: every gradient is multiplied with `scale` (clipping), weights
    /// and moments change in place. For a loop of one's own; [`Trainer`](super::Trainer) and `train` step so too.
    ///
    /// # Errors
    /// Other than [`Optimizer::moments`] moments (all zeros before the first step), or slices of other lengths.
    ///
    /// ```
    /// use ropeway_framework::Error;
    /// use ropeway_stages::train::{Optimizer, Positive, Share};
    ///
    /// let rate = Positive::try_from(0.1).map_err(Error::new)?;
    /// let optimizer = Optimizer::sgd(rate, Share::try_from(0.9).map_err(Error::new)?);
    /// let (mut weights, mut velocity) = ([1.0], [0.0]);
    /// for number in 1..=2 {
    ///     optimizer.step(number, optimizer.rate(), 1.0, &mut weights, &[1.0], &mut [&mut velocity])?;
    /// }
    /// assert!((weights[0] - 0.71f32).abs() < 1e-6);
    /// # Ok::<_, Error>(())
    /// ```
    pub fn step(
        &self,
        number: u64,
        rate: f64,
        scale: f32,
        weights: &mut [f32],
        gradients: &[f32],
        moments: &mut [&mut [f32]],
    ) -> Result<()> {
        let (wanted, found) = (self.moments(), moments.len());
        if found != wanted {
            return Err(Error::usage(format!("the optimizer keeps {wanted} moments, but there are {found}")));
        }
        let count = weights.len();
        if gradients.len() != count || moments.iter().any(|moment| moment.len() != count) {
            return Err(Error::usage(format!("there are {count} weights, but not as many gradients and moments")));
        }
        self.update(number, rate, scale).apply(weights, gradients, moments);
        Ok(())
    }

    /// The numbers of one update: step `step`, counted from 1, at a rate that the schedule gave; every gradient is
    /// multiplied with `scale` (clipping).
    pub(super) fn update(&self, step: u64, rate: f64, scale: f32) -> Update {
        let adam = |beta1: Share, beta2: Share, eps: Positive, decay: f64| {
            let power = |beta: Share| 1.0 - beta.get().powi(i32::try_from(step).unwrap_or(i32::MAX));
            Rule::Adam {
                beta1: beta1.get() as f32,
                beta2: beta2.get() as f32,
                rate: (rate / power(beta1)) as f32,
                root: (1.0 / power(beta2)).sqrt() as f32,
                eps: eps.get() as f32,
                keep: (1.0 - rate * decay) as f32,
            }
        };
        let rule = match self {
            Optimizer::Sgd(sgd) => Rule::Sgd {
                rate: rate as f32,
                momentum: sgd.momentum.get() as f32,
                nesterov: sgd.nesterov,
                decay: sgd.weight_decay.get() as f32,
            },
            Optimizer::Adam(a) => adam(a.beta1, a.beta2, a.eps, 0.0),
            Optimizer::Adamw(a) => adam(a.beta1, a.beta2, a.eps, a.weight_decay.get()),
        };
        Update { rule, scale }
    }
}

/// Refuses a positive number that is nothing, or infinite, among the 32-bit numbers that trainings compute with.
///
/// # Errors
/// It is; with its name.
pub(super) fn check_number(name: &str, value: f64) -> Result<()> {
    match (value as f32).is_normal() {
        true => Ok(()),
        false => Err(Error::usage(format!("{name} is {value:e}, beyond the numbers that are computed with"))
            .help("use a number between 1e-37 and 1e38")),
    }
}

/// One update of all weights, as numbers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Update {
    pub(super) rule: Rule,
    scale: f32,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Rule {
    Sgd { rate: f32, momentum: f32, nesterov: bool, decay: f32 },
    Adam { beta1: f32, beta2: f32, rate: f32, root: f32, eps: f32, keep: f32 },
}

impl Update {
    /// Updates a part of the weights and its moments in place.
    pub(super) fn apply(&self, weights: &mut [f32], gradients: &[f32], moments: &mut [&mut [f32]]) {
        vectorized(
            #[inline(always)]
            || self.pass(weights, gradients, moments),
        );
    }

    #[inline(always)]
    fn pass(&self, weights: &mut [f32], gradients: &[f32], moments: &mut [&mut [f32]]) {
        let scale = self.scale;
        let pairs = weights.iter_mut().zip(gradients);
        match (self.rule, moments) {
            (Rule::Sgd { rate, decay, .. }, []) => {
                for (weight, gradient) in pairs {
                    *weight -= rate * (gradient * scale + decay * *weight);
                }
            }
            (Rule::Sgd { rate, momentum, nesterov: false, decay }, [velocity, ..]) => {
                for ((weight, gradient), velocity) in pairs.zip(velocity.iter_mut()) {
                    *velocity = momentum * *velocity + (gradient * scale + decay * *weight);
                    *weight -= rate * *velocity;
                }
            }
            (Rule::Sgd { rate, momentum, nesterov: true, decay }, [velocity, ..]) => {
                for ((weight, gradient), velocity) in pairs.zip(velocity.iter_mut()) {
                    let gradient = gradient * scale + decay * *weight;
                    *velocity = momentum * *velocity + gradient;
                    *weight -= rate * (gradient + momentum * *velocity);
                }
            }
            (Rule::Adam { beta1, beta2, rate, root, eps, keep }, [mean, square, ..]) => {
                for (((weight, gradient), mean), square) in pairs.zip(mean.iter_mut()).zip(square.iter_mut()) {
                    let gradient = gradient * scale;
                    *mean = beta1 * *mean + (1.0 - beta1) * gradient;
                    *square = beta2 * *square + (1.0 - beta2) * gradient * gradient;
                    *weight = keep * *weight - rate * *mean / (square.sqrt() * root + eps);
                }
            }
            (Rule::Adam { .. }, _) => debug_assert!(false, "Adam keeps two moments"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Two steps on two weights; the expected values are those of the papers' formulas, worked in f64.
    fn run(optimizer: serde_json::Value, scale: f32) -> Vec<f32> {
        let optimizer: Optimizer = serde_json::from_value(optimizer).unwrap();
        let mut weights = vec![1.0f32, -2.0];
        let mut moments = vec![vec![0.0f32; 2]; optimizer.moments()];
        for (step, gradient) in [(1, [0.5f32, -1.0]), (2, [-0.25, 2.0])] {
            let mut parts: Vec<&mut [f32]> = moments.iter_mut().map(Vec::as_mut_slice).collect();
            optimizer.update(step, optimizer.rate(), scale).apply(&mut weights, &gradient, &mut parts);
        }
        weights
    }

    fn close(found: &[f32], expected: [f64; 2]) {
        for (found, expected) in found.iter().zip(expected) {
            assert!((f64::from(*found) - expected).abs() < 1e-6, "{found} is not {expected}");
        }
    }

    #[test]
    fn plain_descent() {
        close(&run(json!({"sgd": {"rate": 0.1}}), 1.0), [0.975, -2.1]);
        close(&run(json!({"sgd": {"rate": 0.1}}), 0.5), [0.9875, -2.05]);
        close(&run(json!({"sgd": {"rate": 0.1, "weight_decay": 0.1}}), 1.0), [0.9556, -2.0612]);
    }

    #[test]
    fn momentum_and_nesterov() {
        close(&run(json!({"sgd": {"rate": 0.1, "momentum": 0.9}}), 1.0), [0.93, -2.01]);
        close(&run(json!({"sgd": {"rate": 0.1, "momentum": 0.9, "nesterov": true}}), 1.0), [0.912, -2.109]);
        assert!(serde_json::from_value::<Optimizer>(json!({"sgd": {"nesterov": true}})).unwrap().check().is_err());
    }

    fn adam(decay: f64) -> [f64; 2] {
        [(1.0, [0.5, -0.25]), (-2.0, [-1.0, 2.0])].map(|(start, gradients)| {
            let (mut w, mut m, mut v): (f64, f64, f64) = (start, 0.0, 0.0);
            for (t, g) in gradients.into_iter().enumerate() {
                let t = t as i32 + 1;
                w -= 0.01 * decay * w;
                (m, v) = (0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g);
                w -= 0.01 * (m / (1.0 - 0.9f64.powi(t))) / ((v / (1.0 - 0.999f64.powi(t))).sqrt() + 1e-8);
            }
            w
        })
    }

    #[test]
    fn adam_and_adamw() {
        close(&run(json!({"adam": {"rate": 0.01}}), 1.0), adam(0.0));
        close(&run(json!({"adamw": {"rate": 0.01, "weight_decay": 0.1}}), 1.0), adam(0.1));
    }

    #[test]
    fn slices_that_do_not_fit_are_refused() {
        let adam = Optimizer::default();
        let step = |gradients: &[f32], moments: &mut [&mut [f32]]| {
            adam.step(1, 1e-3, 1.0, &mut [1.0, 2.0], gradients, moments).map_err(|error| error.to_string())
        };
        let one = step(&[0.0; 2], &mut [&mut [0.0; 2]]).unwrap_err();
        assert_eq!(one, "the optimizer keeps 2 moments, but there are 1");
        assert!(step(&[0.0; 3], &mut [&mut [0.0; 2], &mut [0.0; 2]]).unwrap_err().contains("2 weights"));
        assert!(step(&[0.0; 2], &mut [&mut [0.0; 2], &mut [0.0; 1]]).is_err());
        step(&[0.0; 2], &mut [&mut [0.0; 2], &mut [0.0; 2]]).unwrap();
    }

    #[test]
    fn numbers_that_vanish_are_refused() {
        let check = |eps: f64| serde_json::from_value::<Optimizer>(json!({"adam": {"eps": eps}})).unwrap().check();
        check(1e-30).unwrap();
        let error = check(1e-46).unwrap_err().to_string();
        assert_eq!(error, "`optimizer`: `eps` is 1e-46, beyond the numbers that are computed with");
    }

    #[test]
    fn rates_that_make_no_sense_are_refused() {
        for rate in [json!(0), json!(-1.0), json!("x")] {
            assert!(serde_json::from_value::<Optimizer>(json!({"adam": {"rate": rate}})).is_err());
        }
        assert!(Positive::try_from(f64::INFINITY).is_err() && Positive::try_from(f64::NAN).is_err());
    }
}
