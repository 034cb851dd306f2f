//! One step down: sums the shards' gradients in a fixed tree, clips, and updates the weights, in one pass.

use super::network::simd::vectorized;
use super::optimizer::{Optimizer, Update};
use super::phases::{Phases, Stopwatch};
use super::pool::Pool;

/// Weights that are worked on at once: they and what belongs to them stay in the processor's cache.
pub(super) const PART: usize = 16 * 1024;

/// Values that are summed at once, on the stack.
const BLOCK: usize = 1024;

/// Values that are summed and then used at once, on the stack: they stay in the processor's first cache.
const PIECE: usize = 4 * BLOCK;

/// The gradient of one step, by shard.
pub(super) struct Step<'a> {
    pub(super) shards: &'a [Vec<f32>],
    pub(super) optimizer: &'a Optimizer,
    /// Counted from 1.
    pub(super) number: u64,
    pub(super) rate: f64,
    pub(super) clip: Option<f64>,
}

struct Part<'a> {
    start: usize,
    /// Its sum over the shards, if that is asked for.
    sum: &'a mut [f32],
    weights: &'a mut [f32],
    moments: Vec<&'a mut [f32]>,
    squares: f64,
    phases: Phases,
}

impl Step<'_> {
    /// Takes the step; `sum` is scratch space, which only clipping needs. Gives the norm of the gradient before clipping,
    /// and adds to `phases` what it took.
    pub(super) fn take(
        &self,
        pool: &Pool,
        sum: &mut Vec<f32>,
        weights: &mut [f32],
        moments: &mut [Vec<f32>],
        phases: &mut Phases,
    ) -> f64 {
        if self.clip.is_some() {
            sum.resize(weights.len(), 0.0);
        }
        let mut sums = sum.chunks_mut(PART);
        let mut moments: Vec<_> = moments.iter_mut().map(|moment| moment.chunks_mut(PART)).collect();
        let mut parts: Vec<Part<'_>> = weights
            .chunks_mut(PART)
            .enumerate()
            .map(|(index, weights)| {
                let moments = moments.iter_mut().filter_map(Iterator::next).collect();
                let sum = sums.next().unwrap_or_default();
                Part { start: index * PART, sum, weights, moments, squares: 0.0, phases: Phases::default() }
            })
            .collect();
        let Some(clip) = self.clip else {
            let update = self.optimizer.update(self.number, self.rate, 1.0);
            pool.each(&mut parts, |_, part| self.add_and_update(part, &update));
            parts.iter().for_each(|part| phases.add(&part.phases));
            return norm(&parts);
        };
        pool.each(&mut parts, |_, part| self.add(part));
        let norm = norm(&parts);
        let scale = if norm > clip { (clip / norm) as f32 } else { 1.0 };
        let update = self.optimizer.update(self.number, self.rate, scale);
        pool.each(&mut parts, |_, part| self.update(part, &update));
        parts.iter().for_each(|part| phases.add(&part.phases));
        norm
    }

    /// Piece by piece, so that the sum is used as soon as it is there.
    fn add_and_update(&self, part: &mut Part<'_>, update: &Update) {
        let (mut watch, mut squares) = (Stopwatch::start(), Squares::default());
        let mut scratch = [0.0f32; PIECE];
        for start in (0..part.weights.len()).step_by(PIECE) {
            let end = part.weights.len().min(start + PIECE);
            let gradient = self.sum(part.start + start, &mut scratch[..end - start]);
            squares.add(gradient);
            watch.read(&mut part.phases.reduce);
            let mut moments: Vec<&mut [f32]> = part.moments.iter_mut().map(|moment| &mut moment[start..end]).collect();
            update.apply(&mut part.weights[start..end], gradient, &mut moments);
            watch.read(&mut part.phases.optimize);
        }
        part.squares = squares.sum();
    }

    fn add(&self, part: &mut Part<'_>) {
        let (mut watch, mut squares) = (Stopwatch::start(), Squares::default());
        squares.add(self.sum(part.start, part.sum));
        part.squares = squares.sum();
        watch.read(&mut part.phases.reduce);
    }

    fn update(&self, part: &mut Part<'_>, update: &Update) {
        let mut watch = Stopwatch::start();
        let gradient = match self.shards {
            [only] => &only[part.start..part.start + part.weights.len()],
            _ => part.sum,
        };
        update.apply(part.weights, gradient, &mut part.moments);
        watch.read(&mut part.phases.optimize);
    }

    /// The sum over the shards from a place on, as long as the room for it; a single shard is its own sum.
    fn sum<'s>(&'s self, start: usize, room: &'s mut [f32]) -> &'s [f32] {
        let place = start..start + room.len();
        if let [only] = self.shards {
            return &only[place];
        }
        let shards: Vec<&[f32]> = self.shards.iter().map(|shard| &shard[place.clone()]).collect();
        vectorized(
            #[inline(always)]
            || tree(&shards, room),
        );
        room
    }
}

fn norm(parts: &[Part<'_>]) -> f64 {
    parts.iter().map(|part| part.squares).sum::<f64>().sqrt()
}

/// Sums slices of equal length pairwise: `((0 + 1) + (2 + 3)) + ...`, whoever computed them.
#[inline(always)]
pub(super) fn tree(shards: &[&[f32]], sum: &mut [f32]) {
    match shards {
        [a, b] => add(a, b, sum),
        [a, b, c, d] => {
            for ((((sum, a), b), c), d) in sum.iter_mut().zip(*a).zip(*b).zip(*c).zip(*d) {
                *sum = (a + b) + (c + d);
            }
        }
        _ => halves(shards, sum),
    }
}

/// The general case of [`tree`]; not inlined, for it calls itself.
fn halves(shards: &[&[f32]], sum: &mut [f32]) {
    match shards {
        [] => sum.fill(0.0),
        [one] => sum.copy_from_slice(one),
        _ => {
            let (left, right) = shards.split_at(shards.len() / 2);
            let mut other = [0.0f32; BLOCK];
            for (index, sum) in sum.chunks_mut(BLOCK).enumerate() {
                let place = index * BLOCK..index * BLOCK + sum.len();
                let part = |shards: &[&[f32]], sum: &mut [f32]| {
                    let parts: Vec<&[f32]> = shards.iter().map(|shard| &shard[place.clone()]).collect();
                    halves(&parts, sum);
                };
                let other = &mut other[..sum.len()];
                part(left, sum);
                part(right, other);
                sum.iter_mut().zip(other).for_each(|(sum, other)| *sum += *other);
            }
        }
    }
}

#[inline(always)]
fn add(a: &[f32], b: &[f32], sum: &mut [f32]) {
    for ((sum, a), b) in sum.iter_mut().zip(a).zip(b) {
        *sum = a + b;
    }
}

/// The sum of squares of values that come piece by piece, each but the last of a multiple of eight.
#[derive(Default)]
struct Squares {
    lanes: [f64; 8],
    rest: Vec<f32>,
}

impl Squares {
    fn add(&mut self, values: &[f32]) {
        let (chunks, rest) = values.as_chunks::<8>();
        let lanes = &mut self.lanes;
        vectorized(
            #[inline(always)]
            || {
                for chunk in chunks {
                    for lane in 0..8 {
                        lanes[lane] += f64::from(chunk[lane]) * f64::from(chunk[lane]);
                    }
                }
            },
        );
        self.rest.extend_from_slice(rest);
    }

    fn sum(&self) -> f64 {
        let whole: f64 = self.lanes.iter().sum();
        self.rest.iter().fold(whole, |sum, value| sum + f64::from(*value) * f64::from(*value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::numbers::{Positive, Share};

    fn gradients(shards: usize, count: usize) -> Vec<Vec<f32>> {
        (0..shards).map(|shard| (0..count).map(|i| ((i * 7 + shard * 3) % 11) as f32 * 0.1 - 0.4).collect()).collect()
    }

    fn step(shards: &[Vec<f32>], threads: usize, clip: Option<f64>) -> (Vec<f32>, f64) {
        let count = shards[0].len();
        let optimizer = Optimizer::adam(Positive::try_from(0.1).unwrap());
        let (mut weights, mut sum) = (vec![1.0; count], Vec::new());
        let mut moments = vec![vec![0.0; count]; 2];
        let step = Step { shards, optimizer: &optimizer, number: 1, rate: 0.1, clip };
        let norm =
            step.take(&Pool::new(threads).unwrap(), &mut sum, &mut weights, &mut moments, &mut Phases::default());
        (weights, norm)
    }

    #[test]
    fn threads_do_not_change_a_bit() {
        for shards in [1, 2, 4, 8, 16] {
            let gradients = gradients(shards, 3 * PART + 5);
            for clip in [None, Some(0.5)] {
                let one = step(&gradients, 1, clip);
                for threads in [2, 4, 8] {
                    assert_eq!(step(&gradients, threads, clip), one);
                }
            }
        }
    }

    #[test]
    fn the_tree_is_pairwise() {
        let shards: Vec<Vec<f32>> = gradients(8, 2100);
        let parts: Vec<&[f32]> = shards.iter().map(Vec::as_slice).collect();
        let mut sum = vec![0.0; 2100];
        for count in [2, 4, 8] {
            tree(&parts[..count], &mut sum);
            let pair = |i: usize, at: usize| shards[i][at] + shards[i + 1][at];
            let expected = |at: usize| match count {
                2 => pair(0, at),
                4 => pair(0, at) + pair(2, at),
                _ => (pair(0, at) + pair(2, at)) + (pair(4, at) + pair(6, at)),
            };
            assert!((0..2100).all(|at| sum[at].to_bits() == expected(at).to_bits()));
        }
    }

    #[test]
    fn a_long_gradient_is_scaled_to_the_clip() {
        let optimizer = Optimizer::sgd(Positive::try_from(1.0).unwrap(), Share::default());
        let (mut weights, mut sum) = (vec![0.0; 2], Vec::new());
        let shards = [vec![3.0, 4.0]];
        let step = Step { shards: &shards, optimizer: &optimizer, number: 1, rate: 1.0, clip: Some(1.0) };
        let norm = step.take(&Pool::new(1).unwrap(), &mut sum, &mut weights, &mut [], &mut Phases::default());
        assert_eq!((norm, weights), (5.0, vec![-0.6, -0.8]));
    }
}
