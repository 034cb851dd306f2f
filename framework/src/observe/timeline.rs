//! Who ran what, and when.

use crate::run::{AttemptEnd, AttemptStart, AttemptsFolded, Ended, Event, Line, Outcome, WorkerInfo};
use indexmap::IndexMap;
use serde::Serialize;
use std::collections::HashMap;

/// The story of a run. Times are seconds since its start.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Timeline {
    /// The run's name.
    pub run: String,
    /// When it ended, or how far its events go.
    pub seconds: f64,
    /// Whether it ended.
    pub ended: bool,
    /// The stages of the pipeline, in order.
    pub stages: Vec<StageLife>,
    /// The workers, in the order in which they came.
    pub workers: Vec<WorkerLife>,
    /// Attempts, in the order in which they ended; those under way come last.
    pub spans: Vec<Span>,
}

/// A stage of the pipeline.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StageLife {
    /// Its name.
    pub name: String,
    /// The stages whose results it takes.
    pub takes: Vec<String>,
    /// When its inputs were there.
    pub from: Option<f64>,
    /// When it ended.
    pub to: Option<f64>,
    /// How it ended.
    pub outcome: Option<Outcome>,
    /// Tasks that it asked for and whose results were known.
    pub cached: u64,
}

/// A worker.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WorkerLife {
    /// What it presented itself as.
    #[serde(flatten)]
    pub info: WorkerInfo,
    /// When it came.
    pub from: f64,
    /// When it was gone; nothing if it is there.
    pub to: Option<f64>,
    /// Why, if it was lost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lost: Option<String>,
}

/// An attempt on a worker, or many small ones that were told together.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Span {
    /// The stage's name, or `stage/task`; the stage's if there are several attempts.
    pub name: String,
    /// The worker's name.
    pub worker: String,
    /// What it computed on; empty if there are several attempts.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub device: String,
    /// Which attempt of its task; the first ones are 1.
    pub attempt: u32,
    /// How many attempts this is.
    pub attempts: u64,
    /// How many of them gave no result.
    pub failed: u64,
    /// How it ended; nothing if it is under way or there are several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end: Option<Ended>,
    /// When it began.
    pub from: f64,
    /// When it ended, or the end of what is known.
    pub to: f64,
    /// Seconds that it waited for its place before it began; in sum, if there are several.
    pub waited: f64,
    /// Seconds in its place; in sum, if there are several.
    pub seconds: f64,
    /// Cores reserved, times seconds.
    pub core_seconds: f64,
    /// Devices reserved, times seconds.
    pub gpu_seconds: f64,
    /// Bytes of its inputs.
    pub read: u64,
    /// Bytes of its outputs.
    pub written: u64,
    /// Bytes that moved over the network for it.
    pub moved: u64,
}

impl Span {
    /// The stage of the pipeline that it belongs to.
    pub fn stage(&self) -> &str {
        self.name.split_once('/').map_or(&self.name, |(stage, _)| stage)
    }

    /// Whether it holds something of its worker, or only waits for tasks of its own.
    pub fn works(&self) -> bool {
        self.core_seconds > 0.0 || self.gpu_seconds > 0.0
    }

    fn new(start: &AttemptStart, end: Option<&AttemptEnd>, placed: f64, to: f64) -> Self {
        // A worker may have kept it in a queue of its own: that is waiting too.
        let from = end.map_or(placed, |end| (to - end.seconds).max(placed)).min(to);
        let seconds = to - from;
        Self {
            name: start.name.clone(),
            worker: start.worker.clone(),
            device: start.device.clone(),
            attempt: start.attempt,
            attempts: 1,
            failed: u64::from(end.is_some_and(|end| end.end != Ended::Done)),
            end: end.map(|end| end.end),
            from,
            to,
            waited: start.waited + (from - placed),
            seconds,
            core_seconds: seconds * start.cores,
            gpu_seconds: seconds * start.gpus,
            read: end.map_or(0, |end| end.read),
            written: end.map_or(0, |end| end.written),
            moved: end.map_or(0, |end| end.moved),
        }
    }

    fn folded(many: &AttemptsFolded, to: f64) -> Self {
        Self {
            name: many.name.clone(),
            worker: many.worker.clone(),
            device: String::new(),
            attempt: 1,
            attempts: many.attempts,
            failed: many.failed,
            end: None,
            from: many.from.min(to),
            to,
            waited: many.waited,
            seconds: many.seconds,
            core_seconds: many.core_seconds,
            gpu_seconds: many.gpu_seconds,
            read: many.read,
            written: many.written,
            moved: many.moved,
        }
    }
}

impl Timeline {
    /// Reads the story from a run's events.
    pub fn of(lines: &[Line]) -> Self {
        let mut reading = Reading::default();
        lines.iter().for_each(|line| reading.read(line));
        reading.close()
    }
}

impl StageLife {
    fn cache(&mut self, tasks: u64) {
        self.cached = self.cached.saturating_add(tasks);
    }
}

#[derive(Default)]
struct Reading {
    story: Timeline,
    stages: IndexMap<String, StageLife>,
    /// Attempts under way, by task and attempt, with when they were placed.
    open: HashMap<(u64, u32), (AttemptStart, f64)>,
}

impl Reading {
    fn read(&mut self, line: &Line) {
        let at = line.at;
        self.story.seconds = self.story.seconds.max(at);
        match &line.event {
            Event::Started { run, stages, .. } => {
                self.story.run.clone_from(run);
                for name in stages {
                    self.stage(name);
                }
            }
            Event::StageStarted { name, takes } => {
                let stage = self.stage(name);
                stage.takes.clone_from(takes);
                stage.from.get_or_insert(at);
            }
            Event::StageFinished(report) => {
                let stage = self.stage(&report.name);
                (stage.to, stage.outcome) = (Some(at), Some(report.outcome));
            }
            Event::TaskFinished { name, outcome: Outcome::Cached, .. } => {
                self.stage(name.split('/').next().unwrap_or(name)).cache(1);
            }
            Event::TasksFolded { name, cached, .. } => self.stage(name).cache(*cached),
            Event::WorkerJoined(info) => {
                self.story.workers.push(WorkerLife { info: info.clone(), from: at, to: None, lost: None });
            }
            Event::WorkerLeft { worker, lost } => self.left(worker, lost.as_ref(), at),
            Event::AttemptStarted(start) => {
                self.open.insert((start.task, start.attempt), (start.clone(), at));
            }
            Event::AttemptEnded(end) => {
                if let Some((start, placed)) = self.open.remove(&(end.task, end.attempt)) {
                    self.story.spans.push(Span::new(&start, Some(end), placed, at));
                }
            }
            Event::AttemptsFolded(many) => self.story.spans.push(Span::folded(many, at)),
            Event::Finished(_) => self.story.ended = true,
            Event::Listening { .. }
            | Event::TaskFinished { .. }
            | Event::Progress { .. }
            | Event::Log { .. }
            | Event::Warning { .. } => {}
        }
    }

    fn stage(&mut self, name: &str) -> &mut StageLife {
        self.stages.entry(name.to_owned()).or_insert_with(|| StageLife {
            name: name.to_owned(),
            takes: Vec::new(),
            from: None,
            to: None,
            outcome: None,
            cached: 0,
        })
    }

    fn left(&mut self, name: &str, lost: Option<&String>, at: f64) {
        let there = |worker: &&mut WorkerLife| worker.info.worker == name && worker.to.is_none();
        if let Some(worker) = self.story.workers.iter_mut().rev().find(there) {
            (worker.to, worker.lost) = (Some(at), lost.cloned());
        }
    }

    fn close(mut self) -> Timeline {
        let now = self.story.seconds;
        let mut open: Vec<_> = self.open.into_values().collect();
        open.sort_by_key(|(start, _)| (start.task, start.attempt));
        for (start, placed) in open {
            // What runs on a worker that is gone ended with it.
            let gone = self.story.workers.iter().rev().find(|worker| worker.info.worker == start.worker);
            let to = gone.and_then(|worker| worker.to).filter(|to| *to >= placed).unwrap_or(now);
            self.story.spans.push(Span::new(&start, None, placed, to));
        }
        self.story.stages = self.stages.into_values().collect();
        self.story
    }
}
