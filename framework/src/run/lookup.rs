//! What is known of tasks: keys are computed and memos looked up off the coordinator's thread, many at a time. A few at
//! a time whose memos are in this process are looked up at once: to wake other threads would take longer.

use super::coordinator::Coordinator;
use super::event::Event;
use super::key::{Known, key, known};
use super::task::{Request, Task, Waiter};
use super::voice::{Looked, Message};
use crate::data::Kind;
use crate::schedule::TaskId;
use crate::store::{Entry, Key, Memo, Store, StoreError, offload};
use crate::{Error, Result, runtime};
use futures::{FutureExt, StreamExt, stream};
use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Tasks whose keys are computed one after the other.
const BATCH: usize = 64;
/// Memos of a batch that are looked up at the same time.
const AT_ONCE: usize = 16;
/// Batches under way. They use threads that the store needs too.
const BATCHES: usize = 8;
/// Tasks that are looked up on the coordinator's own thread at most.
const FEW: usize = 2;

/// What was found out about tasks.
pub(super) type LookedAt = Vec<(TaskId, Result<Looked>)>;

/// Tasks that nobody has looked up yet, and places for those who do.
pub(super) struct Lookup {
    waiting: Vec<(TaskId, Arc<Request>)>,
    places: Arc<Semaphore>,
    /// Stages whose tasks named no files so far: to compute their keys blocks nobody.
    plain: HashSet<String>,
}

impl Lookup {
    pub(super) fn new() -> Self {
        Self { waiting: Vec::new(), places: Arc::new(Semaphore::new(BATCHES)), plain: HashSet::new() }
    }

    /// Remembers whether a stage's tasks name files.
    pub(super) fn note(&mut self, stage: &str, files: bool) {
        match files {
            true => drop(self.plain.remove(stage)),
            false if !self.plain.contains(stage) => drop(self.plain.insert(stage.to_owned())),
            false => {}
        }
    }

    fn is_quick(&self) -> bool {
        self.waiting.len() <= FEW && self.is_plain(&self.waiting)
    }

    /// Whether to compute the keys of some tasks blocks nobody.
    fn is_plain(&self, tasks: &[(TaskId, Arc<Request>)]) -> bool {
        tasks.iter().all(|(_, request)| self.plain.contains(&request.task.stage))
    }
}

impl Coordinator<'_> {
    /// Gives a task its number.
    pub(super) fn enlist(&mut self, task: Box<Task>) -> TaskId {
        let id = TaskId(self.next_task);
        self.next_task += 1;
        self.tasks.insert(id, task);
        id
    }

    /// Takes a task on; what is known of it is looked up soon.
    pub(super) fn look(&mut self, task: Box<Task>) {
        let request = task.request.clone();
        let id = self.enlist(task);
        self.lookup.waiting.push((id, request));
        if self.lookup.waiting.len() >= BATCH {
            self.look_up_elsewhere();
        }
    }

    /// Has what was taken on looked up, or does it; whether there was anything to hear at once. Call it before waiting
    /// for messages.
    pub(super) fn look_up(&mut self) -> Result<bool> {
        if self.lookup.waiting.is_empty() {
            return Ok(false);
        }
        if !self.lookup.is_quick() || !self.store.is_here() {
            self.look_up_elsewhere();
            return Ok(false);
        }
        for (id, request) in std::mem::take(&mut self.lookup.waiting) {
            // A stage that panics when it looks at its parameters must not take the run with it.
            let keyed = catch_unwind(AssertUnwindSafe(|| key(&request))).unwrap_or_else(|_| Err(panicked()));
            match look(&self.store, keyed).now_or_never() {
                Some(looked) => self.hear(Message::Looked(vec![(id, looked)]))?,
                None => {
                    self.lookup.waiting.push((id, request));
                    self.look_up_elsewhere();
                }
            }
        }
        Ok(true)
    }

    /// The result that is remembered of a task. What of it is lost is said; then it is no result.
    pub(super) fn remembered(&mut self, id: TaskId, known: Known) -> Result<Option<Memo>> {
        let reason = match known {
            Known::Nothing => return Ok(None),
            Known::Broken(reason) => reason,
            Known::Whole(memo) if !self.tasks.get(&id).is_some_and(|task| task.promises(&memo.outputs)) => {
                self.discard_foreign(id)?;
                "its memo names other outputs than the stage's signature promises".to_owned()
            }
            Known::Whole(memo) => match self.lost_numbers(id, &memo)? {
                None => return Ok(Some(memo)),
                Some(reason) => reason,
            },
        };
        let Some((run, name)) = self.tasks.get(&id).map(|task| (task.run, task.label().to_owned())) else {
            return Ok(None);
        };
        let message = format!("{reason}; it is computed again");
        self.tell(run, Event::Warning { name, message })?;
        Ok(None)
    }

    /// Sets the memo of a task aside if it names other outputs than the stage promises, as a worker that lies may have
    /// committed it.
    pub(super) fn discard_foreign(&self, id: TaskId) -> Result<()> {
        let Some((task, key)) = self.tasks.get(&id).and_then(|task| Some((task, task.key?))) else { return Ok(()) };
        runtime()?.block_on(async {
            match self.store.memo(key).await? {
                Some(memo) if !task.promises(&memo.outputs) => self.store.discard(Entry::Memo(key)).await.map(drop),
                _ => Ok(()),
            }
        })
    }

    /// What is wrong with the numbers of a stage's result, which its report shows and nobody else may ever read.
    fn lost_numbers(&self, id: TaskId, memo: &Memo) -> Result<Option<String>> {
        let is_stage = |task: &Task| task.waiters.iter().any(|waiter| matches!(waiter, Waiter::Node(..)));
        if !self.tasks.get(&id).is_some_and(|task| is_stage(task)) {
            return Ok(None);
        }
        for reference in memo.outputs.values().filter(|reference| reference.kind == Kind::Metrics) {
            match runtime()?.block_on(self.store.get(*reference)) {
                Ok(_) => {}
                Err(error) if StoreError::of(&error).is_some_and(StoreError::is_lost) => {
                    runtime()?.block_on(self.store.discard(Entry::Blob(*reference)))?;
                    return Ok(Some(error.to_string()));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    fn look_up_elsewhere(&mut self) {
        let batch = std::mem::take(&mut self.lookup.waiting);
        let blocks = !self.lookup.is_plain(&batch);
        let (store, outbox, places) = (self.store.clone(), self.outbox.clone(), self.lookup.places.clone());
        // The run may have ended; then nobody waits.
        let tell = move |looked| drop(outbox.send(Message::Looked(looked)));
        match runtime() {
            Ok(runtime) => drop(runtime.spawn(async move {
                let _place = places.acquire().await;
                look_all(&store, batch, blocks, &tell).await;
            })),
            Err(error) => tell(batch.into_iter().map(|(id, _)| (id, Err(error.clone()))).collect()),
        }
    }
}

async fn look_all(store: &Store, batch: Vec<(TaskId, Arc<Request>)>, blocks: bool, tell: &impl Fn(LookedAt)) {
    // A stage that panics when it looks at its parameters must not take the run with it.
    let keyed = |request: &Request| catch_unwind(AssertUnwindSafe(|| key(request))).unwrap_or_else(|_| Err(panicked()));
    let keys = move || batch.iter().map(|(id, request)| (*id, keyed(request))).collect::<Vec<_>>();
    let keys = match blocks {
        // It may read files.
        true => offload(u64::MAX, keys).await,
        false => keys(),
    };
    if store.is_here() {
        // Nothing is waited for: all are found one after the other.
        let mut found = Vec::with_capacity(keys.len());
        for (id, keyed) in keys {
            found.push((id, look(store, keyed).await));
        }
        return tell(found);
    }
    let look = |(id, keyed)| async move { (id, look(store, keyed).await) };
    // What is there at the same time is told in one message.
    stream::iter(keys)
        .map(look)
        .buffer_unordered(AT_ONCE)
        .ready_chunks(BATCH)
        .for_each(async |looked| tell(looked))
        .await;
}

async fn look(store: &Store, keyed: Result<(Key, bool)>) -> Result<Looked> {
    let (key, files) = keyed?;
    Ok(Looked { key, files, known: known(store, key).await? })
}

fn panicked() -> Error {
    Error::new("the stage panicked when it was asked what its result depends on")
}
