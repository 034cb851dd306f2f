//! Numbers of a store for Prometheus.

use super::{Store, Traffic};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;
use std::fmt;

/// The numbers of a store, read when somebody asks.
#[derive(Debug)]
pub(crate) struct StoreMetrics(pub(crate) Store);

impl Collector for StoreMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        encode_traffic(&self.0, &mut encoder)
    }
}

/// Writes the numbers of a store.
pub(crate) fn encode_traffic(store: &Store, encoder: &mut DescriptorEncoder) -> fmt::Result {
    let Traffic { read, written, held, cap, first, same, different, known, unknown } = store.traffic();
    let mut counts = |name: &str, help: &str, unit: Option<&Unit>, label: &str, rows: &[(&str, u64)]| {
        let mut metric = encoder.encode_descriptor(name, help, unit, MetricType::Counter)?;
        rows.iter()
            .try_for_each(|(value, count)| ConstCounter::new(*count).encode(metric.encode_family(&[(label, *value)])?))
    };
    let bytes = Some(&Unit::Bytes);
    let tiers: Vec<(&str, u64)> = read.iter().map(|(tier, bytes)| (tier.name(), *bytes)).collect();
    counts("store_read", "Read from the store, by where it was found.", bytes, "tier", &tiers)?;
    counts("store_written", "Written to the store.", bytes, "tier", &[("store", written)])?;
    let commits = [("first", first), ("same", same), ("different", different)];
    counts("commits", "Commits, by what was there before.", None, "outcome", &commits)?;
    let lookups = [("hit", known), ("miss", unknown)];
    counts("memo_lookups", "Look-ups of remembered results.", None, "result", &lookups)?;
    let gauges = [
        ("memory_held", "Artifacts in the memory of this process.", held),
        ("memory_cap", "The most that artifacts in the memory of this process may take.", cap),
    ];
    gauges.into_iter().try_for_each(|(name, help, value)| {
        let metric = encoder.encode_descriptor(name, help, bytes, MetricType::Gauge)?;
        ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX)).encode(metric)
    })
}
