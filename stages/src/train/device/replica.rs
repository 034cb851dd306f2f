//! A copy of the network on one device, and what it computes there.

use super::examples::{Batch, send};
use super::layer::Carried;
use super::network::Network;
use super::place::Place;
use super::room::{Room, fixed_bytes, is_out_of_memory, row_bytes};
use crate::train::augment::Augmenter;
use crate::train::engine::Examples;
use crate::train::lesson::{Training, Validation};
use crate::train::loss::Objective;
use crate::train::network;
use crate::train::phases::{Phases, Stopwatch};
use candle_core::{DType, Device, Tensor};
use ropeway_framework::stage::{Progress, Seed};
use ropeway_framework::{Error, Result};
use std::cell::Cell;
use std::ops::Range;

/// A part of the data stays on the device if it takes at most this part of its memory.
const DATA: u64 = 4;

/// What data may take of a device whose memory nobody counts.
const UNCOUNTED: u64 = 256 << 20;

/// The network on a device, with the rows that lie there.
pub(super) struct Replica {
    pub(super) place: Place,
    pub(super) room: Room,
    network: Network,
    /// The shape and the place of every weight tensor among the flat weights.
    tensors: Vec<(Vec<usize>, Range<usize>)>,
    uses_chance: bool,
    objective: Objective,
    shards: usize,
    /// Where weights are frozen.
    still: Option<Tensor>,
    /// The features of the training and of the validation part, if all of them are on the device.
    pub(super) there: [Option<Tensor>; 2],
    progress: Progress,
    /// What the passes since it was asked last took, as the calls for them did: a CUDA device may still be at work then.
    phases: Cell<Phases>,
}

/// What the parts of a step have in common.
#[derive(Clone, Copy)]
pub(super) struct Pass<'a> {
    pub(super) batch: &'a Batch<'a>,
    pub(super) weights: &'a [Tensor],
    /// The weights of the classes in the loss; empty for none.
    pub(super) classes: &'a [f32],
    pub(super) scale: f32,
    /// How images are changed, if they are.
    pub(super) augmenter: Option<&'a Augmenter>,
    pub(super) chance: &'a Seed,
}

/// What some rows gave: the gradient, flat, and their losses and whether they were right, of shape `[2, rows]`.
type Found = (Tensor, Tensor);

impl Replica {
    /// # Errors
    /// A device that can't take the data.
    pub(super) fn new(
        network: &network::Network,
        objective: Objective,
        (train, valid): (&Training<'_>, Option<&Validation<'_>>),
        (shards, moments): (usize, usize),
        place: Place,
        progress: &Progress,
    ) -> Result<Self> {
        let own = network.on_device(&place.device)?;
        let (width, dtype) = (network.inputs(), own.reads(place.dtype));
        let mut fixed = fixed_bytes(network.parameters(), moments, shards, place.dtype);
        let mut keep = |examples: Option<&Examples>| {
            let Some(examples) = examples else { return Ok(None) };
            let bytes = (examples.features.rows() * width * dtype.size_in_bytes()) as u64;
            if bytes > place.memory.map_or(UNCOUNTED, |memory| memory / DATA) {
                return Ok(None);
            }
            fixed += bytes;
            send(examples, dtype, &place.device).map(Some)
        };
        let there = [keep(train.whole())?, keep(valid.and_then(Validation::whole))?];
        // Whoever computes may do so on another thread, whose work the device does not put after that of this one.
        place.device.synchronize()?;
        let takes = own.takes(width);
        fixed += (takes.apart * size_of::<f32>()) as u64;
        let row = row_bytes(width, takes, place.dtype);
        Ok(Self {
            room: place.memory.map_or_else(Room::endless, |share| Room::of(share, fixed, row)),
            place,
            network: own,
            tensors: network.places().map(|(_, shape, place)| (shape, place)).collect(),
            uses_chance: network.uses_chance(),
            objective,
            shards,
            still: None,
            there,
            progress: progress.clone(),
            phases: Cell::default(),
        })
    }

    /// Says which weights keep what they are: those where `marks` has 1.
    pub(super) fn freeze(&mut self, marks: &[u8]) -> Result<()> {
        self.still = Some(Tensor::new(marks, &self.place.device)?);
        Ok(())
    }

    /// The weights after a step: what is frozen stays.
    pub(super) fn unfrozen(&self, before: &Tensor, after: Tensor) -> Result<Tensor> {
        Ok(match &self.still {
            Some(still) => still.where_cond(before, &after)?,
            None => after,
        })
    }

    /// The flat weights in what passes compute with, which other devices need no more of.
    pub(super) fn narrowed(&self, flat: &Tensor) -> candle_core::Result<Tensor> {
        flat.to_dtype(self.place.dtype)
    }

    /// The weight tensors of narrowed flat weights, wherever those lie.
    pub(super) fn views(&self, flat: &Tensor) -> candle_core::Result<Vec<Tensor>> {
        let flat = moved(flat, &self.place.device)?;
        let view = |(shape, place): &(Vec<usize>, Range<usize>)| {
            flat.narrow(0, place.start, place.len())?.reshape(shape.as_slice())
        };
        self.tensors.iter().map(view).collect()
    }

    /// The rows of a shard, by their places in the step.
    pub(super) fn shard(&self, rows: usize, shard: usize) -> Range<usize> {
        rows * shard / self.shards..rows * (shard + 1) / self.shards
    }

    /// The gradient of some shards, in the fixed tree; `seen` gets what their rows lost.
    pub(super) fn tree(&self, pass: Pass<'_>, shards: Range<usize>, seen: &mut Vec<Tensor>) -> Result<Tensor> {
        if shards.len() == 1 {
            let rows = self.shard(pass.batch.rows.len(), shards.start);
            if rows.is_empty() {
                let count = self.tensors.last().map_or(0, |(_, place)| place.end);
                return Ok(Tensor::zeros(count, DType::F32, &self.place.device)?);
            }
            let (gradient, losses) = self.part(pass, rows, (shards.start, 0))?;
            seen.push(losses);
            return Ok(gradient);
        }
        let middle = shards.start + shards.len() / 2;
        let left = self.tree(pass, shards.start..middle, seen)?;
        Ok((left + self.tree(pass, middle..shards.end, seen)?)?)
    }

    /// What the passes since it was asked last took.
    pub(super) fn phases(&self) -> Phases {
        self.phases.take()
    }

    /// The gradient of rows of a shard, from `start` on: in halves, if so many do not fit.
    fn part(&self, pass: Pass<'_>, rows: Range<usize>, (shard, start): (usize, usize)) -> Result<Found> {
        if rows.len() <= self.room.rows() {
            match self.pass(pass, &rows, (shard, start)) {
                Err(error) if is_out_of_memory(&error) => self.shrink(rows.len(), &error)?,
                found => return Ok(found?),
            }
        }
        let half = rows.len().div_ceil(2);
        let middle = rows.start + half;
        let (gradient, seen) = self.part(pass, rows.start..middle, (shard, start))?;
        let (other, more) = self.part(pass, middle..rows.end, (shard, start + half))?;
        Ok(((gradient + other)?, Tensor::cat(&[seen, more], 1)?))
    }

    /// So many rows did not fit: half of them will have to.
    fn shrink(&self, rows: usize, error: &candle_core::Error) -> Result<()> {
        if rows < 2 {
            return Err(Error::new(format!(
                "the device's memory does not hold a single row of this training: {error}"
            ))
            .help("give it more with `gpu_memory` under `needs`, or make the model smaller"));
        }
        let fewer = rows.div_ceil(2);
        self.room.shrink(fewer);
        self.progress.log(format!(
            "{rows} rows at once do not fit into the device's memory: from now on it computes {fewer} at a time, which \
             sums gradients in another order and gives other last bits"
        ));
        Ok(())
    }

    fn pass(&self, pass: Pass<'_>, rows: &Range<usize>, (shard, start): (usize, usize)) -> candle_core::Result<Found> {
        self.room.ask(rows.len())?;
        let Place { device, dtype, .. } = &self.place;
        let (mut watch, mut phases) = (Stopwatch::start(), self.phases.get());
        let changed = pass.augmenter.map(|augmenter| (augmenter, pass.chance));
        let input = pass.batch.features(rows, self.there[0].as_ref(), changed, self.network.reads(*dtype), device)?;
        watch.read(&mut phases.data);
        let (mut rng, mut carried) = (None, Carried::default());
        if self.uses_chance {
            let rng = rng.insert(pass.chance.rng(&match start {
                0 => format!("shard-{shard}"),
                _ => format!("shard-{shard}/{start}"),
            }));
            carried.chance = Some(rng);
        }
        let (output, kept) = self.network.forward(pass.weights, &input, &mut carried)?;
        let truth = Tensor::new(pass.batch.truth(rows), device)?;
        let losses = self.objective.over(&output.to_dtype(DType::F32)?, &truth)?;
        watch.read(&mut phases.forward);
        let factors = pass.batch.weights(rows, pass.classes).into_iter().map(|weight| weight * pass.scale);
        let factors = Tensor::new(factors.collect::<Vec<f32>>(), device)?.unsqueeze(1)?;
        let slope = losses.slope.broadcast_mul(&factors)?.to_dtype(*dtype)?;
        let gradients = self.network.backward(pass.weights, kept, slope, false)?.weights;
        let flat = gradients.iter().map(|gradient| gradient.to_dtype(DType::F32)?.flatten_all());
        let gradient = Tensor::cat(&flat.collect::<candle_core::Result<Vec<_>>>()?, 0)?;
        let gradient = match &self.still {
            Some(still) => still.where_cond(&gradient.zeros_like()?, &gradient)?,
            None => gradient,
        };
        watch.read(&mut phases.backward);
        self.phases.set(phases);
        Ok((gradient, Tensor::stack(&[losses.losses, losses.correct], 0)?))
    }

    /// What some rows of validation lose and whether they are right, of shape `[2, rows]`: in parts, if they do not fit.
    pub(super) fn losses(&self, weights: &[Tensor], batch: &Batch<'_>, rows: Range<usize>) -> Result<Tensor> {
        if rows.len() <= self.room.rows() {
            match self.look(weights, batch, &rows) {
                Err(error) if is_out_of_memory(&error) => self.shrink(rows.len(), &error)?,
                found => return Ok(found?),
            }
        }
        let middle = rows.start + rows.len().div_ceil(2);
        let found = self.losses(weights, batch, rows.start..middle)?;
        Ok(Tensor::cat(&[found, self.losses(weights, batch, middle..rows.end)?], 1)?)
    }

    fn look(&self, weights: &[Tensor], batch: &Batch<'_>, rows: &Range<usize>) -> candle_core::Result<Tensor> {
        self.room.ask(rows.len())?;
        let Place { device, dtype, .. } = &self.place;
        let input = batch.features(rows, self.there[1].as_ref(), None, self.network.reads(*dtype), device)?;
        let (output, _) = self.network.forward(weights, &input, &mut Carried::default())?;
        let truth = Tensor::new(batch.truth(rows), device)?;
        let losses = self.objective.over(&output.to_dtype(DType::F32)?, &truth)?;
        Tensor::stack(&[losses.losses, losses.correct], 0)
    }
}

/// A tensor on another device, once what computes it is done.
pub(super) fn moved(tensor: &Tensor, to: &Device) -> candle_core::Result<Tensor> {
    if tensor.device().same_device(to) {
        return Ok(tensor.clone());
    }
    tensor.device().synchronize()?;
    let there = tensor.to_device(to)?;
    // What is copied from may be gone when this returns.
    to.synchronize()?;
    Ok(there)
}
