//! Requests to stop, by whoever started the program or the system that it runs under.

use crate::{Result, runtime};

/// Ctrl-C and SIGTERM. From the moment that this is made they end the process no more.
#[cfg(unix)]
pub(super) struct Signals([tokio::signal::unix::Signal; 2]);

#[cfg(unix)]
impl Signals {
    /// Begins to take them.
    ///
    /// # Errors
    /// The system does not let it.
    pub(super) fn new() -> Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let _runtime = runtime()?.enter();
        Ok(Self([signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?]))
    }

    /// Waits for the next one.
    pub(super) async fn next(&mut self) {
        let [interrupt, terminate] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    }
}

/// Ctrl-C.
#[cfg(not(unix))]
pub(super) struct Signals;

#[cfg(not(unix))]
impl Signals {
    /// Begins to take them.
    ///
    /// # Errors
    /// None.
    pub(super) fn new() -> Result<Self> {
        runtime().map(|_| Self)
    }

    /// Waits for the next one.
    pub(super) async fn next(&mut self) {
        drop(tokio::signal::ctrl_c().await);
    }
}
