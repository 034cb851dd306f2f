//! Those who train together: each computes some of the shards of every step, and all hold the same state.

use super::descent::PART;
use super::gradient::Slices;
use super::loss::Sums;
use super::pool::Pool;
use super::reduce::{Leaves, add_subtrees, add_up, share, slice, subtrees};
use super::state::State;
use bytemuck::{cast_slice, cast_slice_mut, try_cast_slice};
use bytes::Bytes;
use ropeway_framework::data::{Artifact, Digest, Kind, Ref, Tensors, decode, encode_owned};
use ropeway_framework::stage::{Cancel, Collective, Gang, copy_past_cache};
use ropeway_framework::{Error, Result};
use std::ops::Range;

/// A circle of members, until one comes or goes. What then was under way gives `None`, and is done again in the next.
pub(super) struct Team(Box<dyn Collective>);

/// Bytes of the losses of a shard.
const LOSSES: usize = 32;

/// How far a member is that has not begun.
const NOWHERE: [u64; 2] = [0; 2];

impl Team {
    /// Waits for the others.
    ///
    /// # Errors
    /// The training is to stop, the others can't be reached, or there are more of them than shards.
    pub(super) fn meet(gang: &Gang, cancel: &Cancel, shards: usize) -> Result<Self> {
        let circle = gang.meet(cancel)?;
        if circle.size() > shards {
            return Err(Error::usage(format!(
                "{} workers can't share {shards} shards: each needs one at least",
                circle.size()
            ))
            .help(
                "ask for fewer `workers` under `needs`, a larger `batch`, or more `shards`, which change the result",
            ));
        }
        Ok(Self(circle))
    }

    /// Whether this member speaks for all: it reports, and keeps checkpoints.
    pub(super) fn leads(&self) -> bool {
        self.0.rank() == 0
    }

    /// What this member does of `count` things.
    pub(super) fn mine(&self, count: usize) -> Range<usize> {
        share(count, self.0.rank(), self.0.size())
    }

    /// Gives everybody the same bytes.
    fn tell(&mut self, write: impl FnOnce(&mut [u8]), bytes: usize) -> Result<bool> {
        write(self.0.outgoing(bytes)?);
        let parts = vec![0..bytes; self.0.size()];
        self.0.exchange(&parts)
    }

    /// Brings those who are behind to where the farthest is; those who have not begun say so by having no state. If
    /// nobody has, `begin` says where all start.
    ///
    /// # Errors
    /// The training is to stop, can't begin, or is another than that of the others.
    pub(super) fn align(
        &mut self,
        state: &mut Option<State>,
        fresh: &State,
        begin: impl FnOnce() -> Result<State>,
    ) -> Result<Option<()>> {
        if self.0.size() == 1 {
            if state.is_none() {
                *state = Some(begin()?);
            }
            return Ok(Some(()));
        }
        let mut begin = Some(begin);
        loop {
            // From one on, so that whoever has begun is ahead of whoever has not.
            let far = state.as_ref().map_or(NOWHERE, |state| [state.step + 1, state.epoch + 1]);
            if !self.tell(|words| cast_slice_mut(words).copy_from_slice(&far), 16)? {
                return Ok(None);
            }
            let told = |rank| read::<u64>(self.0.incoming(rank)).first_chunk().copied().unwrap_or(NOWHERE);
            let all: Vec<[u64; 2]> = (0..self.0.size()).map(told).collect();
            if !self.0.is_whole() {
                return Ok(None);
            }
            let farthest = all.iter().max().copied().unwrap_or(NOWHERE);
            if farthest == NOWHERE
                && let Some(begin) = begin.take()
            {
                *state = Some(begin()?);
                continue;
            }
            let Some(giver) = all.iter().position(|far| *far == farthest) else { return Ok(None) };
            let behind: Vec<bool> = all.iter().map(|far| *far != farthest).collect();
            return match behind.contains(&true) {
                true => self.hand_over(state, fresh, giver, &behind),
                false => Ok(Some(())),
            };
        }
    }

    /// The giver's state goes to those who are behind.
    fn hand_over(
        &mut self,
        state: &mut Option<State>,
        fresh: &State,
        giver: usize,
        behind: &[bool],
    ) -> Result<Option<()>> {
        let rank = self.0.rank();
        let tensors = state.as_ref().filter(|_| rank == giver).map(State::tensors).transpose()?;
        let bytes = tensors.map(|tensors| encode_owned(Artifact::Tensors(tensors))).transpose()?;
        let bytes = bytes.map(|encoded| encoded.pieces.join()).unwrap_or_default();
        self.0.outgoing(bytes.len())?.copy_from_slice(&bytes);
        let parts: Vec<_> = behind.iter().map(|behind| if *behind { 0..bytes.len() } else { 0..0 }).collect();
        if !self.0.exchange(&parts)? {
            return Ok(None);
        }
        if behind[rank] {
            let taken = Bytes::copy_from_slice(self.0.incoming(giver));
            if !self.0.is_whole() {
                return Ok(None);
            }
            let name = Ref { kind: Kind::Tensors, digest: Digest::of(&taken), bytes: taken.len() as u64 };
            let nothing = &mut |_| Err(Error::new("a state has no parts"));
            let tensors = Tensors::try_from(decode(name, taken, nothing)?)?;
            *state = Some(State::read(&tensors, fresh).map_err(|error| error.context("the state of another worker"))?);
        }
        Ok(Some(()))
    }

    /// Sums the shards' gradients of a step, and gives the losses of all shards; [`Team::gradient`] has the sum then. The
    /// shards of this member are in `shards`, their losses in `sums`; `total` is room for what others sum.
    ///
    /// # Errors
    /// The training is to stop.
    pub(super) fn reduce(
        &mut self,
        shards: &[Vec<f32>],
        sums: Vec<Sums>,
        total: &mut [f32],
        pool: &Pool,
    ) -> Result<Option<Vec<Sums>>> {
        let (rank, size, count, length) = (self.0.rank(), self.0.size(), shards.len(), total.len());
        if self.0.is_over() {
            return Ok(None);
        }
        let slices = self.slices(length);
        let trees: Vec<_> = (0..size).map(|rank| subtrees(0..count, &share(count, rank, size))).collect();
        let mine = &trees[rank];
        let out = cast_slice_mut(self.0.outgoing(mine.len() * length * 4)?);
        add_subtrees(shards, mine, &slices, out, pool);
        let place = |slice: &Range<usize>| mine.len() * slice.start * 4..mine.len() * slice.end * 4;
        if !self.0.exchange(&slices.iter().map(place).collect::<Vec<_>>())? {
            return Ok(None);
        }
        // The sum of this member's slice, for all, is made where they read it.
        let (own, losses) = (slices[rank].len(), sums.iter().flat_map(Sums::packed).collect::<Vec<f64>>());
        let bytes = losses.len() * 8 + own * 4;
        let (out, given) = self.0.answer(bytes)?;
        let (head, sum) = out.split_at_mut(losses.len() * 8);
        head.copy_from_slice(cast_slice(&losses));
        if own > 0 {
            let mut leaves: Leaves<'_> = Vec::new();
            for (trees, given) in trees.iter().zip(given) {
                leaves.extend(trees.iter().cloned().zip(read::<f32>(given).chunks_exact(own)));
            }
            if leaves.len() == trees.iter().map(Vec::len).sum::<usize>() {
                add_up(count, &leaves, cast_slice_mut(sum), pool);
            }
        }
        if !self.0.is_whole() || !self.0.exchange(&vec![0..bytes; size])? {
            return Ok(None);
        }
        self.take_sums(total, &slices, count, pool)
    }

    /// Takes the sums of the others' slices, and the losses of all.
    fn take_sums(
        &self,
        mut total: &mut [f32],
        slices: &[Range<usize>],
        count: usize,
        pool: &Pool,
    ) -> Result<Option<Vec<Sums>>> {
        let (rank, size, all) = (self.0.rank(), self.0.size(), size_of_val(total));
        let (mut losses, mut parts) = (Vec::new(), Vec::new());
        for (other, slice) in slices.iter().enumerate() {
            let given = self.0.incoming(other);
            let Some((head, tail)) = given.split_at_checked(share(count, other, size).len() * LOSSES) else {
                return Ok(None);
            };
            losses.extend(read::<f64>(head).as_chunks().0.iter().map(|packed| Sums::unpacked(*packed)));
            let (to, rest) = total.split_at_mut(slice.len());
            total = rest;
            if other != rank {
                parts.extend(to.chunks_mut(PART).zip(read::<f32>(tail).chunks(PART)));
            }
        }
        pool.each(&mut parts, |_, (to, from)| {
            // They are unequal only where what was given is not whole any more.
            if to.len() == from.len() {
                copy_past_cache(cast_slice(from), cast_slice_mut(to), all);
            }
        });
        Ok(self.0.is_whole().then_some(losses))
    }

    /// Which part of so many values each member sums.
    fn slices(&self, length: usize) -> Vec<Range<usize>> {
        let size = self.0.size();
        (0..size).map(|rank| slice(length, rank, size)).collect()
    }

    /// The sum of a step's gradients over `count` shards, after [`Team::reduce`] with the same `total`: what this member
    /// summed itself lies where the others read it.
    pub(super) fn gradient<'a>(&'a self, total: &'a [f32], count: usize) -> Slices<'a> {
        let (rank, size) = (self.0.rank(), self.0.size());
        let head = share(count, rank, size).len() * LOSSES;
        let own = self.0.incoming(rank).get(head..).unwrap_or_default();
        let slices = self.slices(total.len()).into_iter().enumerate().filter(|(_, slice)| !slice.is_empty());
        let values = slices.map(|(member, slice)| match member == rank {
            true => (slice.start, read::<f32>(own)),
            false => (slice.start, &total[slice]),
        });
        Slices(values.collect())
    }

    /// Gathers losses that each member computed a part of, in the order of their parts.
    ///
    /// # Errors
    /// The training is to stop.
    pub(super) fn gather(&mut self, sums: Vec<Sums>) -> Result<Option<Vec<Sums>>> {
        if self.0.size() == 1 {
            return Ok((!self.0.is_over()).then_some(sums));
        }
        let losses: Vec<f64> = sums.iter().flat_map(Sums::packed).collect();
        if !self.tell(|bytes| bytes.copy_from_slice(cast_slice(&losses)), losses.len() * 8)? {
            return Ok(None);
        }
        let given = (0..self.0.size()).flat_map(|rank| read::<f64>(self.0.incoming(rank)).as_chunks().0);
        let all: Vec<Sums> = given.map(|packed| Sums::unpacked(*packed)).collect();
        Ok(self.0.is_whole().then_some(all))
    }

    /// Whether nobody is there to share with.
    pub(super) fn is_alone(&self) -> bool {
        self.0.size() == 1
    }

    /// Whether somebody has come or gone.
    pub(super) fn is_over(&self) -> bool {
        self.0.is_over()
    }
}

/// Numbers that another member gave; none if they are not whole.
fn read<T: bytemuck::Pod>(bytes: &[u8]) -> &[T] {
    try_cast_slice(bytes).unwrap_or_default()
}
