//! When a training has gone wrong: a loss or a gradient that is no number, or a loss beyond all measure.

use super::state::{CURVE, State};
use ropeway_framework::{Error, Result};

/// How many times the first epoch's mean a later step's loss may be. Outliers and small batches stay far below it; a
/// training beyond it does not come back.
const EXPLODED: f64 = 1e6;
/// The same of the mean of the first steps, within the first epoch: they may have seen nothing of what is rare.
const EXPLODED_EARLY: f64 = 1e12;
/// How many steps those are.
pub(super) const FIRST_STEPS: u64 = 20;
/// From how many times that mean on a step's loss may be the beginning of an explosion.
const DOUBTFUL: f64 = 1e3;

/// What a step's loss is held against: what it is called, a mean, and how many times that it may be. Nothing at the very
/// beginning.
fn measure(state: &State) -> Option<(&'static str, f64, f64)> {
    match state.curve.first() {
        Some(first) => Some(("in the first epoch", first[4], EXPLODED)),
        None if state.step > FIRST_STEPS => Some(("in the first steps", state.first_sums.mean(), EXPLODED_EARLY)),
        None => None,
    }
}

/// Refuses the loss of a step that is not taken yet.
///
/// # Errors
/// It is NaN or infinite, or exploded; with the step, the epoch, the rate, and what to try.
pub(super) fn check_loss(loss: f64, rate: f64, state: &State, clip: Option<f64>) -> Result<()> {
    if !loss.is_finite() {
        return Err(wrong(&format!("the loss is {loss}"), rate, state, clip));
    }
    match measure(state) {
        // A loss below 1 is no measure: one that is almost nothing may grow a million times and still be small.
        Some((when, mean, times)) if loss > times * mean.max(1.0) => {
            let what = format!("the loss, {mean:.3e} on average {when}, is {loss:.3e}");
            Err(wrong(&what, rate, state, clip))
        }
        _ => Ok(()),
    }
}

/// Whether a state whose last step had this loss may be on its way to nowhere: then the checkpoint before it is the better
/// one.
pub(super) fn is_doubtful(loss: f64, state: &State) -> bool {
    measure(state).is_some_and(|(_, mean, _)| loss > DOUBTFUL * mean.max(1.0))
}

/// Refuses the losses of a round of trees, the row of the curve that comes after those of the state.
///
/// # Errors
/// The mean is NaN or infinite, or exploded; with the round, and what to try.
pub(super) fn check_round(row: &[f64; CURVE.len()], state: &State) -> Result<()> {
    let most = EXPLODED * state.curve.first().map_or(f64::INFINITY, |first| first[4].max(1.0));
    match row[4].is_finite() && row[4] <= most {
        true => Ok(()),
        false => {
            Err(Error::new(format!("the loss is {:.3e} after round {}, at the rate {:e}", row[4], row[0], row[2]))
                .help("lower `model.trees.rate`: above 1 each round overshoots what those before it left over"))
        }
    }
}

/// Refuses the norm of a gradient.
///
/// # Errors
/// It is NaN or infinite.
pub(super) fn check_norm(norm: f64, rate: f64, state: &State, clip: Option<f64>) -> Result<()> {
    match norm.is_finite() {
        true => Ok(()),
        false => Err(wrong(&format!("the norm of the gradient is {norm}"), rate, state, clip)),
    }
}

/// Refuses the weights after a step, before they are kept or given.
///
/// # Errors
/// One is NaN or infinite: a step may reach too far though its gradient does not.
pub(super) fn check_weights(rate: f64, state: &State, clip: Option<f64>) -> Result<()> {
    match state.weights.iter().find(|weight| !weight.is_finite()) {
        Some(weight) => Err(wrong_after(&format!("a weight is {weight}"), rate, state, clip)),
        None => Ok(()),
    }
}

/// Refuses the mean loss of the validation part after an epoch.
///
/// # Errors
/// It is NaN or infinite.
pub(super) fn check_valid(loss: f64, rate: f64, state: &State, clip: Option<f64>) -> Result<()> {
    match loss.is_finite() {
        true => Ok(()),
        false => Err(wrong_after(&format!("the validation loss is {loss}"), rate, state, clip)),
    }
}

/// What went wrong in a step that is under way.
fn wrong(what: &str, rate: f64, state: &State, clip: Option<f64>) -> Error {
    wrong_in(state.epoch + 1, what, rate, state, clip)
}

/// What is wrong after a step, which may be the last of its epoch.
fn wrong_after(what: &str, rate: f64, state: &State, clip: Option<f64>) -> Error {
    wrong_in(state.epoch + u64::from(state.position > 0), what, rate, state, clip)
}

fn wrong_in(epoch: u64, what: &str, rate: f64, state: &State, clip: Option<f64>) -> Error {
    let step = state.step;
    let clip = if clip.is_none() { ", or set `clip`, such as clip = 1.0" } else { "" };
    Error::new(format!("{what} at step {step} (epoch {epoch}), at the rate {rate:e}")).help(format!(
        "lower the rate of `optimizer`, let it rise with a `warmup`, scale the features and the target{clip}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::loss::Sums;

    #[test]
    fn what_does_not_come_back_is_named() {
        let mut state = State { step: 7, epoch: 1, ..State::default() };
        let said = |loss: f64, state: &State| check_loss(loss, 0.001, state, None).err().map(|error| error.to_string());
        assert_eq!(said(f64::NAN, &state).unwrap(), "the loss is NaN at step 7 (epoch 2), at the rate 1e-3");
        // Nothing to compare with in the first steps.
        assert_eq!(said(1e30, &state), None);
        assert!(!is_doubtful(1e30, &state));
        state.step = 21;
        state.first_sums = Sums { loss: 5.0, weight: 2.0, correct: 0, rows: 2 };
        let expected =
            "the loss, 2.500e0 on average in the first steps, is 3.000e12 at step 21 (epoch 2), at the rate 1e-3";
        assert_eq!((said(2e12, &state), said(3e12, &state).as_deref()), (None, Some(expected)));
        assert!(is_doubtful(3e3, &state) && !is_doubtful(2e3, &state));
        state.step = 7;
        let mut row = [0.0; CURVE.len()];
        row[4] = 2.5;
        state.curve.push(row);
        assert_eq!(said(2e6, &state), None);
        let expected =
            "the loss, 2.500e0 on average in the first epoch, is 3.000e6 at step 7 (epoch 2), at the rate 1e-3";
        assert_eq!(said(3e6, &state).unwrap(), expected);
        state.weights = vec![0.0, 1e38, f32::NEG_INFINITY];
        let error = check_weights(0.001, &state, None).unwrap_err().to_string();
        assert_eq!(error, "a weight is -inf at step 7 (epoch 1), at the rate 1e-3");
        let error = check_valid(f64::NAN, 0.001, &state, None).unwrap_err().to_string();
        assert_eq!(error, "the validation loss is NaN at step 7 (epoch 1), at the rate 1e-3");
        state.weights.pop();
        assert!(check_weights(0.001, &state, None).is_ok() && check_valid(1e30, 0.001, &state, None).is_ok());
        assert!(
            check_norm(f64::INFINITY, 1.0, &state, Some(1.0)).is_err() && check_norm(1e30, 1.0, &state, None).is_ok()
        );
    }
}
