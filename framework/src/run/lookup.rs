//! What is known of tasks: keys are computed and memos looked up off the coordinator's thread, many at a time.

use super::coordinator::Coordinator;
use super::key::{key, known};
use super::task::{Request, Task};
use super::voice::{Looked, Message};
use crate::schedule::TaskId;
use crate::store::Store;
use crate::{Result, runtime};
use futures::{StreamExt, stream};
use std::sync::{Arc, mpsc};
use tokio::sync::Semaphore;

/// Tasks whose keys are computed one after the other.
const BATCH: usize = 64;
/// Memos of a batch that are looked up at the same time.
const AT_ONCE: usize = 16;
/// Batches under way. They use threads that the store needs too.
const BATCHES: usize = 8;

/// Tasks that nobody has looked up yet, and places for those who do.
pub(super) struct Lookup {
    waiting: Vec<(TaskId, Request)>,
    places: Arc<Semaphore>,
}

impl Lookup {
    pub(super) fn new() -> Self {
        Self { waiting: Vec::new(), places: Arc::new(Semaphore::new(BATCHES)) }
    }
}

impl Coordinator<'_> {
    /// Takes a task on; what is known of it is looked up soon.
    pub(super) fn look(&mut self, task: Task) {
        let id = TaskId(self.next_task);
        self.next_task += 1;
        self.lookup.waiting.push((id, task.request.clone()));
        self.tasks.insert(id, task);
        if self.lookup.waiting.len() >= BATCH {
            self.look_up();
        }
    }

    /// Has what was taken on looked up. Call it before waiting for messages.
    pub(super) fn look_up(&mut self) {
        if self.lookup.waiting.is_empty() {
            return;
        }
        let batch = std::mem::take(&mut self.lookup.waiting);
        let ids: Vec<TaskId> = batch.iter().map(|(id, _)| *id).collect();
        let (store, outbox, places) = (self.store.clone(), self.outbox.clone(), self.lookup.places.clone());
        match runtime() {
            Ok(runtime) => drop(runtime.spawn(async move {
                let _place = places.acquire().await;
                look_all(&store, batch, &outbox).await;
            })),
            Err(error) => ids.into_iter().for_each(|id| tell(&outbox, id, Err(error.clone()))),
        }
    }
}

async fn look_all(store: &Store, batch: Vec<(TaskId, Request)>, outbox: &mpsc::Sender<Message>) {
    let ids: Vec<TaskId> = batch.iter().map(|(id, _)| *id).collect();
    let keys = move || batch.iter().map(|(id, request)| (*id, key(request))).collect::<Vec<_>>();
    let keys = match tokio::task::spawn_blocking(keys).await {
        Ok(keys) => keys,
        // A stage that panics when it looks at its parameters must not take the run with it.
        Err(error) => {
            let error = crate::Error::from(error);
            return ids.into_iter().for_each(|id| tell(outbox, id, Err(error.clone())));
        }
    };
    let look = |(id, keyed): (TaskId, Result<_>)| async move {
        let looked = async {
            let (key, files) = keyed?;
            Ok(Looked { key, files, memo: known(store, key).await? })
        };
        tell(outbox, id, looked.await);
    };
    stream::iter(keys).map(look).buffer_unordered(AT_ONCE).collect::<()>().await;
}

/// The run may have ended; then nobody waits.
fn tell(outbox: &mpsc::Sender<Message>, id: TaskId, looked: Result<Looked>) {
    let _ = outbox.send(Message::Looked(id, looked));
}
