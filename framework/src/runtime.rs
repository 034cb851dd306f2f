//! The one tokio runtime of a process: it drives the store's I/O and async stages.

use crate::{Context, Result};
use std::sync::OnceLock;
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};

/// How long a thread for blocking work is kept that has none: who idles should take little memory.
const IDLE: Duration = Duration::from_secs(1);

/// The process's runtime. Blocking code (a stage, a worker's thread) may `block_on` it.
///
/// # Errors
/// The system gives no threads.
pub fn runtime() -> Result<&'static Runtime> {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    if let Some(runtime) = RUNTIME.get() {
        return Ok(runtime);
    }
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(2).thread_keep_alive(IDLE).enable_all().thread_name("ropeway-io");
    let made = builder.build().context("can't start the I/O threads")?;
    Ok(RUNTIME.get_or_init(|| made))
}
