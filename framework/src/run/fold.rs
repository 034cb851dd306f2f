//! Many small tasks, told together: a run of a million tasks must not write a million lines.

use super::Line;
use super::event::{Event, Outcome};
use super::placement::{AttemptEnd, AttemptStart, AttemptsFolded, Ended};
use crate::fast_map::FastMap;
use std::collections::BTreeMap;

/// How many tasks of one stage a run tells one by one. What comes after is counted, and told together once a second
/// ([`Event::AttemptsFolded`], [`Event::TasksFolded`]); of failed tasks, as many again are still told with the reason.
/// The stages of the pipeline themselves are always told one by one.
pub const ONE_BY_ONE: usize = 1000;

/// Seconds for which events are gathered.
const GATHER: f64 = 1.0;

/// Takes the events of a run and holds back those that are told together.
#[derive(Default)]
pub(super) struct Fold {
    stages: FastMap<String, Stage>,
    /// How long attempts under way have waited that were held back when they started, by task and attempt.
    open: FastMap<(u64, u32), f64>,
    /// Since when something is held back.
    since: Option<f64>,
}

/// What is known of one stage's tasks.
#[derive(Default)]
struct Stage {
    attempts: usize,
    tasks: usize,
    failures: usize,
    folded: BTreeMap<String, AttemptsFolded>,
    done: u64,
    cached: u64,
    failed: u64,
}

impl Fold {
    /// Gives the line back, if it is to be told now.
    pub(super) fn take(&mut self, line: Line) -> Option<Line> {
        let at = line.at;
        let told = match &line.event {
            Event::AttemptStarted(start) => self.started(start, at),
            Event::AttemptEnded(end) => !self.hold_end((&end.name, &end.worker), end, at),
            Event::TaskFinished { name, outcome, .. } => self.finished(name, *outcome, at),
            _ => true,
        };
        if told {
            return Some(line);
        }
        self.since.get_or_insert(at);
        None
    }

    /// What was held back, if it is time to tell it.
    pub(super) fn due(&mut self, now: f64) -> Vec<Event> {
        match self.since {
            Some(since) if now - since >= GATHER => self.all(),
            _ => Vec::new(),
        }
    }

    /// Everything that was held back, in the order of the stages' names.
    pub(super) fn all(&mut self) -> Vec<Event> {
        if self.since.take().is_none() {
            return Vec::new();
        }
        let mut stages: Vec<_> = self.stages.iter_mut().collect();
        stages.sort_by_key(|(name, _)| name.as_str());
        stages.into_iter().flat_map(|(name, stage)| stage.drain(name)).collect()
    }

    /// Counts the start of an attempt of a stage that has had many; whether it has, so that nothing need be told of it.
    pub(super) fn hold_start(&mut self, name: &str, attempt: (u64, u32), waited: f64, at: f64) -> bool {
        let stage = stage_of(name).and_then(|stage| self.stages.get_mut(stage));
        let Some(stage) = stage.filter(|stage| stage.attempts >= ONE_BY_ONE) else { return false };
        stage.attempts += 1;
        self.open.insert(attempt, waited);
        self.since.get_or_insert(at);
        true
    }

    /// Counts a task that did not fail, of a stage that has had many; whether it has, likewise.
    pub(super) fn hold_finish(&mut self, name: &str, outcome: Outcome, at: f64) -> bool {
        let stage = stage_of(name).and_then(|stage| self.stages.get_mut(stage));
        let Some(stage) = stage.filter(|stage| stage.tasks >= ONE_BY_ONE) else { return false };
        let count = match outcome {
            Outcome::Cached => &mut stage.cached,
            Outcome::Done => &mut stage.done,
            Outcome::Failed | Outcome::Skipped => return false,
        };
        (*count, stage.tasks) = (*count + 1, stage.tasks + 1);
        self.since.get_or_insert(at);
        true
    }

    /// Counts the end of an attempt, of a task and on a worker of these names, whose start was held back; whether it was.
    pub(super) fn hold_end(&mut self, (name, worker): (&str, &str), end: &AttemptEnd, at: f64) -> bool {
        let Some(waited) = self.open.remove(&(end.task, end.attempt)) else { return false };
        let name = stage_of(name).unwrap_or(name);
        let Some(Stage { folded, .. }) = self.stage(name) else { return false };
        if !folded.contains_key(worker) {
            folded.insert(worker.to_owned(), AttemptsFolded::none(name, worker, at));
        }
        if let Some(folded) = folded.get_mut(worker) {
            folded.add(waited, end, at);
        }
        self.since.get_or_insert(at);
        true
    }

    fn started(&mut self, start: &AttemptStart, at: f64) -> bool {
        if self.hold_start(&start.name, (start.task, start.attempt), start.waited, at) {
            return false;
        }
        if let Some(stage) = stage_of(&start.name).and_then(|stage| self.stage(stage)) {
            stage.attempts += 1;
        }
        true
    }

    fn finished(&mut self, name: &str, outcome: Outcome, at: f64) -> bool {
        if self.hold_finish(name, outcome, at) {
            return false;
        }
        let Some(stage) = stage_of(name).and_then(|stage| self.stage(stage)) else { return true };
        stage.tasks += 1;
        let failed = outcome == Outcome::Failed;
        stage.failures += usize::from(failed);
        if stage.tasks <= ONE_BY_ONE || (failed && stage.failures <= ONE_BY_ONE) {
            return true;
        }
        stage.failed += 1;
        false
    }

    /// What is known of a stage. This is called for every task: the name is copied once a stage.
    fn stage(&mut self, name: &str) -> Option<&mut Stage> {
        if !self.stages.contains_key(name) {
            self.stages.insert(name.to_owned(), Stage::default());
        }
        self.stages.get_mut(name)
    }
}

impl Stage {
    fn drain(&mut self, name: &str) -> Vec<Event> {
        let mut events: Vec<Event> =
            std::mem::take(&mut self.folded).into_values().map(Event::AttemptsFolded).collect();
        let [done, cached, failed] = [&mut self.done, &mut self.cached, &mut self.failed].map(std::mem::take);
        if done + cached + failed > 0 {
            events.push(Event::TasksFolded { name: name.to_owned(), done, cached, failed });
        }
        events
    }
}

impl AttemptsFolded {
    fn none(name: &str, worker: &str, from: f64) -> Self {
        Self {
            name: name.to_owned(),
            worker: worker.to_owned(),
            from,
            attempts: 0,
            failed: 0,
            waited: 0.0,
            seconds: 0.0,
            core_seconds: 0.0,
            gpu_seconds: 0.0,
            read: 0,
            written: 0,
            moved: 0,
        }
    }

    fn add(&mut self, waited: f64, end: &AttemptEnd, at: f64) {
        self.from = self.from.min(at - end.seconds).max(0.0);
        self.attempts += 1;
        self.failed += u64::from(end.end != Ended::Done);
        self.waited += waited;
        self.seconds += end.seconds;
        self.core_seconds += end.seconds * end.cores;
        self.gpu_seconds += end.seconds * end.gpus;
        self.read += end.read;
        self.written += end.written;
        self.moved += end.moved;
    }
}

/// The stage that asked for a task; `None` for a stage of the pipeline.
fn stage_of(name: &str) -> Option<&str> {
    name.split_once('/').map(|(stage, _)| stage)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(task: u64, name: &str) -> Event {
        Event::AttemptStarted(AttemptStart {
            name: name.to_owned(),
            task,
            attempt: 1,
            worker: "w".into(),
            device: "cpu".into(),
            threads: 2,
            cores: 2.0,
            gpus: 0.5,
            waited: 0.25,
        })
    }

    fn end(task: u64, name: &str, end: Ended) -> Event {
        Event::AttemptEnded(AttemptEnd {
            name: name.to_owned(),
            task,
            attempt: 1,
            worker: "w".into(),
            end,
            seconds: 0.5,
            cores: 2.0,
            gpus: 0.5,
            read: 10,
            written: 1,
            moved: 3,
        })
    }

    fn finished(name: &str, outcome: Outcome) -> Event {
        Event::TaskFinished { name: name.to_owned(), outcome, seconds: 0.5, error: None }
    }

    /// Sends the life of so many tasks through a fold: what is told at once, and what is told in the end.
    fn lives(tasks: u64, name: &str, outcome: Outcome) -> (Vec<Line>, Vec<Event>) {
        let mut fold = Fold::default();
        let ended = if outcome == Outcome::Done { Ended::Done } else { Ended::Failed };
        let events = (0..tasks).flat_map(|task| {
            let name = format!("{name}{task}");
            [start(task, &name), end(task, &name, ended), finished(&name, outcome)]
        });
        let told = events.filter_map(|event| fold.take(Line { event, at: 2.0 })).collect();
        assert!(fold.due(2.5).is_empty());
        let folded = fold.due(3.0);
        assert!(fold.all().is_empty() && fold.open.is_empty());
        (told, folded)
    }

    #[test]
    fn few_tasks_are_told_one_by_one_and_stages_always() {
        let (told, folded) = lives(ONE_BY_ONE as u64, "best/trial-", Outcome::Done);
        assert_eq!((told.len(), folded.len()), (3 * ONE_BY_ONE, 0));
        let (told, folded) = lives(5000, "stage", Outcome::Done);
        assert_eq!((told.len(), folded.len()), (15_000, 0));
    }

    #[test]
    fn many_tasks_are_counted_and_nothing_is_lost() {
        let (told, folded) = lives(1500, "best/trial-", Outcome::Done);
        assert_eq!(told.len(), 3 * ONE_BY_ONE);
        let [Event::AttemptsFolded(attempts), Event::TasksFolded { done, cached, failed, .. }] = &folded[..] else {
            panic!("{folded:?}")
        };
        assert_eq!((*done, *cached, *failed), (500, 0, 0));
        assert_eq!((attempts.attempts, attempts.failed, attempts.from), (500, 0, 1.5));
        assert_eq!((attempts.waited, attempts.seconds), (125.0, 250.0));
        assert_eq!((attempts.core_seconds, attempts.gpu_seconds), (500.0, 125.0));
        assert_eq!((attempts.read, attempts.written, attempts.moved), (5000, 500, 1500));
    }

    #[test]
    fn what_is_held_back_at_once_comes_to_the_same() {
        let (told, folded) = lives(1500, "best/trial-", Outcome::Done);
        let mut fold = Fold::default();
        let mut lines = Vec::new();
        for task in 0..1500 {
            let name = format!("best/trial-{task}");
            let mut take = |fold: &mut Fold, event| lines.extend(fold.take(Line { event, at: 2.0 }));
            if !fold.hold_start(&name, (task, 1), 0.25, 2.0) {
                take(&mut fold, start(task, &name));
            }
            take(&mut fold, end(task, &name, Ended::Done));
            if !fold.hold_finish(&name, Outcome::Done, 2.0) {
                take(&mut fold, finished(&name, Outcome::Done));
            }
        }
        assert_eq!((lines, fold.due(3.0)), (told, folded));
        assert!(!fold.hold_finish("best/trial-7", Outcome::Failed, 2.0) && !fold.hold_start("best", (7, 1), 0.0, 2.0));
    }

    #[test]
    fn failures_are_told_with_their_reason_for_longer() {
        let (told, folded) = lives(3000, "best/trial-", Outcome::Failed);
        assert_eq!(told.len(), 3 * ONE_BY_ONE);
        assert!(matches!(folded[1], Event::TasksFolded { failed: 2000, .. }), "{folded:?}");
        let mut fold = Fold::default();
        for task in 0..2000 {
            fold.take(Line { event: finished(&format!("s/{task}"), Outcome::Done), at: 0.0 });
        }
        let failure = Line { event: finished("s/x", Outcome::Failed), at: 0.0 };
        assert_eq!(fold.take(failure.clone()), Some(failure));
    }
}
