//! A worker's threads and the line of attempts that wait for them.

use super::embedded::EmbeddedWorker;
use super::{Assignment, Failure, Outcome};
use crate::fast_map::FastMap;
use crate::schedule::Lane;
use crate::{Error, Result};
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

type Done = Box<dyn FnOnce(Result<Outcome, Failure>) + Send>;
type Job = (Box<Assignment>, Done);

/// Runs attempts in the order in which they are given, as many at a time as there is room for, by the rule that the
/// scheduler's books follow too ([`Lane`]). A thread that ends an attempt begins the next one itself.
///
/// Cloning is cheap and shares the line.
pub(crate) struct Hands<T>(Arc<Shared<T>>);

struct Shared<T> {
    worker: EmbeddedWorker,
    line: Mutex<Line<T>>,
}

struct Line<T> {
    lane: Lane<T>,
    waiting: FastMap<T, Job>,
}

impl<T> Clone for Hands<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: Copy + Ord + Hash + Send + 'static> Hands<T> {
    /// Nobody is in line yet.
    pub(crate) fn new(worker: EmbeddedWorker) -> Self {
        let has = worker.capacity();
        let lane = Lane::new(has.millicores, has.memory);
        Self(Arc::new(Shared { worker, line: Mutex::new(Line { lane, waiting: FastMap::default() }) }))
    }

    /// Puts an attempt in line; `done` hears how it ended, on the attempt's thread.
    ///
    /// # Errors
    /// It needs more than there is.
    pub(crate) fn give(
        &self,
        id: T,
        work: Box<Assignment>,
        done: impl FnOnce(Result<Outcome, Failure>) + Send + 'static,
    ) -> Result<()> {
        let mut line = self.line();
        if !line.lane.push(id, &work.needs) {
            return Err(Error::new(format!("it needs {}, which this worker lacks", work.needs)));
        }
        line.waiting.insert(id, (work, Box::new(done)));
        self.begin_all(line);
        Ok(())
    }

    /// Takes an attempt back that still waits; whether it did. Nobody hears of its end.
    pub(crate) fn take_back(&self, id: T) -> bool {
        let mut line = self.line();
        let waited = line.waiting.remove(&id).is_some();
        if waited {
            line.lane.end(id);
            // What waited behind it may fit.
            self.begin_all(line);
        }
        waited
    }

    /// How many attempts run, and how many wait for room.
    pub(crate) fn load(&self) -> (usize, usize) {
        let line = self.line();
        (line.lane.running().len(), line.lane.waiting().len())
    }

    /// Begins whoever has room now, each on a thread.
    fn begin_all<'a>(&'a self, mut line: MutexGuard<'a, Line<T>>) {
        loop {
            let mut ready = Vec::new();
            while let Some(id) = line.lane.start_next() {
                ready.extend(line.waiting.remove(&id).map(|job| (id, job)));
            }
            drop(line);
            // Where one can't begin there is room for the next.
            let failed = ready.into_iter().map(|(id, job)| self.begin(id, job)).filter(|begun| !begun).count();
            if failed == 0 {
                return;
            }
            line = self.line();
        }
    }

    /// Begins an attempt on a thread of its own; whether the system gives one. If not, the attempt has failed.
    fn begin(&self, id: T, job: Job) -> bool {
        let this = self.clone();
        let job = Arc::new(Mutex::new(Some(job)));
        let take = |job: &Mutex<Option<Job>>| job.lock().unwrap_or_else(PoisonError::into_inner).take();
        let given = job.clone();
        let begun = self.0.worker.spawn(move || {
            let (mut this, mut next) = (Some(this), take(&given).map(|job| (id, job)));
            while let Some((id, (work, done))) = next.take()
                && let Some(hands) = this.take()
            {
                let result = hands.0.worker.execute(&work);
                drop(work);
                next = hands.next(id);
                // Whoever hears of the end may be the last to need the store: by then this thread has let go of it.
                this = next.is_some().then_some(hands);
                done(result);
            }
        });
        let Err(error) = begun else { return true };
        self.line().lane.end(id);
        if let Some((_, done)) = take(&job) {
            done(Err(error.into()));
        }
        false
    }

    /// An attempt has ended: what its thread does next. Others that fit as well begin on threads of their own.
    fn next(&self, ended: T) -> Option<(T, Job)> {
        let mut line = self.line();
        line.lane.end(ended);
        let first = line.lane.start_next()?;
        let job = line.waiting.remove(&first).map(|job| (first, job));
        self.begin_all(line);
        job
    }

    fn line(&self) -> MutexGuard<'_, Line<T>> {
        self.0.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
