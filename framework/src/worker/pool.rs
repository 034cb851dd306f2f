//! Threads that are kept for the next task.

use crate::soon::Soon;
use crate::{Context, Result};
use std::sync::mpsc::TryRecvError;
use std::sync::{Arc, Mutex, PoisonError, mpsc};

/// Deep SQL expressions recurse; main threads have as much.
const STACK_BYTES: usize = 8 << 20;

type Job = Box<dyn FnOnce() + Send>;

/// Runs each job on a thread of its own at once; a thread that is done waits for the next job. How many jobs may run is
/// the scheduler's business.
#[derive(Clone, Default)]
pub(super) struct Pool(Arc<Mutex<Vec<mpsc::Sender<Job>>>>);

impl Pool {
    pub(super) fn run(&self, job: impl FnOnce() + Send + 'static) -> Result<()> {
        let mut job: Job = Box::new(job);
        // A thread that ended while it waited is passed over.
        while let Some(idle) = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop() {
            match idle.send(job) {
                Ok(()) => return Ok(()),
                Err(mpsc::SendError(back)) => job = back,
            }
        }
        let (sender, receiver) = mpsc::channel::<Job>();
        let idle = Arc::downgrade(&self.0);
        let work = move || {
            job();
            let mut soon = Soon::default();
            loop {
                // The pool is gone: so is the thread.
                let Some(pool) = idle.upgrade() else { return };
                pool.lock().unwrap_or_else(PoisonError::into_inner).push(sender.clone());
                drop(pool);
                let next = soon.look(|| match receiver.try_recv() {
                    Err(TryRecvError::Empty) => None,
                    next => Some(next.ok()),
                });
                let Some(next) = next.unwrap_or_else(|| receiver.recv().ok()) else { return };
                next();
            }
        };
        let thread = std::thread::Builder::new().name("ropeway-task".into()).stack_size(STACK_BYTES).spawn(work);
        thread.map(drop).context("the system gives no more threads")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn threads_are_used_again_and_jobs_never_wait_for_each_other() {
        let pool = Pool::default();
        let (sender, receiver) = mpsc::channel();
        let mut seen = HashSet::new();
        for _ in 0..50 {
            let done = sender.clone();
            pool.run(move || done.send(std::thread::current().id()).unwrap()).unwrap();
            seen.insert(receiver.recv().unwrap());
        }
        assert!(seen.len() < 50, "no thread served twice");

        // The first job waits for the second: each must have its own thread.
        let (first, second) = (mpsc::channel(), mpsc::channel());
        pool.run(move || first.0.send(second.1.recv().unwrap()).unwrap()).unwrap();
        pool.run(move || second.0.send(7).unwrap()).unwrap();
        assert_eq!(first.1.recv().unwrap(), 7);
    }
}
