//! Checkpoints, written beside the training on a thread of their own.

use super::cadence::Cadence;
use super::state::State;
use ropeway_framework::data::Tensors;
use ropeway_framework::stage::Checkpoint;
use ropeway_framework::{Context, Error, Result};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

/// Keeps checkpoints. The training only copies its state; if the store is slower than the cadence,
/// a newer state takes the place of one that still waits.
///
/// A training that ends by an error has what waits written before the error is heard of; one that ends well has no
/// more use for it.
pub(super) struct Writer {
    cadence: Cadence,
    last: Instant,
    desk: Arc<Desk>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Desk {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Default)]
struct Waiting {
    state: Option<Tensors>,
    closed: bool,
    failed: Option<Error>,
}

impl Desk {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next state to write; `None` when there will be no more.
    fn next(&self) -> Option<Tensors> {
        let idle = |waiting: &mut Waiting| waiting.state.is_none() && !waiting.closed;
        self.changed.wait_while(self.lock(), idle).unwrap_or_else(PoisonError::into_inner).state.take()
    }
}

impl Writer {
    /// # Errors
    /// The system gives no thread.
    pub(super) fn start(cadence: Cadence, checkpoint: Checkpoint) -> Result<Self> {
        let desk = Arc::<Desk>::default();
        let theirs = desk.clone();
        let write = move || {
            while let Some(state) = theirs.next() {
                if let Err(error) = checkpoint.save(state) {
                    theirs.lock().failed = Some(error);
                }
            }
        };
        let thread = std::thread::Builder::new().name("ropeway-checkpoints".to_owned()).spawn(write);
        let thread = thread.context("can't start the thread that writes checkpoints")?;
        Ok(Self { cadence, last: Instant::now(), desk, thread: Some(thread) })
    }

    /// Whether it is time to keep a state.
    pub(super) fn is_due(&self, state: &State) -> bool {
        self.cadence.due(state, self.last)
    }

    /// Keeps the state.
    ///
    /// # Errors
    /// An earlier one could not be written.
    pub(super) fn keep(&mut self, state: &State) -> Result<()> {
        self.last = Instant::now();
        let state = state.tensors()?;
        let mut waiting = self.desk.lock();
        if let Some(error) = waiting.failed.take() {
            return Err(error.context("a checkpoint can't be kept"));
        }
        waiting.state = Some(state);
        drop(waiting);
        self.desk.changed.notify_one();
        Ok(())
    }

    /// The training is over: what still waits is not needed.
    pub(super) fn finish(self) {
        self.desk.lock().state = None;
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.desk.lock().closed = true;
        self.desk.changed.notify_one();
        // It panics only if the store does, and then there is no checkpoint to be had.
        self.thread.take().map(JoinHandle::join);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ropeway_framework::stage::Checkpoints;
    use std::sync::mpsc::{Receiver, Sender, channel};

    /// A store that takes as long as the test wants.
    struct Slow(Mutex<(Sender<u64>, Receiver<Result<()>>)>);

    impl Checkpoints for Slow {
        fn newest(&self, _: &mut dyn FnMut(String)) -> Result<Option<Tensors>> {
            Ok(None)
        }

        fn save(&self, state: Tensors) -> Result<()> {
            let ends = self.0.lock().unwrap();
            ends.0.send(state.get("counts")?.values::<u64>()?[2]).unwrap();
            ends.1.recv().unwrap()
        }
    }

    fn slow() -> (Writer, Receiver<u64>, Sender<Result<()>>) {
        let ((begun, seen), (end, ended)) = (channel(), channel());
        let cadence: Cadence = serde_json::from_value(serde_json::json!({"steps": 1})).unwrap();
        (Writer::start(cadence, Checkpoint::new(Arc::new(Slow(Mutex::new((begun, ended)))))).unwrap(), seen, end)
    }

    fn at(step: u64) -> State {
        State { step, ..State::default() }
    }

    #[test]
    fn a_slow_store_does_not_stop_the_training() {
        let (mut writer, seen, end) = slow();
        writer.keep(&at(1)).unwrap();
        assert_eq!(seen.recv().unwrap(), 1);
        // Nobody waits while the first is written; of those that come meanwhile the newest is next.
        (2..9).for_each(|step| writer.keep(&at(step)).unwrap());
        end.send(Ok(())).unwrap();
        assert_eq!(seen.recv().unwrap(), 8);
        writer.keep(&at(9)).unwrap();
        end.send(Ok(())).unwrap();
        end.send(Ok(())).unwrap();
        // What waits is written when the training ends by an error.
        drop(writer);
        assert_eq!(seen.iter().collect::<Vec<_>>(), [9]);
    }

    #[test]
    fn a_store_that_fails_is_heard_of_at_the_next() {
        let (mut writer, seen, end) = slow();
        writer.keep(&at(1)).unwrap();
        seen.recv().unwrap();
        end.send(Err(Error::new("the disk is full"))).unwrap();
        end.send(Ok(())).unwrap();
        while writer.desk.lock().failed.is_none() {
            std::thread::yield_now();
        }
        let error = writer.keep(&at(2)).unwrap_err().to_string();
        assert_eq!(error, "a checkpoint can't be kept: the disk is full");
    }
}
