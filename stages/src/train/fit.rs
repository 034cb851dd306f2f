//! The training loop: epochs, steps, validation, early stopping, checkpoints. It knows no model and no device.

use super::bounds;
use super::cadence::Cadence;
use super::descent::Step;
use super::gradient::{Gradient, Shards};
use super::loss::Sums;
use super::optimizer::Optimizer;
use super::order::Order;
use super::phases::{Phases, Stopwatch};
use super::pool::Pool;
use super::schedule::Schedule;
use super::spec::EarlyStop;
use super::state::{Best, CURVE, State};
use super::team::Team;
use super::watch::Watch;
use super::writer::Writer;
use ropeway_framework::stage::{Argument, Call, Signature};
use ropeway_framework::stage::{Cancel, Checkpoint, Devices, Gang, Models, Progress, Seed, Threads};
use ropeway_framework::{Error, Result};
use std::ops::Range;

/// What computes losses and gradients of a model whose weights are one flat slice.
pub(super) trait Engine {
    /// Whether rows have classes, so that accuracy means something.
    fn classifies(&self) -> bool;

    /// Gets ready for a step of an epoch, of which the shards `mine` will be asked for.
    fn seek(&mut self, _epoch: u64, _step: usize, _mine: &Range<usize>) -> Result<()> {
        Ok(())
    }

    /// Computes the gradient of the mean loss of some rows, a part a shard, for the shards `mine`, and gives their losses.
    /// Which rows a shard has, and its bits, depend on nothing but the other arguments.
    fn gradients(&mut self, weights: &[f32], rows: &[u32], chance: &Seed, mine: Range<usize>) -> Result<Vec<Sums>>;

    /// Into how many shards a step is cut.
    fn shards(&self) -> usize;

    /// The gradients that were computed last, by shard: of those that were asked for.
    fn computed(&self) -> &[Vec<f32>];

    /// The gradient that was computed last, if that of all shards was asked for.
    fn gradient(&self) -> Box<dyn Gradient + '_> {
        Box::new(Shards(self.computed()))
    }

    /// Into how many blocks the validation part is cut; none if there is none.
    fn blocks(&self) -> usize;

    /// The losses over some blocks of the validation part, by block.
    fn evaluate(&mut self, weights: &[f32], blocks: Range<usize>) -> Result<Vec<Sums>>;

    /// Gives weights that are not trained back what they were before the step.
    fn restore(&self, _: &mut [f32]) {}

    /// Takes over the weights and moments of a state, if the engine keeps them from step to step: on a device.
    fn take_over(&mut self, _: &State) -> Result<()> {
        Ok(())
    }

    /// Takes a whole step with the weights that were taken over, and gives the losses and the norm of the gradient;
    /// `None` from an engine that keeps none, whose gradients the loop steps with.
    fn step(&mut self, _: &[u32], _: &Seed, _: &Step<'_>) -> Result<Option<(Vec<Sums>, f64)>> {
        Ok(None)
    }

    /// As [`Engine::step`], along a gradient that others computed too; gives its norm.
    fn descend(&mut self, _: &dyn Gradient, _: &Step<'_>) -> Result<Option<f64>> {
        Ok(None)
    }

    /// Gives the weights and moments back that were taken over.
    fn give_back(&mut self, _: &mut State) -> Result<()> {
        Ok(())
    }

    /// What the gradients that were computed last took, if it is measured.
    fn phases(&self) -> Phases {
        Phases::default()
    }
}

/// What the loop follows.
pub(super) struct Plan {
    pub(super) epochs: u64,
    pub(super) order: Order,
    pub(super) optimizer: Optimizer,
    pub(super) schedule: Schedule,
    pub(super) clip: Option<f64>,
    pub(super) early_stop: Option<EarlyStop>,
    pub(super) checkpoint: Cadence,
    /// Steps between the points of the curve within an epoch, if there are to be any.
    pub(super) curve: Option<u64>,
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
    /// The CUDA devices that it may compute on.
    pub devices: Devices,
    /// Those who train it together.
    pub gang: Gang,
}

impl Argument for Surroundings {
    fn describe(signature: &mut Signature) {
        signature.gang = true;
        signature.devices = true;
    }

    fn take(call: &mut Call, _: &Signature, _: &mut usize) -> Result<Self> {
        Ok(Self {
            progress: call.progress.clone(),
            checkpoint: call.checkpoint.clone(),
            cancel: call.cancel.clone(),
            models: call.models.clone(),
            threads: call.threads,
            devices: call.devices.clone(),
            gang: call.gang.clone(),
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

/// Trains until the plan's last epoch, or until early stopping ends it, together with the other members of the gang.
pub(super) fn fit(
    plan: &Plan,
    engine: &mut dyn Engine,
    (fresh, resume): (State, Option<&ropeway_framework::data::Tensors>),
    pool: &Pool,
    around: &Surroundings,
) -> Result<State> {
    let steps = plan.order.steps() as u64;
    let mut course = Course {
        plan,
        chance: Seed::new(fresh.chance, "train"),
        steps,
        sum: Vec::new(),
        gradient: Vec::new(),
        pool,
        around,
        loss: 0.0,
        watch: Watch::new(around, plan.epochs),
        writer: Writer::start(plan.checkpoint, around.checkpoint.clone(), &around.progress)?,
    };
    let mut state = None;
    loop {
        let mut team = Team::meet(&around.gang, &around.cancel, engine.shards())?;
        let begin = || begin(fresh.clone(), resume, plan, around);
        let Some(()) = team.align(&mut state, &fresh, begin)? else { continue };
        let Some(state) = &mut state else { continue };
        let ended = course.run(engine, state, &mut team).and_then(|ended| {
            engine.give_back(state)?;
            let checked = |()| bounds::check_weights(course.rate(state), state, plan.clip);
            ended.map(checked).transpose()
        });
        if ended.is_err() {
            course.writer.say_what_is_kept();
        }
        if let Some(()) = ended? {
            let Course { watch, writer, .. } = course;
            writer.finish();
            watch.end(state);
            return Ok(std::mem::take(state));
        }
    }
}

/// A training under way.
struct Course<'a> {
    plan: &'a Plan,
    chance: Seed,
    /// Of an epoch.
    steps: u64,
    /// Scratch space for a gradient.
    sum: Vec<f32>,
    /// The gradient that a team has summed.
    gradient: Vec<f32>,
    pool: &'a Pool,
    around: &'a Surroundings,
    /// Of the last step.
    loss: f64,
    watch: Watch<'a>,
    writer: Writer,
}

impl Course<'_> {
    /// Goes on from a state to the end, unless the team changes.
    fn run(&mut self, engine: &mut dyn Engine, state: &mut State, team: &mut Team) -> Result<Option<()>> {
        let (plan, steps) = (self.plan, self.steps);
        self.watch.begin(state);
        engine.take_over(state)?;
        while state.epoch < plan.epochs && !state.stopped {
            let mut order = plan.order.epoch(&self.chance, state.epoch);
            while state.position < steps {
                self.around.cancel.check()?;
                let position = usize::try_from(state.position)?;
                let mut watch = Stopwatch::start();
                engine.seek(state.epoch, position, &team.mine(engine.shards()))?;
                watch.read(&mut self.watch.phases.data);
                let rows = order.step(position);
                let Some(()) = self.step(engine, state, rows, team)? else { return Ok(None) };
                if team.leads() {
                    let rate = self.rate(state);
                    self.watch.step(state, steps, rate);
                }
                if state.position < steps {
                    state.note(plan.curve, self.row(state), engine.classifies());
                    self.keep(engine, state, team)?;
                }
            }
            let blocks = team.mine(engine.blocks());
            let valid = engine.evaluate(&state.weights, blocks)?;
            let Some(valid) = team.gather(valid)? else { return Ok(None) };
            if plan.early_stop.is_some() {
                engine.give_back(state)?;
            }
            self.end_epoch(engine, state, valid)?;
            if team.leads() {
                self.watch.epoch(state, steps);
            }
            if state.epoch < plan.epochs && !state.stopped {
                self.keep(engine, state, team)?;
            }
        }
        Ok(Some(()))
    }

    fn keep(&mut self, engine: &mut dyn Engine, state: &mut State, team: &Team) -> Result<()> {
        if !team.leads() || !self.writer.is_due(state) || bounds::is_doubtful(self.loss, state) {
            return Ok(());
        }
        engine.give_back(state)?;
        bounds::check_weights(self.rate(state), state, self.plan.clip)?;
        self.writer.keep(state)
    }

    /// The rate of the last step.
    fn rate(&self, state: &State) -> f64 {
        self.plan.optimizer.rate() * self.plan.schedule.factor(state.step.saturating_sub(1), self.steps)
    }

    /// The beginning of a row of the curve, after a step.
    fn row(&self, state: &State) -> [f64; CURVE.len()] {
        let mut row = [f64::NAN; CURVE.len()];
        (row[0], row[1]) = (state.epoch as f64 + 1.0, state.step as f64);
        (row[2], row[3]) = (self.rate(state), state.norm);
        row
    }

    /// One step. Nothing of the state changes before all of the gradient is there.
    fn step(
        &mut self,
        engine: &mut dyn Engine,
        state: &mut State,
        rows: &[u32],
        team: &mut Team,
    ) -> Result<Option<()>> {
        let chance = self.chance.child(&format!("step-{}", state.step));
        let shared = !team.is_alone();
        if !shared {
            if team.is_over() {
                return Ok(None);
            }
            if self.step_elsewhere(engine, state, rows, &chance)? {
                return Ok(Some(()));
            }
        }
        let sums = engine.gradients(&state.weights, rows, &chance, team.mine(engine.shards()))?;
        self.watch.phases.add(&engine.phases());
        let sums = match shared {
            true => {
                let mut watch = Stopwatch::start();
                self.gradient.resize(state.weights.len(), 0.0);
                let Some(sums) = team.reduce(engine.computed(), sums, &mut self.gradient, self.pool)? else {
                    return Ok(None);
                };
                watch.read(&mut self.watch.phases.reduce);
                sums
            }
            false if team.is_over() => return Ok(None),
            false => sums,
        };
        let (plan, sums) = (self.plan, Sums::total(sums));
        state.step += 1;
        let rate = self.rate(state);
        bounds::check_loss(sums.mean(), rate, state, plan.clip)?;
        let step = Step { optimizer: &plan.optimizer, number: state.step, rate, clip: plan.clip };
        let (weights, moments) = (&mut state.weights, &mut state.moments);
        let mut take = |gradient: &dyn Gradient| {
            step.take(gradient, self.pool, &mut self.sum, weights, moments, &mut self.watch.phases)
        };
        state.norm = match shared {
            true => {
                let gradient = team.gradient(&self.gradient, engine.shards());
                let mut watch = Stopwatch::start();
                match engine.descend(&gradient, &step)? {
                    Some(norm) => {
                        watch.read(&mut self.watch.phases.optimize);
                        norm
                    }
                    None => take(&gradient),
                }
            }
            false => take(&*engine.gradient()),
        };
        engine.restore(&mut state.weights);
        bounds::check_norm(state.norm, rate, state, plan.clip)?;
        self.loss = sums.mean();
        state.add(sums);
        Ok(Some(()))
    }

    /// One step of an engine that keeps the weights itself; whether it does.
    fn step_elsewhere(
        &mut self,
        engine: &mut dyn Engine,
        state: &mut State,
        rows: &[u32],
        chance: &Seed,
    ) -> Result<bool> {
        let plan = self.plan;
        let (number, rate) = (state.step + 1, plan.optimizer.rate() * plan.schedule.factor(state.step, self.steps));
        let step = Step { optimizer: &plan.optimizer, number, rate, clip: plan.clip };
        let Some((sums, norm)) = engine.step(rows, chance, &step)? else { return Ok(false) };
        self.watch.phases.add(&engine.phases());
        let sums = Sums::total(sums);
        (state.step, state.norm) = (number, norm);
        bounds::check_loss(sums.mean(), rate, state, plan.clip)?;
        bounds::check_norm(norm, rate, state, plan.clip)?;
        self.loss = sums.mean();
        state.add(sums);
        Ok(true)
    }

    /// The epoch is over: what validation said, and whether to stop.
    fn end_epoch(&self, engine: &dyn Engine, state: &mut State, valid: Vec<Sums>) -> Result<()> {
        let row = self.row(state);
        let mut row = state.end_epoch(row, engine.classifies());
        if !valid.is_empty() {
            let valid = Sums::total(valid);
            bounds::check_valid(valid.mean(), self.rate(state), state, self.plan.clip)?;
            row[6] = valid.mean();
            if engine.classifies() {
                row[7] = valid.accuracy();
            }
        }
        state.curve.push(row);
        if let Some(rule) = &self.plan.early_stop {
            look(rule, state, row[6]);
        }
        Ok(())
    }
}

/// Keeps the best epoch, and ends the training when it lies too far back.
pub(super) fn look(rule: &EarlyStop, state: &mut State, loss: f64) {
    let goal = state.best.as_ref().map_or(f64::INFINITY, |best| best.loss - rule.min_delta.get());
    if loss < goal || state.best.is_none() {
        state.best = Some(Best { epoch: state.epoch, loss, weights: state.weights.clone() });
    }
    let waited = state.best.as_ref().map_or(0, |best| state.epoch - best.epoch);
    state.stopped = waited >= rule.patience.get() as u64;
}
