//! What a run cost.

use super::timeline::{Span, Timeline, WorkerLife};
use serde::Serialize;
use std::collections::HashMap;

/// What a stage and its tasks cost.
///
/// Seconds are counted while a place on a worker is held, for failed attempts too. A core-second is a core that was
/// reserved for a second: at least what the stage needs, and its threads where the worker had more to give. How busy
/// the stage kept it is its own affair: nobody else could have it.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Cost {
    /// The stage's name.
    pub name: String,
    /// Attempts, of its own and of the tasks that it asked for.
    pub attempts: u64,
    /// Those that gave no result.
    pub failed: u64,
    /// Seconds that they waited for their places, in sum.
    pub waited: f64,
    /// Cores reserved, times seconds.
    pub core_seconds: f64,
    /// Devices reserved, times seconds.
    pub gpu_seconds: f64,
    /// Bytes of inputs.
    pub read: u64,
    /// Bytes of outputs.
    pub written: u64,
    /// Bytes that moved over the network.
    pub moved: u64,
    /// Its share of what the workers cost: of each, the larger of its shares of cores and devices. Nothing if no
    /// worker has a price.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub price: Option<f64>,
}

/// What a run cost.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Bill {
    /// What each stage cost that ran something, in the order of the pipeline.
    pub stages: Vec<Cost>,
    /// Their sum.
    pub total: Cost,
    /// What the workers cost from when they came until they were gone, busy or idle. Nothing if none has a price.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workers: Option<f64>,
}

impl Bill {
    /// Adds up a run.
    pub fn of(timeline: &Timeline) -> Self {
        let workers: HashMap<&str, &WorkerLife> =
            timeline.workers.iter().map(|worker| (worker.info.worker.as_str(), worker)).collect();
        let priced = timeline.workers.iter().any(|worker| worker.info.price.is_some());
        let none = |name: &str| Cost { name: name.to_owned(), price: priced.then_some(0.0), ..Cost::default() };
        let mut stages: HashMap<&str, Cost> = HashMap::new();
        let mut total = none("total");
        for span in &timeline.spans {
            let price = workers.get(span.worker.as_str()).map_or(0.0, |worker| price(span, worker));
            stages.entry(span.stage()).or_insert_with(|| none(span.stage())).add(span, price);
            total.add(span, price);
        }
        let paid = |worker: &WorkerLife| {
            let hours = (worker.to.unwrap_or(timeline.seconds) - worker.from).max(0.0) / HOUR;
            worker.info.price.unwrap_or(0.0) * hours
        };
        Self {
            stages: timeline.stages.iter().filter_map(|stage| stages.remove(stage.name.as_str())).collect(),
            total,
            workers: priced.then(|| timeline.workers.iter().map(paid).sum()),
        }
    }
}

/// Seconds.
const HOUR: f64 = 3600.0;

/// An attempt's share of its worker's price.
fn price(span: &Span, worker: &WorkerLife) -> f64 {
    let share = |used: f64, has: f64| if has > 0.0 { used / has } else { 0.0 };
    let cores = share(span.core_seconds, worker.info.cores);
    let devices = share(span.gpu_seconds, worker.info.devices.len() as f64);
    worker.info.price.unwrap_or(0.0) / HOUR * cores.max(devices)
}

impl Cost {
    fn add(&mut self, span: &Span, price: f64) {
        // A log may be damaged: a sum that is too large is no reason to tell nothing.
        let add = |sum: &mut u64, more: u64| *sum = sum.saturating_add(more);
        add(&mut self.attempts, span.attempts);
        add(&mut self.failed, span.failed);
        self.waited += span.waited;
        self.core_seconds += span.core_seconds;
        self.gpu_seconds += span.gpu_seconds;
        add(&mut self.read, span.read);
        add(&mut self.written, span.written);
        add(&mut self.moved, span.moved);
        self.price = self.price.map(|sum| sum + price);
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::story;
    use super::*;

    #[test]
    fn a_bill_adds_up() {
        let bill = Bill::of(&Timeline::of(&story()));
        let stages: Vec<_> = bill.stages.iter().map(|cost| (cost.name.as_str(), cost.attempts)).collect();
        assert_eq!(stages, [("rows", 1), ("best", 3)]);
        // `best` itself only waits: its tasks have the cores.
        assert_eq!((bill.stages[0].core_seconds, bill.stages[1].core_seconds), (2.0, 4.0));
        assert_eq!((bill.total.core_seconds, bill.total.read, bill.total.moved), (6.0, 400, 4));
        // Worker `a` costs 1 a second for two cores: `rows` had both for 1 s, a trial had one for 2 s. `b` is free.
        assert_eq!((bill.stages[0].price, bill.stages[1].price, bill.total.price), (Some(1.0), Some(1.0), Some(2.0)));
        assert_eq!(bill.workers, Some(4.0));
    }

    #[test]
    fn without_a_price_list_there_is_no_price() {
        let mut timeline = Timeline::of(&story());
        timeline.workers.iter_mut().for_each(|worker| worker.info.price = None);
        let bill = Bill::of(&timeline);
        assert_eq!((bill.total.price, bill.workers), (None, None));
        assert!(!serde_json::to_string(&bill).unwrap().contains("price"));
    }
}
