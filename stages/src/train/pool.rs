//! Threads for work that was already cut into parts. Which thread takes which part never matters.

use rayon::prelude::*;
use ropeway_framework::{Context, Result};

/// A number of threads; with one, everything runs where it is called.
pub(crate) struct Pool(Option<rayon::ThreadPool>);

impl Pool {
    /// # Errors
    /// The system gives no threads.
    pub(crate) fn new(threads: usize) -> Result<Self> {
        if threads <= 1 {
            return Ok(Self(None));
        }
        let builder =
            rayon::ThreadPoolBuilder::new().num_threads(threads).thread_name(|i| format!("ropeway-train-{i}"));
        Ok(Self(Some(builder.build().context("can't start the training's threads")?)))
    }

    /// Works on one of the threads: what is done with every part then begins there at once.
    pub(crate) fn inside<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        match &self.0 {
            None => work(),
            Some(pool) => pool.install(work),
        }
    }

    /// Does something with every part.
    pub(crate) fn each<T: Send>(&self, parts: &mut [T], work: impl Fn(usize, &mut T) + Sync) {
        match &self.0 {
            None => parts.iter_mut().enumerate().for_each(|(index, part)| work(index, part)),
            Some(pool) => pool.install(|| {
                parts.par_iter_mut().with_max_len(1).enumerate().for_each(|(index, part)| work(index, part));
            }),
        }
    }

    /// The results for `0..count`, in order; `start` makes what the calls on one thread share.
    pub(crate) fn map<S, R: Send>(
        &self,
        count: usize,
        start: impl Fn() -> S + Send + Sync,
        work: impl Fn(&mut S, usize) -> R + Send + Sync,
    ) -> Vec<R> {
        match &self.0 {
            None => {
                let mut shared = start();
                (0..count).map(|index| work(&mut shared, index)).collect()
            }
            Some(pool) => pool.install(|| (0..count).into_par_iter().map_init(start, work).collect()),
        }
    }
}
