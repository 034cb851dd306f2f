//! The engine of `train`'s own networks on a device.

use super::descent::{clipped, norm};
use super::examples::Source;
use super::network::Network;
use super::place::Place;
use super::room::{Room, fixed_bytes, is_out_of_memory, row_bytes};
use crate::train::augment::Augmenter;
use crate::train::descent::Step;
use crate::train::engine::Examples;
use crate::train::fit::Engine;
use crate::train::init::Frozen;
use crate::train::loss::{Objective, Sums};
use crate::train::network;
use crate::train::state::State;
use candle_core::{DType, Tensor};
use rand::Rng;
use ropeway_framework::stage::{Progress, Seed};
use ropeway_framework::{Error, Result};
use std::ops::Range;

/// Rows that validation looks at together.
const BLOCK: usize = 1024;

/// A part of the data stays on the device if it takes at most this part of its memory.
const DATA: u64 = 4;

/// What data may take of a device whose memory nobody counts.
const UNCOUNTED: u64 = 256 << 20;

/// Trains a network on a device. Its weights stay there from step to step.
pub(in crate::train) struct DeviceEngine<'a> {
    network: Network,
    /// The shape and the place of every weight tensor among the flat weights.
    tensors: Vec<(Vec<usize>, Range<usize>)>,
    uses_chance: bool,
    objective: Objective,
    /// By class; empty for none.
    pub(in crate::train) weights: Vec<f32>,
    pub(in crate::train) augmenter: Option<Augmenter>,
    frozen: Frozen,
    /// Where weights are frozen.
    still: Option<Tensor>,
    train: Source<'a>,
    valid: Option<Source<'a>>,
    place: Place,
    pub(in crate::train) room: Room,
    shards: usize,
    gradients: Vec<Vec<f32>>,
    held: Option<Held>,
    progress: Progress,
}

/// What stays on the device.
struct Held {
    weights: Tensor,
    moments: Vec<Tensor>,
}

/// What the parts of a step have in common.
struct Pass<'a> {
    weights: &'a [Tensor],
    chance: &'a Seed,
    scale: f32,
}

/// What some rows gave: the gradient, flat, and their losses and whether they were right, of shape `[2, rows]`.
type Found = (Tensor, Tensor);

impl<'a> DeviceEngine<'a> {
    /// # Errors
    /// A layer that there is none of on devices, or data that the device can't take.
    pub(in crate::train) fn new(
        network: &network::Network,
        objective: Objective,
        (train, valid): (&'a Examples, Option<&'a Examples>),
        (shards, moments): (usize, usize),
        place: Place,
        progress: &Progress,
    ) -> Result<Self> {
        let own = network.on_device(&place.device)?;
        let (width, parameters) = (network.inputs(), network.parameters());
        let tensors = network.places().map(|(_, shape, place)| (shape, place)).collect();
        let (mut train, mut valid) = (Source::of(train), valid.map(Source::of));
        let mut fixed = fixed_bytes(parameters, moments, shards, place.dtype);
        for source in std::iter::once(&mut train).chain(&mut valid) {
            let bytes = source.bytes(place.dtype);
            if bytes <= place.memory.map_or(UNCOUNTED, |memory| memory / DATA) {
                source.send(place.dtype, &place.device)?;
                fixed += bytes;
            }
        }
        let row = row_bytes(width, own.takes(width), place.dtype);
        let room = place.memory.map_or_else(Room::endless, |share| Room::of(share, fixed, row));
        Ok(Self {
            network: own,
            tensors,
            uses_chance: network.uses_chance(),
            objective,
            weights: Vec::new(),
            augmenter: None,
            frozen: Frozen::default(),
            still: None,
            train,
            valid,
            place,
            room,
            shards,
            gradients: vec![Vec::new(); shards],
            held: None,
            progress: progress.clone(),
        })
    }

    /// Says which weights keep what they are, if any do.
    pub(in crate::train) fn freeze(&mut self, frozen: Frozen) -> Result<()> {
        if frozen.places().next().is_none() {
            return Ok(());
        }
        let count = self.tensors.last().map_or(0, |(_, place)| place.end);
        let mut marks = vec![0u8; count];
        frozen.places().for_each(|place| marks[place].fill(1));
        self.still = Some(Tensor::new(marks, &self.place.device)?);
        self.frozen = frozen;
        Ok(())
    }

    /// The weight tensors, as passes compute with them.
    fn views(&self, flat: &Tensor) -> candle_core::Result<Vec<Tensor>> {
        let flat = flat.to_dtype(self.place.dtype)?;
        let view = |(shape, place): &(Vec<usize>, Range<usize>)| {
            flat.narrow(0, place.start, place.len())?.reshape(shape.as_slice())
        };
        self.tensors.iter().map(view).collect()
    }

    /// The rows of a shard of a step.
    fn shard<'r>(&self, rows: &'r [u32], shard: usize) -> &'r [u32] {
        &rows[rows.len() * shard / self.shards..rows.len() * (shard + 1) / self.shards]
    }

    /// One over what the rows of a step count, in all.
    fn scale(&self, rows: &[u32]) -> f32 {
        let weight: f64 = rows.iter().map(|row| f64::from(self.train.weight(*row, &self.weights))).sum();
        (1.0 / weight) as f32
    }

    /// The gradient of rows of a shard, from `start` on: in halves, if so many do not fit.
    fn part(&mut self, pass: &Pass<'_>, rows: &[u32], (shard, start): (usize, usize)) -> Result<Found> {
        if rows.len() <= self.room.rows {
            match self.pass(pass, rows, (shard, start)) {
                Err(error) if is_out_of_memory(&error) => self.shrink(rows.len(), &error)?,
                found => return Ok(found?),
            }
        }
        let (left, right) = rows.split_at(rows.len().div_ceil(2));
        let (gradient, seen) = self.part(pass, left, (shard, start))?;
        let (other, more) = self.part(pass, right, (shard, start + left.len()))?;
        Ok(((gradient + other)?, Tensor::cat(&[seen, more], 1)?))
    }

    /// So many rows did not fit: half of them will have to.
    fn shrink(&mut self, rows: usize, error: &candle_core::Error) -> Result<()> {
        if rows < 2 {
            return Err(Error::new(format!(
                "the device's memory does not hold a single row of this training: {error}"
            ))
            .help("give it more with `gpu_memory` under `needs`, or make the model smaller"));
        }
        self.room.rows = rows.div_ceil(2);
        self.progress.log(format!(
            "{rows} rows at once do not fit into the device's memory: from now on it computes {} at a time, which sums \
             gradients in another order and gives other last bits",
            self.room.rows
        ));
        Ok(())
    }

    fn pass(&self, pass: &Pass<'_>, rows: &[u32], (shard, start): (usize, usize)) -> candle_core::Result<Found> {
        self.room.ask(rows.len())?;
        let Place { device, dtype, .. } = &self.place;
        let changed = self.augmenter.as_ref().map(|augmenter| (augmenter, pass.chance));
        let input = self.train.features(rows, changed, *dtype, device)?;
        let mut rng;
        let dropping: Option<&mut dyn Rng> = if self.uses_chance {
            rng = pass.chance.rng(&match start {
                0 => format!("shard-{shard}"),
                _ => format!("shard-{shard}/{start}"),
            });
            Some(&mut rng)
        } else {
            None
        };
        let (output, kept) = self.network.forward(pass.weights, &input, dropping)?;
        let truth = Tensor::new(self.train.truth(rows), device)?;
        let losses = self.objective.over(&output.to_dtype(DType::F32)?, &truth)?;
        let factors = rows.iter().map(|row| self.train.weight(*row, &self.weights) * pass.scale);
        let factors = Tensor::new(factors.collect::<Vec<f32>>(), device)?.unsqueeze(1)?;
        let slope = losses.slope.broadcast_mul(&factors)?.to_dtype(*dtype)?;
        let gradients = self.network.backward(pass.weights, kept, slope, false)?.weights;
        let flat = gradients.iter().map(|gradient| gradient.to_dtype(DType::F32)?.flatten_all());
        let gradient = Tensor::cat(&flat.collect::<candle_core::Result<Vec<_>>>()?, 0)?;
        let gradient = match &self.still {
            Some(still) => still.where_cond(&gradient.zeros_like()?, &gradient)?,
            None => gradient,
        };
        Ok((gradient, Tensor::stack(&[losses.losses, losses.correct], 0)?))
    }

    /// The gradient of some shards, in the fixed tree; `seen` gets what their rows lost.
    fn tree(
        &mut self,
        pass: &Pass<'_>,
        rows: &[u32],
        shards: Range<usize>,
        seen: &mut Vec<Tensor>,
    ) -> Result<Option<Tensor>> {
        if shards.len() == 1 {
            let rows = self.shard(rows, shards.start);
            if rows.is_empty() {
                return Ok(None);
            }
            let (gradient, losses) = self.part(pass, rows, (shards.start, 0))?;
            seen.push(losses);
            return Ok(Some(gradient));
        }
        let middle = shards.start + shards.len() / 2;
        let left = self.tree(pass, rows, shards.start..middle, seen)?;
        let right = self.tree(pass, rows, middle..shards.end, seen)?;
        Ok(match (left, right) {
            (Some(left), Some(right)) => Some((left + right)?),
            (one, other) => one.or(other),
        })
    }

    /// Adds up what rows lost: the losses of all of them, and then whether they were right.
    fn sums(&self, source: &Source<'_>, rows: &[u32], losses: &[f32], correct: &[f32]) -> Sums {
        let mut sums = Sums::default();
        for ((row, loss), correct) in rows.iter().zip(losses).zip(correct) {
            let weight = f64::from(source.weight(*row, &self.weights));
            sums.add(Sums { loss: f64::from(*loss) * weight, weight, correct: *correct as u64, rows: 1 });
        }
        sums
    }

    /// What some rows lose, in the order of the rows: in parts, if they do not fit.
    fn losses(&mut self, weights: &[Tensor], rows: &[u32]) -> Result<Vec<Tensor>> {
        if rows.len() <= self.room.rows {
            match self.look(weights, rows) {
                Err(error) if is_out_of_memory(&error) => self.shrink(rows.len(), &error)?,
                found => return Ok(vec![found?]),
            }
        }
        let (left, right) = rows.split_at(rows.len().div_ceil(2));
        let mut found = self.losses(weights, left)?;
        found.extend(self.losses(weights, right)?);
        Ok(found)
    }

    fn look(&self, weights: &[Tensor], rows: &[u32]) -> candle_core::Result<Tensor> {
        self.room.ask(rows.len())?;
        let Place { device, dtype, .. } = &self.place;
        let Some(source) = &self.valid else { return Tensor::zeros((2, 0), DType::F32, device) };
        let input = source.features(rows, None, *dtype, device)?;
        let (output, _) = self.network.forward(weights, &input, None)?;
        let truth = Tensor::new(source.truth(rows), device)?;
        let losses = self.objective.over(&output.to_dtype(DType::F32)?, &truth)?;
        Tensor::stack(&[losses.losses, losses.correct], 0)
    }
}

impl Engine for DeviceEngine<'_> {
    fn classifies(&self) -> bool {
        self.objective.classifies()
    }

    /// For members of a gang, whose gradients go through the processor's memory.
    fn gradients(&mut self, weights: &[f32], rows: &[u32], chance: &Seed, mine: Range<usize>) -> Result<Vec<Sums>> {
        self.held = None;
        let views = self.views(&Tensor::new(weights, &self.place.device)?)?;
        let pass = Pass { weights: &views, chance, scale: self.scale(rows) };
        let mut sums = Vec::new();
        for shard in mine {
            let mut seen = Vec::new();
            let gradient = self.tree(&pass, rows, shard..shard + 1, &mut seen)?;
            self.gradients[shard] = match gradient {
                Some(gradient) => gradient.to_vec1()?,
                None => vec![0.0; weights.len()],
            };
            let rows = self.shard(rows, shard);
            let seen = seen.first().map_or(Ok(Vec::new()), |seen| seen.flatten_all()?.to_vec1::<f32>())?;
            let (losses, correct) = seen.split_at(rows.len());
            sums.push(self.sums(&self.train, rows, losses, correct));
        }
        Ok(sums)
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
        let there = |values: &Vec<f32>| Tensor::new(values.as_slice(), &self.place.device);
        let moments = state.moments.iter().map(there).collect::<candle_core::Result<_>>()?;
        self.held = Some(Held { weights: there(&state.weights)?, moments });
        Ok(())
    }

    fn step(&mut self, rows: &[u32], chance: &Seed, step: &Step<'_>) -> Result<Option<(Vec<Sums>, f64)>> {
        let Some(Held { weights, moments }) = self.held.take() else { return Ok(None) };
        let (views, mut seen) = (self.views(&weights)?, Vec::new());
        let pass = Pass { weights: &views, chance, scale: self.scale(rows) };
        let Some(gradient) = self.tree(&pass, rows, 0..self.shards, &mut seen)? else { return Ok(None) };
        let norm = norm(&gradient)?;
        let gradient = match step.clip {
            Some(clip) => clipped(&gradient, &norm, clip)?,
            None => gradient,
        };
        let update = step.optimizer.update(step.number, step.rate, 1.0);
        let (mut after, moments) = update.over(&weights, &gradient, &moments)?;
        if let Some(still) = &self.still {
            after = still.where_cond(&weights, &after)?;
        }
        self.held = Some(Held { weights: after, moments });
        // All that is read back in a step.
        let seen = Tensor::cat(&[Tensor::cat(&seen, 1)?.flatten_all()?, norm], 0)?.to_vec1::<f32>()?;
        let (losses, rest) = seen.split_at(rows.len());
        let sums = self.sums(&self.train, rows, losses, rest);
        Ok(Some((vec![sums], rest.last().map_or(f64::NAN, |norm| f64::from(*norm)))))
    }

    fn give_back(&mut self, state: &mut State) -> Result<()> {
        let Some(Held { weights, moments }) = &self.held else { return Ok(()) };
        state.weights = weights.to_vec1()?;
        state.moments = moments.iter().map(|moment| moment.to_vec1()).collect::<candle_core::Result<_>>()?;
        Ok(())
    }

    fn blocks(&self) -> usize {
        self.valid.as_ref().map_or(0, |valid| valid.rows().div_ceil(BLOCK))
    }

    fn evaluate(&mut self, weights: &[f32], blocks: Range<usize>) -> Result<Vec<Sums>> {
        let Some(rows) = self.valid.as_ref().map(Source::rows) else { return Ok(Vec::new()) };
        let flat = match &self.held {
            Some(held) => held.weights.clone(),
            None => Tensor::new(weights, &self.place.device)?,
        };
        let (views, mut all) = (self.views(&flat)?, Vec::new());
        for block in blocks {
            let rows: Vec<u32> = (block * BLOCK..rows.min((block + 1) * BLOCK)).map(|row| row as u32).collect();
            let found = Tensor::cat(&self.losses(&views, &rows)?, 1)?.flatten_all()?.to_vec1::<f32>()?;
            let (losses, correct) = found.split_at(rows.len());
            all.extend(self.valid.as_ref().map(|source| self.sums(source, &rows, losses, correct)));
        }
        Ok(all)
    }
}
