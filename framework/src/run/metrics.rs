//! Numbers of a run for Prometheus, counted as it happens.

use super::event::{Event, Outcome};
use super::placement::{AttemptEnd, AttemptStart, Ended};
use crate::store::{Store, StoreMetrics};
use crate::{Context, Result};
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Counts what happens in a run. Cloning is cheap and shares the numbers.
#[derive(Clone, Debug)]
pub struct Metrics(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    registry: Registry,
    families: Families,
    known: Mutex<Known>,
}

/// Whoever was heard of.
#[derive(Debug, Default)]
struct Known {
    stages: HashMap<String, Arc<StageMetrics>>,
    /// The cores of each worker that is there.
    workers: HashMap<String, f64>,
}

/// The labels of what is counted by stage.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfStage {
    stage: String,
}

/// The labels of what is counted by stage and by how it ended.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfOutcome {
    stage: String,
    outcome: &'static str,
}

/// From a tenth of a millisecond to more than a day.
fn durations() -> Histogram {
    Histogram::new(exponential_buckets(1e-4, 4.0, 16))
}

#[derive(Debug)]
struct Families {
    tasks: Family<OfOutcome, Counter>,
    attempts: Family<OfOutcome, Counter>,
    retries: Family<OfStage, Counter>,
    seconds: Family<OfStage, Histogram, fn() -> Histogram>,
    waits: Family<OfStage, Histogram, fn() -> Histogram>,
    core_seconds: Family<OfStage, Counter<f64, AtomicU64>>,
    gpu_seconds: Family<OfStage, Counter<f64, AtomicU64>>,
    moved: Counter,
    waiting: Gauge,
    running: Gauge,
    workers: Gauge,
    cores: Gauge<f64, AtomicU64>,
}

impl Metrics {
    /// Numbers of a run on a store, all zero, and those of the store.
    pub fn of(store: &Store) -> Self {
        let mut registry = Registry::with_prefix("ropeway");
        let families = Families::register(&mut registry);
        registry.register_collector(Box::new(StoreMetrics(store.clone())));
        Self(Arc::new(Inner { registry, families, known: Mutex::default() }))
    }

    /// The numbers in the OpenMetrics text format, which Prometheus reads.
    ///
    /// # Errors
    /// None that is known: the text is written to memory.
    pub fn text(&self) -> Result<String> {
        let mut text = String::new();
        text::encode(&mut text, &self.0.registry).context("the metrics can't be written as text")?;
        Ok(text)
    }

    /// Counts an event. It must see all of them, before any are told together.
    pub(super) fn hear(&self, event: &Event) {
        let families = &self.0.families;
        match event {
            Event::AttemptStarted(start) => {
                families.running.inc();
                self.stage(&start.name).started(start);
            }
            Event::AttemptEnded(end) => {
                families.running.dec();
                families.moved.inc_by(end.moved);
                self.stage(&end.name).ended(end);
            }
            Event::TaskFinished { name, outcome, .. } => self.stage(name).finished(*outcome),
            Event::StageFinished(report) => self.stage(&report.name).finished(report.outcome),
            Event::WorkerJoined(info) => {
                self.known().workers.insert(info.worker.clone(), info.cores);
                self.set_workers();
            }
            Event::WorkerLeft { worker, .. } => {
                self.known().workers.remove(worker);
                self.set_workers();
            }
            Event::Started { .. }
            | Event::Listening { .. }
            | Event::StageStarted { .. }
            | Event::Progress { .. }
            | Event::Log { .. }
            | Event::Warning { .. }
            | Event::AttemptsFolded(_)
            | Event::TasksFolded { .. }
            | Event::Finished(_) => {}
        }
    }

    /// Counts an attempt that is made because the one before it was of no use.
    pub(super) fn retried(&self, name: &str) {
        self.stage(name).retries.inc();
    }

    /// Says how many tasks wait for a place.
    pub(super) fn set_waiting(&self, tasks: usize) {
        self.0.families.waiting.set(tasks as i64);
    }

    fn set_workers(&self) {
        let known = self.known();
        self.0.families.workers.set(known.workers.len() as i64);
        self.0.families.cores.set(known.workers.values().sum());
    }

    fn stage(&self, name: &str) -> Arc<StageMetrics> {
        let stage = name.split('/').next().unwrap_or(name);
        let mut known = self.known();
        if let Some(found) = known.stages.get(stage) {
            return found.clone();
        }
        let made = Arc::new(StageMetrics::new(&self.0.families, stage));
        known.stages.insert(stage.to_owned(), made.clone());
        made
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Families {
    fn register(registry: &mut Registry) -> Self {
        let durations = || Family::new_with_constructor(durations as fn() -> Histogram);
        let families = Self {
            tasks: Family::default(),
            attempts: Family::default(),
            retries: Family::default(),
            seconds: durations(),
            waits: durations(),
            core_seconds: Family::default(),
            gpu_seconds: Family::default(),
            moved: Counter::default(),
            waiting: Gauge::default(),
            running: Gauge::default(),
            workers: Gauge::default(),
            cores: Gauge::default(),
        };
        let bytes = Unit::Bytes;
        registry.register("tasks", "Tasks that ended, the stages' own among them", families.tasks.clone());
        registry.register("attempts", "Attempts that ended", families.attempts.clone());
        registry.register("retries", "Attempts after the first of their task", families.retries.clone());
        let help = "How long the stages of attempts ran";
        registry.register_with_unit("attempt_duration", help, Unit::Seconds, families.seconds.clone());
        let help = "How long attempts waited for their places";
        registry.register_with_unit("queue_wait", help, Unit::Seconds, families.waits.clone());
        let help = "Cores reserved, times seconds";
        registry.register_with_unit("core", help, Unit::Seconds, families.core_seconds.clone());
        let help = "Devices reserved, times seconds";
        registry.register_with_unit("gpu", help, Unit::Seconds, families.gpu_seconds.clone());
        registry.register_with_unit("moved", "Moved over the network for attempts", bytes, families.moved.clone());
        registry.register("tasks_waiting", "Tasks that wait for a place", families.waiting.clone());
        registry.register("tasks_running", "Tasks that have a place", families.running.clone());
        registry.register("workers", "Workers that are there", families.workers.clone());
        registry.register("worker_cores", "Cores of the workers that are there", families.cores.clone());
        families
    }
}

/// The numbers of one stage, at hand.
#[derive(Debug)]
struct StageMetrics {
    tasks: [Counter; 4],
    attempts: [Counter; 4],
    retries: Counter,
    seconds: Histogram,
    waits: Histogram,
    core_seconds: Counter<f64, AtomicU64>,
    gpu_seconds: Counter<f64, AtomicU64>,
}

const OUTCOMES: [Outcome; 4] = [Outcome::Cached, Outcome::Done, Outcome::Failed, Outcome::Skipped];
const ENDS: [Ended; 4] = [Ended::Done, Ended::Failed, Ended::Lost, Ended::Stopped];

impl StageMetrics {
    fn new(families: &Families, stage: &str) -> Self {
        let of = OfStage { stage: stage.to_owned() };
        let outcome = |outcome: &'static str| OfOutcome { stage: stage.to_owned(), outcome };
        Self {
            tasks: OUTCOMES.map(|known| families.tasks.get_or_create_owned(&outcome(known.name()))),
            attempts: ENDS.map(|known| families.attempts.get_or_create_owned(&outcome(known.name()))),
            retries: families.retries.get_or_create_owned(&of),
            seconds: families.seconds.get_or_create_owned(&of),
            waits: families.waits.get_or_create_owned(&of),
            core_seconds: families.core_seconds.get_or_create_owned(&of),
            gpu_seconds: families.gpu_seconds.get_or_create_owned(&of),
        }
    }

    fn started(&self, start: &AttemptStart) {
        self.waits.observe(start.waited);
    }

    fn ended(&self, end: &AttemptEnd) {
        self.seconds.observe(end.seconds);
        self.core_seconds.inc_by(end.seconds * end.cores);
        self.gpu_seconds.inc_by(end.seconds * end.gpus);
        if let Some((_, counter)) = ENDS.iter().zip(&self.attempts).find(|(known, _)| **known == end.end) {
            counter.inc();
        }
    }

    fn finished(&self, outcome: Outcome) {
        if let Some((_, counter)) = OUTCOMES.iter().zip(&self.tasks).find(|(known, _)| **known == outcome) {
            counter.inc();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Artifact;
    use crate::run::{StageReport, WorkerInfo};
    use crate::store::{Key, Memo};
    use indexmap::IndexMap;

    fn value(text: &str, name: &str) -> f64 {
        let line = text.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')));
        line.unwrap_or_else(|| panic!("no {name} in\n{text}")).rsplit(' ').next().unwrap().parse().unwrap()
    }

    fn attempt(metrics: &Metrics, number: u32, end: Ended, waited: f64) {
        let (name, worker) = ("best/trial-1".to_owned(), "w".to_owned());
        let start = AttemptStart {
            name: name.clone(),
            task: 1,
            attempt: number,
            worker: worker.clone(),
            device: "cpu".into(),
            threads: 2,
            cores: 2.0,
            gpus: 0.0,
            waited,
        };
        metrics.hear(&Event::AttemptStarted(start));
        let end = AttemptEnd {
            name,
            task: 1,
            attempt: number,
            worker,
            end,
            seconds: 0.5,
            cores: 2.0,
            gpus: 0.0,
            read: 1,
            written: 1,
            moved: 5,
        };
        metrics.hear(&Event::AttemptEnded(end));
    }

    #[test]
    fn what_happens_is_counted_by_stage() {
        let metrics = Metrics::of(&Store::memory());
        let info = |worker: &str| WorkerInfo {
            worker: worker.into(),
            machine: "here".into(),
            cores: 2.0,
            memory: None,
            devices: Vec::new(),
            pool: None,
            price: None,
        };
        metrics.hear(&Event::WorkerJoined(info("v")));
        metrics.hear(&Event::WorkerJoined(info("w")));
        metrics.hear(&Event::WorkerLeft { worker: "v".into(), lost: None });
        attempt(&metrics, 1, Ended::Failed, 0.0);
        attempt(&metrics, 2, Ended::Done, 1.5);
        let name = "best/trial-1".to_owned();
        metrics.hear(&Event::TaskFinished { name, outcome: Outcome::Done, seconds: 0.5, error: None });
        metrics.hear(&Event::StageFinished(StageReport {
            name: "best".into(),
            outcome: Outcome::Cached,
            seconds: 0.0,
            device: "cpu".into(),
            key: None,
            outputs: IndexMap::new(),
            metrics: Default::default(),
            error: None,
            help: None,
            fault: None,
        }));
        metrics.retried("best/trial-1");
        metrics.set_waiting(7);
        let text = metrics.text().unwrap();
        for (name, expected) in [
            ("ropeway_tasks_total{stage=\"best\",outcome=\"done\"}", 1.0),
            ("ropeway_tasks_total{stage=\"best\",outcome=\"cached\"}", 1.0),
            ("ropeway_attempts_total{stage=\"best\",outcome=\"failed\"}", 1.0),
            ("ropeway_attempts_total{stage=\"best\",outcome=\"done\"}", 1.0),
            ("ropeway_retries_total{stage=\"best\"}", 1.0),
            ("ropeway_attempt_duration_seconds_count{stage=\"best\"}", 2.0),
            ("ropeway_attempt_duration_seconds_sum{stage=\"best\"}", 1.0),
            ("ropeway_queue_wait_seconds_sum{stage=\"best\"}", 1.5),
            ("ropeway_core_seconds_total{stage=\"best\"}", 2.0),
            ("ropeway_moved_bytes_total", 10.0),
            ("ropeway_tasks_waiting", 7.0),
            ("ropeway_tasks_running", 0.0),
            ("ropeway_workers", 1.0),
            ("ropeway_worker_cores", 2.0),
        ] {
            assert_eq!(value(&text, name), expected, "{name}");
        }
    }

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
        assert_eq!(value(&text, "ropeway_memory_cap_bytes"), f64::from(256 << 20));
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
