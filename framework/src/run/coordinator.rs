//! The coordinator: asks the store what is known, gives the rest to the scheduler, and sees that every waiter hears.

use super::Options;
use super::crew::{Crew, EMBEDDED, HERE};
use super::event::{Event, Line, Outcome, Report, Sink, StageReport};
use super::fold::Fold;
use super::forecast::Begun;
use super::gangs::Gangs;
use super::log::RunLog;
use super::lookup::Lookup;
use super::nodes::{Node, request};
use super::rests::Rests;
use super::task::{Live, Request, Task, Waiter};
use super::voice::Message;
use crate::data::{Artifact, Kind, Metrics, Ref};
use crate::fast_map::FastMap;
use crate::pipeline::Pipeline;
use crate::schedule::{self, Costs, Needs, Scheduler, StageId, TaskId, WorkerId};
use crate::soon::Soon;
use crate::stage::Registry;
use crate::store::{Key, Store, StoreError};
use crate::worker::{self, Failure, Heard, program};
use crate::{Error, Result, runtime};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, mpsc};
use std::time::Duration;

/// How long tasks under way have to stop when a run is interrupted.
const GRACE: Duration = Duration::from_secs(5);
/// How long workers have to hear that the run is over.
const PARTING: Duration = Duration::from_secs(2);
/// How often a silent run looks whether it is interrupted.
const PULSE: Duration = Duration::from_millis(100);

/// How a stage ended.
pub(super) struct Ending {
    pub(super) outcome: Outcome,
    pub(super) seconds: f64,
    pub(super) device: String,
    pub(super) key: Option<Key>,
    pub(super) outputs: BTreeMap<String, Ref>,
    pub(super) error: Option<Error>,
}

impl Ending {
    /// The end of a stage that gave nothing.
    pub(super) fn without(outcome: Outcome, error: Option<Error>) -> Self {
        Self { outcome, seconds: 0.0, device: "cpu".into(), key: None, outputs: BTreeMap::new(), error }
    }
}

/// One run.
pub(super) struct Coordinator<'a> {
    pub(super) pipeline: &'a Pipeline,
    pub(super) registry: Arc<Registry>,
    pub(super) store: Store,
    pub(super) options: &'a Options,
    pub(super) sink: &'a mut dyn Sink,
    pub(super) fold: Fold,
    pub(super) log: RunLog,
    pub(super) run: String,
    pub(super) build: Arc<str>,
    pub(super) crew: Crew,
    pub(super) scheduler: Scheduler,
    pub(super) wanted: Vec<usize>,
    pub(super) nodes: Vec<Node>,
    pub(super) reports: BTreeMap<usize, StageReport>,
    pub(super) tasks: BTreeMap<TaskId, Box<Task>>,
    pub(super) next_task: u64,
    /// The tasks under way by key, so that one that is asked for twice runs once.
    pub(super) under_way: FastMap<Key, TaskId>,
    /// Who made what in this run, so that what the store loses can be made again.
    pub(super) made: FastMap<Ref, Arc<Request>>,
    pub(super) lookup: Lookup,
    pub(super) inbox: mpsc::Receiver<Message>,
    pub(super) outbox: mpsc::Sender<Message>,
    pub(super) wake: Option<Duration>,
    pub(super) soon: Soon,
    /// What the scheduler calls each stage.
    pub(super) stages: HashMap<String, StageId>,
    /// What earlier runs learned, once it is read.
    pub(super) recalled: Option<Costs>,
    /// The stages whose tasks are under way.
    pub(super) begun: BTreeMap<usize, Begun>,
    pub(super) gangs: Gangs,
    pub(super) rests: Rests,
    /// What stages said last of how far they are.
    pub(super) progress: HashMap<String, Line>,
    /// Whether it was said that there is no CUDA device.
    pub(super) told_of_gpus: bool,
    /// Members and needs of which it was looked, and said, whether those here have what they ask for.
    pub(super) told_to_wait: HashSet<(u32, Needs)>,
}

impl<'a> Coordinator<'a> {
    pub(super) fn new(
        pipeline: &'a Pipeline,
        registry: Arc<Registry>,
        store: Store,
        options: &'a Options,
        sink: &'a mut dyn Sink,
        wanted: Vec<usize>,
    ) -> Result<Self> {
        let build = program::build();
        let stages: Vec<String> = wanted.iter().map(|node| pipeline.stages[*node].name.clone()).collect();
        let (log, line) = RunLog::create(&store, &pipeline.name, |run| Line {
            event: Event::Started {
                run,
                pipeline: pipeline.name.clone(),
                seed: pipeline.seed,
                stages: stages.clone(),
                unix_millis: options.clock.unix_millis(),
                build: build.clone(),
            },
            at: options.clock.elapsed().as_secs_f64(),
        })?;
        sink.event(&line);
        let Event::Started { run, .. } = line.event else { return Err(Error::new("a run begins with its start")) };
        let mut nodes = vec![Node::Outside; pipeline.stages.len()];
        wanted.iter().for_each(|node| nodes[*node] = Node::Waiting);
        let (outbox, inbox) = mpsc::channel();
        let crew = Crew::gather(&store, options, &run, &outbox)?;
        let mut scheduler = crew.announce(Scheduler::new(), options.elsewhere.as_ref());
        let joined = schedule::Event::Joined { worker: HERE, has: crew.capacity() };
        scheduler.step(options.clock.elapsed(), joined);
        Ok(Self {
            pipeline,
            registry,
            store,
            options,
            sink,
            fold: Fold::default(),
            log,
            run,
            build: build.into(),
            crew,
            scheduler,
            wanted,
            nodes,
            reports: BTreeMap::new(),
            tasks: BTreeMap::new(),
            next_task: 0,
            under_way: FastMap::default(),
            made: FastMap::default(),
            lookup: Lookup::new(),
            inbox,
            outbox,
            wake: None,
            soon: Soon::default(),
            stages: HashMap::new(),
            recalled: None,
            begun: BTreeMap::new(),
            gangs: Gangs::default(),
            rests: Rests::default(),
            progress: HashMap::new(),
            told_of_gpus: false,
            told_to_wait: HashSet::new(),
        })
    }

    /// Sees the run through.
    pub(super) fn run(mut self) -> Result<Report> {
        let _span = self.span().entered();
        if let Some(address) = self.crew.address() {
            self.tell(Event::Listening { address })?;
        }
        self.tell_joined(self.crew.describe())?;
        self.warn_of_devices()?;
        self.advance()?;
        let mut interrupted = false;
        while self.wanted.iter().any(|node| matches!(self.nodes[*node], Node::Waiting | Node::Running)) {
            if self.options.cancel.is_cancelled() {
                interrupted = true;
                self.interrupt()?;
                break;
            }
            match self.inbox.try_recv() {
                Ok(message) => self.hear(message)?,
                Err(_) => {
                    // Nothing more to hear at the moment: what was decided goes out, in as few messages as can be.
                    if self.look_up()? {
                        continue;
                    }
                    self.scale()?;
                    self.crew.flush();
                    match self.next_message() {
                        Some(message) => self.hear(message)?,
                        None => self.step(schedule::Event::Tick)?,
                    }
                }
            }
            self.end_rests()?;
            self.pulse()?;
        }
        self.finish(interrupted)
    }

    fn next_message(&mut self) -> Option<Message> {
        let now = self.options.clock.elapsed();
        let due = self.wake.map(|wake| wake.saturating_sub(now));
        let scale = self.crew.due().map(|due| due.saturating_sub(now));
        let patience = [due, scale].into_iter().flatten().fold(PULSE, Duration::min);
        let inbox = &self.inbox;
        let message = self.soon.look(|| inbox.try_recv().ok()).or_else(|| inbox.recv_timeout(patience).ok());
        if due.is_some_and(|due| due.is_zero()) {
            self.wake = None;
        }
        message
    }

    pub(super) fn hear(&mut self, message: Message) -> Result<()> {
        self.crew.stir();
        match message {
            Message::Looked(all) => all.into_iter().try_for_each(|(id, looked)| match looked {
                Ok(looked) => self.looked(id, looked),
                Err(error) => self.fail(id, error),
            }),
            Message::Ended(worker, id, attempt, result) => self.ended(worker, id, attempt, result),
            Message::Submitted(parent, task, reply) => self.submitted(parent, task, reply),
            Message::Said(id, step) => self.said(id, step),
            Message::Heard(all) => all.into_iter().try_for_each(|heard| self.heard(heard)),
        }
    }

    /// A worker elsewhere comes, goes or says something.
    fn heard(&mut self, heard: Heard) -> Result<()> {
        match heard {
            Heard::Joined(worker) => {
                let is_first = self.crew.is_empty();
                let (info, joined) = self.crew.join(self.options.clock.elapsed(), *worker);
                self.tell_joined(info)?;
                self.step(joined)?;
                if is_first { self.tell_of_all_that_wait() } else { Ok(()) }
            }
            Heard::Lost { worker, reason } => self.lost(worker, reason),
            Heard::Leaving(worker) => self.leaves(worker),
            Heard::Ended { worker, task, attempt, result } => {
                let Some(leaves) = self.crew.hears(worker, result.is_ok()) else { return Ok(()) };
                self.ended(worker, task, attempt, result)?;
                if leaves { self.part_if_idle(worker) } else { Ok(()) }
            }
            Heard::Present { worker, task, attempt, present } => self.present(worker, task, attempt, present),
            Heard::Said { worker, task, attempt, report } => {
                self.crew.hears(worker, true);
                match self.tasks.get(&task).is_some_and(|task| task.runs(attempt, worker)) {
                    true => self.said(task, report),
                    false => Ok(()),
                }
            }
        }
    }

    /// Begins every stage whose inputs are there, and gives up those that can't have them.
    pub(super) fn advance(&mut self) -> Result<()> {
        for node in self.wanted.clone() {
            if self.nodes[node] != Node::Waiting {
                continue;
            }
            let needs = self.pipeline.dependencies(node);
            if needs.iter().any(|from| self.nodes[*from] == Node::Failed) {
                self.nodes[node] = Node::Failed;
                self.close(node, Ending::without(Outcome::Skipped, None))?;
            } else if needs.iter().all(|from| matches!(self.nodes[*from], Node::Ready(_))) {
                self.nodes[node] = Node::Running;
                let name = |node: usize| self.pipeline.stages[node].name.clone();
                let takes = needs.iter().map(|from| name(*from)).collect();
                self.tell(Event::StageStarted { name: name(node), takes })?;
                match request(self.pipeline, node, &self.nodes) {
                    Ok(request) => self.look(Task::new(request, Waiter::Node(node))),
                    Err(error) => {
                        self.nodes[node] = Node::Failed;
                        self.close(node, Ending::without(Outcome::Failed, Some(error)))?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Reports how a stage ended.
    pub(super) fn close(&mut self, node: usize, ending: Ending) -> Result<()> {
        let Ending { outcome, seconds, device, key, outputs, error } = ending;
        let report = StageReport {
            name: self.pipeline.stages[node].name.clone(),
            outcome,
            seconds,
            device,
            key,
            metrics: self.metrics(&outputs)?,
            outputs: self.pipeline.stages[node]
                .outputs
                .iter()
                .filter_map(|port| Some((port.name.clone(), outputs.get(&port.name)?.digest)))
                .collect(),
            help: error.as_ref().and_then(|error| error.advice().map(str::to_owned)),
            fault: error.as_ref().map(Error::whose),
            error: error.map(|error| error.to_string()),
        };
        self.reports.insert(node, report.clone());
        self.tell(Event::StageFinished(report))
    }

    /// The numbers among what a stage gave.
    fn metrics(&self, outputs: &BTreeMap<String, Ref>) -> Result<Metrics> {
        let mut all = Vec::new();
        for reference in outputs.values().filter(|reference| reference.kind == Kind::Metrics) {
            match runtime()?.block_on(self.store.get(*reference)) {
                Ok(Artifact::Metrics(metrics)) => {
                    all.extend(metrics.iter().map(|(name, value)| (name.to_owned(), value)));
                }
                // Whoever needs a lost artifact has it made again; a report only shows it.
                Ok(_) => {}
                Err(error) if StoreError::of(&error).is_some_and(StoreError::is_lost) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(all.into_iter().collect())
    }

    /// Asks what runs to stop and waits a little. Whoever waits for a task that is dropped hears that the run ended.
    fn interrupt(&mut self) -> Result<()> {
        self.tasks.retain(|_, task| !task.live.is_empty());
        self.tasks.values().flat_map(|task| task.live.values()).for_each(|live| live.cancel.cancel());
        self.crew.dismiss();
        let until = self.options.clock.elapsed() + GRACE;
        while !self.tasks.is_empty() && self.options.clock.elapsed() < until {
            match self.inbox.recv_timeout(PULSE) {
                Ok(Message::Ended(worker, id, attempt, result)) => self.ended_at_last(worker, id, attempt, &result)?,
                Ok(Message::Heard(all)) => all.into_iter().try_for_each(|heard| match heard {
                    Heard::Ended { worker, task, attempt, result } => {
                        self.ended_at_last(worker, task, attempt, &result)
                    }
                    // A worker that is told that the run is over stops what it does and goes.
                    Heard::Lost { worker, .. } => {
                        self.crew.forget(worker);
                        self.part(|_, _, live| live.worker != worker);
                        Ok(())
                    }
                    _ => Ok(()),
                })?,
                _ => {}
            }
            self.pulse()?;
        }
        Ok(())
    }

    /// An attempt of an interrupted run has ended.
    fn ended_at_last(
        &mut self,
        worker: WorkerId,
        id: TaskId,
        attempt: u32,
        result: &Result<worker::Outcome, Failure>,
    ) -> Result<()> {
        if let Some(live) = self.tasks.get_mut(&id).and_then(|task| task.take(attempt, worker)) {
            self.tell_ended(id, attempt, &live, result)?;
        }
        self.part(|_, _, _| true);
        Ok(())
    }

    /// Forgets the attempts that `stays` does not hold for, and the tasks that have none left.
    fn part(&mut self, stays: impl Fn(TaskId, u32, &Live) -> bool) {
        self.tasks.retain(|id, task| {
            task.live.retain(|number, live| stays(*id, *number, live));
            !task.live.is_empty()
        });
    }

    fn finish(mut self, interrupted: bool) -> Result<Report> {
        for node in self.wanted.clone() {
            if !self.reports.contains_key(&node) {
                self.close(node, Ending::without(Outcome::Skipped, None))?;
            }
        }
        let report = Report {
            run: self.run.clone(),
            seconds: self.options.clock.elapsed().as_secs_f64(),
            stages: std::mem::take(&mut self.reports).into_values().collect(),
            interrupted,
        };
        self.tell(Event::WorkerLeft { worker: EMBEDDED.to_owned(), lost: None })?;
        self.tell(Event::Finished(report.clone()))?;
        self.log.close()?;
        self.remember()?;
        self.part_ways();
        Ok(report)
    }

    /// Tells the workers that the run is over, and waits until they have heard it and left: a process that ends may
    /// take its last words with it.
    fn part_ways(&mut self) {
        self.crew.dismiss();
        let until = self.options.clock.elapsed() + PARTING;
        while !self.crew.is_alone() && self.options.clock.elapsed() < until {
            let Ok(Message::Heard(all)) = self.inbox.recv_timeout(PULSE) else { continue };
            for heard in all {
                match heard {
                    Heard::Lost { worker, .. } => self.crew.forget(worker),
                    Heard::Joined(worker) => {
                        self.crew.join(self.options.clock.elapsed(), *worker);
                        self.crew.dismiss();
                    }
                    _ => {}
                }
            }
        }
    }
}
