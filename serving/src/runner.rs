//! When models run: never on the threads that serve connections, no more at once than there are threads for, and
//! with a bounded number of requests waiting.
//!
//! [`Runner::apply`] is where dynamic batching belongs: rows in, their predictions out, and since a model gives one
//! row a row, the rows of several requests can be applied together and taken apart again.

use crate::refusal::Refusal;
use crate::{Endpoint, Limits};
use axum::http::StatusCode;
use ropeway_framework::data::Frame;
use ropeway_framework::{Error, Fault};
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinError, spawn_blocking};

/// Below this many bytes, work is cheaper than handing it to another thread.
const SMALL: usize = 32 * 1024;

pub(crate) struct Runner {
    /// One permit for each request that waits or runs.
    places: Arc<Semaphore>,
    /// One permit for each that runs.
    running: Arc<Semaphore>,
}

/// A request's place in the house; dropping it lets another in.
pub(crate) struct Place {
    _permit: OwnedSemaphorePermit,
}

impl Runner {
    pub(crate) fn new(limits: &Limits) -> Self {
        let inferences = limits.inferences.clamp(1, Semaphore::MAX_PERMITS / 2);
        let queue = limits.queue.min(Semaphore::MAX_PERMITS / 2);
        Self { places: Arc::new(Semaphore::new(inferences + queue)), running: Arc::new(Semaphore::new(inferences)) }
    }

    /// A place for a request, unless the house is full.
    pub(crate) fn enter(&self) -> Result<Place, Refusal> {
        let permit = self.places.clone().try_acquire_owned();
        permit.map(|permit| Place { _permit: permit }).map_err(|_| {
            let error = Error::unavailable("the server is busy: too many requests are waiting");
            Refusal::from(error.help("try again in a second"))
        })
    }

    /// What an endpoint gives for rows.
    pub(crate) async fn apply(&self, endpoint: Arc<Endpoint>, rows: Frame) -> Result<Frame, Refusal> {
        let permit = self.running.clone().acquire_owned().await.map_err(|_| stopping())?;
        let work = move || {
            // The model runs on even when its caller has gone, and holds the permit for as long.
            let _permit = permit;
            endpoint.apply(&rows)
        };
        Ok(spawn_blocking(work).await.map_err(broken)??)
    }
}

/// Takes apart or puts together a message of about this many bytes, on another thread if it is large.
pub(crate) async fn offload<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Refusal> {
    if bytes < SMALL {
        return Ok(work());
    }
    spawn_blocking(work).await.map_err(broken)
}

fn broken(error: JoinError) -> Refusal {
    if error.is_cancelled() {
        return stopping();
    }
    let error = Error::new("the model panicked").help("this is a bug of the model, not of the request");
    Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, error.fault(Fault::Bug))
}

fn stopping() -> Refusal {
    Refusal::from(Error::unavailable("the server is stopping"))
}
