//! Work on several threads whose result does not depend on their number.

use ropeway_framework::stage::Threads;
use std::sync::{Mutex, PoisonError};
use std::thread;

/// Takes items from `next`, one at a time and in order, works on them on several threads, and gives the results in the
/// order of the items.
///
/// It stops at the first failed item, or once `enough` rows (as `rows` counts them) are there without a gap. So the
/// results up to the first failure, or up to enough rows, are the same for any number of threads; what comes after
/// depends on chance and must be dropped.
pub(super) fn ordered<T, R, E>(
    threads: Threads,
    enough: Option<u64>,
    next: impl FnMut() -> Result<Option<T>, E> + Send,
    work: impl Fn(T) -> Result<R, E> + Sync,
    rows: impl Fn(&R) -> u64 + Sync,
) -> Vec<Result<R, E>>
where
    R: Send,
    E: Send,
{
    struct State<N, R, E> {
        next: N,
        done: Vec<Option<Result<R, E>>>,
        /// Items that are done without a gap, and their rows.
        prefix: (usize, u64),
        stop: bool,
    }
    let state = Mutex::new(State { next, done: Vec::new(), prefix: (0, 0), stop: false });
    let run = || {
        loop {
            let mut held = state.lock().unwrap_or_else(PoisonError::into_inner);
            if held.stop {
                return;
            }
            let (place, item) = match (held.next)() {
                Ok(Some(item)) => (held.done.len(), item),
                Ok(None) => {
                    held.stop = true;
                    return;
                }
                Err(error) => {
                    held.done.push(Some(Err(error)));
                    held.stop = true;
                    return;
                }
            };
            held.done.push(None);
            drop(held);
            let result = work(item);
            let mut held = state.lock().unwrap_or_else(PoisonError::into_inner);
            held.stop |= result.is_err();
            if let Some(slot) = held.done.get_mut(place) {
                *slot = Some(result);
            }
            while let Some(Some(Ok(result))) = held.done.get(held.prefix.0) {
                let more = rows(result);
                held.prefix = (held.prefix.0 + 1, held.prefix.1 + more);
            }
            held.stop |= enough.is_some_and(|enough| held.prefix.1 >= enough);
        }
    };
    thread::scope(|scope| {
        for _ in 1..threads.0.max(1) {
            scope.spawn(run);
        }
        run();
    });
    let state = state.into_inner().unwrap_or_else(PoisonError::into_inner);
    state.done.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    fn count(to: u64) -> impl FnMut() -> Result<Option<u64>, String> + Send {
        let mut at = 0;
        move || {
            at += 1;
            Ok((at <= to).then_some(at))
        }
    }

    /// Ends each item only when all before it are counted: then no thread is ahead by chance.
    struct Turns(AtomicU64);

    impl Turns {
        fn wait(&self, item: u64) {
            while self.0.load(Ordering::SeqCst) < item - 1 {
                thread::yield_now();
            }
        }

        fn count(&self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn results_are_in_the_order_of_the_items() {
        for threads in 1..5 {
            let results = ordered(Threads(threads), None, count(100), |item| Ok(item * item), |_| 1);
            let values: Vec<u64> = results.into_iter().map(Result::unwrap).collect();
            assert_eq!(values, (1..=100).map(|item| item * item).collect::<Vec<_>>());
        }
    }

    #[test]
    fn the_first_failure_and_all_before_it_are_there() {
        for threads in 1..5 {
            let fail = |item: u64| {
                // Others take seconds to come to the end, if they are not stopped.
                thread::sleep(Duration::from_millis(if item > 29 { 10 } else { 0 }));
                if item % 30 == 29 { Err(format!("{item}")) } else { Ok(item) }
            };
            let results = ordered(Threads(threads), None, count(1000), fail, |_| 1);
            assert_eq!(results.iter().find_map(|result| result.as_ref().err()).unwrap(), "29");
            assert!(results.len() < 1000);
        }
    }

    #[test]
    fn it_stops_when_there_is_enough() {
        for threads in 1..5 {
            let turns = Turns(AtomicU64::new(0));
            let work = |item: u64| -> Result<u64, String> {
                turns.wait(item);
                Ok(item)
            };
            let rows = |_: &u64| {
                turns.count();
                10
            };
            let results = ordered(Threads(threads), Some(50), count(1000), work, rows);
            assert!(results.len() >= 5 && results.len() < 5 + threads, "{}", results.len());
        }
    }
}
