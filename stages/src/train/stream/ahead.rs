//! A thread that makes things ahead of whoever uses them.

use ropeway_framework::stage::Cancel;
use ropeway_framework::{Context, Result};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;

/// Things that a thread of its own makes one by one: while one is used, the next is made, and no more. The thread ends
/// when this is dropped, or after an error.
pub(in crate::train) struct Ahead<T> {
    things: Option<Receiver<Result<T>>>,
    stop: Cancel,
    thread: Option<JoinHandle<()>>,
}

impl<T: Send + 'static> Ahead<T> {
    /// Begins. What makes the things is told by a [`Cancel`] when nobody wants them any more.
    ///
    /// # Errors
    /// The system gives no thread.
    pub(super) fn start<I>(maker: impl FnOnce(Cancel) -> I) -> Result<Self>
    where
        I: Iterator<Item = Result<T>> + Send + 'static,
    {
        // Without room of its own: a thing waits in the hands of the thread until it is taken.
        let (give, things) = sync_channel(0);
        let stop = Cancel::default();
        let maker = maker(stop.clone());
        let work = move || {
            for thing in maker {
                let failed = thing.is_err();
                if give.send(thing).is_err() || failed {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("ropeway-rows".into()).spawn(work);
        let thread = Some(thread.context("can't start the thread that reads rows")?);
        Ok(Self { things: Some(things), stop, thread })
    }

    /// The next one; `None` after the last.
    ///
    /// # Errors
    /// It can't be made.
    pub(in crate::train) fn next(&mut self) -> Result<Option<T>> {
        self.things.as_ref().and_then(|things| things.recv().ok()).transpose()
    }
}

impl<T> Drop for Ahead<T> {
    fn drop(&mut self) {
        self.stop.cancel();
        self.things = None;
        if let Some(thread) = self.thread.take() {
            // If it panicked, it has said so.
            drop(thread.join());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ropeway_framework::Error;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn one_is_made_ahead_and_no_more() {
        let made = Arc::new(AtomicUsize::new(0));
        let (count, (tell, told)) = (made.clone(), std::sync::mpsc::channel());
        let mut ahead = Ahead::start(|_| {
            (0..9).map(move |thing| {
                count.fetch_add(1, Ordering::SeqCst);
                tell.send(()).unwrap();
                Ok(thing)
            })
        })
        .unwrap();
        for thing in 0..9 {
            assert_eq!(ahead.next().unwrap(), Some(thing));
            if thing < 8 {
                // The next one is made by itself, and the one after it not before this is taken.
                (0..if thing == 0 { 2 } else { 1 }).for_each(|_| told.recv().unwrap());
                assert_eq!(made.load(Ordering::SeqCst), thing + 2);
            }
        }
        assert_eq!(ahead.next().unwrap(), None);
    }

    #[test]
    fn an_error_is_the_last_and_who_is_dropped_stops_its_thread() {
        let mut ahead =
            Ahead::start(|_| (0..3).map(|thing| if thing == 1 { Err(Error::new("gone")) } else { Ok(thing) })).unwrap();
        assert_eq!(ahead.next().unwrap(), Some(0));
        assert_eq!(ahead.next().unwrap_err().to_string(), "gone");
        assert_eq!(ahead.next().unwrap(), None);
        // It never ends by itself, so that this ends only if it is told to.
        drop(
            Ahead::start(|stop| {
                std::iter::repeat_with(move || {
                    while !stop.is_cancelled() {
                        std::thread::yield_now();
                    }
                    stop.check()
                })
            })
            .unwrap(),
        );
    }
}
