//! Effects on the outside world that must happen once, however often a task is attempted.

use crate::data::Digest;
use crate::{Error, Result};
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::Arc;

/// Keeps the outcomes of the effects of one task.
pub trait Outcomes: Send + Sync {
    /// The outcome that is recorded under a name.
    fn recorded(&self, name: &str) -> Result<Option<Bytes>>;
    /// Records an outcome, unless there is one; gives the one that is there now.
    fn record(&self, name: &str, outcome: Bytes) -> Result<Bytes>;
    /// What names an effect of this task to the outside: the same in every attempt, and no other effect's.
    fn token(&self, name: &str) -> String;
}

/// A way for a stage to act on the outside world (to charge, to send, to publish) without doing so twice.
///
/// The outcome of an effect is recorded under the task's key before the stage goes on. A later attempt of the task,
/// after a failure, a kill or on another worker, reads it back and does not run the effect. An effect that returns an
/// error records nothing, and runs again when the task does.
///
/// ```
/// use ropeway_framework::Result;
/// use ropeway_framework::data::{Frame, Metrics};
/// use ropeway_framework::stage::{Once, stage};
///
/// # fn charge(_: &Frame, _: &str) -> Result<f64> { Ok(12.5) }
/// fn bill(rows: Frame, once: Once) -> Result<Metrics> {
///     let paid: f64 = once.run("charge", |token| charge(&rows, token))?;
///     Ok(Metrics::new().with("paid", paid))
/// }
/// let bill = stage(bill).version(1);
/// ```
///
/// # What it can promise, and what not
///
/// Every attempt of a task sees the same outcome, and so does every later run: the record stays as long as the task's
/// result does. What nobody can promise alone is that the outside sees the effect once: a process can die after the
/// effect and before its record, and two attempts can be at it at the same time (a worker that was thought dead). Then
/// the effect runs twice, and the outcome that was recorded first counts for both. So the effect is handed a token,
/// the same in each attempt: pass it on as the idempotency key that payment services, queues and databases take, or
/// write it beside what the effect writes and look for it first, and the outside sees the effect once.
#[derive(Clone, Default)]
pub struct Once(Option<Arc<dyn Outcomes>>);

impl Once {
    /// Effects whose outcomes `outcomes` keeps. By default nothing is recorded, and every effect runs.
    pub fn new(outcomes: Arc<dyn Outcomes>) -> Self {
        Self(Some(outcomes))
    }

    /// Runs an effect and records its outcome, or reads back what an earlier attempt recorded. `name` tells the
    /// effects of a task apart: letters, digits, `-`, `_` and `.`; an effect in a loop needs a name for each round.
    ///
    /// # Errors
    /// The effect's own; a name that can't be one; an outcome that does not come back from JSON as it was; a store
    /// that can't be read or written; a record that is corrupt, because the effect has run then and must not again.
    pub fn run<T, E>(&self, name: &str, effect: impl FnOnce(&str) -> Result<T, E>) -> Result<T>
    where
        T: Serialize + DeserializeOwned,
        E: Into<Error>,
    {
        check_name(name)?;
        let Some(outcomes) = &self.0 else {
            return effect(&Digest::of_fields([b"once".as_slice(), name.as_bytes()]).to_string()).map_err(Into::into);
        };
        if let Some(outcome) = outcomes.recorded(name)? {
            return read(name, &outcome);
        }
        let outcome = effect(&outcomes.token(name)).map_err(Into::into)?;
        let written = serde_json::to_vec(&outcome).map_err(|error| unwritable(name, error))?;
        // What can't be read back must not be recorded: no later attempt would get past it.
        serde_json::from_slice::<T>(&written).map_err(|error| unwritable(name, error))?;
        // The recorded outcome, not this one: another attempt may have been first.
        read(name, &outcomes.record(name, written.into())?)
    }
}

fn read<T: DeserializeOwned>(name: &str, outcome: &[u8]) -> Result<T> {
    serde_json::from_slice(outcome).map_err(|error| {
        Error::new(format!(
            "the recorded outcome of effect {name:?} is not of the type that the stage expects: {error}"
        ))
        .help("an effect that gives something else needs another name, or the stage another version")
    })
}

fn unwritable(name: &str, error: serde_json::Error) -> Error {
    Error::new(format!("effect {name:?} has run, but its outcome can't be recorded: {error}"))
        .help("give back something that JSON can hold: no NaN, no map whose keys are not texts")
}

fn check_name(name: &str) -> Result<()> {
    let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
    if plain && (1..=128).contains(&name.len()) && !name.starts_with('.') {
        return Ok(());
    }
    Err(Error::usage(format!("{name:?} can't be the name of an effect"))
        .help("a name has up to 128 letters, digits, `-`, `_` and `.`, and does not begin with `.`"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::sync::Mutex;
    use std::sync::mpsc::{Receiver, Sender, channel};

    /// Records in memory.
    #[derive(Default)]
    struct Memory(Mutex<BTreeMap<String, Bytes>>);

    impl Outcomes for Memory {
        fn recorded(&self, name: &str) -> Result<Option<Bytes>> {
            Ok(self.0.lock().unwrap().get(name).cloned())
        }
        fn record(&self, name: &str, outcome: Bytes) -> Result<Bytes> {
            Ok(self.0.lock().unwrap().entry(name.to_owned()).or_insert(outcome).clone())
        }
        fn token(&self, name: &str) -> String {
            format!("token of {name}")
        }
    }

    fn never<T>(_: &str) -> Result<T> {
        panic!("the effect runs again")
    }

    #[test]
    fn a_later_attempt_reads_back_what_an_earlier_one_recorded() {
        let records = Arc::new(Memory::default());
        let first = Once::new(records.clone());
        let outcome: (String, f64) = first.run("charge", |token| Ok::<_, Error>((token.to_owned(), 0.1))).unwrap();
        assert_eq!(outcome, ("token of charge".into(), 0.1));
        assert_eq!(Once::new(records.clone()).run::<(String, f64), _>("charge", never).unwrap(), outcome);
        // Another effect is another effect.
        assert_eq!(first.run("refund", |_| Ok::<_, Error>(1)).unwrap(), 1);
    }

    #[test]
    fn a_failed_effect_records_nothing() {
        let once = Once::new(Arc::new(Memory::default()));
        let error = once.run::<u32, _>("charge", |_| Err(Error::new("card refused"))).unwrap_err();
        assert_eq!(error.to_string(), "card refused");
        assert_eq!(once.run("charge", |_| Ok::<_, Error>(5)).unwrap(), 5);
    }

    #[test]
    fn what_does_not_come_back_is_not_recorded() {
        let records = Arc::new(Memory::default());
        let once = Once::new(records.clone());
        let error = once.run("rate", |_| Ok::<_, Error>(f64::NAN)).unwrap_err();
        assert!(error.to_string().contains("has run, but its outcome can't be recorded"), "{error}");
        assert!(records.0.lock().unwrap().is_empty());
        once.run("other", |_| Ok::<_, Error>("text".to_owned())).unwrap();
        let error = once.run::<u32, _>("other", never).unwrap_err();
        assert!(error.to_string().contains("not of the type that the stage expects"), "{error}");
    }

    #[test]
    fn names_are_checked() {
        let once = Once::default();
        for wrong in ["", ".", "..", "a/b", "a b", ".hidden", "ü", &"x".repeat(129)] {
            assert!(once.run("ok-1_2.3", |_| Ok::<_, Error>(())).is_ok());
            assert!(once.run::<(), _>(wrong, never).is_err(), "{wrong:?}");
        }
    }

    /// What a step of an attempt waits for: to go on, or to die before it or after it.
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Fate {
        Goes,
        DiesBefore,
        DiesAfter,
    }

    /// Stops an attempt before each step until it is told its fate. A dead attempt's stage gets an error: its process
    /// would not even see that.
    struct Stepped {
        records: Arc<Memory>,
        fates: Mutex<Receiver<Fate>>,
        arrived: Sender<()>,
    }

    impl Stepped {
        fn step<T>(&self, action: impl FnOnce() -> Result<T>) -> Result<T> {
            self.arrived.send(()).unwrap();
            match self.fates.lock().unwrap().recv().unwrap() {
                Fate::Goes => action(),
                Fate::DiesBefore => Err(Error::new("killed")),
                Fate::DiesAfter => action().and(Err(Error::new("killed"))),
            }
        }
    }

    impl Outcomes for Stepped {
        fn recorded(&self, name: &str) -> Result<Option<Bytes>> {
            self.step(|| self.records.recorded(name))
        }
        fn record(&self, name: &str, outcome: Bytes) -> Result<Bytes> {
            self.step(|| self.records.record(name, outcome))
        }
        fn token(&self, name: &str) -> String {
            self.records.token(name)
        }
    }

    use proptest::prelude::*;

    fn fate() -> impl Strategy<Value = Fate> {
        prop_oneof![6 => Just(Fate::Goes), 1 => Just(Fate::DiesBefore), 1 => Just(Fate::DiesAfter)]
    }

    proptest! {
        /// Up to five attempts take their steps (read, run, record) in every order, and die at any of them.
        #[test]
        fn however_attempts_interleave_all_see_one_outcome(
            attempts in 1..=5usize,
            script in prop::collection::vec((0..5usize, fate()), 0..60),
        ) {
            let records = Arc::new(Memory::default());
            let ran: Arc<Mutex<Vec<usize>>> = Arc::default();
            // Each attempt: where its fate goes, where it says that it waits, and how it ended.
            let mut running: Vec<_> = (0..attempts).map(|number| {
                let ((tell, fates), (arrived, arrival)) = (channel(), channel());
                let (records, ran) = (records.clone(), ran.clone());
                let thread = std::thread::spawn(move || {
                    let stepped = Arc::new(Stepped { records, fates: Mutex::new(fates), arrived });
                    let once = Once::new(stepped.clone());
                    once.run("effect", |_| stepped.step(|| { ran.lock().unwrap().push(number); Ok(number) }))
                });
                (tell, arrival, Some(thread))
            }).collect();
            let mut outcomes = Vec::new();
            let mut recorded_when_begun: Vec<Option<bool>> = vec![None; attempts];
            // What the script leaves open is done in the end, one attempt after the other.
            let rest = (0..attempts).flat_map(|number| [(number, Fate::Goes); 3]);
            for (number, fate) in script.into_iter().filter(|(number, _)| *number < attempts).chain(rest) {
                let (tell, arrival, thread) = &mut running[number];
                // It waits before a step, or it has ended.
                if arrival.recv().is_ok() {
                    let there = !records.0.lock().unwrap().is_empty();
                    recorded_when_begun[number].get_or_insert(there);
                    tell.send(fate).unwrap();
                    continue;
                }
                if let Some(thread) = thread.take() {
                    outcomes.push((number, thread.join().unwrap()));
                }
            }
            for (number, (_, arrival, thread)) in running.iter_mut().enumerate() {
                prop_assert!(arrival.recv().is_err(), "three steps are all");
                if let Some(thread) = thread.take() {
                    outcomes.push((number, thread.join().unwrap()));
                }
            }
            let ran = ran.lock().unwrap();
            let record = records.0.lock().unwrap().get("effect").map(|bytes| serde_json::from_slice::<usize>(bytes).unwrap());
            for (number, outcome) in &outcomes {
                if let Ok(outcome) = outcome {
                    prop_assert_eq!(Some(*outcome), record, "attempt {}", number);
                }
            }
            // An outcome is one of an effect that ran, and no attempt that began after the record ran the effect.
            prop_assert!(record.is_none_or(|record| ran.contains(&record)));
            for number in ran.iter() {
                prop_assert_eq!(recorded_when_begun[*number], Some(false));
            }
        }
    }
}
