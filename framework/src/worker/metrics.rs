//! Numbers of a worker process for Prometheus.

use super::hands::Hands;
use super::wire::{self, ended::End};
use crate::store::{Store, encode_traffic};
use crate::{Context, Fault, Result};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::{Registry, Unit};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Counts what a worker process does: its attempts, the bytes that they move, the artifacts in its memory, and whether
/// it has a coordinator. Cloning is cheap and shares the numbers.
#[derive(Clone, Debug)]
pub struct WorkerMetrics(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    registry: Registry,
    attempts: Family<OfOutcome, Counter>,
    moved: Counter,
    connected: Gauge,
    connections: Counter,
    place: Place,
}

/// The labels of what is counted by how it ended.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfOutcome {
    outcome: &'static str,
}

impl Default for WorkerMetrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("ropeway");
        let attempts = Family::default();
        let (moved, connected, connections) = (Counter::default(), Gauge::default(), Counter::default());
        registry.register("worker_attempts", "Attempts that ended here, by how.", attempts.clone());
        let help = "Artifacts that crossed the network for attempts that ended here.";
        registry.register_with_unit("worker_moved", help, Unit::Bytes, moved.clone());
        registry.register("worker_connected", "Whether a coordinator has this worker: 1 or 0.", connected.clone());
        registry.register("worker_connections", "How often a coordinator took this worker.", connections.clone());
        for outcome in ["done", "failed", "stopped"] {
            drop(attempts.get_or_create(&OfOutcome { outcome }));
        }
        let place = Place::default();
        registry.register_collector(Box::new(place.clone()));
        Self(Arc::new(Inner { registry, attempts, moved, connected, connections, place }))
    }
}

impl WorkerMetrics {
    /// The numbers in the OpenMetrics text format, which Prometheus reads.
    ///
    /// # Errors
    /// None that is known: the text is written to memory.
    pub fn text(&self) -> Result<String> {
        let mut text = String::new();
        text::encode(&mut text, &self.0.registry).context("the metrics can't be written as text")?;
        Ok(text)
    }

    /// A coordinator has taken the worker.
    pub(super) fn connected(&self) {
        self.0.connected.set(1);
        self.0.connections.inc();
    }

    /// The connection is no more.
    pub(super) fn parted(&self) {
        self.0.connected.set(0);
    }

    /// From now on this is where attempts run; nothing once the worker ends.
    pub(super) fn works_at(&self, place: Option<(Store, Hands<u64>)>) {
        *self.0.place.open() = place;
    }

    /// An attempt ended.
    pub(super) fn ended(&self, end: &End) {
        let (outcome, moved) = match end {
            End::Done(done) => ("done", done.moved),
            End::Failed(failed) if wire::fault(failed) == Fault::Interrupted => ("stopped", failed.moved),
            End::Failed(failed) => ("failed", failed.moved),
        };
        self.0.attempts.get_or_create(&OfOutcome { outcome }).inc();
        self.0.moved.inc_by(moved);
    }
}

/// Where attempts run, looked at when somebody asks.
#[derive(Clone, Default)]
struct Place(Arc<Mutex<Option<(Store, Hands<u64>)>>>);

impl Place {
    fn open(&self) -> MutexGuard<'_, Option<(Store, Hands<u64>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Place")
    }
}

impl Collector for Place {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let Some((store, hands)) = self.open().clone() else { return Ok(()) };
        let (running, waiting) = hands.load();
        let help = "Attempts that run here, and those that wait for room.";
        let mut metric = encoder.encode_descriptor("worker_attempts_here", help, None, MetricType::Gauge)?;
        for (state, count) in [("running", running), ("waiting", waiting)] {
            ConstGauge::new(count as i64).encode(metric.encode_family(&[("state", state)])?)?;
        }
        encode_traffic(&store, &mut encoder)
    }
}
