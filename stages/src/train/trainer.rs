//! Trains any candle module.

use super::cadence::Cadence;
use super::fit::{Engine, Plan, Surroundings, fit};
use super::loss::Sums;
use super::numbers::{Positive, Shards};
use super::optimizer::Optimizer;
use super::order::Order;
use super::phases::{Phases, Stopwatch};
use super::pool::Pool;
use super::schedule::Schedule;
use super::shuffle::Shuffle;
use super::spec::EarlyStop;
use super::state::State;
use super::variables::{Variables, tensor};
use candle_core::{Device, Tensor};
use candle_nn::VarBuilder;
use ropeway_framework::data::{Frame, Metrics, Model, Tensors};
use ropeway_framework::stage::Seed;
use ropeway_framework::{Context, Error, Result};
use serde::Serialize;
use serde_json::json;
use std::ops::Range;

/// Rows with what they are to give, as tensors whose first dimension is the row.
#[derive(Clone, Debug)]
pub struct Examples {
    /// `f32`, of shape `[rows, ...]`.
    pub features: Tensor,
    /// `u32` classes or `f32` numbers, of shape `[rows]`, or whatever the loss wants.
    pub target: Tensor,
}

/// What the loss is computed on: some of the [`Examples`].
pub type Batch = Examples;

/// A module that was trained.
#[derive(Clone, Debug)]
pub struct Trained {
    /// Its weights, under the names that the module gave them.
    pub weights: Tensors,
    /// `train.loss`, `valid.loss`, and how far it went.
    pub metrics: Metrics,
    /// The learning curve: a row an epoch.
    pub curve: Frame,
    /// What a longer training can go on from ([`Trainer::resume`]).
    pub state: Tensors,
}

type Build<M> = dyn Fn(VarBuilder<'_>) -> candle_core::Result<M>;
type LossOf<M> = dyn Fn(&M, &Batch) -> candle_core::Result<Tensor>;

/// Trains any candle module: deterministic from its seed, resumable, with the loop, optimisers and schedules of the
/// `train` stage.
///
/// Weights come from the seed and their names, whatever the order in which the module asks for them. Take no chance
/// in the module itself (candle's own dropout is not seeded). The loss is the mean over the rows of the batch that it
/// is given, which may be a shard of the trainer's batch.
///
/// It computes on the processor. Modules may be of any layers. Those of [`fused`](super::fused) are faster than candle-nn's on the processor, and the
/// gradients of their weights go straight to where the optimiser reads them.
///
/// ```
/// use candle_core::{D, Module, Tensor};
/// use candle_nn::{Linear, VarBuilder, linear, loss};
/// use ropeway_framework::Result;
/// use ropeway_framework::data::{Frame, Model};
/// use ropeway_framework::stage::Seed;
/// use ropeway_stages::train::{Reader, Surroundings, Trainer};
///
/// struct Net {
///     first: Linear,
///     second: Linear,
/// }
///
/// impl Net {
///     fn new(vb: VarBuilder, inputs: usize, classes: usize) -> candle_core::Result<Self> {
///         Ok(Self { first: linear(inputs, 16, vb.pp("first"))?, second: linear(16, classes, vb.pp("second"))? })
///     }
///
///     fn forward(&self, rows: &Tensor) -> candle_core::Result<Tensor> {
///         self.second.forward(&self.first.forward(rows)?.gelu()?)
///     }
/// }
///
/// fn fit_net(rows: Frame, seed: Seed, around: Surroundings) -> Result<Model> {
///     let reader = Reader::fit(&rows, "label")?;
///     let (inputs, classes) = (reader.width(), reader.classes().len());
///     let trained = Trainer::new(
///         move |vb| Net::new(vb, inputs, classes),
///         |net, batch| loss::cross_entropy(&net.forward(&batch.features)?, &batch.target),
///     )
///     .epochs(5)
///     .fit(&reader.examples(&rows)?, None, &seed, &around)?;
///     trained.model("net", &reader)
/// }
/// # use arrow::array::{ArrayRef, Float32Array, Int64Array};
/// # use std::sync::Arc;
/// # let x: ArrayRef = Arc::new(Float32Array::from_iter_values((0..64).map(|i| i as f32 / 64.0)));
/// # let label: ArrayRef = Arc::new(Int64Array::from_iter_values((0..64).map(|i| i / 32)));
/// # let rows = Frame::from_columns([("x", x), ("label", label)])?;
/// # let model = fit_net(rows.clone(), Seed::new(7, "fit"), Surroundings::default())?;
/// # let again = fit_net(rows, Seed::new(7, "fit"), Surroundings::default())?;
/// # assert_eq!(model.tensors().get("first.weight")?.data(), again.tensors().get("first.weight")?.data());
/// # Ok::<_, ropeway_framework::Error>(())
/// ```
pub struct Trainer<M> {
    build: Box<Build<M>>,
    loss: Box<LossOf<M>>,
    optimizer: Optimizer,
    schedule: Schedule,
    epochs: usize,
    batch: Option<usize>,
    shards: Option<Shards>,
    clip: Option<Positive>,
    early_stop: Option<EarlyStop>,
    shuffle: bool,
    checkpoint: Cadence,
    resume: Option<Tensors>,
}

impl<M: 'static> Trainer<M> {
    /// A trainer for the module that `build` makes, with the loss that `loss` gives: the mean over a batch's rows.
    pub fn new(
        build: impl Fn(VarBuilder<'_>) -> candle_core::Result<M> + 'static,
        loss: impl Fn(&M, &Batch) -> candle_core::Result<Tensor> + 'static,
    ) -> Self {
        Self {
            build: Box::new(build),
            loss: Box::new(loss),
            optimizer: Optimizer::default(),
            schedule: Schedule::default(),
            epochs: 10,
            batch: None,
            shards: None,
            clip: None,
            early_stop: None,
            shuffle: true,
            checkpoint: Cadence::default(),
            resume: None,
        }
    }

    /// How weights follow gradients; AdamW at a rate of 0.001 by default.
    pub fn optimizer(mut self, optimizer: Optimizer) -> Self {
        self.optimizer = optimizer;
        self
    }

    /// How the rate changes; it stays by default.
    pub fn schedule(mut self, schedule: Schedule) -> Self {
        self.schedule = schedule;
        self
    }

    /// Passes over the training part; 10 by default.
    pub fn epochs(mut self, epochs: usize) -> Self {
        self.epochs = epochs;
        self
    }

    /// Rows a step; 64 by default, or all rows where there are fewer.
    pub fn batch(mut self, rows: usize) -> Self {
        self.batch = Some(rows);
        self
    }

    /// Parts that a batch's gradient is summed over; part of the result.
    pub fn shards(mut self, shards: Shards) -> Self {
        self.shards = Some(shards);
        self
    }

    /// The largest norm that the gradient may have.
    pub fn clip(mut self, norm: Positive) -> Self {
        self.clip = Some(norm);
        self
    }

    /// Stops when the validation loss no longer falls, and keeps the best epoch's weights.
    pub fn early_stop(mut self, rule: EarlyStop) -> Self {
        self.early_stop = Some(rule);
        self
    }

    /// Whether each epoch takes the rows in another order; it does by default.
    pub fn shuffle(mut self, shuffle: bool) -> Self {
        self.shuffle = shuffle;
        self
    }

    /// When checkpoints are kept; no part of the result.
    pub fn checkpoint(mut self, cadence: Cadence) -> Self {
        self.checkpoint = cadence;
        self
    }

    /// Goes on from the state of a shorter training.
    pub fn resume(mut self, state: Option<Tensors>) -> Self {
        self.resume = state;
        self
    }

    /// Trains.
    ///
    /// # Errors
    /// Settings that do not fit the data, a module that fails, a loss that is no longer finite, or a CUDA device that
    /// is demanded.
    pub fn fit(
        &self,
        train: &Examples,
        valid: Option<&Examples>,
        seed: &Seed,
        around: &Surroundings,
    ) -> Result<Trained> {
        without_devices(around)?;
        let plan = self.plan(train, valid)?;
        let chance = seed.number("training");
        let variables = Variables::new(Seed::new(chance, "train"));
        let module = (self.build)(variables.builder()).context("the module can't be built")?;
        let weights = variables.flat()?;
        let shards = self.shards.unwrap_or(Shards::for_batch(plan.order.batch())).get();
        let fresh = State {
            identity: json!({
                "optimizer": self.optimizer, "schedule": self.schedule, "batch": plan.order.batch(), "shards": shards,
                "clip": self.clip, "early_stop": self.early_stop, "shuffle": self.shuffle, "rows": train.rows()?,
                "weights": variables.shapes(),
            }),
            chance,
            moments: vec![vec![0.0; weights.len()]; self.optimizer.moments()],
            weights,
            ..State::default()
        };
        let gradients = vec![Vec::new(); shards];
        let loss = &self.loss;
        let valid_rows = valid.map_or(Ok(0), Examples::rows)?;
        let (variables, phases) = (&variables, Phases::default());
        let mut engine = CandleEngine { module, loss, variables, train, valid, valid_rows, gradients, phases };
        let start = (fresh, self.resume.as_ref());
        let state = fit(&plan, &mut engine, start, &Pool::new(around.threads.0)?, around)?;
        Ok(Trained {
            weights: variables.tensors(state.chosen())?,
            metrics: state.metrics(),
            curve: state.curve()?,
            state: state.tensors()?,
        })
    }

    fn plan(&self, train: &Examples, valid: Option<&Examples>) -> Result<Plan> {
        self.optimizer.check()?;
        let rows = train.rows()?;
        let batch = self.batch.unwrap_or(rows.min(64));
        if rows == 0 || valid.map(Examples::rows).transpose()? == Some(0) {
            return Err(Error::new("there are no rows to train on, or none to validate with"));
        }
        if self.epochs == 0 {
            return Err(Error::usage("a training of 0 epochs trains nothing"));
        }
        if batch == 0 || batch > rows {
            return Err(Error::usage(format!("the batch is {batch} rows, but there are {rows} to train on")));
        }
        if self.early_stop.is_some() && valid.is_none() {
            return Err(Error::usage("early stopping needs rows to validate with"));
        }
        Ok(Plan {
            epochs: self.epochs as u64,
            order: Order::whole(rows, batch, Shuffle::Switch(self.shuffle))?,
            optimizer: self.optimizer.clone(),
            schedule: self.schedule.clone(),
            clip: self.clip.map(Positive::get),
            early_stop: self.early_stop.clone(),
            checkpoint: self.checkpoint,
            curve: None,
        })
    }
}

impl Trained {
    /// The model: of a kind that the program knows how to load, with a description of the user's own.
    ///
    /// # Errors
    /// A description that is no JSON.
    pub fn model(self, kind: &str, spec: &impl Serialize) -> Result<Model> {
        Model::new(kind, spec, self.weights)
    }
}

impl Examples {
    /// How many rows.
    ///
    /// # Errors
    /// Features and target with different numbers of rows.
    pub fn rows(&self) -> Result<usize> {
        let (rows, targets) = (self.features.dim(0)?, self.target.dim(0)?);
        match rows == targets {
            true => Ok(rows),
            false => Err(Error::new(format!("there are {rows} rows of features and {targets} targets"))),
        }
    }

    fn pick(&self, rows: &[u32]) -> candle_core::Result<Batch> {
        let rows = Tensor::new(rows, self.features.device())?;
        Ok(Batch { features: self.features.index_select(&rows, 0)?, target: self.target.index_select(&rows, 0)? })
    }
}

/// The weights of a trained model, for the module that is to apply it: `Net::new(weights(&model)?, ...)`.
///
/// # Errors
/// Weights that are not `f32`.
pub fn weights(model: &Model) -> Result<VarBuilder<'static>> {
    let tensors = model.tensors().iter().map(|(name, weights)| Ok((name.to_owned(), tensor(weights)?)));
    let tensors = tensors.collect::<Result<_>>().context("the model's weights")?;
    Ok(VarBuilder::from_tensors(tensors, candle_core::DType::F32, &Device::Cpu))
}

/// Modules are of candle's processor device: a CUDA device is let be, or refused if it was demanded.
fn without_devices(around: &Surroundings) -> Result<()> {
    const REASON: &str = "a `Trainer` computes on the processor only";
    if around.devices.is_demanded() {
        return Err(Error::usage(format!("{REASON}, but its `needs` demand CUDA"))
            .help("say device = \"cpu\" or \"auto\" under `needs`, and no `gpus`"));
    }
    if !around.devices.shares().is_empty() {
        around.progress.log(format!("{REASON}: no CUDA device is used"));
    }
    Ok(())
}

struct CandleEngine<'a, M: 'static> {
    module: M,
    loss: &'a LossOf<M>,
    variables: &'a Variables,
    train: &'a Examples,
    valid: Option<&'a Examples>,
    valid_rows: usize,
    gradients: Vec<Vec<f32>>,
    /// What the last gradients took.
    phases: Phases,
}

/// Rows that validation looks at together.
const BLOCK: usize = 256;

impl<M: 'static> CandleEngine<'_, M> {
    fn loss(&self, batch: &Batch) -> Result<Tensor> {
        let loss = (self.loss)(&self.module, batch).context("the module's loss")?;
        if loss.rank() != 0 {
            return Err(Error::new(format!("the loss has the shape {:?}; it must be one number", loss.dims()))
                .help("give the mean over the batch's rows: `.mean_all()`"));
        }
        Ok(loss)
    }
}

impl<M: 'static> Engine for CandleEngine<'_, M> {
    fn classifies(&self) -> bool {
        false
    }

    /// One shard after the other: candle's products use all threads, and their bits do not depend on them.
    fn gradients(&mut self, weights: &[f32], rows: &[u32], _: &Seed, mine: Range<usize>) -> Result<Vec<Sums>> {
        self.variables.set(weights)?;
        let (count, mut sums) = (self.gradients.len(), Vec::new());
        let (mut watch, mut phases) = (Stopwatch::start(), Phases::default());
        for index in mine {
            let part = &rows[rows.len() * index / count..rows.len() * (index + 1) / count];
            let mut gradient = std::mem::take(&mut self.gradients[index]);
            gradient.clear();
            gradient.resize(weights.len(), 0.0);
            let mut losses = Sums::default();
            if !part.is_empty() {
                let batch = self.train.pick(part)?;
                watch.read(&mut phases.data);
                let loss = self.loss(&batch)?;
                watch.read(&mut phases.forward);
                let share = part.len() as f64 / rows.len() as f64;
                self.variables.backward(&loss.affine(share, 0.0)?, &mut gradient)?;
                let mean = f64::from(loss.to_dtype(candle_core::DType::F32)?.to_scalar::<f32>()?);
                let count = part.len() as u64;
                losses = Sums { loss: mean * count as f64, weight: count as f64, correct: 0, rows: count };
            }
            self.gradients[index] = gradient;
            sums.push(losses);
            watch.read(&mut phases.backward);
        }
        self.phases = phases;
        Ok(sums)
    }

    fn phases(&self) -> Phases {
        self.phases
    }

    fn shards(&self) -> usize {
        self.gradients.len()
    }

    fn computed(&self) -> &[Vec<f32>] {
        &self.gradients
    }

    fn blocks(&self) -> usize {
        self.valid_rows.div_ceil(BLOCK)
    }

    fn evaluate(&mut self, weights: &[f32], blocks: Range<usize>) -> Result<Vec<Sums>> {
        let Some(valid) = self.valid else { return Ok(Vec::new()) };
        self.variables.set(weights)?;
        let rows: Vec<u32> = (0..u32::try_from(self.valid_rows)?).collect();
        let mut sums = Vec::new();
        for part in rows.chunks(BLOCK).skip(blocks.start).take(blocks.len()) {
            let loss = self.loss(&valid.pick(part)?)?;
            let mean = f64::from(loss.to_dtype(candle_core::DType::F32)?.to_scalar::<f32>()?);
            let count = part.len() as u64;
            sums.push(Sums { loss: mean * count as f64, weight: count as f64, correct: 0, rows: count });
        }
        Ok(sums)
    }
}
