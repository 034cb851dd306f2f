//! The fixed tree in which the shards' gradients are summed, in parts: who computed which shards changes no bit.

use super::descent::PART;
use super::gradient::tree;
use super::network::simd::vectorized;
use super::pool::Pool;
use bytemuck::{cast_slice, cast_slice_mut};
use ropeway_framework::stage::copy_past_cache;
use std::ops::Range;

/// Values that are summed at once, on the stack.
const BLOCK: usize = 1024;

/// Slices begin on a boundary of so many values.
const BOUNDARY: usize = 16;

/// What member `rank` of `size` gets of `count` things: neighbours, and as many as others, but for one.
pub(super) fn share(count: usize, rank: usize, size: usize) -> Range<usize> {
    count * rank / size..count * (rank + 1) / size
}

/// Likewise, of values that are summed.
pub(super) fn slice(count: usize, rank: usize, size: usize) -> Range<usize> {
    let parts = share(count.div_ceil(BOUNDARY), rank, size);
    (parts.start * BOUNDARY).min(count)..(parts.end * BOUNDARY).min(count)
}

/// The subtrees of the tree over all shards that consist of `mine` only, in order: the fewest that hold all of them.
pub(super) fn subtrees(all: Range<usize>, mine: &Range<usize>) -> Vec<Range<usize>> {
    if all.end <= mine.start || mine.end <= all.start {
        return Vec::new();
    }
    if mine.start <= all.start && all.end <= mine.end {
        return vec![all];
    }
    let middle = all.start + all.len() / 2;
    let mut found = subtrees(all.start..middle, mine);
    found.extend(subtrees(middle..all.end, mine));
    found
}

/// Sums the shards of each subtree, and lays the sums out for those who add them up: slice by slice, each with those of
/// all subtrees.
pub(super) fn add_subtrees(
    shards: &[Vec<f32>],
    subtrees: &[Range<usize>],
    slices: &[Range<usize>],
    mut out: &mut [f32],
    pool: &Pool,
) {
    let mut pieces = Vec::new();
    for slice in slices {
        for subtree in subtrees {
            let (block, rest) = out.split_at_mut(slice.len());
            out = rest;
            let parts = block.chunks_mut(PART).enumerate();
            pieces.extend(parts.map(|(index, piece)| (piece, subtree.clone(), slice.start + index * PART)));
        }
    }
    let all = pieces.iter().map(|(piece, ..)| size_of_val(&**piece)).sum();
    pool.each(&mut pieces, |_, (piece, subtree, start)| {
        let place = *start..*start + piece.len();
        let shards: Vec<&[f32]> = shards[subtree.clone()].iter().map(|shard| &shard[place.clone()]).collect();
        by_blocks(piece, all, |place, sum| {
            let shards: Vec<&[f32]> = shards.iter().map(|shard| &shard[place.clone()]).collect();
            vectorized(
                #[inline(always)]
                || tree(&shards, sum),
            );
        });
    });
}

/// Writes values that others read, block by block, as a part of `all` bytes of them.
fn by_blocks(values: &mut [f32], all: usize, compute: impl Fn(Range<usize>, &mut [f32])) {
    let mut room = [0.0f32; BLOCK];
    for (index, block) in values.chunks_mut(BLOCK).enumerate() {
        let sum = &mut room[..block.len()];
        compute(index * BLOCK..index * BLOCK + sum.len(), sum);
        copy_past_cache(cast_slice(sum), cast_slice_mut(block), all);
    }
}

/// What one member gave: the sums of some subtrees over one slice.
pub(super) type Leaves<'a> = Vec<(Range<usize>, &'a [f32])>;

/// Sums subtrees up to the whole tree's sum.
pub(super) fn add_up(count: usize, leaves: &Leaves<'_>, sum: &mut [f32], pool: &Pool) {
    let all = size_of_val(sum);
    let mut pieces: Vec<&mut [f32]> = sum.chunks_mut(PART).collect();
    pool.each(&mut pieces, |index, piece| {
        by_blocks(piece, all, |block, sum| {
            let start = index * PART + block.start;
            let leaves: Leaves<'_> =
                leaves.iter().map(|(tree, leaf)| (tree.clone(), &leaf[start..start + sum.len()])).collect();
            let [(first, _), ..] = leaves.as_slice() else { return };
            if leaves.iter().all(|(tree, _)| tree.len() == first.len()) {
                let leaves: Vec<&[f32]> = leaves.into_iter().map(|(_, leaf)| leaf).collect();
                vectorized(
                    #[inline(always)]
                    || tree(&leaves, sum),
                );
            } else {
                add_block(0..count, &leaves, sum);
            }
        });
    });
}

fn add_block(tree: Range<usize>, leaves: &[(Range<usize>, &[f32])], sum: &mut [f32]) {
    if let Some((_, leaf)) = leaves.iter().find(|(known, _)| *known == tree) {
        sum.copy_from_slice(leaf);
        return;
    }
    let middle = tree.start + tree.len() / 2;
    let mut other = [0.0f32; BLOCK];
    let other = &mut other[..sum.len()];
    add_block(tree.start..middle, leaves, sum);
    add_block(middle..tree.end, leaves, other);
    sum.iter_mut().zip(other).for_each(|(sum, other)| *sum += *other);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_shared_out_once() {
        for (count, size) in [(8, 3), (1, 1), (100_003, 7), (5, 8)] {
            for of in [share, slice] {
                let parts: Vec<Range<usize>> = (0..size).map(|rank| of(count, rank, size)).collect();
                assert_eq!((parts[0].start, parts[size - 1].end), (0, count));
                assert!(parts.windows(2).all(|pair| pair[0].end == pair[1].start));
            }
        }
        assert_eq!(subtrees(0..8, &(2..5)), [2..4, 4..5]);
        assert_eq!(subtrees(0..8, &(5..8)), [5..6, 6..8]);
        assert!(subtrees(0..8, &(0..8)) == vec![0..8; 1]);
        assert!(subtrees(0..8, &(3..3)).is_empty());
    }

    #[test]
    fn any_number_of_members_sums_to_the_same_bits() {
        let count = PART + 3 * BLOCK + 77;
        let pool = Pool::new(2).unwrap();
        for all in [1, 2, 4, 8, 16] {
            let value = |shard: usize, index: usize| ((index * 31 + shard * 17) % 101) as f32 * 0.013 - 0.4;
            let shards: Vec<Vec<f32>> = (0..all).map(|shard| (0..count).map(|i| value(shard, i)).collect()).collect();
            let mut expected = vec![0.0; count];
            for (index, sum) in expected.chunks_mut(BLOCK).enumerate() {
                let place = index * BLOCK..index * BLOCK + sum.len();
                tree(&shards.iter().map(|shard| &shard[place.clone()]).collect::<Vec<_>>(), sum);
            }
            for size in 1..=all {
                let slices: Vec<Range<usize>> = (0..size).map(|rank| slice(count, rank, size)).collect();
                let mine: Vec<Vec<Range<usize>>> =
                    (0..size).map(|rank| subtrees(0..all, &share(all, rank, size))).collect();
                let given: Vec<Vec<f32>> = mine
                    .iter()
                    .map(|mine| {
                        let mut out = vec![0.0; mine.len() * count];
                        add_subtrees(&shards, mine, &slices, &mut out, &pool);
                        out
                    })
                    .collect();
                let mut sums = vec![0.0; count];
                for slice in &slices {
                    let leaves: Leaves<'_> = mine
                        .iter()
                        .zip(&given)
                        .flat_map(|(mine, given)| {
                            let part = &given[mine.len() * slice.start..mine.len() * slice.end];
                            mine.iter().cloned().zip(part.chunks(slice.len().max(1)))
                        })
                        .collect();
                    if !slice.is_empty() {
                        add_up(all, &leaves, &mut sums[slice.clone()], &pool);
                    }
                }
                assert!(sums == expected, "{size} members, {all} shards");
            }
        }
    }
}
