//! The attempts that run in a worker process, by key: whoever asks for a key that runs already gets its result.

use super::hands::Hands;
use super::wire::{self, Number};
use super::{Assignment, Failure, program};
use crate::schedule::Needs;
use crate::stage::{self, Cancel, Models, Progress, Registry, Report, ReportSink, Seed, TaskRequest, Tasks};
use crate::store::Key;
use crate::{Context, Error, Fault, Result, join_trace};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::Instant;
use tracing::info_span;

/// How often an attempt's steps are told at most; what comes between is overtaken by the next.
const STEP_PAUSE: Duration = Duration::from_millis(50);

/// What an attempt's thread says.
pub(super) enum Spoken {
    /// It ended.
    Ended(EndedHere),
    /// How far it is.
    Said(Key, Report),
}

/// An attempt that ended.
pub(super) struct EndedHere {
    key: Key,
    /// Which one of the attempts for the key.
    serial: u64,
    stage: String,
    end: wire::ended::End,
}

/// Attempts under way.
pub(super) struct Attempts {
    build: Arc<str>,
    running: HashMap<Key, Running>,
    begun: u64,
    outbox: UnboundedSender<Spoken>,
}

struct Running {
    serial: u64,
    /// What the coordinator calls it; nothing if that coordinator is gone.
    number: Option<Number>,
    cancel: Cancel,
}

impl Attempts {
    /// Attempts whose threads speak to `outbox`.
    pub(super) fn new(outbox: UnboundedSender<Spoken>) -> Self {
        Self { build: program::build().into(), running: HashMap::new(), begun: 0, outbox }
    }

    /// Begins an attempt, or takes over the one that runs for the same key.
    ///
    /// # Errors
    /// The order makes no sense, or names a stage that this program lacks.
    pub(super) fn begin(&mut self, start: wire::Start, registry: &Arc<Registry>, hands: &Hands<u64>) -> Result<()> {
        let number = wire::number(start.attempt)?;
        let key = wire::key(&start.key)?;
        if let Some(running) = self.running.get_mut(&key).filter(|running| !running.cancel.is_cancelled()) {
            // It was begun for a coordinator that is gone: the same key gives the same result.
            running.number = Some(number);
            return Ok(());
        }
        let stage = registry.get(&start.stage).cloned();
        let stage = stage.ok_or_else(|| Error::usage(format!("this worker has no stage {:?}", start.stage)))?;
        let cancel = Cancel::default();
        self.begun += 1;
        let serial = self.begun;
        let voice = Voice { key, outbox: self.outbox.clone(), last: Mutex::new(None) };
        let span = info_span!("work", otel.name = start.stage, attempt = number.1);
        join_trace(&span, &start.trace);
        let request = TaskRequest {
            label: String::new(),
            stage: start.stage.clone(),
            params: serde_json::from_slice(&start.params).context("the parameters are no JSON")?,
            inputs: wire::inputs(&start.inputs)?,
            seed: start.seed,
            needs: stage::Needs::default(),
        };
        let work = Assignment {
            span,
            task: number.0,
            attempt: number.1,
            needs: Needs { millicores: start.millicores, memory: start.memory, ..Needs::default() },
            seed: Seed::new(start.seed, &start.stage),
            isolate: start.isolate,
            request: Arc::new(request),
            stage,
            key,
            templates: Default::default(),
            threads: start.threads.max(1) as usize,
            progress: Progress::new(Arc::new(voice)),
            tasks: Tasks::default(),
            models: Models::new(registry.clone()),
            cancel: cancel.clone(),
            build: self.build.clone(),
        };
        let outbox = self.outbox.clone();
        hands.give(serial, work, move |result| {
            let ended = EndedHere { key, serial, stage: start.stage, end: wire::from_end(&result) };
            // The process may be about to end; then nobody waits.
            let _ = outbox.send(Spoken::Ended(ended));
        })?;
        self.running.insert(key, Running { serial, number: Some(number), cancel });
        Ok(())
    }

    /// An attempt is over: what the coordinator hears of it.
    pub(super) fn close(&mut self, ended: EndedHere) -> wire::Ended {
        // One that was stopped may end after another was begun for its key.
        let current = self.running.get(&ended.key).is_some_and(|running| running.serial == ended.serial);
        let running = if current { self.running.remove(&ended.key) } else { None };
        let attempt = running.and_then(|running| running.number).map(wire::Attempt::from);
        wire::Ended { attempt, key: wire::key_bytes(ended.key), stage: ended.stage, end: Some(ended.end) }
    }

    /// What the coordinator calls the attempt for a key.
    pub(super) fn number(&self, key: Key) -> Option<Number> {
        self.running.get(&key)?.number
    }

    /// Asks an attempt to stop. What is said of one that has not begun; the others say it themselves.
    pub(super) fn stop(&mut self, number: Number, hands: &Hands<u64>) -> Option<wire::Ended> {
        let (key, running) = self.running.iter().find(|(_, one)| one.number == Some(number))?;
        running.cancel.cancel();
        let key = *key;
        hands.take_back(running.serial).then(|| {
            self.running.remove(&key);
            let error = Error::new("it was taken back").fault(Fault::Interrupted);
            let end = Some(wire::from_end(&Err(Failure { error, lost: None })));
            wire::Ended { attempt: Some(number.into()), key: wire::key_bytes(key), stage: String::new(), end }
        })
    }

    /// Asks all to stop.
    pub(super) fn stop_all(&self) {
        self.running.values().for_each(|one| one.cancel.cancel());
    }

    /// The coordinator that asked for what runs is gone, and its numbers with it.
    pub(super) fn orphan(&mut self) {
        self.running.values_mut().for_each(|one| one.number = None);
    }
}

/// How a running stage speaks.
struct Voice {
    key: Key,
    outbox: UnboundedSender<Spoken>,
    /// When it last said how far it is.
    last: Mutex<Option<Instant>>,
}

impl ReportSink for Voice {
    fn report(&self, report: Report) {
        if report.line.is_none() && report.total != Some(report.done) {
            let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
            if last.is_some_and(|last| last.elapsed() < STEP_PAUSE) {
                return;
            }
            *last = Some(Instant::now());
        }
        let _ = self.outbox.send(Spoken::Said(self.key, report));
    }
}
