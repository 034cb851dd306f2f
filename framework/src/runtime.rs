//! The tokio runtimes of a process: one drives the store's I/O and async stages, one the connections between a coordinator
//! and its workers.

use crate::{Context, Result};
use std::sync::OnceLock;
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};

/// How long a thread for blocking work is kept that has none: who idles should take little memory.
const IDLE: Duration = Duration::from_secs(1);

/// The process's runtime for I/O. Blocking code (a stage, a worker's thread) may `block_on` it.
///
/// # Errors
/// The system gives no threads.
pub fn runtime() -> Result<&'static Runtime> {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    get(&RUNTIME, || {
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads(2).thread_name("ropeway-io");
        builder
    })
}

/// The runtime of the connections between a coordinator and its workers. It has one thread: a small task is on the way
/// there and back for less time than it takes to wake a second one, which would find nothing to do.
///
/// # Errors
/// The system gives no thread.
pub(crate) fn links() -> Result<&'static Runtime> {
    static LINKS: OnceLock<Runtime> = OnceLock::new();
    get(&LINKS, || {
        let mut builder = Builder::new_multi_thread();
        // While it looks again and again for what comes soon, it looks everywhere each time.
        builder.worker_threads(1).event_interval(1).global_queue_interval(1).thread_name("ropeway-link");
        builder
    })
}

fn get(place: &'static OnceLock<Runtime>, builder: impl Fn() -> Builder) -> Result<&'static Runtime> {
    if let Some(runtime) = place.get() {
        return Ok(runtime);
    }
    let made = builder().thread_keep_alive(IDLE).enable_all().build().context("can't start the I/O threads")?;
    Ok(place.get_or_init(|| made))
}
