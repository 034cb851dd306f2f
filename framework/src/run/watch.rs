//! What runs tell of themselves: every event passes here, on its way to whoever watches and to the log.

use super::coordinator::Coordinator;
use super::course::Course;
use super::crew::EMBEDDED;
use super::event::{self, Event, Line};
use super::placement::{AttemptEnd, AttemptStart, Ended, WorkerInfo};
use super::task::{Live, Task};
use crate::schedule::{Capacity, Needs, RunId, TaskId, Time, WorkerId};
use crate::worker::{Failure, Outcome};
use crate::{Fault, Result};
use tracing::field::Empty;
use tracing::{Span, info_span};

impl Coordinator<'_> {
    /// Tells a run an event.
    pub(super) fn tell(&mut self, run: RunId, event: Event) -> Result<()> {
        if let Some(metrics) = &self.options.metrics {
            metrics.hear(&event);
        }
        let now = self.options.clock.elapsed();
        self.courses.get_mut(&run).map_or(Ok(()), |course| course.tell(event, now))
    }

    /// Tells all runs what is none of one's alone.
    pub(super) fn tell_all(&mut self, event: Event) -> Result<()> {
        if let Some(metrics) = &self.options.metrics {
            metrics.hear(&event);
        }
        let now = self.options.clock.elapsed();
        self.courses.values_mut().try_for_each(|course| course.tell(event.clone(), now))?;
        self.notice(&event);
        Ok(())
    }

    /// The worker inside this process is counted among those that there are.
    pub(super) fn count_in(&self) {
        let here = self.crew.describe_all().into_iter().next().map(|info| self.priced(info));
        if let (Some(metrics), Some(here)) = (&self.options.metrics, here) {
            metrics.hear(&Event::WorkerJoined(here));
        }
    }

    /// It is counted no more.
    pub(super) fn count_out(&self) {
        if let Some(metrics) = &self.options.metrics {
            metrics.hear(&Event::WorkerLeft { worker: EMBEDDED.to_owned(), lost: None });
        }
    }

    /// Tells whoever watches the coordinator, if anybody does.
    pub(super) fn notice(&mut self, event: &Event) {
        if let Some(watcher) = &mut self.watcher {
            watcher(event);
        }
    }

    /// Tells what was held back long enough, and sees that logs are written in time.
    pub(super) fn pulse(&mut self) -> Result<()> {
        let now = self.options.clock.elapsed();
        let mut broken = Vec::new();
        for (run, course) in &mut self.courses {
            if let Err(error) = course.pulse(now) {
                broken.push((*run, error));
            }
        }
        broken.into_iter().try_for_each(|(run, error)| self.break_off(run, error))
    }

    /// Tells that an attempt was placed on a worker.
    pub(super) fn tell_started(&mut self, id: TaskId, attempt: u32, threads: usize) -> Result<()> {
        let Some(task) = self.tasks.get_mut(&id) else { return Ok(()) };
        // A second copy of one that is late is no retry, and one that was taken back from a lane neither.
        let is_retry = std::mem::take(&mut task.failed);
        let Some(live) = task.live.get(&attempt) else { return Ok(()) };
        let waited = live.since.saturating_sub(task.ready).as_secs_f64();
        let Some(course) = self.courses.get_mut(&task.run) else { return Ok(()) };
        let at = course.at(live.since);
        if let Some(metrics) = self.options.metrics.as_ref().filter(|_| is_retry) {
            metrics.retried(task.label());
        }
        // Metrics see all.
        if self.options.metrics.is_none() && course.fold.hold_start(task.label(), (id.0, attempt), waited, at) {
            return Ok(());
        }
        let (run, name, worker) = (task.run, task.label().to_owned(), self.crew.name(live.worker).to_owned());
        let start = live.start((name, worker), (id, attempt), threads, waited);
        self.tell(run, Event::AttemptStarted(start))
    }

    /// Tells that a task of a stage has a result.
    pub(super) fn tell_finished(
        &mut self,
        run: RunId,
        name: &str,
        outcome: event::Outcome,
        seconds: f64,
    ) -> Result<()> {
        let Some(course) = self.courses.get_mut(&run) else { return Ok(()) };
        let at = course.at(self.options.clock.elapsed());
        if self.options.metrics.is_none() && course.fold.hold_finish(name, outcome, at) {
            return Ok(());
        }
        self.tell(run, Event::TaskFinished { name: name.to_owned(), outcome, seconds, error: None })
    }

    /// Tells how an attempt ended that was under way until now.
    pub(super) fn tell_ended(
        &mut self,
        id: TaskId,
        attempt: u32,
        live: &Live,
        result: &Result<Outcome, Failure>,
    ) -> Result<()> {
        let end = match result {
            Ok(_) => Ended::Done,
            Err(_) if live.cancel.is_cancelled() => Ended::Stopped,
            Err(failure) if failure.error.whose() == Fault::Interrupted => Ended::Stopped,
            Err(_) => Ended::Failed,
        };
        let written = result.as_ref().map_or(0, |outcome| outcome.outputs.values().map(|output| output.bytes).sum());
        let moved = result.as_ref().map_or_else(|failure| failure.moved, |outcome| outcome.moved);
        let seconds = result.as_ref().ok().map(|outcome| outcome.seconds);
        self.tell_end(id, attempt, live, end, Counted { seconds, written, moved })
    }

    /// Tells that nobody waits for the attempts of a task that are still under way, such as the slower of two copies.
    pub(super) fn tell_stopped(&mut self, id: TaskId) -> Result<()> {
        let live = self.tasks.get_mut(&id).map(|task| std::mem::take(&mut task.live)).unwrap_or_default();
        live.into_iter()
            .try_for_each(|(attempt, live)| self.tell_end(id, attempt, &live, Ended::Stopped, Counted::default()))
    }

    /// Tells that a worker is lost, and with it what it was doing.
    pub(super) fn tell_lost(&mut self, worker: WorkerId, name: String, reason: String) -> Result<()> {
        let lost: Vec<(TaskId, u32, Box<Live>)> = self
            .tasks
            .iter_mut()
            .flat_map(|(id, task)| {
                let gone = task.live.extract_if(.., |_, live| live.worker == worker);
                gone.map(|(attempt, live)| (*id, attempt, live)).collect::<Vec<_>>()
            })
            .collect();
        for (id, attempt, live) in lost {
            self.absent(id, attempt);
            self.tell_end(id, attempt, &live, Ended::Lost, Counted::default())?;
        }
        self.tell_all(Event::WorkerLeft { worker: name, lost: Some(reason) })
    }

    /// Tells two runs that a task is the second one's from now on: its attempts end for the one and begin for the other. To
    /// metrics that is nothing.
    pub(super) fn tell_handed(&mut self, id: TaskId, heir: RunId) -> Result<()> {
        let now = self.options.clock.elapsed();
        let Some(task) = self.tasks.get(&id) else { return Ok(()) };
        let (name, from) = (task.label().to_owned(), task.run);
        for (attempt, live) in &task.live {
            let worker = self.crew.name(live.worker).to_owned();
            if let Some(course) = self.courses.get_mut(&from) {
                let end = AttemptEnd {
                    name: name.clone(),
                    task: id.0,
                    attempt: *attempt,
                    worker: worker.clone(),
                    end: Ended::Stopped,
                    seconds: now.saturating_sub(live.since).as_secs_f64(),
                    cores: live.cores,
                    gpus: live.gpus,
                    // What it reads and gives is told when it has ended.
                    read: 0,
                    written: 0,
                    moved: 0,
                };
                course.tell(Event::AttemptEnded(end), now)?;
            }
            if let Some(course) = self.courses.get_mut(&heir) {
                let threads = live.cores.ceil().max(1.0) as usize;
                let start = live.start((name.clone(), worker), (id, *attempt), threads, 0.0);
                course.tell(Event::AttemptStarted(start), now)?;
            }
        }
        Ok(())
    }

    fn tell_end(&mut self, id: TaskId, attempt: u32, live: &Live, end: Ended, counted: Counted) -> Result<()> {
        let now = self.options.clock.elapsed();
        let Some(task) = self.tasks.get_mut(&id) else { return Ok(()) };
        live.span.record("outcome", end.name());
        // If there is another attempt, it waits from now on.
        task.ready = now;
        task.failed |= matches!(end, Ended::Failed | Ended::Lost);
        // Its names are copied only if it is told by itself.
        let (name, worker) = (task.label(), self.crew.name(live.worker));
        let mut end = AttemptEnd {
            name: String::new(),
            task: id.0,
            attempt,
            worker: String::new(),
            end,
            // One that waited in the lane of its worker took nothing.
            seconds: counted.seconds.unwrap_or_else(|| {
                let since = self.scheduler.runs_since(id, attempt, live.since);
                since.map_or(0.0, |since| now.saturating_sub(since).as_secs_f64())
            }),
            cores: live.cores,
            gpus: live.gpus,
            read: task.request.task.inputs.values().flatten().map(|input| input.bytes).sum(),
            written: counted.written,
            moved: counted.moved,
        };
        let Some(course) = self.courses.get_mut(&task.run) else { return Ok(()) };
        let at = course.at(now);
        // Metrics see all.
        if self.options.metrics.is_none() && course.fold.hold_end((name, worker), &end, at) {
            return Ok(());
        }
        (end.name, end.worker) = (name.to_owned(), worker.to_owned());
        let run = task.run;
        self.tell(run, Event::AttemptEnded(end))
    }

    /// What a worker presents itself as, with its price.
    pub(super) fn priced(&self, info: WorkerInfo) -> WorkerInfo {
        let mut pools = self.options.elsewhere.iter().flat_map(|elsewhere| &elsewhere.pools);
        let price = info.pool.as_deref().and_then(|name| Some(pools.find(|pool| pool.name == name)?.price));
        WorkerInfo { price, ..info }
    }
}

impl Course<'_> {
    /// Tells an event to the sink and the log, or holds it back to tell it with others like it.
    pub(super) fn tell(&mut self, event: Event, now: Time) -> Result<()> {
        // What is held back belongs before the end of its stage.
        if matches!(event, Event::StageFinished(_) | Event::Finished(_)) {
            let folded = self.fold.all();
            self.pass_all(folded, now)?;
        }
        match self.fold.take(Line { event, at: self.at(now) }) {
            Some(line) => self.pass(&line, now),
            None => Ok(()),
        }
    }

    /// Tells what was held back long enough, and sees that the log is written in time.
    fn pulse(&mut self, now: Time) -> Result<()> {
        let folded = self.fold.due(self.at(now));
        self.pass_all(folded, now)?;
        self.log.pulse(now)
    }

    fn pass_all(&mut self, events: Vec<Event>, now: Time) -> Result<()> {
        let at = self.at(now);
        events.into_iter().try_for_each(|event| self.pass(&Line { event, at }, now))
    }

    fn pass(&mut self, line: &Line, now: Time) -> Result<()> {
        self.sink.event(line);
        match &line.event {
            // How far a stage was at some moment is for those who watch; what it said last stays, as its time by phase.
            Event::Progress { name, .. } => {
                if self.pipeline.stages.iter().any(|stage| stage.name == *name) {
                    self.progress.insert(name.clone(), line.clone());
                }
                Ok(())
            }
            Event::StageFinished(stage) => {
                if let Some(progress) = self.progress.remove(&stage.name) {
                    self.log.keep(&progress, now)?;
                }
                self.log.keep(line, now)
            }
            _ => self.log.keep(line, now),
        }
    }
}

impl Live {
    /// How it began, as an attempt of a task and on a worker of these names.
    fn start(
        &self,
        (name, worker): (String, String),
        (task, attempt): (TaskId, u32),
        threads: usize,
        waited: f64,
    ) -> AttemptStart {
        AttemptStart {
            name,
            task: task.0,
            attempt,
            worker,
            device: self.device.to_string(),
            threads: threads.try_into().unwrap_or(u32::MAX),
            cores: self.cores,
            gpus: self.gpus,
            waited,
        }
    }
}

/// What the worker counted of an attempt.
#[derive(Clone, Copy, Debug, Default)]
struct Counted {
    /// How long its stage ran, if it gave a result.
    seconds: Option<f64>,
    /// Bytes of its outputs.
    written: u64,
    /// Bytes that crossed the network for it.
    moved: u64,
}

/// What is traced of an attempt.
pub(super) fn attempt_span(task: &Task, attempt: u32, worker: &str, threads: usize) -> Span {
    info_span!(parent: &task.span, "attempt", number = attempt, worker, threads, outcome = Empty)
}

/// What a task needs, or its threads if it was granted more; nothing if it only waits for others.
pub(super) fn reserved_cores(needs: Needs, threads: usize) -> f64 {
    let needed = needs.millicores as f64 / 1000.0;
    match needs.millicores {
        0 => 0.0,
        _ if threads as f64 > needed.ceil() => threads as f64,
        _ => needed,
    }
}

/// What a worker presents itself as.
pub(super) fn worker_info(worker: &str, machine: &str, has: &Capacity, pool: &str) -> WorkerInfo {
    WorkerInfo {
        worker: worker.to_owned(),
        machine: if machine.is_empty() { "elsewhere".to_owned() } else { machine.to_owned() },
        cores: has.millicores as f64 / 1000.0,
        memory: (has.memory != u64::MAX).then_some(has.memory),
        devices: (0..has.devices.len()).map(|index| format!("cuda:{index}")).collect(),
        pool: (!pool.is_empty()).then(|| pool.to_owned()),
        price: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_are_what_is_needed_or_what_was_granted_beyond() {
        let cores = |millicores, threads| reserved_cores(Needs { millicores, ..Needs::default() }, threads);
        assert_eq!(cores(0, 1), 0.0);
        assert_eq!(cores(500, 1), 0.5);
        assert_eq!(cores(1500, 2), 1.5);
        assert_eq!(cores(1000, 4), 4.0);
    }
}
