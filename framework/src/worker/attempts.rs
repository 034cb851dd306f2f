//! The attempts that run in a worker process, by key: whoever asks for a key that runs already gets its result.

use super::gang::{AtSeat, Circle, Present, Seat, Seats};
use super::hands::Hands;
use super::wire::{self, Number};
use super::{Assignment, Failure, Token, program};
use crate::fast_map::FastMap;
use crate::schedule::Needs;
use crate::stage::{
    self, Cancel, Gang, Models, Pace, Progress, Registry, Report, ReportSink, Seed, TaskRequest, Tasks,
};
use crate::store::Key;
use crate::{Context, Error, Fault, Result, join_trace};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::UnboundedSender;
use tracing::info_span;

/// How long what runs waits to be asked for, when the coordinator that it was begun for is gone.
const ORPHANS: Duration = Duration::from_secs(30);

/// An attempt here: its key, and which of those of that key it is: members of a gang, or one after another that stops.
type Name = (Key, u32);

/// What an attempt's thread says.
pub(super) enum Spoken {
    /// It ended.
    Ended(EndedHere),
    /// How far it is.
    Said(Name, Report),
    /// It is there, as a member of a gang.
    Present(Name, Present),
}

/// An attempt that ended.
pub(super) struct EndedHere {
    name: Name,
    stage: String,
    end: wire::ended::End,
}

/// Attempts under way.
pub(super) struct Attempts {
    build: Arc<str>,
    running: FastMap<Name, Running>,
    begun: u64,
    /// Since when some may run that nobody has asked for.
    orphaned: Option<Instant>,
    seats: Arc<Seats>,
    token: Token,
    outbox: UnboundedSender<Spoken>,
}

struct Running {
    /// What the line calls it.
    serial: u64,
    /// What the coordinator calls it; nothing if that coordinator is gone.
    number: Option<Number>,
    cancel: Cancel,
    /// Its place in its gang.
    seat: Option<Arc<Seat>>,
}

impl EndedHere {
    /// What is said of a device that failed, if that is how it ended.
    pub(super) fn device_failure(&self) -> Option<Error> {
        match &self.end {
            wire::ended::End::Failed(failed) if wire::fault(failed) == Fault::Device => {
                let error = Error::new(&failed.message).fault(Fault::Device);
                Some(error.context(format!("stage {:?}", self.stage)))
            }
            _ => None,
        }
    }
}

impl Attempts {
    /// Attempts whose threads speak to `outbox`.
    pub(super) fn new(outbox: UnboundedSender<Spoken>, seats: Arc<Seats>, token: Token) -> Self {
        Self {
            build: program::build().into(),
            running: FastMap::default(),
            begun: 0,
            orphaned: None,
            seats,
            token,
            outbox,
        }
    }

    /// Begins an attempt, or takes over the one that runs for the same key.
    ///
    /// # Errors
    /// The order makes no sense, or names a stage that this program lacks.
    pub(super) fn begin(&mut self, start: wire::Start, registry: &Arc<Registry>, hands: &Hands<u64>) -> Result<()> {
        let number = wire::number(start.attempt)?;
        let key = wire::key(&start.key)?;
        let name = self.free(key, start.gang);
        if let Some(running) = self.running.get_mut(&name) {
            // It was begun for a coordinator that is gone: the same key gives the same result.
            running.number = Some(number);
            running.seat.iter().for_each(|seat| seat.greet());
            return Ok(());
        }
        let stage = registry.get(&start.stage).cloned();
        let stage = stage.ok_or_else(|| Error::usage(format!("this worker has no stage {:?}", start.stage)))?;
        let cancel = Cancel::default();
        self.begun += 1;
        let serial = self.begun;
        let voice = Voice { name, outbox: self.outbox.clone(), pace: Pace::default() };
        let seat = start.gang.then(|| {
            let outbox = self.outbox.clone();
            self.seats.take(key, self.token.clone(), move |present| drop(outbox.send(Spoken::Present(name, present))))
        });
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
        let work = Box::new(Assignment {
            span,
            task: number.0,
            attempt: number.1,
            needs: Needs { millicores: start.millicores, memory: start.memory, ..Needs::default() },
            seed: Seed::new(start.seed, &start.stage),
            shares: start.shares.into_iter().map(Into::into).collect(),
            demands_device: start.demands_device,
            isolate: start.isolate,
            member: start.gang,
            gang: seat.clone().map(|seat| Gang::new(Arc::new(AtSeat(seat)))).unwrap_or_default(),
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
        });
        let outbox = self.outbox.clone();
        hands.give(serial, work, move |result| {
            let ended = EndedHere { name, stage: start.stage, end: wire::from_end(result) };
            // The process may be about to end; then nobody waits.
            let _ = outbox.send(Spoken::Ended(ended));
        })?;
        self.running.insert(name, Running { serial, number: Some(number), cancel, seat });
        Ok(())
    }

    /// The name for one more attempt: that of one whose coordinator is gone, or a new one. One that was told to stop keeps
    /// its name until it has ended, and so does every member of a gang: each of them has an end to tell.
    fn free(&self, key: Key, gang: bool) -> Name {
        let wanted = |running: &Running| {
            running.number.is_none() && running.seat.is_some() == gang && !running.cancel.is_cancelled()
        };
        let mut names = (0..).map(|number| (key, number));
        names.find(|name| self.running.get(name).is_none_or(wanted)).unwrap_or((key, 0))
    }

    /// A gang has a new circle.
    pub(super) fn gather(&self, number: Number, circle: Circle) {
        let running = self.running.values().find(|running| running.number == Some(number));
        if let Some(seat) = running.and_then(|running| running.seat.as_ref()) {
            seat.hear(circle);
        }
    }

    /// An attempt is over: what the coordinator hears of it.
    pub(super) fn close(&mut self, ended: EndedHere) -> wire::Ended {
        let number = self.running.remove(&ended.name).and_then(|running| running.number);
        let attempt = number.map(wire::Attempt::from);
        wire::Ended { attempt, key: wire::key_bytes(ended.name.0), stage: ended.stage, end: Some(ended.end) }
    }

    /// What the coordinator calls an attempt.
    pub(super) fn number(&self, name: Name) -> Option<Number> {
        self.running.get(&name)?.number
    }

    /// Asks an attempt to stop. What is said of one that has not begun; the others say it themselves.
    pub(super) fn stop(&mut self, number: Number, hands: &Hands<u64>) -> Option<wire::Ended> {
        let (name, running) = self.running.iter().find(|(_, one)| one.number == Some(number))?;
        running.cancel.cancel();
        let name = *name;
        hands.take_back(running.serial).then(|| {
            self.running.remove(&name);
            let error = Error::new("it was taken back").fault(Fault::Interrupted);
            let end = Some(wire::from_end(Err(Failure::from(error))));
            wire::Ended { attempt: Some(number.into()), key: wire::key_bytes(name.0), stage: String::new(), end }
        })
    }

    /// Asks all to stop.
    pub(super) fn stop_all(&self) {
        self.running.values().for_each(|one| one.cancel.cancel());
    }

    /// The coordinator that asked for what runs is gone, and its numbers with it.
    pub(super) fn orphan(&mut self, now: Instant) {
        self.running.values_mut().for_each(|one| one.number = None);
        self.orphaned = Some(now);
    }

    /// Stops what was begun for a coordinator that is gone, once nobody has asked for it for a while: it takes room that
    /// the one that is there now counts on.
    pub(super) fn stop_unwanted(&mut self, now: Instant) {
        if self.orphaned.is_some_and(|since| now.duration_since(since) > ORPHANS) {
            self.orphaned = None;
            self.running.values().filter(|one| one.number.is_none()).for_each(|one| one.cancel.cancel());
        }
    }
}

/// How a running stage speaks.
struct Voice {
    name: Name,
    outbox: UnboundedSender<Spoken>,
    pace: Pace,
}

impl ReportSink for Voice {
    fn report(&self, report: Report) {
        // All of it crosses the network.
        if report.is_final() || self.pace.is_due() {
            let _ = self.outbox.send(Spoken::Said(self.name, report));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::EmbeddedWorker;
    use super::*;
    use crate::data::{Digest, Metrics};
    use crate::schedule::{Capacity, TaskId};
    use crate::stage::stage;
    use crate::store::Store;
    use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

    struct Here {
        attempts: Attempts,
        hands: Hands<u64>,
        registry: Arc<Registry>,
        spoken: UnboundedReceiver<Spoken>,
    }

    impl Here {
        fn new() -> Self {
            let endless = |cancel: Cancel| -> Result<Metrics> {
                loop {
                    cancel.check()?;
                    std::thread::yield_now();
                }
            };
            let (outbox, spoken) = unbounded_channel();
            let has = Capacity { millicores: 8000, memory: u64::MAX, ..Capacity::default() };
            Self {
                attempts: Attempts::new(outbox, Arc::default(), Token::generate().unwrap()),
                hands: Hands::new(EmbeddedWorker::new(Store::memory(), has).unwrap()),
                registry: Arc::new(Registry::new().stage("endless", stage(endless).version(1))),
                spoken,
            }
        }

        fn begin(&mut self, task: u64, key: &str) {
            let start = wire::Start {
                attempt: Some((TaskId(task), 1).into()),
                stage: "endless".into(),
                key: wire::key_bytes(Key(Digest::of(key.as_bytes()))),
                params: b"null".as_slice().into(),
                millicores: 1000,
                threads: 1,
                ..wire::Start::default()
            };
            self.attempts.begin(start, &self.registry, &self.hands).unwrap();
        }

        /// What the coordinator calls the next one that ends.
        fn ended(&mut self) -> Option<u64> {
            loop {
                if let Some(Spoken::Ended(ended)) = self.spoken.blocking_recv() {
                    return self.attempts.close(ended).attempt.map(|attempt| attempt.task);
                }
            }
        }

        fn stop(&mut self, task: u64) {
            assert!(self.attempts.stop((TaskId(task), 1), &self.hands).is_none(), "it runs");
        }
    }

    #[test]
    fn what_nobody_asks_for_again_is_stopped_after_a_while() {
        let (mut here, gone) = (Here::new(), Instant::now());
        here.begin(1, "a");
        here.begin(2, "b");
        here.attempts.orphan(gone);
        // The next coordinator has other numbers.
        here.begin(7, "a");
        assert_eq!((here.attempts.running.len(), here.hands.load().0), (2, 2), "it is the same one");
        here.attempts.stop_unwanted(gone + ORPHANS);
        assert!(here.attempts.running.values().all(|one| !one.cancel.is_cancelled()));
        here.attempts.stop_unwanted(gone + ORPHANS + Duration::from_millis(1));
        assert_eq!(here.ended(), None);
        here.stop(7);
        assert_eq!(here.ended(), Some(7));
        assert!(here.attempts.running.is_empty());
    }

    #[test]
    fn each_that_was_begun_has_an_end_to_tell_also_of_one_key() {
        let mut here = Here::new();
        here.begin(1, "a");
        here.stop(1);
        // It may still run.
        here.begin(2, "a");
        here.begin(3, "a");
        here.stop(2);
        here.stop(3);
        let mut ends = [here.ended(), here.ended(), here.ended()];
        ends.sort_unstable();
        assert_eq!(ends, [1, 2, 3].map(Some));
        assert!(here.attempts.running.is_empty());
    }
}
