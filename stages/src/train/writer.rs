//! Checkpoints, written beside the training on a thread of their own.

use super::cadence::Cadence;
use super::state::State;
use ropeway_framework::data::Tensors;
use ropeway_framework::stage::{Checkpoint, Progress};
use ropeway_framework::{Context, Error, Result};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

/// Keeps checkpoints. The training only copies its state; if the store is slower than the cadence,
/// a newer state takes the place of one that still waits.
///
/// A training that ends by an error has what waits written before the error is heard of; one that ends well has no
/// more use for it. A store that fails once or twice costs a checkpoint, and not the training.
pub(super) struct Writer {
    cadence: Cadence,
    last: Instant,
    progress: Progress,
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
    state: Option<(u64, Tensors)>,
    closed: bool,
    /// Why those that were to be written last were not.
    failed: Vec<Error>,
    /// The step of the newest that was.
    kept: Option<u64>,
}

/// So many in a row that can't be written end the training: nobody would know how much of it could be lost.
const MOST_FAILED: usize = 3;

impl Desk {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next state to write; `None` when there will be no more.
    fn next(&self) -> Option<(u64, Tensors)> {
        let idle = |waiting: &mut Waiting| waiting.state.is_none() && !waiting.closed;
        self.changed.wait_while(self.lock(), idle).unwrap_or_else(PoisonError::into_inner).state.take()
    }
}

impl Writer {
    /// # Errors
    /// The system gives no thread.
    pub(super) fn start(cadence: Cadence, checkpoint: Checkpoint, progress: &Progress) -> Result<Self> {
        let desk = Arc::<Desk>::default();
        let (theirs, said) = (desk.clone(), progress.clone());
        let write = move || {
            while let Some((step, state)) = theirs.next() {
                let saved = checkpoint.save(state);
                let mut waiting = theirs.lock();
                match saved {
                    Ok(()) => {
                        waiting.kept = Some(step);
                        waiting.failed.clear();
                    }
                    Err(error) => {
                        said.log(format!("the checkpoint of step {step} can't be kept: {error}"));
                        waiting.failed.push(error);
                    }
                }
            }
        };
        let thread = std::thread::Builder::new().name("ropeway-checkpoints".to_owned()).spawn(write);
        let thread = thread.context("can't start the thread that writes checkpoints")?;
        Ok(Self { cadence, last: Instant::now(), progress: progress.clone(), desk, thread: Some(thread) })
    }

    /// Whether it is time to keep a state.
    pub(super) fn is_due(&self, state: &State) -> bool {
        self.cadence.due(state, self.last)
    }

    /// Keeps the state.
    ///
    /// # Errors
    /// The last few could not be written.
    pub(super) fn keep(&mut self, state: &State) -> Result<()> {
        self.last = Instant::now();
        let tensors = state.tensors()?;
        let mut waiting = self.desk.lock();
        if waiting.failed.len() >= MOST_FAILED
            && let Some(error) = waiting.failed.pop()
        {
            return Err(error.context(format!("{MOST_FAILED} checkpoints in a row can't be kept")));
        }
        waiting.state = Some((state.step, tensors));
        drop(waiting);
        self.desk.changed.notify_one();
        Ok(())
    }

    /// Has what waits written, and says which checkpoint there is of a training that went wrong.
    pub(super) fn say_what_is_kept(&mut self) {
        self.close();
        if let Some(step) = self.desk.lock().kept {
            self.progress.log(format!("the checkpoint of step {step} is kept"));
        }
    }

    /// The training is over: what still waits is not needed.
    pub(super) fn finish(self) {
        self.desk.lock().state = None;
    }

    /// Waits until nothing waits to be written.
    fn close(&mut self) {
        self.desk.lock().closed = true;
        self.desk.changed.notify_one();
        // It panics only if the store does, and then there is no checkpoint to be had.
        self.thread.take().map(JoinHandle::join);
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.close();
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
        (
            Writer::start(cadence, Checkpoint::new(Arc::new(Slow(Mutex::new((begun, ended))))), &Progress::default())
                .unwrap(),
            seen,
            end,
        )
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
    fn a_store_that_fails_again_and_again_ends_the_training() {
        let (mut writer, seen, end) = slow();
        let mut fail = |step: u64, why: Option<&str>| {
            writer.keep(&at(step)).map_err(|error| error.to_string())?;
            assert_eq!(seen.recv().unwrap(), step);
            let told = |waiting: &Waiting| (waiting.failed.len(), waiting.kept);
            let before = told(&writer.desk.lock());
            end.send(why.map_or(Ok(()), |why| Err(Error::new(why)))).unwrap();
            while told(&writer.desk.lock()) == before {
                std::thread::yield_now();
            }
            Ok::<_, String>(())
        };
        // Twice is no reason to stop, and what is written in between makes up for it.
        for step in [1, 2, 4, 5] {
            fail(step, Some("it is busy")).unwrap();
            if step == 2 {
                fail(3, None).unwrap();
            }
        }
        fail(6, Some("the disk is full")).unwrap();
        assert_eq!(fail(7, None).unwrap_err(), "3 checkpoints in a row can't be kept: the disk is full");
        assert_eq!(writer.desk.lock().kept, Some(3));
    }
}
