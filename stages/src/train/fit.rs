//! The training loop: epochs, steps, validation, early stopping, checkpoints. It knows no model and no device.

use super::bounds;
use super::cadence::Cadence;
use super::descent::Step;
use super::loss::Sums;
use super::optimizer::Optimizer;
use super::phases::Phases;
use super::pool::Pool;
use super::schedule::Schedule;
use super::spec::EarlyStop;
use super::state::{Best, CURVE, State};
use super::watch::Watch;
use super::writer::Writer;
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

    /// What the gradients that were computed last took, if it is measured.
    fn phases(&self) -> Phases {
        Phases::default()
    }
}

/// What the loop follows.
pub(super) struct Plan {
    pub(super) epochs: u64,
    pub(super) batch: usize,
    pub(super) optimizer: Optimizer,
    pub(super) schedule: Schedule,
    pub(super) clip: Option<f64>,
    pub(super) early_stop: Option<EarlyStop>,
    pub(super) checkpoint: Cadence,
    /// Steps between the points of the curve within an epoch, if there are to be any.
    pub(super) curve: Option<u64>,
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
                around.progress.log(format!("going on after step {}, from a checkpoint", state.step));
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
    let mut watch = Watch::new(around, plan.epochs, &state);
    let mut writer = Writer::start(plan.checkpoint, around.checkpoint.clone())?;
    let steps = engine.rows().div_ceil(plan.batch) as u64;
    while state.epoch < plan.epochs && !state.stopped {
        let order = order(plan, engine.rows(), &state, &chance)?;
        let mut row = [f64::NAN; CURVE.len()];
        for rows in order.chunks(plan.batch).skip(usize::try_from(state.position)?) {
            around.cancel.check()?;
            let chance = chance.child(&format!("step-{}", state.step));
            row = step(plan, engine, &mut state, (rows, steps, &chance), &mut sum, (pool, &mut watch.phases))?;
            watch.step(&state, steps, row[2], row[3]);
            if state.position < steps {
                state.note(plan.curve, row, engine.classifies());
                writer.keep(&state)?;
            }
        }
        row = state.end_epoch(row, engine.classifies());
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
        watch.epoch(&state, steps, &row);
        if state.epoch < plan.epochs && !state.stopped {
            writer.keep(&state)?;
        }
    }
    writer.finish();
    watch.end(&state);
    Ok(state)
}

/// The rows of an epoch, in its order.
fn order(plan: &Plan, rows: usize, state: &State, chance: &Seed) -> Result<Vec<u32>> {
    let mut order: Vec<u32> = (0..u32::try_from(rows)?).collect();
    if plan.shuffle {
        order.shuffle(&mut chance.rng(&format!("shuffle/epoch-{}", state.epoch)));
    }
    Ok(order)
}

/// One step; gives the beginning of a row of the curve.
fn step(
    plan: &Plan,
    engine: &mut dyn Engine,
    state: &mut State,
    (rows, steps, chance): (&[u32], u64, &Seed),
    sum: &mut [f32],
    (pool, phases): (&Pool, &mut Phases),
) -> Result<[f64; CURVE.len()]> {
    let sums = engine.gradients(&state.weights, rows, chance)?;
    phases.add(&engine.phases());
    let rate = plan.optimizer.rate() * plan.schedule.factor(state.step, steps);
    state.step += 1;
    let step = Step { shards: engine.shards(), optimizer: &plan.optimizer, number: state.step, rate, clip: plan.clip };
    bounds::check_loss(sums.mean(), rate, state, plan.clip)?;
    let norm = step.take(pool, sum, &mut state.weights, &mut state.moments, phases);
    bounds::check_norm(norm, rate, state, plan.clip)?;
    state.add(sums);
    let mut row = [f64::NAN; CURVE.len()];
    (row[0], row[1], row[2], row[3]) = (state.epoch as f64 + 1.0, state.step as f64, rate, norm);
    Ok(row)
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
