//! The coordinator: asks the store what is known, gives the rest to the scheduler, and sees that every waiter hears.

use super::event::{Event, Line, Outcome, Report, Sink, StageReport};
use super::key::{Identity, build};
use super::log::RunLog;
use super::nodes::{Node, dependencies, request};
use super::task::{Request, Task, Waiter};
use super::Options;
use crate::data::{Artifact, Metrics, Ref};
use crate::pipeline::Pipeline;
use crate::schedule::{self, Action, End, Resources, Scheduler, TaskId, WorkerId};
use crate::stage::{Models, Progress, Registry, Report as Step, ReportSink, Seed, Stored, Submit, TaskRequest, Tasks};
use crate::store::{Entry, Key, Memo, Store, StoreError};
use crate::worker::{self, Assignment, EmbeddedWorker, Failure};
use crate::{Context, Error, Fault, Result, runtime};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, mpsc};
use std::time::Duration;

/// How often an input of one task may be lost and made again before the store is given up.
const MOST_RECOVERIES: u32 = 3;
/// How long tasks under way have to stop when a run is interrupted.
const GRACE: Duration = Duration::from_secs(5);
/// How often a silent run looks whether it is interrupted.
const PULSE: Duration = Duration::from_millis(100);
const WORKER: WorkerId = WorkerId(0);

/// What comes to the coordinator's ears.
enum Message {
    /// A task's key is computed and its memo looked up.
    Looked(TaskId, Result<(Key, Option<Memo>)>),
    /// An attempt ended.
    Ended(TaskId, u32, Result<worker::Outcome, Failure>),
    /// A stage asks for a task.
    Submitted(TaskRequest, mpsc::Sender<Result<BTreeMap<String, Stored>>>),
    /// A task says how far it is.
    Said(TaskId, Step),
}

/// How a stage ended.
struct Ending {
    outcome: Outcome,
    seconds: f64,
    key: Option<Key>,
    outputs: BTreeMap<String, Ref>,
    error: Option<Error>,
}

impl Ending {
    /// The end of a stage that gave nothing.
    fn without(outcome: Outcome, error: Option<Error>) -> Self {
        Self { outcome, seconds: 0.0, key: None, outputs: BTreeMap::new(), error }
    }
}

/// One run.
pub(super) struct Coordinator<'a> {
    pipeline: &'a Pipeline,
    registry: Arc<Registry>,
    store: Store,
    options: &'a Options,
    sink: &'a mut dyn Sink,
    log: RunLog,
    run: String,
    build: String,
    worker: EmbeddedWorker,
    scheduler: Scheduler,
    wanted: Vec<usize>,
    nodes: Vec<Node>,
    reports: BTreeMap<usize, StageReport>,
    tasks: BTreeMap<TaskId, Task>,
    next_task: u64,
    /// The tasks under way by key, so that one that is asked for twice runs once.
    under_way: HashMap<Key, TaskId>,
    /// Who made what in this run, so that what the store loses can be made again.
    made: HashMap<Ref, Request>,
    inbox: mpsc::Receiver<Message>,
    outbox: mpsc::Sender<Message>,
    wake: Option<Duration>,
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
        let worker = EmbeddedWorker::new(store.clone(), options.cores)?;
        let build = build();
        let stages: Vec<String> = wanted.iter().map(|node| pipeline.stages[*node].name.clone()).collect();
        let (log, line) = RunLog::create(&store, &pipeline.name, |run| Line {
            event: Event::Started {
                run,
                pipeline: pipeline.name.clone(),
                seed: pipeline.seed,
                stages: stages.clone(),
                unix: options.clock.unix(),
                build: build.clone(),
            },
            at: options.clock.elapsed().as_secs_f64(),
        })?;
        sink.event(&line);
        let Event::Started { run, .. } = line.event else { return Err(Error::new("a run begins with its start")) };
        let mut nodes = vec![Node::Outside; pipeline.stages.len()];
        wanted.iter().for_each(|node| nodes[*node] = Node::Waiting);
        let (outbox, inbox) = mpsc::channel();
        let mut scheduler = Scheduler::new();
        let joined = schedule::Event::Joined { worker: WORKER, has: worker.resources() };
        scheduler.step(options.clock.elapsed(), joined);
        Ok(Self {
            pipeline,
            registry,
            store,
            options,
            sink,
            log,
            run,
            build,
            worker,
            scheduler,
            wanted,
            nodes,
            reports: BTreeMap::new(),
            tasks: BTreeMap::new(),
            next_task: 0,
            under_way: HashMap::new(),
            made: HashMap::new(),
            inbox,
            outbox,
            wake: None,
        })
    }

    /// Sees the run through.
    pub(super) fn run(mut self) -> Result<Report> {
        self.advance()?;
        let mut interrupted = false;
        while self.wanted.iter().any(|node| matches!(self.nodes[*node], Node::Waiting | Node::Running)) {
            if self.options.cancel.is_cancelled() {
                interrupted = true;
                self.interrupt();
                break;
            }
            match self.next_message() {
                Some(message) => self.hear(message)?,
                None => self.step(schedule::Event::Tick)?,
            }
        }
        self.finish(interrupted)
    }

    fn next_message(&mut self) -> Option<Message> {
        let due = self.wake.map(|wake| wake.saturating_sub(self.options.clock.elapsed()));
        let message = self.inbox.recv_timeout(due.unwrap_or(PULSE).min(PULSE)).ok();
        if due.is_some_and(|due| due.is_zero()) {
            self.wake = None;
        }
        message
    }

    fn hear(&mut self, message: Message) -> Result<()> {
        match message {
            Message::Looked(id, Ok((key, memo))) => self.looked(id, key, memo),
            Message::Looked(id, Err(error)) => self.fail(id, error),
            Message::Ended(id, attempt, result) => self.ended(id, attempt, result),
            Message::Submitted(task, reply) => self.submitted(task, reply),
            Message::Said(id, step) => self.said(id, step),
        }
    }

    /// Begins every stage whose inputs are there, and gives up those that can't have them.
    fn advance(&mut self) -> Result<()> {
        for node in self.wanted.clone() {
            if self.nodes[node] != Node::Waiting {
                continue;
            }
            let needs = dependencies(self.pipeline, node);
            if needs.iter().any(|from| self.nodes[*from] == Node::Failed) {
                self.nodes[node] = Node::Failed;
                self.close(node, Ending::without(Outcome::Skipped, None))?;
            } else if needs.iter().all(|from| matches!(self.nodes[*from], Node::Ready(_))) {
                self.nodes[node] = Node::Running;
                self.tell(Event::StageStarted { name: self.pipeline.stages[node].name.clone() })?;
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

    /// Takes a task on: computes its key and looks up what is known, off this thread.
    fn look(&mut self, task: Task) {
        let id = TaskId(self.next_task);
        self.next_task += 1;
        let (request, store, outbox) = (task.request.clone(), self.store.clone(), self.outbox.clone());
        self.tasks.insert(id, task);
        let look = move || {
            let found = Identity {
                uses: &request.task.stage,
                stage: &*request.stage,
                params: &request.task.params,
                seed: request.task.seed,
                inputs: &request.task.inputs,
                templates: &request.templates,
            }
            .key()
            .and_then(|key| Ok((key, runtime()?.block_on(known(&store, key))?)));
            // The run may have ended; then nobody waits.
            let _ = outbox.send(Message::Looked(id, found));
        };
        match runtime() {
            Ok(runtime) => drop(runtime.spawn_blocking(look)),
            Err(error) => drop(self.outbox.send(Message::Looked(id, Err(error)))),
        }
    }

    fn looked(&mut self, id: TaskId, key: Key, memo: Option<Memo>) -> Result<()> {
        let Some(task) = self.tasks.get_mut(&id) else { return Ok(()) };
        task.key = Some(key);
        if let Some(memo) = memo.filter(|_| !task.again) {
            return self.succeed(id, Outcome::Cached, memo.outputs, memo.seconds);
        }
        if let Some(other) = self.under_way.get(&key).copied().filter(|other| *other != id) {
            // The same task under another name: it waits for the one that runs.
            if let Some(task) = self.tasks.remove(&id)
                && let Some(other) = self.tasks.get_mut(&other)
            {
                other.waiters.extend(task.waiters);
            }
            return Ok(());
        }
        let task = schedule::Task {
            id,
            needs: needs(&task.request, self.worker.resources()),
            priority: 0,
            retries: task.request.task.needs.retries,
        };
        self.under_way.insert(key, id);
        self.step(schedule::Event::Submitted(task))
    }

    fn step(&mut self, event: schedule::Event) -> Result<()> {
        let now = self.options.clock.elapsed();
        for action in self.scheduler.step(now, event) {
            match action {
                Action::Start { task, attempt, threads, .. } => self.start(task, attempt, threads)?,
                Action::Stop { task, .. } => {
                    if let Some(task) = self.tasks.get(&task) {
                        task.cancel.cancel();
                    }
                }
                Action::Done(id) => {
                    let outcome = self.tasks.get_mut(&id).and_then(|task| task.outcome.take());
                    if let Some((outputs, seconds)) = outcome {
                        self.succeed(id, Outcome::Done, outputs, seconds)?;
                    }
                }
                Action::Failed(id) => {
                    let failure = self.tasks.get_mut(&id).and_then(|task| task.failure.take());
                    self.fail(id, failure.unwrap_or_else(|| Error::new("the task failed")))?;
                }
                Action::Refused { task, reason } => {
                    let error = Error::new(format!("no worker can ever run this stage: {reason}"))
                        .help("ask for less under `needs`");
                    self.fail(task, error)?;
                }
                Action::Wake(at) => self.wake = Some(at),
            }
        }
        Ok(())
    }

    fn start(&mut self, id: TaskId, attempt: u32, threads: usize) -> Result<()> {
        let Some(task) = self.tasks.get_mut(&id) else { return Ok(()) };
        let key = task.key.context("a task starts after its key is known")?;
        task.attempt = attempt;
        let request = &task.request;
        let voice = Arc::new(Voice { task: id, outbox: self.outbox.clone() });
        let work = Assignment {
            task: id,
            attempt,
            uses: request.task.stage.clone(),
            stage: request.stage.clone(),
            key,
            params: request.task.params.clone(),
            inputs: request.task.inputs.clone(),
            templates: request.templates.clone(),
            seed: Seed::new(request.task.seed, &request.task.stage),
            threads,
            progress: Progress::new(voice.clone()),
            tasks: Tasks::new(voice),
            models: Models::new(self.registry.clone()),
            cancel: task.cancel.clone(),
            build: self.build.clone(),
        };
        let outbox = self.outbox.clone();
        let done = move |result| drop(outbox.send(Message::Ended(id, attempt, result)));
        if let Err(error) = self.worker.start(work, done) {
            let failure = Failure { error, lost: None };
            let _ = self.outbox.send(Message::Ended(id, attempt, Err(failure)));
        }
        Ok(())
    }

    fn ended(&mut self, id: TaskId, attempt: u32, result: Result<worker::Outcome, Failure>) -> Result<()> {
        let Some(task) = self.tasks.get_mut(&id).filter(|task| task.attempt == attempt) else { return Ok(()) };
        let end = match result {
            Ok(outcome) => {
                task.outcome = Some((outcome.outputs, outcome.seconds));
                if outcome.differs {
                    let name = task.label().to_owned();
                    let message = "the stage is not deterministic: another result was committed for the same key \
                                   before; that one counts"
                        .to_owned();
                    self.tell(Event::Warning { name, message })?;
                }
                End::Done
            }
            Err(failure) => {
                if let Some(lost) = failure.lost
                    && task.recoveries < MOST_RECOVERIES
                    && let Some(maker) = self.made.get(&lost).cloned()
                {
                    return self.recover(id, lost, maker, failure.error);
                }
                let passes = failure.error.whose() != Fault::Usage && failure.error.whose() != Fault::Interrupted;
                task.failure = Some(failure.error);
                if passes { End::Transient } else { End::Failed }
            }
        };
        self.step(schedule::Event::Ended { task: id, attempt, end })
    }

    /// An input is lost: whatever made it runs again, and the task after it.
    fn recover(&mut self, id: TaskId, lost: Ref, maker: Request, error: Error) -> Result<()> {
        self.step(schedule::Event::Cancelled(id))?;
        let Some(mut task) = self.tasks.remove(&id) else { return Ok(()) };
        if let Some(key) = task.key {
            self.under_way.remove(&key);
        }
        let message = format!("{error}; stage {:?} computes it again", maker.task.label);
        self.tell(Event::Warning { name: task.label().to_owned(), message })?;
        runtime()?.block_on(self.store.discard(Entry::Blob(lost)))?;
        task.recoveries += 1;
        task.cancel = crate::stage::Cancel::default();
        let waiting = TaskId(self.next_task);
        self.next_task += 1;
        self.tasks.insert(waiting, task);
        let mut again = Task::new(maker, Waiter::Task(waiting));
        again.again = true;
        self.look(again);
        Ok(())
    }

    fn submitted(&mut self, task: TaskRequest, reply: mpsc::Sender<Result<BTreeMap<String, Stored>>>) -> Result<()> {
        let Some(stage) = self.registry.get(&task.stage).cloned() else {
            let _ = reply.send(Err(Error::usage(format!("there is no stage {:?}", task.stage))));
            return Ok(());
        };
        match stage.normalise(&task.params) {
            Ok(params) => {
                let task = TaskRequest { params, ..task };
                self.look(Task::new(Request { task, stage, templates: BTreeMap::new() }, Waiter::Stage(reply)));
            }
            Err(error) => drop(reply.send(Err(Error::usage(error)))),
        }
        Ok(())
    }

    fn said(&mut self, id: TaskId, step: Step) -> Result<()> {
        let Some(task) = self.tasks.get(&id) else { return Ok(()) };
        let name = task.label().to_owned();
        self.tell(match step.line {
            Some(line) => Event::Log { name, line },
            None => Event::Progress {
                name,
                done: step.done,
                total: step.total,
                unit: step.unit.to_owned(),
                metrics: step.metrics.into_iter().collect(),
            },
        })
    }

    fn succeed(&mut self, id: TaskId, outcome: Outcome, outputs: BTreeMap<String, Ref>, seconds: f64) -> Result<()> {
        let Some(task) = self.forget(id) else { return Ok(()) };
        outputs.values().for_each(|made| drop(self.made.insert(*made, task.request.clone())));
        for waiter in task.waiters {
            match waiter {
                Waiter::Node(node) => {
                    self.nodes[node] = Node::Ready(outputs.clone());
                    self.close(node, Ending { outcome, seconds, key: task.key, outputs: outputs.clone(), error: None })?;
                }
                Waiter::Stage(reply) => {
                    let name = task.request.task.label.clone();
                    self.tell(Event::TaskFinished { name, outcome, seconds, error: None })?;
                    let fetch = self.store.fetcher();
                    let stored = outputs.iter().map(|(port, one)| (port.clone(), Stored::new(*one, fetch.clone())));
                    // A stage that no longer waits has failed or was stopped.
                    let _ = reply.send(Ok(stored.collect()));
                }
                Waiter::Task(waiting) => {
                    if let Some(task) = self.tasks.remove(&waiting) {
                        self.look(task);
                    }
                }
            }
        }
        self.advance()
    }

    fn fail(&mut self, id: TaskId, error: Error) -> Result<()> {
        let Some(task) = self.forget(id) else { return Ok(()) };
        for waiter in task.waiters {
            match waiter {
                Waiter::Node(node) => {
                    self.nodes[node] = Node::Failed;
                    self.close(node, Ending::without(Outcome::Failed, Some(error.clone())))?;
                }
                Waiter::Stage(reply) => {
                    let name = task.request.task.label.clone();
                    let said = Some(error.to_string());
                    self.tell(Event::TaskFinished { name, outcome: Outcome::Failed, seconds: 0.0, error: said })?;
                    let _ = reply.send(Err(error.clone()));
                }
                Waiter::Task(waiting) => self.fail(waiting, error.clone())?,
            }
        }
        self.advance()
    }

    fn forget(&mut self, id: TaskId) -> Option<Task> {
        let task = self.tasks.remove(&id)?;
        if let Some(key) = task.key.filter(|key| self.under_way.get(key) == Some(&id)) {
            self.under_way.remove(&key);
        }
        Some(task)
    }

    /// Reports how a stage ended.
    fn close(&mut self, node: usize, ending: Ending) -> Result<()> {
        let Ending { outcome, seconds, key, outputs, error } = ending;
        let report = StageReport {
            name: self.pipeline.stages[node].name.clone(),
            outcome,
            seconds,
            device: "cpu".into(),
            key,
            metrics: self.metrics(&outputs)?,
            outputs: self.pipeline.stages[node]
                .outputs
                .iter()
                .filter_map(|port| Some((port.name.clone(), outputs.get(&port.name)?.digest)))
                .collect(),
            help: error.as_ref().and_then(|error| error.advice().map(str::to_owned)),
            error: error.map(|error| error.to_string()),
        };
        self.reports.insert(node, report.clone());
        self.tell(Event::StageFinished(report))?;
        if outcome != Outcome::Cached {
            self.log.flush()?;
        }
        Ok(())
    }

    /// The numbers among what a stage gave.
    fn metrics(&self, outputs: &BTreeMap<String, Ref>) -> Result<Metrics> {
        let mut all = Vec::new();
        for reference in outputs.values().filter(|reference| reference.kind == crate::data::Kind::Metrics) {
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
    fn interrupt(&mut self) {
        self.tasks.retain(|_, task| task.attempt > 0);
        self.tasks.values().for_each(|task| task.cancel.cancel());
        let until = self.options.clock.elapsed() + GRACE;
        while !self.tasks.is_empty() && self.options.clock.elapsed() < until {
            if let Ok(Message::Ended(id, ..)) = self.inbox.recv_timeout(PULSE) {
                self.tasks.remove(&id);
            }
        }
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
        self.tell(Event::Finished(report.clone()))?;
        self.log.flush()?;
        Ok(report)
    }

    fn tell(&mut self, event: Event) -> Result<()> {
        let line = Line { event, at: self.options.clock.elapsed().as_secs_f64() };
        self.sink.event(&line);
        match line.event {
            // How far a stage was at some moment is for those who watch.
            Event::Progress { .. } => Ok(()),
            _ => self.log.keep(&line),
        }
    }
}

/// The memo of a key, if everything that it names is still there; what can't be read counts as unknown.
pub(super) async fn known(store: &Store, key: Key) -> Result<Option<Memo>> {
    let memo = match store.memo(key).await {
        Ok(Some(memo)) => memo,
        Ok(None) => return Ok(None),
        Err(error) if StoreError::of(&error).is_some_and(StoreError::is_lost) => {
            store.discard(Entry::Memo(key)).await?;
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    for reference in memo.outputs.values() {
        if !store.has(*reference).await? {
            return Ok(None);
        }
    }
    Ok(Some(memo))
}

/// What a task takes of a worker. One that mostly waits for others takes nothing. A gang's tasks are threads of the one
/// worker there is, so it takes at most all that this worker has.
fn needs(request: &Request, has: Resources) -> Resources {
    let needs = &request.task.needs;
    let one = if request.stage.signature().submits { 0.0 } else { needs.cpus.max(0.0) };
    let millicores = (one * 1000.0).ceil() as u64;
    let gang = millicores.saturating_mul(u64::from(needs.workers.max(1)));
    Resources {
        millicores: if needs.workers > 1 { gang.min(has.millicores).max(millicores) } else { millicores },
        gpus: u64::from(needs.device == crate::stage::Device::Cuda),
    }
}

/// How a running stage speaks to the coordinator.
struct Voice {
    task: TaskId,
    outbox: mpsc::Sender<Message>,
}

impl ReportSink for Voice {
    fn report(&self, step: Step) {
        // The run may have ended; then nobody listens.
        let _ = self.outbox.send(Message::Said(self.task, step));
    }
}

impl Submit for Voice {
    fn submit(&self, task: TaskRequest) -> mpsc::Receiver<Result<BTreeMap<String, Stored>>> {
        let (sender, receiver) = mpsc::channel();
        let _ = self.outbox.send(Message::Submitted(task, sender));
        receiver
    }
}
