//! The engine of `train`'s own networks on devices.

use super::descent::{clipped, norm};
use super::examples::Batch;
use super::place::Place;
use super::replica::{Pass, Replica, moved};
use super::room::explained;
use super::validation::BLOCK;
use crate::train::augment::Augmenter;
use crate::train::descent::Step;
use crate::train::fit::Engine;
use crate::train::gradient::{Gradient, collected};
use crate::train::init::Frozen;
use crate::train::lesson::{Training, Validation};
use crate::train::loss::{Objective, Sums};
use crate::train::network;
use crate::train::phases::{Phases, Stopwatch};
use crate::train::reduce::{share, subtrees};
use crate::train::state::State;
use candle_core::{Device, Tensor};
use ropeway_framework::stage::{Progress, Seed};
use ropeway_framework::{Context, Error, Result};
use std::cell::Cell;
use std::ops::Range;

/// Trains a network on one device or several: each computes some of the shards of every step. The weights stay on the
/// first from step to step, and what they are reaches the others.
pub(in crate::train) struct DeviceEngine<'a> {
    /// By device.
    pub(super) replicas: Vec<Replica>,
    train: Training<'a>,
    pub(super) valid: Option<Validation<'a>>,
    /// By class; empty for none.
    pub(in crate::train) weights: Vec<f32>,
    pub(in crate::train) augmenter: Option<Augmenter>,
    frozen: Frozen,
    parameters: usize,
    /// Values of a row.
    pub(super) width: usize,
    shards: usize,
    classifies: bool,
    gradients: Vec<Vec<f32>>,
    held: Option<Held>,
    /// What steps, and waiting for the devices, took since it was asked last.
    phases: Cell<Phases>,
}

/// What stays on the first device.
struct Held {
    weights: Tensor,
    moments: Vec<Tensor>,
}

impl Held {
    fn of(state: &State, device: &Device) -> candle_core::Result<Self> {
        let there = |values: &Vec<f32>| Tensor::new(values.as_slice(), device);
        let moments = state.moments.iter().map(there).collect::<candle_core::Result<_>>()?;
        Ok(Self { weights: there(&state.weights)?, moments })
    }

    fn read(&self) -> candle_core::Result<(Vec<f32>, Vec<Vec<f32>>)> {
        Ok((self.weights.to_vec1()?, self.moments.iter().map(Tensor::to_vec1).collect::<candle_core::Result<_>>()?))
    }
}

/// What neighbouring shards gave: their gradient, and their losses.
struct Computed {
    shards: Range<usize>,
    gradient: Tensor,
    seen: Vec<Tensor>,
}

impl<'a> DeviceEngine<'a> {
    /// # Errors
    /// No device, or one that can't take the data.
    pub(in crate::train) fn new(
        network: &network::Network,
        objective: Objective,
        (train, valid): (Training<'a>, Option<Validation<'a>>),
        (shards, moments): (usize, usize),
        places: Vec<Place>,
        progress: &Progress,
    ) -> Result<Self> {
        let counts = (shards, moments);
        let replica = |place: Place| {
            let name = place.clone();
            let made = Replica::new(network, objective, (&train, valid.as_ref()), counts, place, progress);
            made.map_err(|error| explained(error, std::iter::once(&name)))
        };
        if places.len() > shards {
            progress.log(format!("of {} devices {shards} compute: a step has {shards} shards", places.len()));
        }
        let replicas = places.into_iter().take(shards).map(replica).collect::<Result<Vec<_>>>()?;
        if replicas.is_empty() {
            return Err(Error::new("there is no device to train on"));
        }
        Ok(Self {
            replicas,
            train,
            valid,
            weights: Vec::new(),
            augmenter: None,
            frozen: Frozen::default(),
            parameters: network.parameters(),
            width: network.inputs(),
            shards,
            classifies: objective.classifies(),
            gradients: vec![Vec::new(); shards],
            held: None,
            phases: Cell::default(),
        })
    }

    /// Says which weights keep what they are, if any do.
    pub(in crate::train) fn freeze(&mut self, frozen: Frozen) -> Result<()> {
        if frozen.is_empty() {
            return Ok(());
        }
        let mut marks = vec![0u8; self.parameters];
        frozen.places().for_each(|place| marks[place].fill(1));
        let marked = self.replicas.iter_mut().try_for_each(|replica| replica.freeze(&marks));
        marked.map_err(|error| self.explained(error))?;
        self.frozen = frozen;
        Ok(())
    }

    #[cfg(test)]
    pub(in crate::train) fn limit(&mut self, room: super::room::Room) {
        self.replicas[0].room = room;
    }

    /// The weight tensors on every device, from flat weights on the first.
    pub(super) fn views(&self, flat: &Tensor) -> Result<Vec<Vec<Tensor>>> {
        let flat = self.replicas[0].narrowed(flat)?;
        Ok(self.replicas.iter().map(|replica| replica.views(&flat)).collect::<candle_core::Result<_>>()?)
    }

    /// The gradients of neighbouring shards, each as a device adds it up. All devices are set to work before any is
    /// waited for.
    fn compute(
        &self,
        views: &[Vec<Tensor>],
        rows: &[u32],
        chance: &Seed,
        work: impl Iterator<Item = (usize, Range<usize>)>,
    ) -> Result<Vec<Computed>> {
        let batch = Batch { lesson: self.train.lesson(rows)?, rows, width: self.width };
        let scale = (1.0 / self.train.weight(rows, &self.weights)) as f32;
        let (classes, augmenter) = (self.weights.as_slice(), self.augmenter.as_ref());
        let compute = |(device, shards): (usize, Range<usize>)| {
            let pass = Pass { batch: &batch, weights: &views[device], classes, scale, augmenter, chance };
            let mut seen = Vec::new();
            let gradient = self.replicas[device].tree(pass, shards.clone(), &mut seen)?;
            Ok(Computed { shards, gradient, seen })
        };
        work.map(compute).collect()
    }

    /// Adds up what a batch's rows lost: the losses of all of them, and then whether they were right.
    pub(super) fn sums(&self, batch: &Batch<'_>, rows: &Range<usize>, (losses, correct): (&[f32], &[f32])) -> Sums {
        let mut sums = Sums::default();
        for ((weight, loss), correct) in batch.weights(rows, &self.weights).iter().zip(losses).zip(correct) {
            let weight = f64::from(*weight);
            sums.add(Sums { loss: f64::from(*loss) * weight, weight, correct: *correct as u64, rows: 1 });
        }
        sums
    }
}

/// The root of the tree over all shards, from what its parts gave: where the first of them lies.
fn combine(shards: Range<usize>, computed: &[Computed]) -> Result<Tensor> {
    if let Some(known) = computed.iter().find(|known| known.shards == shards) {
        return Ok(known.gradient.clone());
    }
    if shards.len() < 2 {
        return Err(Error::new("a shard was computed by nobody"));
    }
    let middle = shards.start + shards.len() / 2;
    let (left, right) = (combine(shards.start..middle, computed)?, combine(middle..shards.end, computed)?);
    Ok((&left + moved(&right, left.device())?)?)
}

impl DeviceEngine<'_> {
    /// The flat weights on the first device: those that were taken over, or else these.
    pub(super) fn flat(&self, weights: &[f32]) -> Result<Tensor> {
        Ok(match &self.held {
            Some(held) => held.weights.clone(),
            None => Tensor::new(weights, &self.replicas[0].place.device)?,
        })
    }

    /// As [`Engine::gradients`]: for members of a gang, whose gradients go through the processor's memory.
    fn gradients_there(
        &mut self,
        weights: &[f32],
        rows: &[u32],
        chance: &Seed,
        mine: Range<usize>,
    ) -> Result<Vec<Sums>> {
        let views = self.views(&self.flat(weights)?)?;
        let batch = Batch { lesson: self.train.lesson(rows)?, rows, width: self.width };
        let (mut sums, mut gradients) = (Vec::new(), Vec::new());
        let all: Vec<usize> = mine.clone().collect();
        // Each shard by itself, for others may have its neighbours; one at a time on every device.
        for round in all.chunks(self.replicas.len()) {
            let work = round.iter().enumerate().map(|(device, shard)| (device, *shard..shard + 1));
            for Computed { shards, gradient, seen } in self.compute(&views, rows, chance, work)? {
                let place = self.replicas[0].shard(rows.len(), shards.start);
                let seen = seen.first().map_or(Ok(Vec::new()), |seen| seen.flatten_all()?.to_vec1::<f32>())?;
                sums.push(self.sums(&batch, &place, seen.split_at(place.len())));
                gradients.push(gradient.to_vec1()?);
            }
        }
        self.gradients[mine].iter_mut().zip(gradients).for_each(|(to, gradient)| *to = gradient);
        Ok(sums)
    }

    /// Takes a step along a gradient on the first device, from the weights that it holds; gives the gradient's norm.
    fn descend_there(&mut self, gradient: &Tensor, step: &Step<'_>) -> Result<Tensor> {
        let Held { weights, moments } = self.held.take().context("no weights were taken over")?;
        let norm = norm(gradient)?;
        let gradient = match step.clip {
            Some(clip) => &clipped(gradient, &norm, clip)?,
            None => gradient,
        };
        let update = step.optimizer.update(step.number, step.rate, 1.0);
        let (after, moments) = update.over(&weights, gradient, &moments)?;
        self.held = Some(Held { weights: self.replicas[0].unfrozen(&weights, after)?, moments });
        Ok(norm)
    }

    /// As [`Engine::step`], with weights that were taken over.
    fn step_there(&mut self, rows: &[u32], chance: &Seed, step: &Step<'_>) -> Result<(Vec<Sums>, f64)> {
        let (devices, all) = (self.replicas.len(), self.shards);
        let shares = (0..devices).map(|device| (device, share(all, device, devices)));
        let trees = |(device, mine)| subtrees(0..all, &mine).into_iter().map(move |shards| (device, shards));
        let computed = self.compute(&self.views(&self.flat(&[])?)?, rows, chance, shares.flat_map(trees))?;
        let mut watch = Stopwatch::start();
        let norm = self.descend_there(&combine(0..all, &computed)?, step)?;
        watch.read(&mut self.phases.get_mut().optimize);
        // All that is read back in a step: once from each device.
        let first = norm.device().clone();
        let seen = computed.iter().flat_map(|part| &part.seen).map(|seen| moved(seen, &first));
        let seen = Tensor::cat(&seen.collect::<candle_core::Result<Vec<_>>>()?, 1)?.flatten_all()?;
        let seen = Tensor::cat(&[seen, norm], 0)?.to_vec1::<f32>()?;
        watch.read(&mut self.phases.get_mut().device);
        let (norm, seen) = seen.split_last().context("a step has a norm")?;
        let (losses, correct) = seen.split_at(rows.len());
        let batch = Batch { lesson: self.train.lesson(rows)?, rows, width: self.width };
        let places = (0..all).map(|shard| self.replicas[0].shard(rows.len(), shard));
        let sums = places.map(|place| self.sums(&batch, &place, (&losses[place.clone()], &correct[place.clone()])));
        Ok((sums.collect(), f64::from(*norm)))
    }

    /// What an error of a device means to whoever trains on it.
    fn explained(&self, error: Error) -> Error {
        explained(error, self.replicas.iter().map(|replica| &replica.place))
    }
}

impl Engine for DeviceEngine<'_> {
    fn classifies(&self) -> bool {
        self.classifies
    }

    fn seek(&mut self, epoch: u64, step: usize, mine: &Range<usize>) -> Result<()> {
        self.train.seek(epoch, step, mine)
    }

    fn gradients(&mut self, weights: &[f32], rows: &[u32], chance: &Seed, mine: Range<usize>) -> Result<Vec<Sums>> {
        self.gradients_there(weights, rows, chance, mine).map_err(|error| self.explained(error))
    }

    fn shards(&self) -> usize {
        self.shards
    }

    fn computed(&self) -> &[Vec<f32>] {
        &self.gradients
    }

    fn restore(&self, weights: &mut [f32]) {
        self.frozen.restore(weights);
    }

    fn take_over(&mut self, state: &State) -> Result<()> {
        let held = Held::of(state, &self.replicas[0].place.device);
        self.held = Some(held.map_err(|error| self.explained(error.into()))?);
        Ok(())
    }

    fn step(&mut self, rows: &[u32], chance: &Seed, step: &Step<'_>) -> Result<Option<(Vec<Sums>, f64)>> {
        match self.held {
            Some(_) => self.step_there(rows, chance, step).map(Some).map_err(|error| self.explained(error)),
            None => Ok(None),
        }
    }

    fn descend(&mut self, gradient: &dyn Gradient, step: &Step<'_>) -> Result<Option<f64>> {
        if self.held.is_none() {
            return Ok(None);
        }
        let mut descend = || {
            let gradient = collected(gradient, self.parameters);
            let gradient = Tensor::new(gradient.as_slice(), &self.replicas[0].place.device)?;
            Ok(self.descend_there(&gradient, step)?.to_vec1::<f32>()?)
        };
        let norm: Result<Vec<f32>> = descend();
        let norm = norm.map_err(|error| self.explained(error))?;
        Ok(norm.first().map(|norm| f64::from(*norm)))
    }

    fn phases(&self) -> Phases {
        let mut phases = Phases::default();
        self.replicas.iter().for_each(|replica| phases.add(&replica.phases()));
        phases.add(&self.phases.take());
        phases
    }

    fn give_back(&mut self, state: &mut State) -> Result<()> {
        let Some(held) = &self.held else { return Ok(()) };
        // What failed since the device was waited for last is heard of here.
        let read = held.read().map_err(|error| self.explained(error.into()))?;
        (state.weights, state.moments) = read;
        Ok(())
    }

    fn blocks(&self) -> usize {
        self.valid.as_ref().map_or(0, |valid| valid.rows().div_ceil(BLOCK))
    }

    fn evaluate(&mut self, weights: &[f32], blocks: Range<usize>) -> Result<Vec<Sums>> {
        self.evaluate_there(weights, blocks).map_err(|error| self.explained(error))
    }
}
