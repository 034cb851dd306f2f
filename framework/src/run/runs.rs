//! The runs of a coordinator: how they are asked for, begin and end.

use super::coordinator::{Coordinator, Ending};
use super::course::{Course, Opening};
use super::crew::EMBEDDED;
use super::event::{Event, Outcome, Sink};
use super::task::{Task, Waiter};
use super::voice::Message;
use super::{Line, wanted};
use crate::pipeline::{Override, Pipeline, SourceFile, resolve};
use crate::schedule::{self, RunId, TaskId};
use crate::stage::Registry;
use crate::store::Store;
use crate::worker::{Client, Order};
use crate::{Error, Fault, Result, runtime};
use std::borrow::Cow;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs that one coordinator sees through at the same time.
const MOST_RUNS: usize = 1000;

/// A run that somebody asked for, as far as it is understood.
pub(super) struct Resolved {
    order: Order,
    begun: Result<(Pipeline, Vec<usize>, Opening)>,
}

impl<'a> Coordinator<'a> {
    /// Takes a run on.
    pub(super) fn admit(&mut self, course: Course<'a>) -> Result<RunId> {
        // Numbers of runs that are over are given again: what is kept by number does not grow with the runs there ever were.
        let taken = |run: &RunId| self.courses.contains_key(run);
        let run = (0..).map(RunId).find(|run| !taken(run)).unwrap_or_default();
        self.step(schedule::Event::Admitted { run, standing: course.standing })?;
        self.courses.insert(run, course);
        Ok(run)
    }

    /// Tells a run who works for it.
    pub(super) fn introduce(&mut self, run: RunId) -> Result<()> {
        let workers = self.crew.describe_all();
        workers.into_iter().try_for_each(|info| {
            let joined = Event::WorkerJoined(self.priced(info));
            self.tell(run, joined)
        })
    }

    /// Somebody asks for a run: what it is is found out beside the other work.
    pub(super) fn asked(&mut self, order: Order) -> Result<()> {
        if self.courses.len() >= MOST_RUNS {
            let error = Error::unavailable(format!("the coordinator sees {MOST_RUNS} runs through, and takes no more"));
            order.client.refuse(&error.help("ask again when some of them have ended"));
            return Ok(());
        }
        let (registry, store, outbox) = (self.registry.clone(), self.store.clone(), self.outbox.clone());
        let (began, build) = (self.options.clock.unix_millis(), self.build.clone());
        runtime()?.spawn_blocking(move || {
            let begin = || begin(&order, &registry, &store, began, &build);
            // What nobody thought of must not take the other runs with it.
            let begun = catch_unwind(AssertUnwindSafe(begin)).unwrap_or_else(|_| {
                Err(Error::new("the coordinator panicked when it read the pipeline").fault(Fault::Bug))
            });
            // The coordinator may have ended.
            let _ = outbox.send(Message::Resolved(Box::new(Resolved { order, begun })));
        });
        Ok(())
    }

    /// A run that somebody asked for begins, if it can.
    pub(super) fn resolved(&mut self, Resolved { order, begun }: Resolved) -> Result<()> {
        let (pipeline, wanted, opening) = match begun {
            Ok(begun) => begun,
            Err(error) => {
                order.client.refuse(&error);
                return Ok(());
            }
        };
        order.client.accept(&absolute(self.store.url()));
        // Nobody waits any more for the run of a client that is gone.
        let (client, cancel) = (order.client.clone(), order.client.gone());
        let sink: Box<dyn Sink> = Box::new(move |line: &Line| tell(&client, line));
        let pools = !pipeline.pools.is_empty();
        let elsewhere = pipeline.store.clone().filter(|store| *store != self.store.url());
        let started = opening.event().clone();
        let mut course = Course::new((Cow::Owned(pipeline), wanted), opening, sink, cancel)?;
        (course.began, course.standing, course.near) = (self.options.clock.elapsed(), order.standing, order.near);
        self.notice(&started);
        let run = self.admit(course)?;
        self.introduce(run)?;
        let mut warn = |name: &str, message: String| self.tell(run, Event::Warning { name: name.to_owned(), message });
        if pools {
            warn("pools", "the coordinator has its own workers: the pipeline's pools are not used".to_owned())?;
        }
        if let Some(store) = elsewhere {
            warn("store", format!("results are kept in the coordinator's store, and not in the pipeline's, {store}"))?;
        }
        self.advance(run)
    }

    /// Ends runs whose stages have all ended, and those that are interrupted.
    pub(super) fn close_settled(&mut self) -> Result<()> {
        while let Some((run, settled)) = self.courses.iter().find_map(|(run, course)| {
            let settled = course.is_settled();
            (settled || course.cancel.is_cancelled()).then_some((*run, settled))
        }) {
            if !settled {
                self.stop(run)?;
            }
            self.finish(run, !settled)?;
        }
        Ok(())
    }

    /// Stops what runs for a run alone. What others wait for goes on, as theirs.
    fn stop(&mut self, run: RunId) -> Result<()> {
        // First those that run others: whose those are follows from them.
        let (leading, led): (Vec<TaskId>, Vec<TaskId>) =
            self.tasks.keys().partition(|id| self.tasks.get(id).is_some_and(|task| task.leads));
        for id in leading.into_iter().chain(led) {
            let Some(task) = self.tasks.get(&id) else { continue };
            let whose: Vec<Option<RunId>> = task.waiters.iter().map(|waiter| self.whose(waiter)).collect();
            if task.run != run && !whose.contains(&Some(run)) {
                continue;
            }
            let heir = whose.iter().flatten().find(|other| **other != run).copied();
            let Some(heir) = heir else {
                self.drop_task(id)?;
                continue;
            };
            if task.run == run {
                self.tell_handed(id, heir)?;
            }
            if let Some(task) = self.tasks.get_mut(&id) {
                let mut whose = whose.into_iter();
                task.waiters.retain(|_| whose.next().flatten().is_some_and(|other| other != run));
            }
        }
        Ok(())
    }

    /// The run that somebody waits for who waits for a task.
    pub(super) fn whose(&self, waiter: &Waiter) -> Option<RunId> {
        match waiter {
            Waiter::Node(run, _) => Some(*run),
            Waiter::Stage(task, _) | Waiter::Task(task) => self.tasks.get(task).map(|task| task.run),
        }
    }

    /// Stops a task that nobody waits for.
    pub(super) fn drop_task(&mut self, id: TaskId) -> Result<Option<Box<Task>>> {
        self.step(schedule::Event::Cancelled(id))?;
        // Those that run others are none of the scheduler's.
        self.tasks.get(&id).into_iter().flat_map(|task| task.live.values()).for_each(|live| live.cancel.cancel());
        self.tell_stopped(id)?;
        Ok(self.forget(id))
    }

    /// A run is over.
    pub(super) fn finish(&mut self, run: RunId, interrupted: bool) -> Result<()> {
        let Some(course) = self.courses.get(&run) else { return Ok(()) };
        let open = course.wanted.iter().filter(|node| !course.reports.contains_key(node));
        for node in open.copied().collect::<Vec<usize>>() {
            self.close(run, node, Ending::without(Outcome::Skipped, None))?;
        }
        let now = self.options.clock.elapsed();
        let Some(course) = self.courses.get_mut(&run) else { return Ok(()) };
        let report = course.report(now, interrupted);
        self.tell(run, Event::WorkerLeft { worker: EMBEDDED.to_owned(), lost: None })?;
        self.tell(run, Event::Finished(report.clone()))?;
        if let Some(mut course) = self.courses.remove(&run) {
            course.log.close()?;
        }
        self.remember()?;
        self.notice(&Event::Finished(report.clone()));
        self.last = Some(report);
        Ok(())
    }
}

/// The address of a store, for somebody in another folder.
fn absolute(url: &str) -> String {
    let folder = url.strip_prefix("file://").and_then(|path| std::path::absolute(path).ok());
    folder.map_or_else(|| url.to_owned(), |folder| format!("file://{}", folder.display()))
}

/// Tells a client what happens in its run.
fn tell(client: &Client, line: &Line) {
    let may_be_left_out = matches!(line.event, Event::Progress { .. } | Event::Log { .. });
    // What an event holds is always JSON.
    if let Ok(event) = serde_json::to_vec(line) {
        client.tell(event, may_be_left_out);
    }
}

/// Reads what somebody asks for, and opens the run's log.
fn begin(
    order: &Order,
    registry: &Registry,
    store: &Store,
    unix_millis: u64,
    build: &str,
) -> Result<(Pipeline, Vec<usize>, Opening)> {
    let overrides = order.overrides.iter().map(|text| Override::parse(text)).collect::<Result<Vec<_>>>()?;
    let source = SourceFile::new(order.name.clone(), order.text.clone());
    let (pipeline, found) = resolve(&source, registry, &overrides);
    let pipeline = pipeline.ok_or_else(|| {
        let found: Vec<String> = found.iter().map(ToString::to_string).collect();
        Error::usage(format!("{} can't be run: {}", order.name, found.join("; ")))
    })?;
    let wanted = wanted(&pipeline, &order.only)?;
    let opening = Opening::of(&pipeline, &wanted, store, (unix_millis, schedule::Time::ZERO), build)?;
    Ok((pipeline, wanted, opening))
}
