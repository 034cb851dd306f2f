//! A task while it is under way.

use super::losses::Losses;
use super::window::Reply;
use crate::Error;
use crate::data::Ref;
use crate::schedule::{Device, RunId, TaskId, WorkerId};
use crate::stage::{Cancel, Output, Stage, TaskRequest, Template};
use crate::store::Key;
use crate::worker::Inputs;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tracing::field::Empty;
use tracing::{Span, info_span};

/// One call of a stage that somebody asked for.
pub(super) struct Request {
    pub(super) task: Arc<TaskRequest>,
    pub(super) stage: Arc<dyn Stage>,
    pub(super) templates: BTreeMap<String, Template>,
}

impl Request {
    pub(super) fn new(task: TaskRequest, stage: Arc<dyn Stage>, templates: BTreeMap<String, Template>) -> Self {
        Self { task: Arc::new(task), stage, templates }
    }

    /// What its costs are noted under: see [`kind`].
    pub(super) fn kind(&self) -> String {
        let stage = self.task.label.split('/').next().unwrap_or_default();
        kind(stage, &self.task.stage)
    }

    /// The bytes of its inputs.
    pub(super) fn size(&self) -> u64 {
        self.task.inputs.values().flatten().map(|input| input.bytes).sum()
    }
}

/// What costs are noted under: a stage of a pipeline and what it runs. Two commands have nothing in common but that.
pub(super) fn kind(stage: &str, uses: &str) -> String {
    format!("{stage} ({uses})")
}

/// Who waits for a task.
pub(super) enum Waiter {
    /// A stage of a run's pipeline.
    Node(RunId, usize),
    /// A stage that asked for it while it runs, as this task.
    Stage(TaskId, Reply),
    /// A task one of whose inputs was lost.
    Task(TaskId),
    /// The same task, as another run asked for it. What becomes of this one is no matter to it, unless it has a result.
    Same(Box<Task>),
}

impl Waiter {
    /// Whether it no longer waits: a stage that asked for the task and has ended since.
    pub(super) fn is_gone(&self) -> bool {
        match self {
            Waiter::Stage(_, reply) => reply.answer.is_for_nobody(),
            Waiter::Same(_) => self.is_nobody(),
            Waiter::Node(..) | Waiter::Task(_) => false,
        }
    }

    /// Whether it is a task of another run that nobody waits for any more.
    pub(super) fn is_nobody(&self) -> bool {
        matches!(self, Waiter::Same(task) if !task.waiters.is_empty() && task.waiters.iter().all(Waiter::is_gone))
    }
}

/// What a task gave.
#[derive(Clone, Default)]
pub(super) struct Made {
    pub(super) outputs: BTreeMap<String, Ref>,
    /// Seconds that it ran, now or when it was first computed.
    pub(super) seconds: f64,
    /// What it ran on.
    pub(super) device: String,
}

/// An attempt under way.
pub(super) struct Live {
    /// Where it runs, or waits to.
    pub(super) worker: WorkerId,
    pub(super) cancel: Cancel,
    /// When it was placed there.
    pub(super) since: Duration,
    /// Cores that are reserved for it.
    pub(super) cores: f64,
    /// Devices that are reserved for it.
    pub(super) gpus: f64,
    /// What it is to compute on.
    pub(super) device: Cow<'static, str>,
    /// What the tasks gave that it asked for, if it runs in this process.
    pub(super) given: Option<Arc<Inputs>>,
    /// What is traced of it, until it has ended.
    pub(super) span: Span,
}

/// A task under way. It is large, as are its attempts: in maps both are boxed, so that nothing of them moves when others
/// come and go.
pub(super) struct Task {
    /// Whose it is: a run that waits for it.
    pub(super) run: RunId,
    pub(super) request: Arc<Request>,
    pub(super) key: Option<Key>,
    /// Whether its parameters name files; known once its key is.
    pub(super) files: bool,
    pub(super) waiters: Vec<Waiter>,
    /// The attempts under way, by number.
    pub(super) live: BTreeMap<u32, Box<Live>>,
    /// Whether it runs other tasks: then it runs in this process and takes no room of any worker.
    pub(super) leads: bool,
    /// What it computes on.
    pub(super) device: Device,
    /// When all that it needs was there, and it began to wait for a place.
    pub(super) ready: Duration,
    /// Run it even though its result is known: its bytes are lost.
    pub(super) again: bool,
    pub(super) losses: Losses,
    /// Whether an attempt of it failed or was lost, and none has been made since.
    pub(super) failed: bool,
    /// The inputs of it that were lost and made again, each as often as that.
    pub(super) recovered: Vec<Ref>,
    /// The last attempt's error, until the scheduler has decided what becomes of the task.
    pub(super) failure: Option<Error>,
    /// The last attempt's result, likewise.
    pub(super) outcome: Option<Made>,
    /// What is traced of it. It begins where it is made, in the span of whoever asks for it.
    pub(super) span: Span,
}

impl Task {
    pub(super) fn new(run: RunId, request: impl Into<Arc<Request>>, waiter: Waiter) -> Box<Self> {
        let request: Arc<Request> = request.into();
        let kind = match waiter {
            Waiter::Node(..) => "stage",
            Waiter::Stage(..) => "task",
            Waiter::Task(_) => "recovery",
            Waiter::Same(_) => "shared",
        };
        let span = info_span!("task", otel.name = request.task.label, kind, uses = request.task.stage, outcome = Empty);
        Box::new(Self {
            run,
            leads: request.stage.signature().submits,
            request,
            key: None,
            files: false,
            waiters: vec![waiter],
            live: BTreeMap::new(),
            device: Device::Cpu,
            ready: Duration::ZERO,
            span,
            again: false,
            losses: Losses::default(),
            failed: false,
            recovered: Vec::new(),
            failure: None,
            outcome: None,
        })
    }

    /// Whether it would fail where another request for the same did: it asks for as much, and has no deadline of its own.
    pub(super) fn shares_fate_with(&self, other: &Request) -> bool {
        let needs = &self.request.task.needs;
        *needs == other.task.needs && needs.deadline.is_none()
    }

    /// Whether an attempt is under way on a worker: no other may speak for it.
    pub(super) fn runs(&self, attempt: u32, worker: WorkerId) -> bool {
        self.live.get(&attempt).is_some_and(|live| live.worker == worker)
    }

    /// Takes an attempt that a worker says has ended.
    pub(super) fn take(&mut self, attempt: u32, worker: WorkerId) -> Option<Box<Live>> {
        self.runs(attempt, worker).then(|| self.live.remove(&attempt))?
    }

    /// Whether outputs are those that the stage's signature promises: a worker elsewhere may say anything.
    pub(super) fn promises(&self, outputs: &BTreeMap<String, Ref>) -> bool {
        let Request { stage, task, .. } = &*self.request;
        let promised = stage.outputs(&task.params);
        let given =
            |port: &Output| outputs.get(&port.name).is_some_and(|one| port.kind.is_none_or(|kind| kind == one.kind));
        promised.len() == outputs.len() && promised.iter().all(given)
    }

    pub(super) fn label(&self) -> &str {
        &self.request.task.label
    }
}
