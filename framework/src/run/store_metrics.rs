//! Numbers of a store for Prometheus.

use crate::store::{Store, Traffic};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;
use std::fmt;

/// The numbers of a store, read when somebody asks.
#[derive(Debug)]
pub(super) struct StoreMetrics(pub(super) Store);

impl Collector for StoreMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let Traffic { read, written, held, first, same, different, known, unknown } = self.0.traffic();
        let mut counts = |name: &str, help: &str, unit: Option<&Unit>, label: &str, rows: &[(&str, u64)]| {
            let mut metric = encoder.encode_descriptor(name, help, unit, MetricType::Counter)?;
            rows.iter().try_for_each(|(value, count)| {
                ConstCounter::new(*count).encode(metric.encode_family(&[(label, *value)])?)
            })
        };
        let bytes = Some(&Unit::Bytes);
        let tiers: Vec<(&str, u64)> = read.iter().map(|(tier, bytes)| (tier.name(), *bytes)).collect();
        counts("store_read", "Read from the store, by where it was found.", bytes, "tier", &tiers)?;
        counts("store_written", "Written to the store.", bytes, "tier", &[("store", written)])?;
        let commits = [("first", first), ("same", same), ("different", different)];
        counts("commits", "Commits, by what was there before.", None, "outcome", &commits)?;
        let lookups = [("hit", known), ("miss", unknown)];
        counts("memo_lookups", "Look-ups of remembered results.", None, "result", &lookups)?;
        let help = "Artifacts in the memory of this process.";
        let metric = encoder.encode_descriptor("memory_held", help, bytes, MetricType::Gauge)?;
        ConstGauge::new(held as i64).encode(metric)
    }
}

#[cfg(test)]
mod tests {
    use super::super::metrics::Metrics;
    use super::super::metrics::tests::value;
    use super::*;
    use crate::data::Artifact;
    use crate::store::{Key, Memo};

    #[test]
    fn a_store_counts_what_goes_in_and_out() {
        let (store, runtime) = (Store::memory(), crate::runtime().unwrap());
        let metrics = Metrics::of(&store);
        let artifact = Artifact::Bytes(vec![7; 1000].into());
        let reference = runtime.block_on(store.put(&artifact)).unwrap();
        runtime.block_on(store.get(reference)).unwrap();
        let text = metrics.text().unwrap();
        let bytes = reference.bytes as f64;
        assert_eq!(value(&text, "ropeway_store_written_bytes_total{tier=\"store\"}"), bytes);
        assert_eq!(value(&text, "ropeway_store_read_bytes_total{tier=\"memory\"}"), bytes);
        assert_eq!(value(&text, "ropeway_store_read_bytes_total{tier=\"store\"}"), 0.0);
        // With what the books themselves take.
        assert!(value(&text, "ropeway_memory_held_bytes") >= bytes);
        let (key, memo) = (
            Key(reference.digest),
            Memo {
                outputs: [("output".to_owned(), reference)].into(),
                stage: "s".into(),
                seconds: 1.0,
                device: "cpu".into(),
                build: "b".into(),
            },
        );
        assert!(runtime.block_on(store.memo(key)).unwrap().is_none());
        runtime.block_on(store.commit(key, &memo)).unwrap();
        runtime.block_on(store.commit(key, &memo)).unwrap();
        assert!(runtime.block_on(store.memo(key)).unwrap().is_some());
        let text = metrics.text().unwrap();
        for (name, expected) in [
            ("ropeway_commits_total{outcome=\"first\"}", 1.0),
            ("ropeway_commits_total{outcome=\"same\"}", 1.0),
            ("ropeway_commits_total{outcome=\"different\"}", 0.0),
            ("ropeway_memo_lookups_total{result=\"hit\"}", 1.0),
            ("ropeway_memo_lookups_total{result=\"miss\"}", 1.0),
        ] {
            assert_eq!(value(&text, name), expected, "{name}");
        }
    }
}
