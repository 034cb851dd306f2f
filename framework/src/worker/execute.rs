//! One attempt, from its inputs to its commit.

use super::habits::Habits;
use super::unsaved::{self, Unsaved};
use super::{Assignment, Gpus};
use crate::data::{Artifact, Ref};
use crate::stage::{Call, Checkpoint, Devices, Fetch, Given, Keep, Once, Outputs, Scratch, Stored, Threads};
use crate::store::{Commit, Key, Memo, Moved, Store, StoreError, size_hint};
use crate::{Context, Error, Fault, Result, runtime};
use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// What a committed attempt gave.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The committed outputs: this attempt's, or those of whoever committed first.
    pub outputs: BTreeMap<String, Ref>,
    /// Seconds that the stage ran.
    pub seconds: f64,
    /// What it ran on: `cpu`, or the name of a device.
    pub device: String,
    /// Whether somebody else had committed another result for the same key: the stage is not deterministic.
    pub differs: bool,
    /// If the attempt did not commit: what is not in the store yet. Whoever the store is reached through commits, which
    /// spares small tasks the way there and back.
    pub unsaved: Option<Unsaved>,
    /// Bytes of artifacts that crossed the network for the attempt: inputs that it fetched and outputs that it sent.
    pub moved: u64,
}

/// Why an attempt gave nothing.
#[derive(Clone, Debug)]
pub struct Failure {
    /// What went wrong.
    pub error: Error,
    /// An input that the store has lost; it must be made again.
    pub lost: Option<Box<Ref>>,
    /// Bytes of artifacts that crossed the network all the same.
    pub moved: u64,
}

impl From<Error> for Failure {
    /// One that has to do with no input.
    fn from(error: Error) -> Self {
        Self { error, lost: None, moved: 0 }
    }
}

/// Reads inputs and remembers the first that could not be had.
pub(crate) struct Inputs {
    store: Store,
    /// Counts what moves; if not, whoever asks does.
    moved: Option<Moved>,
    lost: Mutex<Option<Ref>>,
}

impl Inputs {
    /// Reads from a store.
    pub(crate) fn new(store: Store, moved: Option<Moved>) -> Self {
        Self { store, moved, lost: Mutex::default() }
    }

    /// The first that could not be had.
    pub(crate) fn lost(&self) -> Option<Ref> {
        *self.lost.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the store, on whichever thread the stage asks.
    fn wait<T>(&self, reference: Ref, answer: impl Future<Output = Result<T>>) -> Result<T> {
        let runtime = runtime()?;
        let answer = match &self.moved {
            Some(moved) => moved.during(|| runtime.block_on(answer)),
            None => runtime.block_on(answer),
        };
        answer.inspect_err(|error| self.note_lost(reference, error))
    }

    fn note_lost(&self, reference: Ref, error: &Error) {
        if StoreError::of(error).is_some_and(StoreError::is_lost) {
            self.lost.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(reference);
        }
    }
}

impl Fetch for Inputs {
    fn fetch(&self, reference: Ref) -> Result<Artifact> {
        self.wait(reference, self.store.get(reference))
    }

    fn items(&self, list: Ref) -> Result<Vec<Ref>> {
        self.wait(list, self.store.items(list))
    }

    fn link(&self, reference: Ref, to: &Path) -> Result<bool> {
        self.wait(reference, self.store.link(reference, to))
    }
}

/// What a worker has for those who run on it.
pub(super) struct Around<'a> {
    /// A folder for temporary files.
    pub(super) scratch: PathBuf,
    pub(super) habits: &'a Habits,
    pub(super) gpus: &'a Gpus,
}

/// Runs an assignment on this thread.
pub(super) fn execute(store: &Store, around: Around<'_>, work: &Assignment) -> Result<Outcome, Failure> {
    let moved = Moved::default();
    let inputs = Arc::new(Inputs::new(store.clone(), Some(moved.clone())));
    let result = moved.during(|| attempt(store, around, work, inputs.clone()));
    let carried = |outcome: &Outcome| outcome.unsaved.as_ref().map_or(0, Unsaved::bytes);
    moved.add(result.as_ref().map_or(0, carried));
    let moved = moved.bytes();
    match result {
        Ok(outcome) => Ok(Outcome { moved, ..outcome }),
        Err(error) => Err(Failure { error, lost: inputs.lost().map(Box::new), moved }),
    }
}

fn attempt(
    store: &Store,
    Around { scratch, habits, gpus }: Around<'_>,
    work: &Assignment,
    source: Arc<Inputs>,
) -> Result<Outcome> {
    let shares = work.shares.iter().map(|share| gpus.share(share)).collect();
    let devices = Devices::new(shares, work.demands_device);
    let stored = |refs: &Vec<Ref>| refs.iter().map(|one| Stored::new(*one, source.clone())).collect();
    let call = Call {
        inputs: work.request.inputs.iter().map(|(port, refs)| (port.clone(), stored(refs))).collect(),
        templates: work.templates.clone(),
        params: work.request.params.clone(),
        seed: work.seed.clone(),
        progress: work.progress.clone(),
        checkpoint: Checkpoint::new(store.checkpoints(work.key)).say_to(work.progress.clone()),
        once: Once::new(store.outcomes(work.key)),
        keep: Keep::new(store.keeper()),
        tasks: work.tasks.clone(),
        cancel: work.cancel.clone(),
        scratch: Scratch::new(Some(scratch)),
        models: work.models.clone(),
        threads: Threads(work.threads),
        devices: devices.clone(),
        gang: work.gang.clone(),
    };
    // What it is about to give is counted before it is there.
    let expected = habits.expect(&work.request.stage);
    let room = if expected > 0 { Some(runtime()?.block_on(store.make_room(expected))?) } else { None };
    let started = Instant::now();
    // A stage that panics must not take the run with it.
    let outputs = catch_unwind(AssertUnwindSafe(|| work.stage.run(call))).map_err(panicked)??;
    let seconds = started.elapsed().as_secs_f64();
    work.cancel.check()?;
    drop(room);
    let given = promised(work, outputs)?;
    habits.note(&work.request.stage, given.values().map(made).sum());
    match unsaved::gather(store, given)? {
        Ok((outputs, unsaved)) => {
            let (device, differs, moved) = (devices.record(), false, 0);
            Ok(Outcome { outputs, seconds, device, differs, unsaved: Some(unsaved), moved })
        }
        Err(given) => runtime()?.block_on(commit(store, work, given, (seconds, devices.record()))),
    }
}

/// Blobs first, then the memo: whoever writes the memo first wins.
async fn commit(
    store: &Store,
    work: &Assignment,
    given: BTreeMap<String, Given>,
    (seconds, device): (f64, String),
) -> Result<Outcome> {
    let mut refs = BTreeMap::new();
    for (port, given) in given {
        let reference = match given {
            Given::Artifact(artifact) => store.put_owned(artifact).await.context(format!("output {port:?}"))?,
            Given::Stored(stored) => stored.reference,
        };
        refs.insert(port, reference);
    }
    let memo = Memo {
        outputs: refs,
        stage: work.request.stage.clone(),
        seconds,
        device: device.clone(),
        build: work.build.to_string(),
    };
    let (outputs, differs) = settle(store, work.key, memo).await?;
    Ok(Outcome { outputs, seconds, device, differs, unsaved: None, moved: 0 })
}

/// Writes the memo; gives the outputs that count and whether they are others than the memo's.
pub(super) async fn settle(store: &Store, key: Key, memo: Memo) -> Result<(BTreeMap<String, Ref>, bool)> {
    let settled = match store.commit(key, &memo).await? {
        Commit::First | Commit::Same => (memo.outputs, false),
        Commit::Different(first) => (first.outputs, true),
    };
    // It is committed: what is left over goes with the next `gc`.
    if let Err(error) = store.forget_checkpoints(key).await {
        tracing::warn!("checkpoints of a task that is done can't be removed: {error}");
    }
    Ok(settled)
}

/// About how many bytes of an output the stage made.
fn made(given: &Given) -> u64 {
    match given {
        Given::Artifact(artifact) => size_hint(artifact),
        Given::Stored(_) => 0,
    }
}

/// Every output that the signature promises, and no other.
fn promised(work: &Assignment, outputs: Outputs) -> Result<BTreeMap<String, Given>> {
    let mut given = outputs.into_map();
    let mut promised = BTreeMap::new();
    for port in work.stage.outputs(&work.request.params) {
        let output = given.remove(&port.name).ok_or_else(|| {
            Error::new(format!(
                "stage {:?} gave no output {:?}, which its signature promises",
                work.request.stage, port.name
            ))
        })?;
        promised.insert(port.name, output);
    }
    match given.keys().next() {
        None => Ok(promised),
        Some(extra) => {
            Err(Error::new(format!("stage {:?} gave an output {extra:?} that its signature lacks", work.request.stage)))
        }
    }
}

fn panicked(payload: Box<dyn Any + Send>) -> Error {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".into());
    Error::new(format!("the stage panicked: {text}"))
        .help("a panic is a mistake in the stage's code: it should return an error instead")
        .fault(Fault::Stage)
}
