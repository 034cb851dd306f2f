//! One step down: takes the gradient piece by piece, clips, and updates the weights, in one pass.

use super::gradient::{Gradient, PIECE};
use super::network::simd::vectorized;
use super::optimizer::{Optimizer, Update};
use super::phases::{Phases, Stopwatch};
use super::pool::Pool;
use std::ops::Range;

/// Weights that are worked on at once: they and what belongs to them stay in the processor's cache.
pub(super) const PART: usize = 16 * 1024;

/// Sums that squares are added up in side by side.
const LANES: usize = 8;

/// One step, whatever the gradient.
pub(super) struct Step<'a> {
    pub(super) optimizer: &'a Optimizer,
    /// Counted from 1.
    pub(super) number: u64,
    pub(super) rate: f64,
    pub(super) clip: Option<f64>,
}

struct Part<'a> {
    start: usize,
    /// Its gradient, if that is to be kept.
    sum: &'a mut [f32],
    weights: &'a mut [f32],
    moments: Vec<&'a mut [f32]>,
    squares: f64,
    phases: Phases,
}

impl Step<'_> {
    /// Takes the step along a gradient; `sum` is scratch space, which only clipping needs. Gives the norm of the gradient before clipping,
    /// and adds to `phases` what it took.
    pub(super) fn take(
        &self,
        gradient: &dyn Gradient,
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
            pool.each(&mut parts, |_, part| part.add_and_update(gradient, &update));
            parts.iter().for_each(|part| phases.add(&part.phases));
            return norm(&parts);
        };
        pool.each(&mut parts, |_, part| part.add(gradient));
        let norm = norm(&parts);
        let scale = if norm > clip { (clip / norm) as f32 } else { 1.0 };
        let update = self.optimizer.update(self.number, self.rate, scale);
        pool.each(&mut parts, |_, part| part.update(gradient, &update));
        parts.iter().for_each(|part| phases.add(&part.phases));
        norm
    }
}

impl Part<'_> {
    /// Piece by piece, so that the gradient is used as soon as it is there.
    fn add_and_update(&mut self, gradient: &dyn Gradient, update: &Update) {
        let Part { start, weights, moments, phases, squares, .. } = self;
        *squares = pieces(gradient, *start..*start + weights.len(), phases, |place, gradient, phases, watch| {
            let mut moments: Vec<&mut [f32]> = moments.iter_mut().map(|moment| &mut moment[place.clone()]).collect();
            update.apply(&mut weights[place], gradient, &mut moments);
            watch.read(&mut phases.optimize);
        });
    }

    /// Keeps the gradient, unless all of it lies somewhere.
    fn add(&mut self, gradient: &dyn Gradient) {
        let Part { start, sum, phases, squares, .. } = self;
        let kept = gradient.lies();
        *squares = pieces(gradient, *start..*start + sum.len(), phases, |place, gradient, _, _| {
            if !kept {
                sum[place].copy_from_slice(gradient);
            }
        });
    }

    fn update(&mut self, gradient: &dyn Gradient, update: &Update) {
        let mut watch = Stopwatch::start();
        if !gradient.lies() {
            update.apply(self.weights, self.sum, &mut self.moments);
            return watch.read(&mut self.phases.optimize);
        }
        let (mut room, mut at) = ([0.0f32; PIECE], self.start);
        let end = at + self.weights.len();
        while at < end {
            let next = gradient.piece(at, end);
            let place = at - self.start..next - self.start;
            let mut moments: Vec<&mut [f32]> =
                self.moments.iter_mut().map(|moment| &mut moment[place.clone()]).collect();
            update.apply(&mut self.weights[place], gradient.values(at..next, &mut room), &mut moments);
            at = next;
        }
        watch.read(&mut self.phases.optimize);
    }
}

/// Does something with every piece of the gradient at a place, counted from the place's start, and gives the sum of its
/// squares.
fn pieces(
    gradient: &dyn Gradient,
    place: Range<usize>,
    phases: &mut Phases,
    mut work: impl FnMut(Range<usize>, &[f32], &mut Phases, &mut Stopwatch),
) -> f64 {
    let (mut watch, mut squares) = (Stopwatch::start(), Squares::default());
    let mut room = [0.0f32; PIECE];
    let mut start = place.start;
    while start < place.end {
        let end = gradient.piece(start, place.end);
        let values = gradient.values(start..end, &mut room);
        squares.add(values);
        watch.read(gradient.phase(phases));
        work(start - place.start..end - place.start, values, phases, &mut watch);
        start = end;
    }
    squares.sum()
}

fn norm(parts: &[Part<'_>]) -> f64 {
    parts.iter().map(|part| part.squares).sum::<f64>().sqrt()
}

/// The sum of squares of values that come piece by piece: its bits do not depend on how they are cut.
#[derive(Default)]
struct Squares {
    lanes: [f64; LANES],
    /// Values that do not fill the lanes yet.
    rest: Vec<f32>,
}

impl Squares {
    fn add(&mut self, mut values: &[f32]) {
        if !self.rest.is_empty() {
            let missing = (LANES - self.rest.len()).min(values.len());
            let (first, others) = values.split_at(missing);
            self.rest.extend_from_slice(first);
            values = others;
            if self.rest.len() < LANES {
                return;
            }
            self.lanes.iter_mut().zip(self.rest.drain(..)).for_each(|(lane, value)| *lane += square(value));
        }
        let (chunks, rest) = values.as_chunks::<LANES>();
        let lanes = &mut self.lanes;
        vectorized(
            #[inline(always)]
            || {
                for chunk in chunks {
                    for lane in 0..LANES {
                        lanes[lane] += square(chunk[lane]);
                    }
                }
            },
        );
        self.rest.extend_from_slice(rest);
    }

    fn sum(&self) -> f64 {
        let whole: f64 = self.lanes.iter().sum();
        self.rest.iter().fold(whole, |sum, value| sum + square(*value))
    }
}

#[inline(always)]
fn square(value: f32) -> f64 {
    f64::from(value) * f64::from(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::gradient::Shards;
    use crate::train::numbers::{Positive, Share};

    fn gradients(shards: usize, count: usize) -> Vec<Vec<f32>> {
        (0..shards).map(|shard| (0..count).map(|i| ((i * 7 + shard * 3) % 11) as f32 * 0.1 - 0.4).collect()).collect()
    }

    fn step(shards: &[Vec<f32>], threads: usize, clip: Option<f64>) -> (Vec<f32>, f64) {
        let count = shards[0].len();
        let optimizer = Optimizer::adam(Positive::try_from(0.1).unwrap());
        let (mut weights, mut sum) = (vec![1.0; count], Vec::new());
        let mut moments = vec![vec![0.0; count]; 2];
        let step = Step { optimizer: &optimizer, number: 1, rate: 0.1, clip };
        let (pool, mut phases) = (Pool::new(threads).unwrap(), Phases::default());
        let norm = step.take(&Shards(shards), &pool, &mut sum, &mut weights, &mut moments, &mut phases);
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
    fn squares_do_not_depend_on_the_cuts() {
        let values: Vec<f32> = (0..1000).map(|i| (i * 37 % 101) as f32 * 0.07 - 3.0).collect();
        let sum = |cuts: &[usize]| {
            let mut squares = Squares::default();
            let mut rest = values.as_slice();
            for cut in cuts {
                let (piece, others) = rest.split_at(*cut);
                squares.add(piece);
                rest = others;
            }
            squares.add(rest);
            squares.sum().to_bits()
        };
        for cuts in [&[1][..], &[3, 2, 2, 1, 500], &[8, 7, 9], &[0, 15, 0, 1, 998 - 15], &[999]] {
            assert_eq!(sum(cuts), sum(&[]), "{cuts:?}");
        }
    }

    #[test]
    fn a_long_gradient_is_scaled_to_the_clip() {
        let optimizer = Optimizer::sgd(Positive::try_from(1.0).unwrap(), Share::default());
        let (mut weights, mut sum) = (vec![0.0; 2], Vec::new());
        let shards = [vec![3.0, 4.0]];
        let step = Step { optimizer: &optimizer, number: 1, rate: 1.0, clip: Some(1.0) };
        let (pool, mut phases) = (Pool::new(1).unwrap(), Phases::default());
        let norm = step.take(&Shards(&shards), &pool, &mut sum, &mut weights, &mut [], &mut phases);
        assert_eq!((norm, weights), (5.0, vec![-0.6, -0.8]));
    }
}
