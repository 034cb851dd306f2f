//! The gradient of a step: the sum over its shards, in a fixed tree.

use super::network::simd::vectorized;
use super::phases::Phases;
use std::ops::Range;
use std::time::Duration;

/// Values that are summed at once, on the stack.
const BLOCK: usize = 1024;

/// Values that are summed and then used at once, on the stack: they stay in the processor's first cache.
pub(super) const PIECE: usize = 6 * BLOCK;

/// A place for a piece of a gradient.
pub(super) type Room = [f32; PIECE];

/// The gradient of all weights, given piece by piece, where it is used. However it is cut, its bits are the same.
pub(super) trait Gradient: Sync {
    /// Whether it lies in memory, so that a piece that is asked for again costs nothing.
    fn lies(&self) -> bool {
        false
    }

    /// How far the piece goes that begins at `start`, `end` at most.
    fn piece(&self, start: usize, end: usize) -> usize {
        end.min(start + PIECE)
    }

    /// A piece, which may be made in `room`.
    fn values<'r>(&'r self, piece: Range<usize>, room: &'r mut Room) -> &'r [f32];

    /// What the making of pieces counts as.
    fn phase<'p>(&self, phases: &'p mut Phases) -> &'p mut Duration {
        &mut phases.reduce
    }
}

/// Gradients that lie in memory, by shard.
pub(super) struct Shards<'a>(pub(super) &'a [Vec<f32>]);

impl Gradient for Shards<'_> {
    fn lies(&self) -> bool {
        self.0.len() == 1
    }

    fn values<'r>(&'r self, piece: Range<usize>, room: &'r mut Room) -> &'r [f32] {
        if let [only] = self.0 {
            return &only[piece];
        }
        let sum = &mut room[..piece.len()];
        let shards: Vec<&[f32]> = self.0.iter().map(|shard| &shard[piece.clone()]).collect();
        vectorized(
            #[inline(always)]
            || tree(&shards, sum),
        );
        sum
    }
}

/// A gradient that lies in memory in slices: where each begins, and its values. The first begins at 0.
pub(super) struct Slices<'a>(pub(super) Vec<(usize, &'a [f32])>);

impl Slices<'_> {
    /// Where the slice that holds a value begins, and its values.
    fn at(&self, place: usize) -> (usize, &[f32]) {
        let index = self.0.partition_point(|(start, _)| *start <= place);
        self.0[index.saturating_sub(1)]
    }
}

impl Gradient for Slices<'_> {
    fn lies(&self) -> bool {
        true
    }

    fn piece(&self, start: usize, end: usize) -> usize {
        let (from, values) = self.at(start);
        end.min(start + PIECE).min(from + values.len())
    }

    fn values<'r>(&'r self, piece: Range<usize>, _: &'r mut Room) -> &'r [f32] {
        let (from, values) = self.at(piece.start);
        &values[piece.start - from..piece.end - from]
    }
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

/// All `count` values of a gradient, one after the other.
pub(super) fn collected(gradient: &dyn Gradient, count: usize) -> Vec<f32> {
    let (mut room, mut all): (Room, _) = ([0.0; PIECE], Vec::with_capacity(count));
    while all.len() < count {
        let end = gradient.piece(all.len(), count);
        all.extend_from_slice(gradient.values(all.len()..end, &mut room));
    }
    all
}

#[inline(always)]
fn add(a: &[f32], b: &[f32], sum: &mut [f32]) {
    for ((sum, a), b) in sum.iter_mut().zip(a).zip(b) {
        *sum = a + b;
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// All of a gradient of `count` values, asked for in parts of `part`.
    pub(in crate::train) fn collected(gradient: &dyn Gradient, count: usize, part: usize) -> Vec<f32> {
        let (mut room, mut all, mut start): (Room, _, _) = ([f32::NAN; PIECE], Vec::new(), 0);
        while start < count {
            let end = gradient.piece(start, count.min((start / part + 1) * part));
            all.extend_from_slice(gradient.values(start..end, &mut room));
            start = end;
        }
        all
    }

    #[test]
    fn the_tree_is_pairwise() {
        let value = |shard: usize, at: usize| ((at * 7 + shard * 3) % 11) as f32 * 0.1 - 0.4;
        let shards: Vec<Vec<f32>> = (0..8).map(|shard| (0..2100).map(|at| value(shard, at)).collect()).collect();
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
}
