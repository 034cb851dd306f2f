//! How many tasks of one stage are under way at the same time: a million that are handed in at once need not all be in
//! memory at once.

use crate::Error;
use crate::data::Ref;
use crate::stage::Answer;
use crate::worker::Inputs;
use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Tasks that one attempt of a stage has under way at most.
const MOST: usize = 4096;
/// Whoever waits goes on when so many are left: early enough that workers do not run out of what to do meanwhile.
const FEWER: usize = MOST / 8 * 7;

/// Counts the tasks of one attempt of a stage, and holds it back when there are too many. Each attempt has its own:
/// those that run tasks for others can't be in each other's way.
#[derive(Default)]
pub(super) struct Window {
    open: Mutex<Open>,
    room: Condvar,
}

#[derive(Default)]
struct Open {
    tasks: usize,
    waits: bool,
}

/// A task's place in a window, until it is dropped.
pub(super) struct Place(Arc<Window>);

/// Where a stage that asked for a task hears its outputs.
pub(super) struct Reply {
    pub(super) answer: Answer,
    /// Reads them for it.
    pub(super) source: Arc<Inputs>,
    pub(super) _place: Place,
}

impl Reply {
    pub(super) fn give(self, outputs: &BTreeMap<String, Ref>) {
        self.answer.give(outputs, self.source);
    }

    pub(super) fn fail(self, error: Error) {
        self.answer.fail(error);
    }
}

impl Window {
    /// Waits for a place.
    pub(super) fn enter(window: &Arc<Self>) -> Place {
        let mut open = window.lock();
        while open.tasks >= MOST {
            open.waits = true;
            // Woken once for many that ended, and not for each.
            open = window.room.wait_while(open, |open| open.waits).unwrap_or_else(PoisonError::into_inner);
        }
        open.tasks += 1;
        Place(window.clone())
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.0.lock();
        open.tasks -= 1;
        if open.waits && open.tasks <= FEWER {
            open.waits = false;
            self.0.room.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_for_too_much_waits_until_some_of_it_is_done() {
        let window = Arc::new(Window::default());
        let mut places: Vec<Place> = (0..MOST).map(|_| Window::enter(&window)).collect();
        let another = {
            let window = window.clone();
            std::thread::spawn(move || drop(Window::enter(&window)))
        };
        while !window.lock().waits {
            std::thread::yield_now();
        }
        places.truncate(FEWER + 1);
        assert!(window.lock().waits, "one too many is still open");
        places.pop();
        another.join().unwrap();
        assert_eq!(window.lock().tasks, FEWER);
    }
}
