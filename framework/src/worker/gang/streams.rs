//! Exchanges over connections: each member sends its parts to the others, over the way that workers fetch artifacts by.

use super::{Chair, Circle, PULSE, Seat, Seats, lock};
use crate::stage::{Cancel, Collective, check_parts};
use crate::worker::peers::peer;
use crate::worker::wire::{self, CHUNK_BYTES};
use crate::{Result, runtime};
use arrow::buffer::MutableBuffer;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::SendTimeoutError;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

/// Pieces that wait to be sent to a member.
const WAITING: usize = 8;
/// What a member gives another in one exchange, at most.
const MOST_BYTES: u64 = 64 << 30;

/// What an exchange's part is for: epoch, turn, and who gave it.
type Place = (u64, u32, u32);

/// What others gave to a member before it asked for it.
#[derive(Default)]
pub(super) struct Mailbox {
    letters: Mutex<Letters>,
    bell: Condvar,
}

#[derive(Default)]
struct Letters {
    /// What is of an earlier circle is of no use to anybody.
    since: u64,
    of: BTreeMap<Place, MutableBuffer>,
}

impl Mailbox {
    fn put(&self, place: Place, content: MutableBuffer) {
        let mut letters = lock(&self.letters);
        if place.0 >= letters.since {
            letters.of.insert(place, content);
            self.bell.notify_all();
        }
    }

    pub(super) fn forget_before(&self, epoch: u64) {
        let mut letters = lock(&self.letters);
        letters.since = letters.since.max(epoch);
        letters.of.retain(|place, _| place.0 >= epoch);
    }

    /// Wakes whoever waits: something else has happened.
    pub(super) fn ring(&self) {
        self.bell.notify_all();
    }

    /// Waits for a part; nothing if `over` says so first.
    pub(super) fn take(&self, place: Place, over: impl Fn() -> Result<bool>) -> Result<Option<MutableBuffer>> {
        let mut letters = lock(&self.letters);
        loop {
            if let Some(content) = letters.of.remove(&place) {
                return Ok(Some(content));
            }
            if over()? {
                return Ok(None);
            }
            letters = self.bell.wait_timeout(letters, PULSE).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// A circle of members that reach each other by connections.
pub(super) struct Streams {
    seat: Arc<Seat>,
    cancel: Cancel,
    epoch: u64,
    rank: usize,
    turn: u32,
    /// What is given, by turns: what was given last can be read yet.
    given: [MutableBuffer; 2],
    /// How many bytes of it count.
    bytes: usize,
    links: Vec<Option<Link>>,
    taken: Vec<MutableBuffer>,
    own: Range<usize>,
}

/// Where what is given in an exchange lies.
fn slot(turn: u32) -> usize {
    (turn % 2) as usize
}

/// The way to another member.
struct Link {
    parts: mpsc::Sender<wire::Part>,
    broken: Arc<AtomicBool>,
}

impl Streams {
    /// # Errors
    /// An address that is none.
    pub(super) fn open(seat: Arc<Seat>, circle: &Circle, cancel: Cancel) -> Result<Self> {
        let mut links = Vec::new();
        for (rank, chair) in circle.chairs.iter().enumerate() {
            links.push(match rank == circle.rank {
                true => None,
                false => Some(Link::open(&seat, chair)?),
            });
        }
        Ok(Self {
            seat,
            cancel,
            epoch: circle.epoch,
            rank: circle.rank,
            turn: 0,
            given: [MutableBuffer::new(0), MutableBuffer::new(0)],
            bytes: 0,
            taken: links.iter().map(|_| MutableBuffer::new(0)).collect(),
            links,
            own: 0..0,
        })
    }

    /// Gives a part to a member; whether it could before the circle was over.
    fn send(&self, rank: usize, part: Range<usize>) -> Result<bool> {
        let Some(link) = &self.links[rank] else { return Ok(true) };
        let content = &self.given[slot(self.turn)].as_slice()[part];
        let mut pieces = content.chunks(CHUNK_BYTES);
        let (epoch, turn, from, bytes) = (self.epoch, self.turn, self.rank as u32, content.len() as u64);
        let piece = |content: &[u8]| wire::Part {
            epoch,
            turn,
            from,
            bytes,
            content: Bytes::copy_from_slice(content),
            ..Default::default()
        };
        let first = piece(pieces.next().unwrap_or_default());
        let mut sent = self.put(link, first)?;
        while sent && let Some(next) = pieces.next() {
            sent = self.put(link, piece(next))?;
        }
        Ok(sent)
    }

    /// Hands a piece to a link, which may have to wait for the network; whether it did before the circle was over.
    fn put(&self, link: &Link, mut part: wire::Part) -> Result<bool> {
        loop {
            part = match runtime()?.block_on(link.parts.send_timeout(part, PULSE)) {
                Ok(()) => return Ok(true),
                Err(SendTimeoutError::Closed(_)) => return Ok(false),
                Err(SendTimeoutError::Timeout(part)) => part,
            };
            self.cancel.check()?;
            if self.is_over() || self.is_broken() {
                return Ok(false);
            }
        }
    }

    fn is_broken(&self) -> bool {
        self.links.iter().flatten().any(|link| link.broken.load(Ordering::Acquire))
    }
}

impl Link {
    fn open(seat: &Arc<Seat>, to: &Chair) -> Result<Self> {
        let (parts, outgoing) = mpsc::channel(WAITING);
        // The first piece says for whom all are; there is room for it.
        let key = wire::key_bytes(seat.key);
        let _ = parts.try_send(wire::Part { seat: to.seat, key, ..Default::default() });
        let broken = Arc::new(AtomicBool::new(false));
        let (mark, seat_of_mark) = (broken.clone(), Arc::downgrade(seat));
        let runtime = runtime()?;
        let _entered = runtime.enter();
        let mut client = peer(&to.peer, &seat.token)?;
        runtime.spawn(async move {
            if let Err(status) = client.give(ReceiverStream::new(outgoing)).await {
                tracing::debug!("a member of a gang can't be reached: {status}");
                mark.store(true, Ordering::Release);
                if let Some(seat) = seat_of_mark.upgrade() {
                    seat.mailbox.ring();
                }
            }
        });
        Ok(Self { parts, broken })
    }
}

impl Collective for Streams {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.links.len()
    }

    fn is_over(&self) -> bool {
        self.seat.is_over(self.epoch)
    }

    fn answer(&mut self, bytes: usize) -> Result<(&mut [u8], Vec<&[u8]>)> {
        self.bytes = bytes;
        let [even, odd] = &mut self.given;
        let (last, next) = if slot(self.turn) == 0 { (even, odd) } else { (odd, even) };
        next.resize(bytes, 0);
        let own = &last.as_slice()[self.own.clone()];
        let taken = self.taken.iter().enumerate();
        let incoming = taken.map(|(rank, taken)| if rank == self.rank { own } else { taken.as_slice() });
        Ok((next.as_slice_mut(), incoming.collect()))
    }

    fn exchange(&mut self, parts: &[Range<usize>]) -> Result<bool> {
        self.cancel.check()?;
        check_parts(parts, self.links.len(), self.bytes)?;
        self.turn += 1;
        self.own = parts[self.rank].clone();
        for (rank, part) in parts.iter().enumerate() {
            if !self.send(rank, part.clone())? {
                return Ok(false);
            }
        }
        for from in (0..self.links.len()).filter(|from| *from != self.rank) {
            let over = || {
                self.cancel.check()?;
                Ok(self.is_over() || self.is_broken())
            };
            match self.seat.mailbox.take((self.epoch, self.turn, from as u32), over)? {
                Some(content) => self.taken[from] = content,
                None => return Ok(false),
            }
        }
        self.bytes = 0;
        self.seat.prosper();
        Ok(true)
    }

    fn incoming(&self, rank: usize) -> &[u8] {
        match rank == self.rank {
            true => &self.given[slot(self.turn)].as_slice()[self.own.clone()],
            false => self.taken[rank].as_slice(),
        }
    }

    fn is_whole(&self) -> bool {
        true
    }
}

/// Takes what another worker gives to a member here.
pub(in crate::worker) async fn receive(seats: &Seats, mut parts: Streaming<wire::Part>) -> Result<(), Status> {
    let wrong = |what: &str| Status::invalid_argument(what.to_owned());
    let Some(address) = parts.message().await? else { return Ok(()) };
    let gone = || Status::not_found("the member is gone");
    let seat = seats.get(address.seat).filter(|seat| *wire::key_bytes(seat.key) == *address.key).ok_or_else(gone)?;
    // Whoever has left must not be held by a connection.
    let seat = Arc::downgrade(&seat);
    while let Some(first) = parts.message().await? {
        if first.bytes > MOST_BYTES {
            return Err(wrong("a part is larger than any"));
        }
        let place = (first.epoch, first.turn, first.from);
        let bytes = first.bytes as usize;
        let mut content = MutableBuffer::new(bytes.min(first.content.len().max(CHUNK_BYTES * 4)));
        content.extend_from_slice(&first.content);
        while content.len() < bytes {
            let next = parts.message().await?.ok_or_else(|| wrong("a part ends too soon"))?;
            if (next.epoch, next.turn, next.from) != place || next.content.is_empty() {
                return Err(wrong("a part is mixed up with another"));
            }
            content.extend_from_slice(&next.content);
        }
        if content.len() != bytes {
            return Err(wrong("a part is longer than it should be"));
        }
        seat.upgrade().ok_or_else(gone)?.mailbox.put(place, content);
    }
    Ok(())
}
