//! The outputs of a task, as long as they are still to come.

use super::tasks::{Fetch, Stored};
use crate::data::Ref;
use crate::soon::Soon;
use crate::{Error, Fault, Result};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// A task under way.
///
/// Of a task that ended it keeps a few hundred bytes: who hands in millions may hold on to all of them.
pub struct Pending(Arc<Slot>);

/// What answers a [`Pending`], once. If it is dropped, the pending task is given up.
pub struct Answer(Arc<Slot>);

#[derive(Default)]
struct Slot {
    inside: Mutex<Inside>,
    changed: Condvar,
}

#[derive(Default)]
struct Inside {
    state: State,
    /// Whether somebody sleeps until it changes. To wake nobody costs the system as much as to wake somebody.
    waits: bool,
}

#[derive(Default)]
enum State {
    #[default]
    Open,
    Done(Box<[(Box<str>, Ref)]>, Arc<dyn Fetch>),
    Failed(Box<Error>),
    GivenUp,
}

thread_local! {
    /// Whether the answers that this thread waits for tend to come soon.
    static ANSWERS: RefCell<Soon> = RefCell::default();
}

/// A task under way and what answers it.
pub fn pending() -> (Answer, Pending) {
    let slot = Arc::new(Slot::default());
    (Answer(slot.clone()), Pending(slot))
}

impl Slot {
    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, state: State) {
        let mut inside = self.lock();
        inside.state = state;
        let waits = inside.waits;
        drop(inside);
        if waits {
            self.changed.notify_all();
        }
    }
}

impl Answer {
    /// The task gave these outputs, which are in `source`.
    pub fn give(self, outputs: &BTreeMap<String, Ref>, source: Arc<dyn Fetch>) {
        let outputs = outputs.iter().map(|(port, made)| (port.as_str().into(), *made)).collect();
        self.0.set(State::Done(outputs, source));
    }

    /// Whether nobody waits for it any more.
    pub fn is_for_nobody(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }

    /// The task failed.
    pub fn fail(self, error: Error) {
        self.0.set(State::Failed(Box::new(error)));
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if matches!(self.0.lock().state, State::Open) {
            self.0.set(State::GivenUp);
        }
    }
}

impl Pending {
    /// A task that nobody runs.
    pub(super) fn given_up() -> Self {
        pending().1
    }

    /// Waits for the task's outputs, by port.
    ///
    /// # Errors
    /// The task failed, or the run ends.
    pub fn wait(self) -> Result<BTreeMap<String, Stored>> {
        let is_open = || matches!(self.0.lock().state, State::Open);
        ANSWERS.with_borrow_mut(|answers| answers.look(|| (!is_open()).then_some(())));
        let mut inside = self.0.lock();
        inside.waits = true;
        let inside = self.0.changed.wait_while(inside, |inside| matches!(inside.state, State::Open));
        match std::mem::take(&mut inside.unwrap_or_else(PoisonError::into_inner).state) {
            State::Done(outputs, source) => {
                let stored = |(port, made): &(Box<str>, Ref)| (port.to_string(), Stored::new(*made, source.clone()));
                Ok(outputs.iter().map(stored).collect())
            }
            State::Failed(error) => Err(*error),
            State::Open | State::GivenUp => Err(Error::new("the run ended before this task").fault(Fault::Interrupted)),
        }
    }
}

impl fmt::Debug for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("pending task")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_is_dropped_gives_the_task_up() {
        let (answer, pending) = pending();
        let waiting = std::thread::spawn(move || pending.wait());
        drop(answer);
        assert_eq!(waiting.join().unwrap().unwrap_err().whose(), Fault::Interrupted);
        assert!(Pending::given_up().wait().is_err());
    }

    #[test]
    fn what_failed_says_why() {
        let (answer, pending) = pending();
        answer.fail(Error::new("no"));
        assert_eq!(pending.wait().unwrap_err().to_string(), "no");
    }
}
