//! What a run tells of itself: every event passes here, on its way to whoever watches and to the log.

use super::coordinator::Coordinator;
use super::event::{self, Event, Line};
use super::placement::{AttemptEnd, AttemptStart, Ended, WorkerInfo};
use super::task::{Live, Task};
use crate::schedule::{Capacity, Needs, TaskId, WorkerId};
use crate::worker::{Failure, Outcome};
use crate::{Fault, Result};
use std::time::Duration;
use tracing::{Span, info_span};

impl Coordinator<'_> {
    /// What is traced of the run as a whole.
    pub(super) fn span(&self) -> Span {
        let name = format_args!("run {}", self.run);
        info_span!("run", otel.name = %name, pipeline = self.pipeline.name, seed = self.pipeline.seed)
    }

    /// Tells an event to the sink and the log, or holds it back to tell it with others like it.
    pub(super) fn tell(&mut self, event: Event) -> Result<()> {
        let now = self.options.clock.elapsed();
        // What is held back belongs before the end of its stage.
        if matches!(event, Event::StageFinished(_) | Event::Finished(_)) {
            let folded = self.fold.all();
            self.pass_all(folded, now)?;
        }
        if let Some(metrics) = &self.options.metrics {
            metrics.hear(&event);
        }
        match self.fold.take(Line { event, at: now.as_secs_f64() }) {
            Some(line) => self.pass(&line, now),
            None => Ok(()),
        }
    }

    /// Tells what was held back long enough, and sees that the log is written in time.
    pub(super) fn pulse(&mut self) -> Result<()> {
        let now = self.options.clock.elapsed();
        let folded = self.fold.due(now.as_secs_f64());
        self.pass_all(folded, now)?;
        self.log.pulse(now)
    }

    fn pass_all(&mut self, events: Vec<Event>, now: Duration) -> Result<()> {
        events.into_iter().try_for_each(|event| self.pass(&Line { event, at: now.as_secs_f64() }, now))
    }

    fn pass(&mut self, line: &Line, now: Duration) -> Result<()> {
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

    /// Tells that an attempt was placed on a worker.
    pub(super) fn tell_started(&mut self, id: TaskId, attempt: u32, threads: usize) -> Result<()> {
        let Some(task) = self.tasks.get_mut(&id) else { return Ok(()) };
        // A second copy of one that is late is no retry, and one that was taken back from a lane neither.
        let is_retry = std::mem::take(&mut task.failed);
        let Some(live) = task.live.get(&attempt) else { return Ok(()) };
        let waited = live.since.saturating_sub(task.ready).as_secs_f64();
        let at = live.since.as_secs_f64();
        if let Some(metrics) = self.options.metrics.as_ref().filter(|_| is_retry) {
            metrics.retried(task.label());
        }
        // Metrics see all.
        if self.options.metrics.is_none() && self.fold.hold_start(task.label(), (id.0, attempt), waited, at) {
            return Ok(());
        }
        let start = AttemptStart {
            name: task.label().to_owned(),
            task: id.0,
            attempt,
            worker: self.crew.name(live.worker).to_owned(),
            device: live.device.to_string(),
            threads: threads.try_into().unwrap_or(u32::MAX),
            cores: live.cores,
            gpus: live.gpus,
            waited,
        };
        self.tell(Event::AttemptStarted(start))
    }

    /// Tells that a task of a stage has a result.
    pub(super) fn tell_finished(&mut self, name: &str, outcome: event::Outcome, seconds: f64) -> Result<()> {
        let at = self.options.clock.elapsed().as_secs_f64();
        if self.options.metrics.is_none() && self.fold.hold_finish(name, outcome, at) {
            return Ok(());
        }
        self.tell(Event::TaskFinished { name: name.to_owned(), outcome, seconds, error: None })
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
        self.tell(Event::WorkerLeft { worker: name, lost: Some(reason) })
    }

    fn tell_end(&mut self, id: TaskId, attempt: u32, live: &Live, end: Ended, counted: Counted) -> Result<()> {
        let now = self.options.clock.elapsed();
        let Some(task) = self.tasks.get_mut(&id) else { return Ok(()) };
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
        // Metrics see all.
        if self.options.metrics.is_none() && self.fold.hold_end((name, worker), &end, now.as_secs_f64()) {
            return Ok(());
        }
        (end.name, end.worker) = (name.to_owned(), worker.to_owned());
        self.tell(Event::AttemptEnded(end))
    }

    /// Tells that a worker came.
    pub(super) fn tell_joined(&mut self, mut info: WorkerInfo) -> Result<()> {
        let pool = info.pool.as_deref().and_then(|name| self.pipeline.pools.iter().find(|pool| pool.name == name));
        info.price = pool.map(|pool| pool.price);
        self.tell(Event::WorkerJoined(info))
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
    info_span!(parent: &task.span, "attempt", number = attempt, worker, threads)
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
