//! How many bytes of artifacts this process may hold, and who waits when there would be more.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::futures::Notified;
use tokio::sync::{Mutex as Turnstile, MutexGuard as Turn, Notify};

/// Counts the bytes of artifacts in memory against a cap. Cloning shares the count.
///
/// What is held is counted by a [`Lease`]. Whoever is about to need memory asks for a [`Passage`] first; that is an
/// operation under way, which ends by itself and waits for no other. So waiting can't end in a deadlock: one waits
/// only as long as an operation is under way, and what stages hold when none is does not keep the next one from
/// passing alone.
#[derive(Clone)]
pub(in crate::store) struct Budget(Arc<Shared>);

struct Shared {
    count: Mutex<Count>,
    /// Something was let go, or an operation ended.
    changed: Notify,
    /// Those who want to pass stand in line, so that a large artifact gets its turn.
    line: Turnstile<()>,
}

/// The counted bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) struct Count {
    /// What may be held.
    pub(in crate::store) cap: u64,
    /// What is held, or about to be.
    pub(in crate::store) used: u64,
    /// The most that ever was.
    pub(in crate::store) peak: u64,
    /// Operations that were let through and have not ended.
    under_way: usize,
}

/// Bytes that are counted as long as this lives.
pub(in crate::store) struct Lease {
    budget: Budget,
    bytes: u64,
}

/// An operation that was let through: it ends when this is dropped.
pub(in crate::store) struct Passage {
    lease: Lease,
}

/// When somebody may pass.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    /// There is room.
    Room,
    /// There is room, or no operation is under way: what is held then may be held for ever.
    Alone,
}

impl Budget {
    pub(super) fn new(cap: u64) -> Self {
        let count = Mutex::new(Count { cap, used: 0, peak: 0, under_way: 0 });
        Self(Arc::new(Shared { count, changed: Notify::new(), line: Turnstile::new(()) }))
    }

    pub(super) fn set_cap(&self, cap: u64) {
        self.lock().cap = cap;
        self.0.changed.notify_waiters();
    }

    pub(super) fn count(&self) -> Count {
        *self.lock()
    }

    /// Whether no operation is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.lock().under_way == 0
    }

    pub(super) fn is_over(&self) -> bool {
        let count = self.lock();
        count.used > count.cap
    }

    pub(super) fn is_over_half(&self) -> bool {
        let count = self.lock();
        count.used > count.cap / 2
    }

    /// The place at the head of the line, which is first come, first served.
    pub(super) async fn turn(&self) -> Turn<'_, ()> {
        self.0.line.lock().await
    }

    /// Ends when something was let go or an operation ended since this call.
    pub(super) fn changed(&self) -> Notified<'_> {
        self.0.changed.notified()
    }

    /// Lets an operation through that needs so many bytes, if the rule allows it.
    pub(super) fn pass(&self, bytes: u64, rule: Rule) -> Option<Passage> {
        let mut count = self.lock();
        let alone = rule == Rule::Alone && count.under_way == 0;
        if !alone && count.used.saturating_add(bytes) > count.cap {
            return None;
        }
        count.under_way += 1;
        count.add(bytes);
        drop(count);
        Some(Passage { lease: Lease { budget: self.clone(), bytes } })
    }

    fn lock(&self) -> MutexGuard<'_, Count> {
        self.0.count.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Count {
    fn add(&mut self, bytes: u64) {
        self.used = self.used.saturating_add(bytes);
        self.peak = self.peak.max(self.used);
    }
}

impl Lease {
    fn resize(&mut self, bytes: u64) {
        let mut count = self.budget.lock();
        count.used = count.used.saturating_sub(self.bytes);
        count.add(bytes);
        let fewer = bytes < self.bytes;
        self.bytes = bytes;
        drop(count);
        if fewer {
            self.budget.0.changed.notify_waiters();
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.resize(0);
        }
    }
}

impl Passage {
    /// Takes part of its bytes out, to be counted for longer than the operation; more if it turned out to need more.
    pub(in crate::store) fn lease(&mut self, bytes: u64) -> Lease {
        let taken = bytes.min(self.lease.bytes);
        self.lease.bytes -= taken;
        let mut lease = Lease { budget: self.lease.budget.clone(), bytes: taken };
        if bytes > taken {
            lease.resize(bytes);
        }
        lease
    }

    /// Needs none of its bytes any more; the operation goes on.
    pub(super) fn give_back(&mut self) {
        self.lease.resize(0);
    }
}

impl Drop for Passage {
    fn drop(&mut self) {
        self.lease.budget.lock().under_way -= 1;
        self.lease.resize(0);
        self.lease.budget.0.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_leased_outlives_its_operation() {
        let budget = Budget::new(100);
        let mut passage = budget.pass(60, Rule::Room).unwrap();
        let lease = passage.lease(40);
        assert_eq!(budget.count().used, 60);
        drop(passage);
        assert_eq!(budget.count().used, 40);
        drop(lease);
        assert_eq!((budget.count().used, budget.count().peak), (0, 60));
    }

    #[test]
    fn more_than_asked_for_is_counted_as_well() {
        let budget = Budget::new(100);
        let mut passage = budget.pass(10, Rule::Room).unwrap();
        let _lease = passage.lease(150);
        assert!(budget.is_over());
        assert_eq!(budget.count().used, 150);
    }

    #[test]
    fn one_passes_alone_when_nothing_is_under_way() {
        let budget = Budget::new(100);
        let held = budget.pass(90, Rule::Room).unwrap().lease(90);
        assert!(budget.pass(20, Rule::Room).is_none());
        let first = budget.pass(20, Rule::Alone).unwrap();
        assert!(budget.pass(20, Rule::Alone).is_none());
        drop(first);
        assert!(budget.pass(20, Rule::Alone).is_some());
        drop(held);
        assert_eq!(budget.count().used, 0);
    }
}
