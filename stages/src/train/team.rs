//! Those who train together: each computes some of the shards of every step, and all hold the same state.

use super::loss::Sums;
use super::pool::Pool;
use super::reduce::{Leaves, add_subtrees, add_up, share, slice, subtrees};
use super::state::State;
use bytemuck::{cast_slice, cast_slice_mut, try_cast_slice};
use bytes::Bytes;
use ropeway_framework::data::{Artifact, Digest, Kind, Ref, Tensors, decode, encode_owned};
use ropeway_framework::stage::{Cancel, Collective, Gang};
use ropeway_framework::{Error, Result};
use std::ops::Range;

/// A circle of members, until one comes or goes. What then was under way gives `None`, and is done again in the next.
pub(super) struct Team(Box<dyn Collective>);

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

    /// Sums the shards' gradients of a step into `total`, and gives the losses of all shards. The shards of this member
    /// are in `shards`, their losses in `sums`.
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
        let slices: Vec<Range<usize>> = (0..size).map(|rank| slice(length, rank, size)).collect();
        let trees: Vec<_> = (0..size).map(|rank| subtrees(0..count, &share(count, rank, size))).collect();
        let mine = &trees[rank];
        let out = cast_slice_mut(self.0.outgoing(mine.len() * length * 4)?);
        add_subtrees(shards, mine, &slices, out, pool);
        let place = |slice: &Range<usize>| mine.len() * slice.start * 4..mine.len() * slice.end * 4;
        if !self.0.exchange(&slices.iter().map(place).collect::<Vec<_>>())? {
            return Ok(None);
        }
        let own = slices[rank].clone();
        if !own.is_empty() {
            let given = |rank: usize| {
                let sums = read::<f32>(self.0.incoming(rank)).chunks_exact(own.len());
                trees[rank].iter().cloned().zip(sums)
            };
            let leaves: Leaves<'_> = (0..size).flat_map(given).collect();
            if leaves.len() == trees.iter().map(Vec::len).sum::<usize>() {
                add_up(count, &leaves, &mut total[own.clone()], pool);
            }
        }
        if !self.0.is_whole() {
            return Ok(None);
        }
        self.share_out(sums, (total, &own, &slices), count)
    }

    /// Everybody gives its slice of the sum, and its losses, to all.
    fn share_out(
        &mut self,
        sums: Vec<Sums>,
        (total, own, slices): (&mut [f32], &Range<usize>, &[Range<usize>]),
        count: usize,
    ) -> Result<Option<Vec<Sums>>> {
        let (rank, size) = (self.0.rank(), self.0.size());
        let losses: Vec<f64> = sums.iter().flat_map(Sums::packed).collect();
        let write = |bytes: &mut [u8]| {
            let (head, tail) = bytes.split_at_mut(losses.len() * 8);
            head.copy_from_slice(cast_slice(&losses));
            tail.copy_from_slice(cast_slice(&total[own.clone()]));
        };
        if !self.tell(write, losses.len() * 8 + own.len() * 4)? {
            return Ok(None);
        }
        let mut all = Vec::new();
        for other in 0..size {
            let given = self.0.incoming(other);
            let Some((head, tail)) = given.split_at_checked(share(count, other, size).len() * 32) else {
                return Ok(None);
            };
            all.extend(read::<f64>(head).as_chunks().0.iter().map(|packed| Sums::unpacked(*packed)));
            let (slice, values) = (&mut total[slices[other].clone()], read::<f32>(tail));
            if other != rank && slice.len() == values.len() {
                slice.copy_from_slice(values);
            }
        }
        Ok(self.0.is_whole().then_some(all))
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
