//! The engine of `train`'s own networks, on the processor.

use super::columns::Features;
use super::fit::Engine;
use super::loss::{Objective, Sums, Truth};
use super::network::{Network, Workspace};
use super::phases::{Phases, Stopwatch};
use super::pool::Pool;
use rand::Rng;
use ropeway_framework::Result;
use ropeway_framework::stage::Seed;
use std::ops::Range;

/// Rows that validation and prediction look at together.
const BLOCK: usize = 64;

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

/// Trains a network on examples in memory.
pub(super) struct NetworkEngine<'a> {
    pub(super) network: &'a Network,
    pub(super) objective: Objective,
    /// By class; empty for none.
    pub(super) weights: Vec<f32>,
    pub(super) train: &'a Examples,
    pub(super) valid: Option<&'a Examples>,
    pub(super) pool: &'a Pool,
    shards: Vec<Shard>,
    gradients: Vec<Vec<f32>>,
}

/// What a shard's part of a step needs; reused from step to step.
#[derive(Default)]
struct Shard {
    workspace: Workspace,
    truth: Picked,
    sums: Sums,
    phases: Phases,
}

#[derive(Default)]
struct Picked {
    classes: Vec<u32>,
    numbers: Vec<f32>,
}

impl Examples {
    fn truth<'a>(&'a self, rows: impl Iterator<Item = usize>, picked: &'a mut Picked) -> Truth<'a> {
        match &self.target {
            Target::Classes(classes) => {
                picked.classes.clear();
                picked.classes.extend(rows.map(|row| classes[row]));
                Truth::Classes(&picked.classes)
            }
            Target::Numbers(numbers) => {
                picked.numbers.clear();
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
        (train, valid): (&'a Examples, Option<&'a Examples>),
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
            shards: (0..shards).map(|_| Shard::default()).collect(),
            gradients: vec![Vec::new(); shards],
        }
    }

    /// The weights of some rows in the loss, in all.
    fn weight(&self, rows: &[u32]) -> f64 {
        match &self.train.target {
            Target::Classes(classes) if !self.weights.is_empty() => {
                rows.iter().map(|row| f64::from(self.weights[classes[*row as usize] as usize])).sum()
            }
            _ => rows.len() as f64,
        }
    }
}

impl Engine for NetworkEngine<'_> {
    fn rows(&self) -> usize {
        self.train.features.rows()
    }

    fn classifies(&self) -> bool {
        self.objective.classifies()
    }

    fn gradients(&mut self, weights: &[f32], rows: &[u32], chance: &Seed, mine: Range<usize>) -> Result<Vec<Sums>> {
        let scale = (1.0 / self.weight(rows)) as f32;
        let count = self.shards.len();
        let (network, objective, train, class_weights) = (self.network, self.objective, self.train, &self.weights);
        self.shards.iter_mut().for_each(|shard| shard.phases = Phases::default());
        let parts = self.shards.iter_mut().zip(&mut self.gradients).enumerate();
        let mut parts: Vec<_> = parts.skip(mine.start).take(mine.len()).collect();
        self.pool.each(&mut parts, |_, (index, (shard, gradient))| {
            let index = *index;
            // Those of others take no memory.
            gradient.resize(weights.len(), 0.0);
            let rows = &rows[rows.len() * index / count..rows.len() * (index + 1) / count];
            if rows.is_empty() {
                gradient.fill(0.0);
                shard.sums = Sums::default();
                return;
            }
            let (mut watch, mut phases) = (Stopwatch::start(), Phases::default());
            let mut rng;
            let chance: Option<&mut dyn Rng> = if network.uses_chance() {
                rng = chance.rng(&format!("shard-{index}"));
                Some(&mut rng)
            } else {
                None
            };
            let workspace = &mut shard.workspace;
            let picked = || rows.iter().map(|row| *row as usize);
            train.features.gather(picked(), network.input(workspace, rows.len()));
            watch.read(&mut phases.data);
            network.forward(weights, workspace, chance);
            let truth = train.truth(picked(), &mut shard.truth);
            let (output, output_gradient) = network.output(workspace);
            shard.sums = objective.losses(output, truth, class_weights, scale, Some(output_gradient));
            watch.read(&mut phases.forward);
            network.backward(weights, workspace, gradient);
            watch.read(&mut phases.backward);
            shard.phases = phases;
        });
        Ok(self.shards[mine].iter().map(|shard| shard.sums).collect())
    }

    fn shards(&self) -> &[Vec<f32>] {
        &self.gradients
    }

    fn phases(&self) -> Phases {
        let mut phases = Phases::default();
        self.shards.iter().for_each(|shard| phases.add(&shard.phases));
        phases
    }

    fn blocks(&self) -> usize {
        self.valid.map_or(0, |valid| valid.features.rows().div_ceil(BLOCK))
    }

    fn evaluate(&mut self, weights: &[f32], blocks: Range<usize>) -> Result<Vec<Sums>> {
        let Some(valid) = self.valid else { return Ok(Vec::new()) };
        let rows = valid.features.rows();
        Ok(self.pool.map(blocks.len(), Shard::default, |shard, index| {
            let block = blocks.start + index;
            let place = block * BLOCK..rows.min((block + 1) * BLOCK);
            let output = predict_block(self.network, weights, &valid.features, place.clone(), &mut shard.workspace);
            let truth = valid.truth(place, &mut shard.truth);
            self.objective.losses(output, truth, &self.weights, 1.0, None)
        }))
    }
}

fn predict_block<'w>(
    network: &Network,
    weights: &[f32],
    features: &Features,
    rows: Range<usize>,
    workspace: &'w mut Workspace,
) -> &'w [f32] {
    // A single row would go another way through the matrix products, with other bits: it gets company.
    let input = network.input(workspace, rows.len().max(2));
    features.gather(rows.clone(), input);
    input[rows.len() * network.inputs()..].fill(0.0);
    &network.forward(weights, workspace, None)[..rows.len() * network.outputs()]
}

/// What a network gives for every row. A row's bits depend on its own values only.
pub(super) fn predict(network: &Network, weights: &[f32], features: &Features, pool: &Pool) -> Vec<f32> {
    let rows = features.rows();
    let blocks = pool.map(rows.div_ceil(BLOCK), Workspace::default, |workspace, block| {
        let place = block * BLOCK..rows.min((block + 1) * BLOCK);
        predict_block(network, weights, features, place, workspace).to_vec()
    });
    blocks.concat()
}
