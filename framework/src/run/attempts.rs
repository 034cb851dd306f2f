//! A task under way: from its key to its attempts.

use super::coordinator::Coordinator;
use super::crew::HERE;
use super::endings::LARGE;
use super::event::{Event, Outcome};
use super::task::{Live, Made, Request, Task, Waiter};
use super::voice::{Looked, Voice};
use super::watch::{attempt_span, reserved_cores};
use super::window::Reply;
use crate::schedule::{self, Action, Device, GroupId, Needs, Share, TaskId, Time, WHOLE, WorkerId};
use crate::stage::{self, Cancel, Gang, Models, Pace, ParamError, Progress, Report as Step, Seed, TaskRequest, Tasks};
use crate::worker::{Assignment, Inputs};
use crate::{Context, Error, Result};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

impl Coordinator<'_> {
    pub(super) fn looked(&mut self, id: TaskId, looked: Looked) -> Result<()> {
        let Looked { key, files, known } = looked;
        let Some(task) = self.tasks.get_mut(&id) else { return Ok(()) };
        task.key = Some(key);
        task.files = files;
        self.lookup.note(&task.request.task.stage, files);
        let run = task.run;
        if self.courses.get(&run).is_some_and(|course| files && !course.near) {
            return self.fail(id, far());
        }
        let Some(task) = self.tasks.get(&id) else { return Ok(()) };
        let memo = match task.again {
            true => Ok(None),
            false => self.remembered(id, known),
        };
        let memo = match memo {
            Err(error) if self.serves() => return self.fail(id, error),
            memo => memo?,
        };
        if let Some(memo) = memo {
            let made = Made { outputs: memo.outputs, seconds: memo.seconds, device: memo.device };
            return self.succeed(id, Outcome::Cached, made);
        }
        let other = self.under_way.get(&key).copied().filter(|other| *other != id);
        if let Some(other) = other.filter(|other| self.may_wait_with(id, *other)) {
            return self.wait_with(id, other);
        }
        // If there are two, whoever comes next waits for the newer one: the older one has waited in vain so far.
        self.under_way.insert(key, id);
        let stage = self.appraise(id)?;
        let Some(task) = self.tasks.get(&id) else { return Ok(()) };
        if task.leads {
            let TaskRequest { stage, needs, params, .. } = &*task.request.task;
            if let Err(error) = needs.check_for(stage, &*task.request.stage, Some(params)) {
                return self.fail(id, Error::usage(error));
            }
            return self.start(id, 1, (HERE, self.options.cores.max(1)), Vec::new());
        }
        let request = &task.request;
        let (members, needs) = self.place_of(task);
        let inputs = || request.task.inputs.values().flatten();
        let task = schedule::Task {
            retries: request.task.needs.retries,
            once: request.stage.signature().once,
            run: task.run,
            priority: request.task.needs.priority,
            deadline: self.deadline(task),
            // What is small travels with the attempt, wherever it goes.
            inputs: inputs().filter(|one| one.bytes >= LARGE).map(|one| ((&one.digest).into(), one.bytes)).collect(),
            size: request.size(),
            // What different stages of a run ask for shares the workers fairly.
            group: GroupId(stage.0),
            stage,
            members,
            ..schedule::Task::new(id, needs)
        };
        self.tell_of_waiting(id, (members, task.needs))?;
        self.step(schedule::Event::Submitted(task))
    }

    /// It can't be said what a task is: what it reads is not there, say.
    pub(super) fn unknown(&mut self, id: TaskId, error: Error) -> Result<()> {
        let course = self.tasks.get(&id).and_then(|task| self.courses.get(&task.run));
        let far = course.is_some_and(|course| !course.near);
        self.fail(id, if far { error.help(FAR) } else { error })
    }

    /// Whether a task may wait for the same one under another name. Of another run's it must be certain that it waits no
    /// longer for it than for a place of its own.
    fn may_wait_with(&self, id: TaskId, other: TaskId) -> bool {
        let (Some(task), Some(other)) = (self.tasks.get(&id), self.tasks.get(&other)) else { return false };
        let begun = !other.live.is_empty() || task.request.task.needs == other.request.task.needs;
        // A deadline passes while a task runs or waits for a place, and not while it waits for another one.
        let in_time = self.deadline(task).is_none_or(|own| self.deadline(other).is_some_and(|theirs| theirs <= own));
        task.run == other.run || task.request.stage.signature().once || (begun && in_time)
    }

    /// The same task is under way under another name, or for another run: this one waits for that.
    fn wait_with(&mut self, id: TaskId, first: TaskId) -> Result<()> {
        let Some(task) = self.tasks.remove(&id) else { return Ok(()) };
        let Some(other) = self.tasks.get_mut(&first) else { return Ok(()) };
        let (whose, run, is_live) = (other.run, task.run, !other.live.is_empty());
        if whose == run {
            other.waiters.extend(task.waiters);
            return Ok(());
        }
        let is_stage = task.waiters.iter().any(|waiter| matches!(waiter, Waiter::Node(..)));
        let name = task.request.task.label.clone();
        other.waiters.push(Waiter::Same(task));
        let priority = |run| self.courses.get(&run).map_or(0, |course| course.standing.priority);
        if priority(run) > priority(whose) || (!is_live && self.scheduler.precedes(run, whose)) {
            self.hand_over(first, run)?;
        }
        let Some(computes) = self.courses.get(&whose).filter(|_| is_stage) else { return Ok(()) };
        let line = format!("run {} computes it already: this one waits for that", computes.name);
        self.tell(run, Event::Log { name, line })
    }

    /// How many workers a task is placed on, and what it needs of each.
    fn place_of(&self, task: &Task) -> (u32, Needs) {
        let asked = &task.request.task.needs;
        let members = if self.crew.has_others() { asked.workers } else { 1 };
        (members, Needs { peers: members > 1, ..needs(asked, task.device, task.files) })
    }

    /// Says what waits for another worker than the first one that came.
    pub(super) fn tell_of_all_that_wait(&mut self) -> Result<()> {
        let waits = |task: &Task| task.key.is_some() && !task.leads && task.live.is_empty();
        let waiting = self.tasks.iter().filter(|(_, task)| waits(task)).map(|(id, task)| (*id, self.place_of(task)));
        let waiting: Vec<(TaskId, (u32, Needs))> = waiting.collect();
        waiting.into_iter().try_for_each(|(id, place)| self.tell_of_waiting(id, place))
    }

    /// When a task fails if it is not done: so long after its run's start.
    pub(super) fn deadline(&self, task: &Task) -> Option<Time> {
        let began = self.courses.get(&task.run).map_or(Time::ZERO, |course| course.began);
        task.request.task.needs.deadline.map(|deadline| deadline.saturating_add(began))
    }

    /// Says, once for each kind of needs, that the workers that are here or may be started can't run a task, but those
    /// that may join can. Before anybody has joined that is no news.
    fn tell_of_waiting(&mut self, id: TaskId, (members, needs): (u32, Needs)) -> Result<()> {
        let open = self.options.elsewhere.as_ref().is_some_and(|elsewhere| elsewhere.open);
        let Some(run) = self.tasks.get(&id).map(|task| task.run) else { return Ok(()) };
        let Some(course) = self.courses.get_mut(&run) else { return Ok(()) };
        if !open || self.crew.is_empty() || !course.told_to_wait.insert((members, needs)) {
            return Ok(());
        }
        let sites = self.crew.sites();
        let could_come = sites.iter().any(|site| !site.ready.is_zero() && site.has.fits(&needs));
        let places: u64 = sites.iter().map(|site| u64::from(site.has.holds(&needs, members))).sum();
        if could_come || places >= u64::from(members) {
            return Ok(());
        }
        let Some(task) = self.tasks.get(&id) else { return Ok(()) };
        let message = match members {
            1 => format!("it waits for a worker to join that has {needs}: none that is here has"),
            _ => format!(
                "its {members} members need {needs} each, and those that are here hold {places}: it waits for workers to \
                 join"
            ),
        };
        self.tell(run, Event::Warning { name: task.label().to_owned(), message })
    }

    pub(super) fn step(&mut self, event: schedule::Event) -> Result<()> {
        let now = self.options.clock.elapsed();
        for action in self.scheduler.step(now, event) {
            match action {
                Action::Start { task, attempt, worker, threads, devices, .. } => {
                    self.start(task, attempt, (worker, threads), devices)?;
                }
                Action::Stop { task, attempt, worker } => {
                    if let Some(live) = self.tasks.get(&task).and_then(|task| task.live.get(&attempt)) {
                        live.cancel.cancel();
                    }
                    self.crew.stop(worker, task, attempt);
                }
                Action::Done(id) => {
                    let outcome = self.tasks.get_mut(&id).and_then(|task| task.outcome.take());
                    if let Some(made) = outcome {
                        self.succeed(id, Outcome::Done, made)?;
                    }
                }
                Action::Failed(id) => {
                    let failure = self.tasks.get_mut(&id).and_then(|task| task.failure.take());
                    self.fail(id, failure.unwrap_or_else(|| Error::new("the task failed")))?;
                }
                Action::Expired { task, reason } => self.fail(task, Error::new(reason))?,
                Action::Refused { task, reason } => {
                    let error = Error::new(format!("no worker can ever run this stage: {reason}"));
                    self.fail(task, error.help(self.advice(task)))?;
                }
                Action::Wake(at) => self.wake = Some(at),
            }
        }
        if let Some(metrics) = &self.options.metrics {
            metrics.set_waiting(self.scheduler.waiting());
        }
        Ok(())
    }

    pub(super) fn start(
        &mut self,
        id: TaskId,
        attempt: u32,
        (worker, threads): (WorkerId, usize),
        shares: Vec<Share>,
    ) -> Result<()> {
        let Some(task) = self.tasks.get_mut(&id) else { return Ok(()) };
        let key = task.key.context("a task starts after its key is known")?;
        let cancel = Cancel::default();
        let request = &task.request;
        let mut needs = needs(&request.task.needs, task.device, task.files);
        let gang = worker != HERE && self.crew.has_others() && request.task.needs.workers > 1;
        // One that runs others mostly waits.
        if task.leads {
            needs.millicores = 0;
        }
        let given = (worker == HERE).then(|| Arc::new(Inputs::new(self.store.clone(), None)));
        let span = attempt_span(task, attempt, self.crew.name(worker), threads);
        let live = Live {
            worker,
            cancel: cancel.clone(),
            since: self.options.clock.elapsed(),
            cores: reserved_cores(needs, threads),
            gpus: needs.gpus as f64 / WHOLE as f64,
            device: device_names(&shares),
            given: given.clone(),
            span: span.clone(),
        };
        task.live.insert(attempt, live.into());
        // An attempt elsewhere speaks through its worker.
        let (progress, tasks) = match given {
            Some(given) => {
                let (outbox, window) = (self.outbox.clone(), Arc::default());
                let voice = Arc::new(Voice { task: id, outbox, window, given, pace: Pace::default() });
                (Progress::new(voice.clone()), Tasks::new(voice))
            }
            None => (Progress::default(), Tasks::default()),
        };
        let work = Box::new(Assignment {
            task: id,
            attempt,
            needs,
            shares,
            demands_device: request.task.needs.device == stage::Device::Cuda,
            isolate: task.is_isolated() && !gang,
            member: gang,
            gang: Gang::default(),
            request: request.task.clone(),
            stage: request.stage.clone(),
            key,
            templates: request.templates.clone(),
            seed: Seed::new(request.task.seed, &request.task.stage),
            threads,
            progress,
            tasks,
            models: Models::new(self.registry.clone()),
            cancel,
            build: self.build.clone(),
            span,
        });
        // Before it can end, so that its end is not told first.
        self.tell_started(id, attempt, threads)?;
        self.crew.start(worker, work);
        Ok(())
    }

    pub(super) fn submitted(&mut self, parent: TaskId, task: TaskRequest, reply: Reply) -> Result<()> {
        let Some(stage) = self.registry.get(&task.stage).cloned() else {
            reply.fail(Error::usage(format!("there is no stage {:?}", task.stage)));
            return Ok(());
        };
        // It ended meanwhile: nobody waits for the answer.
        let Some(asks) = self.tasks.get(&parent) else { return Ok(()) };
        // A stage that panics when it looks at its parameters must not take other runs with it.
        let normalised = catch_unwind(AssertUnwindSafe(|| stage.normalise(&task.params)));
        let normalised = normalised.unwrap_or_else(|_| {
            let message = "the stage panicked when it looked at its parameters".to_owned();
            Err(ParamError { path: Vec::new(), message })
        });
        match normalised {
            Ok(params) => {
                let (_span, run) = (asks.span.clone().entered(), asks.run);
                let label = format!("{}/{}", asks.label(), task.label);
                let task = TaskRequest { params, label, ..task };
                let request = Request::new(task, stage, BTreeMap::new());
                self.look(Task::new(run, request, Waiter::Stage(parent, reply)));
            }
            Err(error) => reply.fail(Error::usage(error)),
        }
        Ok(())
    }

    pub(super) fn said(&mut self, id: TaskId, step: Step) -> Result<()> {
        let Some(task) = self.tasks.get_mut(&id) else { return Ok(()) };
        task.losses.note(task.request.task.needs.workers, &step);
        let (run, name) = (task.run, task.label().to_owned());
        let event = match step.line {
            Some(line) => Event::Log { name, line },
            None => Event::Progress {
                name,
                done: step.done,
                total: step.total,
                unit: step.unit.into_owned(),
                metrics: step.metrics.into_iter().collect(),
            },
        };
        self.tell(run, event)
    }
}

/// Why a task whose parameters name files does not run for somebody to whom those are others.
fn far() -> Error {
    Error::usage("its parameters name files, and the coordinator is on another machine or in another folder").help(FAR)
}

/// What to do about it.
const FAR: &str = "ask for it from the folder in which the coordinator runs, or run it here, without --join";

/// What an attempt is to compute on: `cpu`, `cuda:0`, `cuda:0+1`.
fn device_names(shares: &[Share]) -> Cow<'static, str> {
    if shares.is_empty() {
        return "cpu".into();
    }
    let numbers: Vec<String> = shares.iter().map(|share| share.device.to_string()).collect();
    format!("cuda:{}", numbers.join("+")).into()
}

/// What a task takes of a worker if it computes on a device.
pub(super) fn needs(needs: &stage::Needs, device: Device, files: bool) -> Needs {
    let on_device = device == Device::Cuda;
    Needs {
        millicores: (needs.cpus.max(0.0) * 1000.0).ceil() as u64,
        memory: needs.memory,
        gpus: if on_device { (needs.gpus_on_cuda() * WHOLE as f64).ceil() as u64 } else { 0 },
        gpu_memory: if on_device { needs.gpu_memory } else { 0 },
        // Where the parameters name files, the task runs where those are.
        files,
        peers: false,
    }
}
