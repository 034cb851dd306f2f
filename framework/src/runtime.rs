//! The one tokio runtime of a process: it drives the store's I/O and async stages.

use crate::{Context, Result};
use std::sync::OnceLock;
use tokio::runtime::{Builder, Runtime};

/// The process's runtime. Blocking code (a stage, a worker's thread) may `block_on` it.
///
/// # Errors
/// The system gives no threads.
pub fn runtime() -> Result<&'static Runtime> {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    if let Some(runtime) = RUNTIME.get() {
        return Ok(runtime);
    }
    let made = Builder::new_multi_thread().worker_threads(2).enable_all().thread_name("ropeway-io").build();
    let made = made.context("can't start the I/O threads")?;
    Ok(RUNTIME.get_or_init(|| made))
}
