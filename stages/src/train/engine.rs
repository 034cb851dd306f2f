//! The engine of `train`'s own networks, on the processor.

use super::augment::Augmenter;
use super::columns::Features;
use super::fit::Engine;
use super::gradient::{Gradient, PIECE, Shards};
use super::init::Frozen;
use super::lesson::{Training, Validation};
use super::loss::{Objective, Sums, Truth};
use super::network::matrices::WeightMatrix;
use super::network::{Network, Workspace};
use super::phases::{Phases, Stopwatch};
use super::pool::Pool;
use super::products::Products;
use rand::Rng;
use ropeway_framework::Result;
use ropeway_framework::stage::Seed;
use std::ops::Range;

/// Rows that validation and prediction look at together.
const BLOCK: usize = 64;

/// Rows of a validation part in parts that are in memory together.
pub(super) const VALIDATED: usize = 64 * BLOCK;

/// Rows with what they are to give.
pub(super) struct Examples {
    pub(super) features: Features,
    pub(super) target: Target,
}

/// What rows are to give.
pub(super) enum Target {
    Classes(Vec<u32>),
    Numbers(Vec<f32>),
}

/// Trains a network.
pub(super) struct NetworkEngine<'a> {
    pub(super) network: &'a Network,
    pub(super) objective: Objective,
    /// By class; empty for none.
    pub(super) weights: Vec<f32>,
    train: Training<'a>,
    valid: Option<Validation<'a>>,
    pub(super) pool: &'a Pool,
    pub(super) augmenter: Option<Augmenter>,
    pub(super) frozen: Frozen,
    shards: Vec<Shard>,
    gradients: Vec<Vec<f32>>,
    /// Weights whose gradients can wait until they are used.
    matrices: Vec<WeightMatrix>,
    /// Whether they do.
    waiting: bool,
}

/// What a shard's part of a step needs; reused from step to step.
#[derive(Default)]
struct Shard {
    workspace: Workspace,
    truth: Picked,
    sums: Sums,
    phases: Phases,
    rows: usize,
}

/// What some rows are to give, side by side.
#[derive(Default)]
pub(super) struct Picked {
    pub(super) classes: Vec<u32>,
    pub(super) numbers: Vec<f32>,
}

impl Picked {
    pub(super) fn clear(&mut self) {
        self.classes.clear();
        self.numbers.clear();
    }
}

impl Examples {
    pub(super) fn truth<'a>(&self, rows: impl Iterator<Item = usize>, picked: &'a mut Picked) -> Truth<'a> {
        picked.clear();
        match &self.target {
            Target::Classes(classes) => {
                picked.classes.extend(rows.map(|row| classes[row]));
                Truth::Classes(&picked.classes)
            }
            Target::Numbers(numbers) => {
                picked.numbers.extend(rows.map(|row| numbers[row]));
                Truth::Numbers(&picked.numbers)
            }
        }
    }
}

impl<'a> NetworkEngine<'a> {
    pub(super) fn new(
        network: &'a Network,
        objective: Objective,
        (train, valid): (Training<'a>, Option<Validation<'a>>),
        shards: usize,
        pool: &'a Pool,
    ) -> Self {
        Self {
            network,
            objective,
            weights: Vec::new(),
            train,
            valid,
            pool,
            augmenter: None,
            frozen: Frozen::default(),
            shards: (0..shards).map(|_| Shard::default()).collect(),
            gradients: vec![Vec::new(); shards],
            matrices: network.matrices(PIECE),
            waiting: false,
        }
    }
}

impl Engine for NetworkEngine<'_> {
    fn classifies(&self) -> bool {
        self.objective.classifies()
    }

    fn seek(&mut self, epoch: u64, step: usize, mine: &Range<usize>) -> Result<()> {
        self.train.seek(epoch, step, mine)
    }

    fn gradients(&mut self, weights: &[f32], rows: &[u32], chance: &Seed, mine: Range<usize>) -> Result<Vec<Sums>> {
        let scale = (1.0 / self.train.weight(rows, &self.weights)) as f32;
        let count = self.shards.len();
        let (network, objective, class_weights) = (self.network, self.objective, &self.weights);
        let lesson = self.train.lesson(rows)?;
        let (augmenter, frozen) = (self.augmenter, &self.frozen);
        self.shards.iter_mut().for_each(|shard| shard.phases = Phases::default());
        // Nobody else needs them, so they need not lie in memory.
        let waiting = mine == (0..count) && self.frozen.is_empty() && !self.matrices.is_empty();
        self.waiting = waiting;
        let compute = |index: usize, shard: &mut Shard, gradient: &mut [f32]| {
            let part = rows.len() * index / count..rows.len() * (index + 1) / count;
            shard.rows = part.len();
            if part.is_empty() {
                gradient.fill(0.0);
                shard.sums = Sums::default();
                return;
            }
            let (mut watch, mut phases) = (Stopwatch::start(), Phases::default());
            let mut rng;
            let dropping: Option<&mut dyn Rng> = if network.uses_chance() {
                rng = chance.rng(&format!("shard-{index}"));
                Some(&mut rng)
            } else {
                None
            };
            let workspace = &mut shard.workspace;
            let input = network.input(workspace, part.len());
            lesson.gather(&part, input);
            augmenter.iter().for_each(|augmenter| augmenter.apply(part.clone(), input, chance));
            watch.read(&mut phases.data);
            network.forward(weights, workspace, dropping);
            let truth = lesson.truth(&part, &mut shard.truth);
            let (output, output_gradient) = network.output(workspace);
            shard.sums = objective.losses(output, truth, class_weights, scale, Some(output_gradient));
            watch.read(&mut phases.forward);
            match waiting {
                true => network.backward_sums(weights, workspace, gradient),
                false => network.backward(weights, workspace, gradient),
            }
            frozen.still(gradient);
            watch.read(&mut phases.backward);
            shard.phases = phases;
        };
        let mut parts: Vec<_> = self.shards[mine.clone()].iter_mut().zip(&mut self.gradients[mine.clone()]).collect();
        self.pool.each(&mut parts, |place, (shard, gradient)| {
            // Those of others take no memory, nor does what nobody writes to.
            if gradient.len() != weights.len() {
                **gradient = vec![0.0; weights.len()];
            }
            compute(mine.start + place, shard, gradient);
        });
        Ok(self.shards[mine].iter().map(|shard| shard.sums).collect())
    }

    fn shards(&self) -> usize {
        self.shards.len()
    }

    fn computed(&self) -> &[Vec<f32>] {
        &self.gradients
    }

    fn gradient(&self) -> Box<dyn Gradient + '_> {
        let others = Shards(self.computed());
        if !self.waiting {
            return Box::new(others);
        }
        let passes = self.shards.iter().map(|shard| (shard.rows > 0).then_some(&shard.workspace)).collect();
        Box::new(Products { matrices: &self.matrices, passes, others })
    }

    fn restore(&self, weights: &mut [f32]) {
        self.frozen.restore(weights);
    }

    fn phases(&self) -> Phases {
        let mut phases = Phases::default();
        self.shards.iter().for_each(|shard| phases.add(&shard.phases));
        phases
    }

    fn blocks(&self) -> usize {
        self.valid.as_ref().map_or(0, |valid| valid.rows().div_ceil(BLOCK))
    }

    fn evaluate(&mut self, weights: &[f32], blocks: Range<usize>) -> Result<Vec<Sums>> {
        let Some(valid) = &self.valid else { return Ok(Vec::new()) };
        let place = blocks.start * BLOCK..valid.rows().min(blocks.end * BLOCK);
        match valid {
            Validation::Whole(valid) => Ok(self.losses(
                weights,
                place,
                |place, input| valid.features.gather(place, input),
                |place, picked| valid.truth(place, picked),
            )),
            Validation::Streamed(source, cancel) => {
                let mut windows = source.in_order(place, VALIDATED, cancel)?;
                let mut sums = Vec::new();
                while let Some(rows) = windows.next()? {
                    let place = 0..rows.len();
                    sums.extend(self.losses(
                        weights,
                        place,
                        |place, input| rows.gather(place, input),
                        |place, picked| rows.truth(place, picked),
                    ));
                }
                Ok(sums)
            }
        }
    }
}

impl NetworkEngine<'_> {
    /// The losses over rows, block by block.
    fn losses(
        &self,
        weights: &[f32],
        rows: Range<usize>,
        gather: impl Fn(Range<usize>, &mut [f32]) + Send + Sync,
        truth: impl for<'t> Fn(Range<usize>, &'t mut Picked) -> Truth<'t> + Send + Sync,
    ) -> Vec<Sums> {
        let (network, objective, class_weights) = (self.network, self.objective, &self.weights);
        self.pool.map(rows.len().div_ceil(BLOCK), Shard::default, |shard, block| {
            let start = rows.start + block * BLOCK;
            let place = start..rows.end.min(start + BLOCK);
            let input = |input: &mut [f32]| gather(place.clone(), input);
            let output = predict_block(network, weights, place.len(), input, &mut shard.workspace);
            let truth = truth(place.clone(), &mut shard.truth);
            objective.losses(output, truth, class_weights, 1.0, None)
        })
    }
}

/// What a network gives for some rows, whose features `gather` writes.
fn predict_block<'w>(
    network: &Network,
    weights: &[f32],
    rows: usize,
    gather: impl FnOnce(&mut [f32]),
    workspace: &'w mut Workspace,
) -> &'w [f32] {
    // A single row would go another way through the matrix products, with other bits: it gets company.
    let input = network.input(workspace, rows.max(2));
    gather(&mut input[..rows * network.inputs()]);
    input[rows * network.inputs()..].fill(0.0);
    &network.forward(weights, workspace, None)[..rows * network.outputs()]
}

/// What a network gives for every row. A row's bits depend on its own values only.
pub(super) fn predict(network: &Network, weights: &[f32], features: &Features, pool: &Pool) -> Vec<f32> {
    let rows = features.rows();
    let blocks = pool.map(rows.div_ceil(BLOCK), Workspace::default, |workspace, block| {
        let place = block * BLOCK..rows.min((block + 1) * BLOCK);
        let gather = |input: &mut [f32]| features.gather(place.clone(), input);
        predict_block(network, weights, place.len(), gather, workspace).to_vec()
    });
    blocks.concat()
}
