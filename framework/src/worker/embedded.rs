//! The worker inside the coordinator's own process.

use super::cell;
use super::execute::{Around, Failure, Outcome, execute};
use super::habits::Habits;
use super::pool::Pool;
use super::{Assignment, Gpus};
use crate::process_folder::{Orphan, ProcessFolder};
use crate::schedule::Capacity;
use crate::store::Store;
use crate::{Context, Result};
use std::path::Path;
use std::sync::Arc;

/// Runs assignments on threads of this process.
pub struct EmbeddedWorker {
    store: Store,
    pool: Pool,
    scratch: Arc<ProcessFolder>,
    habits: Habits,
    has: Capacity,
    gpus: Gpus,
}

impl EmbeddedWorker {
    /// A worker that has so much for tasks.
    ///
    /// # Errors
    /// No folder for temporary files can be made.
    pub fn new(store: Store, has: Capacity) -> Result<Self> {
        let scratch = scratch_of(&std::env::temp_dir()).map(Arc::new)?;
        let (pool, habits, gpus) = (Pool::default(), Habits::default(), Gpus::default());
        Ok(Self { store, pool, scratch, habits, has, gpus })
    }

    /// The same worker, with devices: those that its capacity counts.
    pub(crate) fn with_gpus(self, gpus: Gpus) -> Self {
        Self { gpus, ..self }
    }

    /// What it has.
    pub fn capacity(&self) -> Capacity {
        self.has.clone()
    }

    /// Runs work on a thread of its own.
    ///
    /// # Errors
    /// The system gives no thread.
    pub(crate) fn spawn(&self, work: impl FnOnce() + Send + 'static) -> Result<()> {
        self.pool.run(work)
    }

    /// Runs an attempt on this thread, or in a process of its own for which this thread waits.
    pub(crate) fn execute(&self, work: &Assignment) -> Result<Outcome, Failure> {
        work.span.in_scope(|| match work.isolate {
            true => cell::execute(&self.store, work),
            false => {
                let around = Around { scratch: self.scratch.path().to_owned(), habits: &self.habits, gpus: &self.gpus };
                execute(&self.store, around, work)
            }
        })
    }
}

/// A folder for this process's temporary files. Those that dead processes left there go: none outlives its process for
/// long.
fn scratch_of(parent: &Path) -> Result<ProcessFolder> {
    const PREFIX: &str = "ropeway-scratch-";
    // Those that can't be listed nobody has to remove.
    Orphan::all(parent, PREFIX).into_iter().flatten().for_each(Orphan::remove);
    let making = || format!("can't make a folder for temporary files in {}", parent.display());
    ProcessFolder::create(parent, PREFIX).context(making())
}
