//! Gangs: how the members of one task, on several workers, find each other and exchange what they compute.
//!
//! The coordinator says who is in the circle ([`Circle`]); each time somebody comes or goes there is a new one, with the
//! next epoch. The members themselves carry the data: through memory that they share on one machine ([`memory`],
//! [`shared`]), and else over connections of their own ([`streams`]).

mod memory;
mod shared;
mod streams;
#[cfg(test)]
mod tests;

pub(super) use streams::receive;

use super::token::Token;
use crate::stage::{Cancel, Collective, Meeting};
use crate::store::{Key, kernel};
use crate::{Error, Result};
use memory::Memory;
use shared::Shared;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};
use streams::{Mailbox, Streams};

/// How often who waits looks whether it is to stop.
const PULSE: Duration = Duration::from_millis(20);
/// How long the coordinator has to notice by itself that a member is gone, before it is asked for another circle.
const NOTICE: Duration = Duration::from_millis(200);
/// How often it is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(2);
/// Circles in a row in which nothing could be exchanged, until a member gives up.
const MOST_FUTILE: u32 = 30;

/// Who is in, as of an epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Circle {
    /// Counts the circles of a gang; never goes back.
    pub(crate) epoch: u64,
    /// Which of the chairs is one's own.
    pub(crate) rank: usize,
    pub(crate) chairs: Vec<Chair>,
}

/// A member, as the others see it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Chair {
    /// Where its worker is reached by others.
    pub(crate) peer: String,
    /// Its worker's machine.
    pub(crate) machine: String,
    /// Its seat in that worker.
    pub(crate) seat: u64,
    /// Where its memory is found on that machine; empty if it shares none.
    pub(crate) memory: String,
}

/// What a member says to the coordinator: that it is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Present {
    /// The epoch of the circle that it was in last and can't go on with; 0 for none.
    pub(crate) after: u64,
    /// Its seat in its worker.
    pub(crate) seat: u64,
    /// Where its memory is found; empty if it shares none.
    pub(crate) memory: String,
}

/// The seats of a worker, for those who dial it.
#[derive(Default)]
pub(super) struct Seats {
    taken: AtomicU64,
    seats: Mutex<HashMap<u64, Weak<Seat>>>,
}

impl Seats {
    /// Gives a seat to an attempt; `say` tells the coordinator that it is there.
    pub(super) fn take(
        self: &Arc<Self>,
        key: Key,
        token: Token,
        say: impl Fn(Present) + Send + Sync + 'static,
    ) -> Arc<Seat> {
        let number = self.taken.fetch_add(1, Ordering::Relaxed) + 1;
        // Where memory can't be shared, the members use their connections.
        let memory = Memory::create(key).ok();
        let address = memory.as_ref().map(Memory::address).unwrap_or_default();
        let mind = Mind { circle: None, attended: 0, here: false, address, futile: 0 };
        let seat = Arc::new(Seat {
            number,
            key,
            token,
            mind: Mutex::new(mind),
            news: Condvar::new(),
            newest: AtomicU64::new(0),
            memory: Mutex::new(memory),
            mailbox: Mailbox::default(),
            say: Box::new(say),
            seats: self.clone(),
        });
        lock(&self.seats).insert(number, Arc::downgrade(&seat));
        seat
    }

    /// The seat of a number.
    fn get(&self, number: u64) -> Option<Arc<Seat>> {
        lock(&self.seats).get(&number)?.upgrade()
    }
}

/// A member's place in its gang.
pub(super) struct Seat {
    number: u64,
    key: Key,
    token: Token,
    mind: Mutex<Mind>,
    news: Condvar,
    /// The epoch of the newest circle that was heard of.
    newest: AtomicU64,
    /// Its memory, unless the circle under way has it.
    memory: Mutex<Option<Memory>>,
    mailbox: Mailbox,
    say: Box<dyn Fn(Present) + Send + Sync>,
    seats: Arc<Seats>,
}

struct Mind {
    /// The newest circle.
    circle: Option<Circle>,
    /// The epoch of the circle that the member was in last.
    attended: u64,
    /// Whether the member is ready to work.
    here: bool,
    /// Where its memory is found.
    address: String,
    /// Circles in a row in which nothing was exchanged.
    futile: u32,
}

impl Seat {
    /// Hears of a new circle.
    pub(super) fn hear(&self, circle: Circle) {
        let mut mind = lock(&self.mind);
        if mind.circle.as_ref().is_none_or(|known| known.epoch < circle.epoch) {
            self.newest.store(circle.epoch, Ordering::Release);
            self.mailbox.forget_before(circle.epoch);
            mind.circle = Some(circle);
            drop(mind);
            self.news.notify_all();
            self.mailbox.ring();
        }
    }

    /// Says again that it is there, to a coordinator that does not know yet.
    pub(super) fn greet(&self) {
        let mind = lock(&self.mind);
        if mind.here {
            self.present(&mind);
        }
    }

    fn present(&self, mind: &Mind) {
        (self.say)(Present { after: mind.attended, seat: self.number, memory: mind.address.clone() });
    }

    /// Whether there is a newer circle than that of an epoch.
    fn is_over(&self, epoch: u64) -> bool {
        self.newest.load(Ordering::Acquire) > epoch
    }

    /// Something was exchanged: the circle is of use.
    fn prosper(&self) {
        lock(&self.mind).futile = 0;
    }

    /// Waits for the next circle.
    fn wait(&self, cancel: &Cancel) -> Result<Circle> {
        let mut mind = lock(&self.mind);
        let mut ask = Instant::now() + if mind.here { NOTICE } else { Duration::ZERO };
        mind.here = true;
        loop {
            cancel.check()?;
            if let Some(circle) = mind.circle.clone().filter(|circle| circle.epoch > mind.attended) {
                mind.attended = circle.epoch;
                mind.futile += 1;
                if mind.futile > MOST_FUTILE {
                    return Err(Error::unavailable(format!(
                        "the {} members of the gang can't reach each other",
                        circle.chairs.len()
                    ))
                    .help("workers of one training dial each other directly: let them, or use one worker"));
                }
                return Ok(circle);
            }
            if Instant::now() >= ask {
                self.present(&mind);
                ask = Instant::now() + ASK_AGAIN;
            }
            mind = self.news.wait_timeout(mind, PULSE).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Takes a member's place in a circle; `None` if the memory of another can't be seen from here.
    fn join(self: &Arc<Self>, circle: &Circle, cancel: &Cancel) -> Result<Option<Box<dyn Collective>>> {
        let here = kernel();
        let near = circle.chairs.iter().all(|chair| chair.machine == here && !chair.memory.is_empty());
        if !near {
            return Ok(Some(Box::new(Streams::open(self.clone(), circle, cancel.clone())?)));
        }
        let memory = lock(&self.memory).take();
        let mine = memory.ok_or_else(|| Error::new("a gang meets again only after its circle was let go of"))?;
        match Shared::open(self.clone(), mine, circle, cancel.clone()) {
            Ok(shared) => Ok(Some(Box::new(shared))),
            Err(error) => {
                tracing::debug!("the members of a gang use connections: {error}");
                Ok(None)
            }
        }
    }
}

/// The meeting of a seat.
pub(super) struct AtSeat(pub(super) Arc<Seat>);

impl Meeting for AtSeat {
    fn meet(&self, cancel: &Cancel) -> Result<Box<dyn Collective>> {
        loop {
            let circle = self.0.wait(cancel)?;
            if let Some(collective) = self.0.join(&circle, cancel)? {
                return Ok(collective);
            }
            // In another namespace, say: the next circle is one of connections.
            lock(&self.0.mind).address.clear();
            self.0.greet();
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        lock(&self.seats.seats).remove(&self.number);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
