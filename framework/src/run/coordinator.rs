//! The coordinator: asks the store what is known, gives the rest to the scheduler, and sees that every waiter hears.

use super::Options;
use super::asks::Asks;
use super::course::Course;
use super::crew::{Crew, HERE};
use super::event::{Event, Outcome, Report, StageReport};
use super::gangs::Gangs;
use super::lookup::Lookup;
use super::nodes::{Node, request};
use super::rests::Rests;
use super::task::{Task, Waiter};
use super::voice::Message;
use crate::data::{Artifact, Kind, Metrics, Ref};
use crate::fast_map::FastMap;
use crate::schedule::{self, Costs, RunId, Scheduler, StageId, TaskId};
use crate::soon::Soon;
use crate::stage::Registry;
use crate::store::{Key, Store, StoreError};
use crate::worker::{Heard, program};
use crate::{Context, Error, Result, runtime};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, mpsc};
use std::time::Duration;

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

/// Sees runs through: one, or those that it is asked for as long as it lives.
pub(super) struct Coordinator<'a> {
    pub(super) registry: Arc<Registry>,
    pub(super) store: Store,
    pub(super) options: &'a Options,
    pub(super) build: Arc<str>,
    pub(super) crew: Crew,
    pub(super) scheduler: Scheduler,
    /// The runs under way.
    pub(super) courses: BTreeMap<RunId, Course<'a>>,
    /// Hears what is none of one run's alone, and when runs begin and end.
    pub(super) watcher: Option<&'a mut dyn FnMut(&Event)>,
    /// Runs that it is asked for and that have not begun.
    pub(super) asks: Asks,
    /// The number that the next run is given, if nobody has it.
    pub(super) number: u32,
    /// How the run ended that ended last.
    pub(super) last: Option<Report>,
    pub(super) tasks: BTreeMap<TaskId, Box<Task>>,
    pub(super) next_task: u64,
    /// The tasks under way by key, so that one that is asked for twice runs once.
    pub(super) under_way: FastMap<Key, TaskId>,
    pub(super) lookup: Lookup,
    pub(super) inbox: mpsc::Receiver<Message>,
    pub(super) outbox: mpsc::Sender<Message>,
    pub(super) wake: Option<Duration>,
    pub(super) soon: Soon,
    /// What the scheduler calls each stage.
    pub(super) stages: HashMap<String, StageId>,
    /// What earlier runs learned, once it is read.
    pub(super) recalled: Option<Costs>,
    pub(super) gangs: Gangs,
    pub(super) rests: Rests,
    /// Whether what earlier runs learned could not be read, so that it must not be written over.
    pub(super) unread: bool,
}

impl<'a> Coordinator<'a> {
    /// Gathers workers, who are told the name of the run that they work for, if it is one.
    pub(super) fn new(registry: Arc<Registry>, store: Store, options: &'a Options, name: Option<&str>) -> Result<Self> {
        let (outbox, inbox) = mpsc::channel();
        let crew = Crew::gather(&store, options, name, &outbox)?;
        let mut scheduler = crew.announce(Scheduler::new(), options.elsewhere.as_ref());
        let joined = schedule::Event::Joined { worker: HERE, has: crew.capacity() };
        scheduler.step(options.clock.elapsed(), joined);
        Ok(Self {
            registry,
            store,
            options,
            build: program::build().into(),
            crew,
            scheduler,
            courses: BTreeMap::new(),
            watcher: None,
            asks: Asks::default(),
            number: 0,
            last: None,
            tasks: BTreeMap::new(),
            next_task: 0,
            under_way: FastMap::default(),
            lookup: Lookup::new(),
            inbox,
            outbox,
            wake: None,
            soon: Soon::default(),
            stages: HashMap::new(),
            recalled: None,
            gangs: Gangs::default(),
            rests: Rests::default(),
            unread: false,
        })
    }

    /// Sees one run through.
    pub(super) fn see_through(mut self, course: Course<'a>) -> Result<Report> {
        let _span = course.span.clone().entered();
        let run = self.admit(course)?;
        if let Some(address) = self.crew.address() {
            self.tell(run, Event::Listening { address })?;
        }
        self.count_in();
        self.introduce(run)?;
        self.warn_of_devices()?;
        self.advance(run)?;
        self.work(|this| this.courses.is_empty())?;
        self.part_ways();
        self.last.context("a run ends with a report")
    }

    /// Sees the runs through that it is asked for, until it is cancelled. `watcher` hears what is none of one run's alone,
    /// and when runs begin and end.
    pub(super) fn serve(mut self, watcher: &'a mut dyn FnMut(&Event)) -> Result<()> {
        self.watcher = Some(watcher);
        self.crew.goes_on();
        self.count_in();
        if let Some(address) = self.crew.address() {
            self.tell_all(Event::Listening { address })?;
        }
        self.warn_of_devices()?;
        self.work(|_| false)?;
        self.part_ways();
        Ok(())
    }

    /// Whether it sees many runs through.
    pub(super) fn serves(&self) -> bool {
        self.watcher.is_some()
    }

    /// Works until it is done, or cancelled.
    fn work(&mut self, done: impl Fn(&Self) -> bool) -> Result<()> {
        self.close_settled()?;
        while !done(self) {
            if self.options.cancel.is_cancelled() {
                return self.interrupt();
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
            self.close_settled()?;
        }
        Ok(())
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
                Err(error) => self.unknown(id, error),
            }),
            Message::Ended(worker, id, attempt, result) => self.ended(worker, id, attempt, result),
            Message::Submitted(parent, task, reply) => self.submitted(parent, task, reply),
            Message::Said(id, step) => self.said(id, step),
            Message::Resolved(resolved) => self.resolved(*resolved),
            Message::Heard(all) => all.into_iter().try_for_each(|heard| self.heard(heard)),
        }
    }

    /// A worker elsewhere comes, goes or says something.
    fn heard(&mut self, heard: Heard) -> Result<()> {
        match heard {
            Heard::Joined(worker) => {
                let is_first = self.crew.is_empty();
                let (info, joined) = self.crew.join(self.options.clock.elapsed(), *worker);
                let joined_as = Event::WorkerJoined(self.priced(info));
                self.tell_all(joined_as)?;
                self.step(joined)?;
                if is_first { self.tell_of_all_that_wait() } else { Ok(()) }
            }
            Heard::Asked(order) => self.asked(*order),
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

    /// Begins every stage of a run whose inputs are there, and gives up those that can't have them.
    pub(super) fn advance(&mut self, run: RunId) -> Result<()> {
        let Some(course) = self.courses.get(&run) else { return Ok(()) };
        for node in course.wanted.clone() {
            let Some(course) = self.courses.get_mut(&run) else { return Ok(()) };
            if course.nodes[node] != Node::Waiting {
                continue;
            }
            let needs = course.pipeline.dependencies(node);
            if needs.iter().any(|from| course.nodes[*from] == Node::Failed) {
                course.nodes[node] = Node::Failed;
                self.close(run, node, Ending::without(Outcome::Skipped, None))?;
            } else if needs.iter().all(|from| matches!(course.nodes[*from], Node::Ready(_))) {
                course.nodes[node] = Node::Running;
                let name = |node: usize| course.pipeline.stages[node].name.clone();
                let takes = needs.iter().map(|from| name(*from)).collect();
                let request = request(&course.pipeline, node, &course.nodes);
                let started = Event::StageStarted { name: name(node), takes };
                let span = course.span.clone();
                self.tell(run, started)?;
                match request {
                    Ok(request) => {
                        let _span = span.entered();
                        self.look(Task::new(run, request, Waiter::Node(run, node)));
                    }
                    Err(error) => self.fail_node(run, node, error)?,
                }
            }
        }
        Ok(())
    }

    /// A stage failed.
    pub(super) fn fail_node(&mut self, run: RunId, node: usize, error: Error) -> Result<()> {
        if let Some(at) = self.courses.get_mut(&run).and_then(|course| course.nodes.get_mut(node)) {
            *at = Node::Failed;
        }
        self.close(run, node, Ending::without(Outcome::Failed, Some(error)))
    }

    /// Reports how a stage ended.
    pub(super) fn close(&mut self, run: RunId, node: usize, ending: Ending) -> Result<()> {
        let Ending { outcome, seconds, device, key, outputs, error } = ending;
        let metrics = self.metrics(&outputs)?;
        let Some(course) = self.courses.get_mut(&run) else { return Ok(()) };
        let Some(stage) = course.pipeline.stages.get(node) else { return Ok(()) };
        let report = StageReport {
            name: stage.name.clone(),
            outcome,
            seconds,
            device,
            key,
            metrics,
            outputs: stage
                .outputs
                .iter()
                .filter_map(|port| Some((port.name.clone(), outputs.get(&port.name)?.digest)))
                .collect(),
            help: error.as_ref().and_then(|error| error.advice().map(str::to_owned)),
            fault: error.as_ref().map(Error::whose),
            error: error.map(|error| error.to_string()),
        };
        course.reports.insert(node, report.clone());
        self.tell(run, Event::StageFinished(report))
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
                Err(error) if self.serves() => tracing::warn!("the numbers of a stage can't be read: {error}"),
                Err(error) => return Err(error),
            }
        }
        Ok(all.into_iter().collect())
    }
}
