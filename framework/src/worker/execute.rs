//! One attempt, from its inputs to its commit.

use super::Assignment;
use super::wire::SMALL_BYTES;
use crate::data::{Artifact, Encoded, Ref, encode};
use crate::stage::{Call, Checkpoint, Fetch, Outputs, Scratch, Stored, Threads};
use crate::store::{Commit, Key, Memo, Store, StoreError, size_hint};
use crate::{Context, Error, Fault, Result, runtime};
use bytes::Bytes;
use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// What a committed attempt gave.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The committed outputs: this attempt's, or those of whoever committed first.
    pub outputs: BTreeMap<String, Ref>,
    /// Seconds that the stage ran.
    pub seconds: f64,
    /// Whether somebody else had committed another result for the same key: the stage is not deterministic.
    pub differs: bool,
    /// If the attempt did not commit: what is not in the store yet. Whoever the store is reached through commits, which
    /// spares small tasks the way there and back.
    pub unsaved: Option<Vec<(Ref, Bytes)>>,
}

/// Why an attempt gave nothing.
#[derive(Clone, Debug)]
pub struct Failure {
    /// What went wrong.
    pub error: Error,
    /// An input that the store has lost; it must be made again.
    pub lost: Option<Ref>,
}

/// Reads inputs and remembers the first that could not be had.
struct Inputs {
    store: Store,
    lost: Mutex<Option<Ref>>,
}

impl Fetch for Inputs {
    fn fetch(&self, reference: Ref) -> Result<Artifact> {
        runtime()?.block_on(self.store.get(reference)).inspect_err(|error| {
            if StoreError::of(error).is_some_and(StoreError::is_lost) {
                self.lost.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(reference);
            }
        })
    }
}

/// Runs an assignment on this thread.
pub(super) fn execute(store: &Store, scratch: PathBuf, work: &Assignment) -> Result<Outcome, Failure> {
    let inputs = Arc::new(Inputs { store: store.clone(), lost: Mutex::default() });
    attempt(store, scratch, work, inputs.clone()).map_err(|error| {
        let lost = *inputs.lost.lock().unwrap_or_else(PoisonError::into_inner);
        Failure { error, lost }
    })
}

fn attempt(store: &Store, scratch: PathBuf, work: &Assignment, source: Arc<Inputs>) -> Result<Outcome> {
    let stored = |refs: &Vec<Ref>| refs.iter().map(|one| Stored::new(*one, source.clone())).collect();
    let call = Call {
        inputs: work.inputs.iter().map(|(port, refs)| (port.clone(), stored(refs))).collect(),
        templates: work.templates.clone(),
        params: work.params.clone(),
        seed: work.seed.clone(),
        progress: work.progress.clone(),
        checkpoint: Checkpoint::new(store.checkpoints(work.key)),
        tasks: work.tasks.clone(),
        cancel: work.cancel.clone(),
        scratch: Scratch::new(Some(scratch)),
        models: work.models.clone(),
        threads: Threads(work.threads),
    };
    let started = Instant::now();
    // A stage that panics must not take the run with it.
    let outputs = catch_unwind(AssertUnwindSafe(|| work.stage.run(call))).map_err(panicked)??;
    let seconds = started.elapsed().as_secs_f64();
    work.cancel.check()?;
    runtime()?.block_on(commit(store, work, outputs, seconds))
}

/// Blobs first, then the memo: whoever writes the memo first wins.
async fn commit(store: &Store, work: &Assignment, outputs: Outputs, seconds: f64) -> Result<Outcome> {
    let artifacts = promised(work, outputs)?;
    if store.is_with_another()
        && let Some((outputs, blobs)) = small(&artifacts)?
    {
        return Ok(Outcome { outputs, seconds, differs: false, unsaved: Some(blobs) });
    }
    let mut refs = BTreeMap::new();
    for (port, artifact) in artifacts {
        let reference = store.put(&artifact).await.context(format!("output {port:?}"))?;
        refs.insert(port, reference);
    }
    let memo = Memo {
        outputs: refs,
        stage: work.uses.clone(),
        seconds,
        device: "cpu".into(),
        build: work.build.clone(),
    };
    let (outputs, differs) = settle(store, work.key, &memo).await?;
    Ok(Outcome { outputs, seconds, differs, unsaved: None })
}

/// Writes the memo; gives the outputs that count and whether they are others than the memo's.
pub(super) async fn settle(store: &Store, key: Key, memo: &Memo) -> Result<(BTreeMap<String, Ref>, bool)> {
    let settled = match store.commit(key, memo).await? {
        Commit::First | Commit::Same => (memo.outputs.clone(), false),
        Commit::Different(first) => (first.outputs, true),
    };
    store.forget_checkpoints(key).await?;
    Ok(settled)
}

/// Every output that the signature promises, and no other.
fn promised(work: &Assignment, outputs: Outputs) -> Result<BTreeMap<String, Artifact>> {
    let mut artifacts = outputs.into_map();
    let mut promised = BTreeMap::new();
    for port in work.stage.outputs(&work.params) {
        let artifact = artifacts.remove(&port.name).ok_or_else(|| {
            Error::new(format!("stage {:?} gave no output {:?}, which its signature promises", work.uses, port.name))
        })?;
        promised.insert(port.name, artifact);
    }
    match artifacts.keys().next() {
        None => Ok(promised),
        Some(extra) => {
            Err(Error::new(format!("stage {:?} gave an output {extra:?} that its signature lacks", work.uses)))
        }
    }
}

type Blobs = Vec<(Ref, Bytes)>;

/// The names of some outputs and all their bytes, if those are few.
fn small(artifacts: &BTreeMap<String, Artifact>) -> Result<Option<(BTreeMap<String, Ref>, Blobs)>> {
    let mut blobs = Vec::new();
    let mut refs = BTreeMap::new();
    if artifacts.values().map(size_hint).sum::<u64>() > SMALL_BYTES {
        return Ok(None);
    }
    for (port, artifact) in artifacts {
        let encoded = encode(artifact).context(format!("output {port:?}"))?;
        refs.insert(port.clone(), encoded.reference);
        collect(encoded, &mut blobs);
    }
    let few = blobs.iter().map(|(_, bytes)| bytes.len() as u64).sum::<u64>() <= SMALL_BYTES;
    Ok(few.then_some((refs, blobs)))
}

/// An artifact's bytes, after those of its items.
fn collect(encoded: Encoded, blobs: &mut Blobs) {
    encoded.items.into_iter().for_each(|item| collect(item, blobs));
    blobs.push((encoded.reference, encoded.bytes));
}

fn panicked(payload: Box<dyn Any + Send>) -> Error {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".into());
    Error::new(format!("the stage panicked: {text}"))
        .help("a panic is a mistake in the stage's code: it should return an error instead")
        .fault(Fault::Stage)
}
