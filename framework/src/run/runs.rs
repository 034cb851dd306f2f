//! The runs of a coordinator: how they begin and end, and whose the tasks are that several wait for.

use super::coordinator::{Coordinator, Ending};
use super::course::Course;
use super::crew::EMBEDDED;
use super::event::{Event, Line, Outcome};
use super::task::{Task, Waiter};
use crate::fast_map::FastMap;
use crate::schedule::{self, RunId, TaskId};
use crate::{Context, Error, Result};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// Numbers of runs, unless there are more at the same time.
const FEW_NUMBERS: u32 = 64;

impl<'a> Coordinator<'a> {
    /// Takes a run on.
    pub(super) fn admit(&mut self, course: Course<'a>) -> Result<RunId> {
        // Numbers of runs that are over are given again, but late: what of those is still being stopped is then gone, and
        // what is kept by number does not grow with the runs that there ever were.
        let numbers = FEW_NUMBERS.max(2 * self.courses.len() as u32);
        let first = self.number;
        let mut next = (0..numbers).map(|more| RunId(first.wrapping_add(more) % numbers));
        let run = next.find(|run| !self.courses.contains_key(run)).context("there are more numbers than runs")?;
        self.number = run.0 + 1;
        self.step(schedule::Event::Admitted { run, standing: course.standing })?;
        self.courses.insert(run, course);
        Ok(run)
    }

    /// Tells a run who works for it.
    pub(super) fn introduce(&mut self, run: RunId) -> Result<()> {
        let now = self.options.clock.elapsed();
        let workers: Vec<_> = self.crew.describe_all().into_iter().map(|info| self.priced(info)).collect();
        let Some(course) = self.courses.get_mut(&run) else { return Ok(()) };
        workers.into_iter().try_for_each(|info| course.tell(Event::WorkerJoined(info), now))
    }

    /// Ends runs whose stages have all ended, and those that are interrupted.
    pub(super) fn close_settled(&mut self) -> Result<()> {
        while let Some((run, settled)) = self.courses.iter().find_map(|(run, course)| {
            let settled = course.is_settled();
            (settled || course.cancel.is_cancelled()).then_some((*run, settled))
        }) {
            self.stop(run)?;
            self.finish(run, !settled)?;
        }
        Ok(())
    }

    /// Stops what runs for a run alone. What others wait for goes on, as theirs.
    fn stop(&mut self, run: RunId) -> Result<()> {
        let mut heirs = Heirs { tasks: &self.tasks, run, known: FastMap::default() };
        let mut plan: Vec<(TaskId, Option<RunId>, Vec<Option<RunId>>)> = Vec::new();
        let priority = |run: RunId| self.courses.get(&run).map(|course| course.standing.priority);
        let concerned = |task: &Task| {
            task.run == run || task.waiters.iter().any(|waiter| self.whose(waiter).is_none_or(|whose| whose == run))
        };
        for (id, task) in self.tasks.iter().filter(|(_, task)| concerned(task)) {
            let waiters: Vec<Option<RunId>> = task.waiters.iter().map(|waiter| heirs.of(waiter)).collect();
            let heir = waiters.iter().flatten().copied().max_by_key(|run| (priority(*run), Reverse(*run)));
            plan.push((*id, heir, waiters));
        }
        for (id, heir, waiters) in plan {
            let owned = self.tasks.get(&id).is_some_and(|task| task.run == run);
            match heir {
                Some(heir) if owned => self.pass_on(id, heir)?,
                None if owned => {
                    self.drop_task(id)?;
                    continue;
                }
                _ => {}
            }
            if let Some(task) = self.tasks.get_mut(&id) {
                let mut waiters = waiters.into_iter();
                task.waiters.retain_mut(|waiter| {
                    let Some(heir) = waiters.next().flatten() else { return false };
                    if let Waiter::Same(same) = waiter
                        && same.run == run
                    {
                        same.run = heir;
                    }
                    true
                });
            }
        }
        Ok(())
    }

    /// A task is another run's from now on, and so is what it waits for.
    pub(super) fn hand_over(&mut self, task: TaskId, to: RunId) -> Result<()> {
        let Some(from) = self.tasks.get(&task).map(|task| task.run) else { return Ok(()) };
        let mut next = vec![task];
        while !next.is_empty() {
            next.iter().try_for_each(|id| self.pass_on(*id, to))?;
            let handed: BTreeSet<TaskId> = next.into_iter().collect();
            let waits =
                |waiter: &Waiter| matches!(waiter, Waiter::Stage(id, _) | Waiter::Task(id) if handed.contains(id));
            let its = self.tasks.iter().filter(|(_, other)| other.run == from && other.waiters.iter().any(waits));
            next = its.map(|(id, _)| *id).collect();
        }
        Ok(())
    }

    fn pass_on(&mut self, task: TaskId, to: RunId) -> Result<()> {
        self.tell_handed(task, to)?;
        if let Some(task) = self.tasks.get_mut(&task) {
            task.run = to;
        }
        self.step(schedule::Event::Passed { task, to })
    }

    /// The run that somebody waits for who waits for a task.
    pub(super) fn whose(&self, waiter: &Waiter) -> Option<RunId> {
        match waiter {
            Waiter::Node(run, _) => Some(*run),
            Waiter::Stage(task, _) | Waiter::Task(task) => self.tasks.get(task).map(|task| task.run),
            Waiter::Same(task) => Some(task.run),
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

    /// What is kept of one run can't be written: that is the end of a coordinator of one, and none of the others' business
    /// where there are many.
    pub(super) fn survives(&mut self, run: &str, error: Error) -> Result<()> {
        if !self.serves() {
            return Err(error);
        }
        self.notice(&Event::Warning { name: format!("run {run}"), message: error.to_string() });
        Ok(())
    }

    /// A run can't be kept: it is stopped, and whoever asked for it hears why.
    pub(super) fn break_off(&mut self, run: RunId, error: Error) -> Result<()> {
        let Some(course) = self.courses.get_mut(&run) else { return Ok(()) };
        course.client.iter().for_each(|client| client.refuse(&error));
        course.sink = Box::new(|_: &Line| {});
        course.cancel.cancel();
        let name = course.name.clone();
        self.survives(&name, error)
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
        course.tell(Event::WorkerLeft { worker: EMBEDDED.to_owned(), lost: None }, now)?;
        self.tell(run, Event::Finished(report.clone()))?;
        if let Some(mut course) = self.courses.remove(&run)
            && let Err(error) = course.log.close()
        {
            self.survives(&course.name, error)?;
        }
        self.remember();
        self.notice(&Event::Finished(report.clone()));
        self.last = Some(report);
        Ok(())
    }
}

/// Who waits for tasks besides a run that is over.
struct Heirs<'a> {
    tasks: &'a BTreeMap<TaskId, Box<Task>>,
    run: RunId,
    known: FastMap<TaskId, Option<RunId>>,
}

impl Heirs<'_> {
    /// The other run that somebody waits for who waits for a task.
    fn of(&mut self, waiter: &Waiter) -> Option<RunId> {
        let other = |run: RunId| (run != self.run).then_some(run);
        match waiter {
            Waiter::Node(run, _) => other(*run),
            Waiter::Same(task) => other(task.run).or_else(|| task.waiters.iter().find_map(|waiter| self.of(waiter))),
            Waiter::Stage(id, _) | Waiter::Task(id) => {
                let task = self.tasks.get(id)?;
                if let Some(known) = self.known.get(id) {
                    return *known;
                }
                // Nobody waits for himself; if anybody did, it would end here.
                self.known.insert(*id, None);
                let heir = other(task.run).or_else(|| task.waiters.iter().find_map(|waiter| self.of(waiter)));
                self.known.insert(*id, heir);
                heir
            }
        }
    }
}
