//! The training loop: epochs, steps, validation, early stopping, checkpoints. It knows no model and no device.

use super::descent::Step;
use super::loss::Sums;
use super::optimizer::Optimizer;
use super::pool::Pool;
use super::schedule::Schedule;
use super::spec::EarlyStop;
use super::state::{Best, CURVE, State};
use rand::seq::SliceRandom;
use ropeway_framework::stage::{Argument, Call, Signature};
use ropeway_framework::stage::{Cancel, Checkpoint, Models, Progress, Seed, Threads};
use ropeway_framework::{Error, Result};

/// What computes losses and gradients of a model whose weights are one flat slice.
pub(super) trait Engine {
    /// Rows of the training part.
    fn rows(&self) -> usize;

    /// Whether rows have classes, so that accuracy means something.
    fn classifies(&self) -> bool;

    /// Computes the gradient of the mean loss of some rows, a part a shard. Which rows a shard has, and its bits,
    /// depend on nothing but the arguments.
    fn gradients(&mut self, weights: &[f32], rows: &[u32], chance: &Seed) -> Result<Sums>;

    /// The gradients that were computed last, by shard.
    fn shards(&self) -> &[Vec<f32>];

    /// The losses over the validation part, if there is one.
    fn evaluate(&mut self, weights: &[f32]) -> Result<Option<Sums>>;
}

/// What the loop follows.
pub(super) struct Plan {
    pub(super) epochs: u64,
    pub(super) batch: usize,
    pub(super) optimizer: Optimizer,
    pub(super) schedule: Schedule,
    pub(super) clip: Option<f64>,
    pub(super) early_stop: Option<EarlyStop>,
    pub(super) checkpoint: u64,
    pub(super) shuffle: bool,
}

/// What a training needs of the stage's call besides its data.
#[derive(Clone, Default)]
pub struct Surroundings {
    /// Where to say how far it is.
    pub progress: Progress,
    /// Where to keep a state for a later attempt.
    pub checkpoint: Checkpoint,
    /// Whether it should stop.
    pub cancel: Cancel,
    /// The kinds of model that the program knows.
    pub models: Models,
    /// How many threads it may keep busy.
    pub threads: Threads,
}

impl Argument for Surroundings {
    fn describe(_: &mut Signature) {}

    fn take(call: &mut Call, _: &Signature, _: &mut usize) -> Result<Self> {
        Ok(Self {
            progress: call.progress.clone(),
            checkpoint: call.checkpoint.clone(),
            cancel: call.cancel.clone(),
            models: call.models.clone(),
            threads: call.threads,
        })
    }
}

/// The state to begin with: the newest checkpoint of this task, else the state to resume from, else the fresh one.
pub(super) fn begin(
    fresh: State,
    resume: Option<&ropeway_framework::data::Tensors>,
    plan: &Plan,
    around: &Surroundings,
) -> Result<State> {
    if let Some(tensors) = around.checkpoint.newest()? {
        match State::read(&tensors, &fresh) {
            Ok(state) if state.epoch <= plan.epochs => {
                around.progress.log(format!("going on after epoch {}, from a checkpoint", state.epoch));
                return Ok(state);
            }
            Ok(_) => {}
            Err(error) => around.progress.log(format!("a checkpoint can't be used: {error}")),
        }
    }
    let Some(tensors) = resume else { return Ok(fresh) };
    let state = State::read(tensors, &fresh).map_err(|error| error.context("input \"resume\""))?;
    if state.epoch > plan.epochs {
        return Err(Error::usage(format!(
            "input \"resume\" has {} epochs behind it, and `epochs` is {}",
            state.epoch, plan.epochs
        ))
        .help("`epochs` counts from the very beginning: raise it"));
    }
    Ok(state)
}

/// Trains until the plan's last epoch, or until early stopping ends it.
pub(super) fn fit(
    plan: &Plan,
    engine: &mut dyn Engine,
    mut state: State,
    pool: &Pool,
    around: &Surroundings,
) -> Result<State> {
    let chance = Seed::new(state.chance, "train");
    let mut sum = vec![0.0; state.weights.len()];
    while state.epoch < plan.epochs && !state.stopped {
        let mut row = [f64::NAN; CURVE.len()];
        let train = pass(plan, engine, &mut state, &mut sum, &mut row, (pool, around, &chance))?;
        state.epoch += 1;
        row[0] = state.epoch as f64;
        row[4] = train.mean();
        if engine.classifies() {
            row[5] = train.accuracy();
        }
        if let Some(valid) = engine.evaluate(&state.weights)? {
            row[6] = valid.mean();
            if engine.classifies() {
                row[7] = valid.accuracy();
            }
        }
        state.curve.push(row);
        if let Some(rule) = &plan.early_stop {
            look(rule, &mut state, row[6]);
        }
        report(around, plan, &state, &row);
        let last = state.epoch == plan.epochs || state.stopped;
        if !last && state.epoch.is_multiple_of(plan.checkpoint) {
            around.checkpoint.save(state.tensors()?)?;
        }
    }
    Ok(state)
}

/// One epoch's steps.
fn pass(
    plan: &Plan,
    engine: &mut dyn Engine,
    state: &mut State,
    sum: &mut [f32],
    row: &mut [f64; CURVE.len()],
    (pool, around, chance): (&Pool, &Surroundings, &Seed),
) -> Result<Sums> {
    let mut order: Vec<u32> = (0..u32::try_from(engine.rows())?).collect();
    if plan.shuffle {
        order.shuffle(&mut chance.rng(&format!("shuffle/epoch-{}", state.epoch)));
    }
    let steps = order.len().div_ceil(plan.batch) as u64;
    let mut total = Sums::default();
    for rows in order.chunks(plan.batch) {
        around.cancel.check()?;
        let sums = engine.gradients(&state.weights, rows, &chance.child(&format!("step-{}", state.step)))?;
        let rate = plan.optimizer.rate() * plan.schedule.factor(state.step, steps);
        state.step += 1;
        if !sums.loss.is_finite() {
            return Err(exploded("loss", sums.loss, state, plan));
        }
        let step =
            Step { shards: engine.shards(), optimizer: &plan.optimizer, number: state.step, rate, clip: plan.clip };
        let norm = step.take(pool, sum, &mut state.weights, &mut state.moments);
        if !norm.is_finite() {
            return Err(exploded("norm of the gradient", norm, state, plan));
        }
        total.add(sums);
        (row[1], row[2], row[3]) = (state.step as f64, rate, norm);
    }
    Ok(total)
}

fn exploded(what: &str, value: f64, state: &State, plan: &Plan) -> Error {
    let help = match plan.clip {
        None => "lower the rate, scale the features, or set `clip`, such as clip = 1.0",
        Some(_) => "lower the rate, or scale the features",
    };
    Error::new(format!("the {what} is {value} at step {} (epoch {})", state.step, state.epoch + 1)).help(help)
}

/// Keeps the best epoch, and ends the training when it lies too far back.
fn look(rule: &EarlyStop, state: &mut State, loss: f64) {
    let goal = state.best.as_ref().map_or(f64::INFINITY, |best| best.loss - rule.min_delta.get());
    if loss < goal || state.best.is_none() {
        state.best = Some(Best { epoch: state.epoch, loss, weights: state.weights.clone() });
    }
    let waited = state.best.as_ref().map_or(0, |best| state.epoch - best.epoch);
    state.stopped = waited >= rule.patience.get() as u64;
}

fn report(around: &Surroundings, plan: &Plan, state: &State, row: &[f64; CURVE.len()]) {
    let metrics: Vec<(&str, f64)> = CURVE.into_iter().zip(*row).skip(4).filter(|(_, value)| !value.is_nan()).collect();
    around.progress.step(state.epoch, Some(plan.epochs), "epoch", &metrics);
    if state.stopped {
        let best = state.best.as_ref().map_or(state.epoch, |best| best.epoch);
        around.progress.log(format!("stopped after epoch {}: none was better than epoch {best}", state.epoch));
    }
}
