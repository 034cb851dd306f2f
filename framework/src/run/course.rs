//! One of the runs that a coordinator sees through: how far it is, and whom it tells.

use super::event::{Event, Line, Report, Sink, StageReport};
use super::fold::Fold;
use super::forecast::Begun;
use super::log::RunLog;
use super::nodes::Node;
use super::task::Request;
use crate::data::Ref;
use crate::fast_map::FastMap;
use crate::pipeline::Pipeline;
use crate::schedule::{Needs, Standing, Time};
use crate::stage::Cancel;
use crate::store::Store;
use crate::worker::Client;
use crate::{Error, Result};
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use tracing::{Span, info_span};

/// One run.
pub(super) struct Course<'a> {
    pub(super) pipeline: Cow<'a, Pipeline>,
    /// The stages that it sees through, by position in the pipeline; that is topological order.
    pub(super) wanted: Vec<usize>,
    pub(super) nodes: Vec<Node>,
    pub(super) reports: BTreeMap<usize, StageReport>,
    /// Its name in the store.
    pub(super) name: String,
    /// When it began, by the coordinator's clock.
    pub(super) began: Time,
    pub(super) standing: Standing,
    /// Cancel it to interrupt the run.
    pub(super) cancel: Cancel,
    /// Whether files that parameters name are the same to whoever asked for it as to this process.
    pub(super) near: bool,
    pub(super) sink: Box<dyn Sink + 'a>,
    /// Whoever asked for it, if not this process itself.
    pub(super) client: Option<Client>,
    /// Whether it was said that there is no CUDA device.
    pub(super) told_of_gpus: bool,
    pub(super) fold: Fold,
    pub(super) log: RunLog,
    /// What stages said last of how far they are.
    pub(super) progress: HashMap<String, Line>,
    /// The stages whose tasks are under way.
    pub(super) begun: BTreeMap<usize, Begun>,
    /// Who made what in this run, so that what the store loses can be made again.
    pub(super) made: FastMap<Ref, Arc<Request>>,
    /// Members and needs of which it was looked, and said, whether those here have what they ask for.
    pub(super) told_to_wait: HashSet<(u32, Needs)>,
    pub(super) span: Span,
}

/// What a run has in the store before it begins: its name, and its log with the first event.
pub(super) struct Opening {
    log: RunLog,
    first: Line,
}

impl Opening {
    /// Names a run, whose coordinator's clock says that it is this late, and opens its log.
    pub(super) fn of(
        pipeline: &Pipeline,
        wanted: &[usize],
        store: &Store,
        (unix_millis, at): (u64, Time),
        build: &str,
    ) -> Result<Self> {
        let stages: Vec<String> = wanted.iter().map(|node| pipeline.stages[*node].name.clone()).collect();
        let (log, first) = RunLog::create(store, &pipeline.name, |run| Line {
            event: Event::Started {
                run,
                pipeline: pipeline.name.clone(),
                seed: pipeline.seed,
                stages: stages.clone(),
                unix_millis,
                build: build.to_owned(),
            },
            at: at.as_secs_f64(),
        })?;
        Ok(Self { log, first })
    }

    /// That it begins.
    pub(super) fn event(&self) -> &Event {
        &self.first.event
    }
}

impl<'a> Course<'a> {
    /// A run that has begun; tells so.
    pub(super) fn new(
        (pipeline, wanted): (Cow<'a, Pipeline>, Vec<usize>),
        Opening { log, first }: Opening,
        mut sink: Box<dyn Sink + 'a>,
        cancel: Cancel,
    ) -> Result<Self> {
        sink.event(&first);
        let Event::Started { run: name, .. } = first.event else {
            return Err(Error::new("a run begins with its start"));
        };
        let mut nodes = vec![Node::Outside; pipeline.stages.len()];
        wanted.iter().for_each(|node| nodes[*node] = Node::Waiting);
        let called = format_args!("run {name}");
        let span = info_span!("run", otel.name = %called, pipeline = pipeline.name, seed = pipeline.seed);
        Ok(Self {
            pipeline,
            wanted,
            nodes,
            reports: BTreeMap::new(),
            name,
            began: Time::ZERO,
            standing: Standing::default(),
            cancel,
            near: true,
            sink,
            client: None,
            told_of_gpus: false,
            fold: Fold::default(),
            log,
            progress: HashMap::new(),
            begun: BTreeMap::new(),
            made: FastMap::default(),
            told_to_wait: HashSet::new(),
            span,
        })
    }

    /// Seconds since its start.
    pub(super) fn at(&self, now: Time) -> f64 {
        now.saturating_sub(self.began).as_secs_f64()
    }

    /// Whether all that it is to see through has ended.
    pub(super) fn is_settled(&self) -> bool {
        self.reports.len() == self.wanted.len()
    }

    /// How it ended.
    pub(super) fn report(&mut self, now: Time, interrupted: bool) -> Report {
        let stages = std::mem::take(&mut self.reports).into_values().collect();
        Report { run: self.name.clone(), seconds: self.at(now), stages, interrupted }
    }
}
