//! Waiting for what is about to happen: to sleep and to be woken takes longer than most of it.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant};

/// How long somebody looks again and again before it sleeps.
const SOON: Duration = Duration::from_micros(150);
/// How often in a row that may be in vain.
const VAIN: u32 = 3;
/// Then only one wait in so many begins so.
const SELDOM: u32 = 64;

/// Whether what somebody waits for tends to come soon. Only then does it stay awake for it, and lets others run
/// meanwhile: who waits for long sleeps.
#[derive(Debug, Default)]
pub(crate) struct Soon {
    vain: u32,
}

impl Soon {
    /// Looks for something until it is there or does not come soon.
    pub(crate) fn look<T>(&mut self, mut look: impl FnMut() -> Option<T>) -> Option<T> {
        if let Some(found) = look() {
            return Some(found);
        }
        if !self.is_worth_it() {
            return None;
        }
        let begun = Instant::now();
        while begun.elapsed() < SOON {
            std::thread::yield_now();
            if let Some(found) = look() {
                self.vain = 0;
                return Some(found);
            }
        }
        self.vain += 1;
        None
    }

    /// Waits for a future, on a runtime of one thread, which does not sleep meanwhile either: nobody need wake it to tell it
    /// something.
    pub(crate) async fn wait<F: Future>(&mut self, future: F) -> F::Output {
        let mut future = pin!(future);
        let mut since: Option<Instant> = None;
        let mut looks = true;
        poll_fn(|context| {
            if let Poll::Ready(found) = future.as_mut().poll(context) {
                self.vain = if looks && since.is_some() { 0 } else { self.vain };
                return Poll::Ready(found);
            }
            let begun = *since.get_or_insert_with(|| {
                looks = self.is_worth_it();
                Instant::now()
            });
            if looks && begun.elapsed() < SOON {
                std::thread::yield_now();
                context.waker().wake_by_ref();
            } else if looks {
                looks = false;
                self.vain += 1;
            }
            Poll::Pending
        })
        .await
    }

    /// Whether to look again and again this time.
    fn is_worth_it(&mut self) -> bool {
        if self.vain < VAIN {
            return true;
        }
        self.vain = if self.vain < SELDOM { self.vain + 1 } else { VAIN - 1 };
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Wake, Waker};

    #[test]
    fn who_waits_in_vain_hardly_looks_any_more() {
        let mut soon = Soon::default();
        let looks = |soon: &mut Soon| {
            let mut looks = 0;
            let found: Option<()> = soon.look(|| {
                looks += 1;
                None
            });
            assert!(found.is_none());
            looks
        };
        for _ in 0..VAIN {
            looks(&mut soon);
        }
        let slept = (0..1000).filter(|_| looks(&mut soon) == 1).count();
        assert!(slept > 950, "{slept}");
        assert_eq!(soon.look(|| Some(7)), Some(7));
    }

    #[test]
    fn what_is_sent_is_heard_whether_it_looks_or_sleeps() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (asks, mut asked) = tokio::sync::mpsc::unbounded_channel::<u32>();
        let (answers, answered) = std::sync::mpsc::channel();
        runtime.spawn(async move {
            let mut soon = Soon::default();
            while let Some(number) = soon.wait(asked.recv()).await {
                answers.send((number, soon.vain)).unwrap();
            }
        });
        for number in 0..100 {
            asks.send(number).unwrap();
            assert_eq!(answered.recv().unwrap().0, number);
        }
        drop(asks);
        assert!(answered.recv().is_err(), "it ends when there is nobody left to hear");
    }

    /// Counts how often it is woken.
    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_future_that_does_not_come_soon_is_waited_for_asleep() {
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(woken.clone());
        let mut soon = Soon::default();
        for round in 1..VAIN + 5 {
            let before = woken.0.load(Ordering::Relaxed);
            {
                let mut waiting = pin!(soon.wait(std::future::pending::<()>()));
                let mut last = None;
                // As long as it wakes itself, it is polled again.
                while last.replace(woken.0.load(Ordering::Relaxed)) != Some(woken.0.load(Ordering::Relaxed)) {
                    assert!(waiting.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
                }
            }
            assert_eq!(soon.vain, round);
            let looked = woken.0.load(Ordering::Relaxed) > before;
            assert!(!looked || round <= VAIN, "it looked in round {round}");
        }
    }
}
