//! Tree after tree, each on what those before it left over.

use super::bins::bin;
use super::forest::Forest;
use super::grow::{Slopes, grow};
use crate::train::bounds;
use crate::train::engine::{Examples, Target};
use crate::train::fit::{Surroundings, look};
use crate::train::loss::{Objective, Sums, Truth};
use crate::train::models::Trees;
use crate::train::pool::Pool;
use crate::train::spec::EarlyStop;
use crate::train::state::{CURVE, State};
use ropeway_framework::Result;

/// What is boosted: the examples, what is made small, and the weights of the classes (empty for none).
pub(in crate::train) struct Task<'a> {
    pub(in crate::train) train: &'a Examples,
    pub(in crate::train) valid: Option<&'a Examples>,
    pub(in crate::train) objective: Objective,
    pub(in crate::train) weights: &'a [f32],
    pub(in crate::train) early_stop: Option<&'a EarlyStop>,
}

fn truth(examples: &Examples) -> Truth<'_> {
    match &examples.target {
        Target::Classes(classes) => Truth::Classes(classes),
        Target::Numbers(numbers) => Truth::Numbers(numbers),
    }
}

/// Boosts; the curve has a row a round.
pub(in crate::train) fn boost(
    spec: &Trees,
    task: &Task<'_>,
    outputs: usize,
    pool: &Pool,
    around: &Surroundings,
) -> Result<(Forest, State)> {
    let Task { train, valid, objective, weights, .. } = *task;
    let (rows, features) = (train.features.rows(), bin(&train.features, spec.bins.get(), pool));
    let mut forest = Forest { base: vec![base(&train.target); outputs], ..Forest::default() };
    let mut margins = forest.base.repeat(rows);
    let mut seen = valid.map(|valid| forest.base.repeat(valid.features.rows())).unwrap_or_default();
    let (mut gradient, mut curvature) = (vec![0.0; rows * outputs], vec![0.0; rows]);
    let (mut state, rounds) = (State::default(), spec.rounds.get() as u64);
    let mut slope = vec![0.0; rows];
    while state.epoch < rounds && !state.stopped {
        around.cancel.check()?;
        objective.losses(&margins, truth(train), weights, 1.0, Some(&mut gradient));
        let first_tree = forest.roots.len();
        for output in 0..outputs {
            slope.iter_mut().zip(gradient.iter().skip(output).step_by(outputs)).for_each(|(to, from)| *to = *from);
            for (row, (curvature, slope)) in curvature.iter_mut().zip(&slope).enumerate() {
                *curvature = curved(objective, *slope, weight(&train.target, weights, row));
            }
            let slopes = Slopes { gradient: &slope, curvature: &curvature };
            let first = u32::try_from(forest.nodes.len())?;
            let nodes = grow(spec, &features, &slopes, first, pool, (&mut margins[output..], outputs));
            forest.roots.push(first);
            forest.nodes.extend(nodes);
        }
        state.epoch += 1;
        state.step += 1;
        let mut row = [f64::NAN; CURVE.len()];
        (row[0], row[1], row[2]) = (state.epoch as f64, state.step as f64, spec.rate.get());
        means(&objective.losses(&margins, truth(train), weights, 1.0, None), objective, &mut row[4..6]);
        if let Some(valid) = valid {
            let added = forest.predict_from(&vec![0.0; outputs], first_tree, &valid.features, pool);
            seen.iter_mut().zip(added).for_each(|(sum, value)| *sum += value);
            means(&objective.losses(&seen, truth(valid), weights, 1.0, None), objective, &mut row[6..8]);
        }
        bounds::check_round(&row, &state)?;
        state.curve.push(row);
        if let Some(rule) = task.early_stop {
            look(rule, &mut state, row[6]);
        }
        let named = CURVE.into_iter().zip(row).skip(4).filter(|(_, value)| !value.is_nan());
        around.progress.step(state.epoch, Some(rounds), "round", &named.collect::<Vec<_>>());
    }
    if let Some(best) = &state.best {
        forest.truncate(usize::try_from(best.epoch)? * outputs);
    }
    Ok((forest, state))
}

/// What every row begins with: the mean of numbers, even chances of classes.
fn base(target: &Target) -> f32 {
    match target {
        Target::Classes(_) => 0.0,
        Target::Numbers(numbers) => {
            (numbers.iter().map(|number| f64::from(*number)).sum::<f64>() / numbers.len() as f64) as f32
        }
    }
}

fn weight(target: &Target, weights: &[f32], row: usize) -> f32 {
    match target {
        Target::Classes(classes) => weights.get(classes[row] as usize).copied().unwrap_or(1.0),
        Target::Numbers(_) => 1.0,
    }
}

/// The second derivative of a row's loss by the output whose first is `slope`.
fn curved(objective: Objective, slope: f32, weight: f32) -> f32 {
    match objective {
        // `slope / weight` is the probability, less one for the true class: what is left to one or the other.
        Objective::CrossEntropy | Objective::BinaryCrossEntropy => {
            let left = (slope / weight).abs();
            weight * left * (1.0 - left)
        }
        Objective::SquaredError => 2.0,
        // These have none, or none everywhere: plain steps along the slope.
        Objective::AbsoluteError | Objective::Huber(_) => 1.0,
    }
}

fn means(sums: &Sums, objective: Objective, row: &mut [f64]) {
    row[0] = sums.mean();
    if objective.classifies() {
        row[1] = sums.accuracy();
    }
}
