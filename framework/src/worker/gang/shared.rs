//! Exchanges through memory: what a member gives lies where the others read it.

use super::memory::{MOST_MEMBERS, Mapped, Memory, stamp};
use super::{Circle, PULSE, Seat, lock};
use crate::stage::{Cancel, Collective, check_parts};
use crate::{Context, Error, Result};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long it is looked for what another gives, before the thread sleeps: as long as it takes to wake it again.
const SPIN: Duration = Duration::from_micros(50);

/// What a circle says that was let go of.
const GONE: &str = "the circle was let go of";

/// A circle on one machine.
pub(super) struct Shared {
    seat: Arc<Seat>,
    cancel: Cancel,
    epoch: u64,
    rank: usize,
    /// How long to look for what another gives before sleeping.
    spin: Duration,
    /// Exchanges so far.
    turn: u32,
    /// Only a circle that is let go of has none.
    mine: Option<Memory>,
    /// How much was put in for the next exchange.
    given: usize,
    /// By rank; none for this member.
    others: Vec<Option<Mapped>>,
    /// Where the parts of the last exchange lie.
    parts: Vec<Range<usize>>,
}

impl Shared {
    /// # Errors
    /// The memory of another can't be seen from here.
    pub(super) fn open(seat: Arc<Seat>, mine: Memory, circle: &Circle, cancel: Cancel) -> Result<Self> {
        let size = circle.chairs.len();
        let mut this = Self {
            seat,
            cancel,
            epoch: circle.epoch,
            rank: circle.rank,
            spin: if size <= cores() { SPIN } else { Duration::ZERO },
            turn: 0,
            mine: Some(mine),
            given: 0,
            others: Vec::new(),
            parts: vec![0..0; size],
        };
        if size > MOST_MEMBERS {
            return Err(Error::new(format!("memory is shared by {MOST_MEMBERS} members at most")));
        }
        for (rank, chair) in circle.chairs.iter().enumerate() {
            this.others.push(if rank == circle.rank { None } else { Some(Mapped::open(&chair.memory)?) });
        }
        Ok(this)
    }

    fn slot(turn: u32) -> usize {
        (turn % 2) as usize
    }

    /// Waits until a member has given its part; whether it has.
    fn wait(&self, other: &Mapped, slot: usize, expected: u64) -> Result<bool> {
        let since = Instant::now();
        while other.stamp(slot) != expected {
            let rung = other.rung();
            if other.stamp(slot) == expected {
                break;
            }
            if self.is_over() {
                return Ok(false);
            }
            self.cancel.check()?;
            if since.elapsed() < self.spin {
                std::hint::spin_loop();
            } else {
                other.listen(rung, PULSE / 10);
            }
        }
        Ok(true)
    }
}

impl Collective for Shared {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.others.len()
    }

    fn is_over(&self) -> bool {
        self.seat.is_over(self.epoch)
    }

    fn answer(&mut self, bytes: usize) -> Result<(&mut [u8], Vec<&[u8]>)> {
        self.given = bytes;
        let mine = self.mine.as_mut().context(GONE)?;
        let own = (Self::slot(self.turn), self.parts[self.rank].clone());
        let (outgoing, own) = mine.write(Self::slot(self.turn + 1), bytes, own)?;
        let others = self.others.iter().zip(&self.parts);
        let incoming = others.map(|(other, part)| other.as_ref().map_or(own, |other| other.read(part.clone())));
        Ok((outgoing, incoming.collect()))
    }

    fn exchange(&mut self, parts: &[Range<usize>]) -> Result<bool> {
        self.cancel.check()?;
        check_parts(parts, self.others.len(), self.given)?;
        self.turn += 1;
        let (slot, expected) = (Self::slot(self.turn), stamp(self.epoch, self.turn));
        let rank = self.rank;
        self.mine.as_ref().context(GONE)?.give(slot, expected, parts);
        self.parts[rank] = parts[rank].clone();
        for other in 0..self.others.len() {
            let Some(memory) = &self.others[other] else { continue };
            if !self.wait(memory, slot, expected)? {
                return Ok(false);
            }
            let Some(memory) = &mut self.others[other] else { continue };
            let part = memory.part(slot, rank);
            // Where something is not whole any more, its place means nothing.
            if !memory.is_whole(slot, expected) {
                return Ok(false);
            }
            self.parts[other] = part?;
        }
        self.given = 0;
        self.seat.prosper();
        Ok(true)
    }

    fn incoming(&self, rank: usize) -> &[u8] {
        let part = self.parts[rank].clone();
        match &self.others[rank] {
            Some(memory) => memory.read(part),
            None => self.mine.as_ref().map_or(&[], |mine| mine.written(Self::slot(self.turn), part)),
        }
    }

    fn is_whole(&self) -> bool {
        let (slot, expected) = (Self::slot(self.turn), stamp(self.epoch, self.turn));
        self.others.iter().flatten().all(|memory| memory.is_whole(slot, expected))
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        *lock(&self.seat.memory) = self.mine.take();
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
