//! The server: from endpoints to a bound address to an end without lost requests.

use crate::Endpoint;
use crate::accept::accept;
use crate::http::{House, router};
use crate::runner::Runner;
use ropeway_framework::{Context, Error, Result};
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::{self, AtomicBool};
use std::time::Duration;

/// What a server takes at most.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Limits {
    /// Bytes of a request; 64 MiB by default, and never more than 1 GiB.
    pub body: usize,
    /// Inferences at once; by default, the cores of the machine.
    pub inferences: usize,
    /// Requests that wait for their turn; 1024 by default. Others are answered with 503 and `Retry-After`.
    pub queue: usize,
    /// Connections at once; 1024 by default. Others wait with the operating system, and those that rest between two
    /// requests give way to them.
    pub connections: usize,
    /// How long a request's head may take to arrive, from its first byte on, and how long a new connection may take
    /// to send its first; 10 seconds by default.
    pub head: Duration,
    /// How long a request's body may take to arrive; 60 seconds by default.
    pub read: Duration,
    /// How long a client may take to accept the next bytes of an answer; 30 seconds by default.
    pub write: Duration,
    /// How long a connection may stay open without a request; 90 seconds by default.
    pub idle: Duration,
    /// How long requests in flight may take when the server stops; 30 seconds by default.
    pub drain: Duration,
}

impl Limits {
    /// The bytes of a request; Arrow's text columns end at 2 GiB.
    pub(crate) fn body_bytes(&self) -> usize {
        self.body.min(1 << 30)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body: 64 << 20,
            inferences: std::thread::available_parallelism().map_or(2, NonZero::get),
            queue: 1024,
            connections: 1024,
            head: Duration::from_secs(10),
            read: Duration::from_secs(60),
            write: Duration::from_secs(30),
            idle: Duration::from_secs(90),
            drain: Duration::from_secs(30),
        }
    }
}

/// A server that is not bound to an address yet.
///
/// ```no_run
/// # use ropeway_serving::{Endpoint, Server};
/// # fn serve(models: Vec<Box<dyn ropeway_framework::stage::Apply>>) -> ropeway_framework::Result<()> {
/// let endpoint = Endpoint::new("digits", "1", models)?;
/// let bound = Server::new([endpoint]).bind("127.0.0.1:8080")?;
/// let stop = std::future::pending();
/// ropeway_framework::runtime()?.block_on(bound.serve(stop))
/// # }
/// ```
#[derive(Debug, Default)]
pub struct Server {
    endpoints: Vec<Endpoint>,
    limits: Limits,
}

impl Server {
    /// A server of these endpoints. Requests that name no version get the highest: numbers by their value, then
    /// names in alphabetical order.
    pub fn new(endpoints: impl IntoIterator<Item = Endpoint>) -> Self {
        Self { endpoints: endpoints.into_iter().collect(), limits: Limits::default() }
    }

    /// Sets what it takes at most.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Takes an address, such as `127.0.0.1:8080`; port 0 takes any free port.
    ///
    /// # Errors
    /// No endpoints, two of one name and version, or an address that can't be had; the message says why.
    pub fn bind(self, address: &str) -> Result<Bound> {
        let models = models(self.endpoints)?;
        let listener = TcpListener::bind(address).map_err(|error| not_bound(address, &error))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runner = Runner::new(&self.limits);
        let house = House { models, runner, limits: self.limits, ready: AtomicBool::new(true) };
        Ok(Bound { listener, address, house: Arc::new(house) })
    }
}

fn models(endpoints: Vec<Endpoint>) -> Result<BTreeMap<String, Vec<Arc<Endpoint>>>> {
    let mut models: BTreeMap<String, Vec<Arc<Endpoint>>> = BTreeMap::new();
    for endpoint in endpoints {
        let versions = models.entry(endpoint.name().to_owned()).or_default();
        if versions.iter().any(|other| other.version() == endpoint.version()) {
            let (name, version) = (endpoint.name(), endpoint.version());
            return Err(Error::usage(format!("endpoint {name:?} is given twice in version {version:?}")));
        }
        versions.push(Arc::new(endpoint));
    }
    if models.is_empty() {
        return Err(Error::usage("there is nothing to serve").help("a server needs at least one endpoint"));
    }
    for versions in models.values_mut() {
        versions.sort_by(|a, b| by_version(a.version(), b.version()));
    }
    Ok(models)
}

/// Names before numbers, so that the highest number is last; names in alphabetical order.
fn by_version(a: &str, b: &str) -> Ordering {
    let number = |version: &str| version.parse::<u64>().ok();
    number(a).cmp(&number(b)).then_with(|| a.cmp(b))
}

pub(crate) fn not_bound(address: &str, error: &std::io::Error) -> Error {
    match error.kind() {
        ErrorKind::AddrInUse => Error::unavailable(format!("{address} is in use by another program"))
            .help("stop that program, or choose another port; port 0 takes any free one"),
        ErrorKind::PermissionDenied => Error::unavailable(format!("{address} needs rights that this process lacks"))
            .help("choose a port of 1024 or higher"),
        ErrorKind::AddrNotAvailable => Error::usage(format!("{address} is no address of this machine"))
            .help("127.0.0.1 is for this machine only, 0.0.0.0 for all that can reach it"),
        _ => Error::usage(format!("can't listen on {address:?}: {error}"))
            .help("an address is a host and a port, such as 127.0.0.1:8080"),
    }
}

/// A server that has its address: connections wait until it serves.
pub struct Bound {
    listener: TcpListener,
    address: SocketAddr,
    house: Arc<House>,
}

impl Bound {
    /// Its address, with the port that port 0 became.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown` completes; then takes no new connections and finishes the requests in flight, for as
    /// long as [`Limits::drain`].
    ///
    /// # Errors
    /// The runtime can't drive the socket.
    pub async fn serve(self, shutdown: impl Future<Output = ()> + Send + 'static) -> Result<()> {
        let listener = tokio::net::TcpListener::from_std(self.listener).context("can't serve")?;
        let (limits, house) = (self.house.limits.clone(), self.house.clone());
        let stop = async move {
            shutdown.await;
            house.ready.store(false, atomic::Ordering::Relaxed);
        };
        if !accept(listener, router(self.house), &limits, stop).await {
            tracing::warn!(drain = ?limits.drain, "stopped before all requests were answered");
        }
        Ok(())
    }
}

impl std::fmt::Debug for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bound").field("address", &self.address).finish_non_exhaustive()
    }
}
