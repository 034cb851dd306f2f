//! Tasks that a stage asks for: trials, folds, parts.

use super::{Needs, Pending};
use crate::data::{Artifact, Kind, Ref, encode};
use crate::{Context, Error, Result};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// Reads stored artifacts.
pub trait Fetch: Send + Sync {
    /// The artifact of a name, checked against its digest.
    fn fetch(&self, reference: Ref) -> Result<Artifact>;
    /// The names of the items of a list, in order, without reading them.
    fn items(&self, list: Ref) -> Result<Vec<Ref>>;
    /// Gives the file with an artifact's canonical bytes the name `to`; whether there is such a file on this machine.
    fn link(&self, reference: Ref, to: &Path) -> Result<bool> {
        let _ = (reference, to);
        Ok(false)
    }
}

/// An artifact in the store: its name, and a way to read it.
#[derive(Clone)]
pub struct Stored {
    /// Its name.
    pub reference: Ref,
    source: Arc<dyn Fetch>,
}

impl Stored {
    /// The artifact of a name in `source`.
    pub fn new(reference: Ref, source: Arc<dyn Fetch>) -> Self {
        Self { reference, source }
    }

    /// Reads it; from memory if it was used lately.
    ///
    /// # Errors
    /// It can't be read, or is not what its digest says.
    pub fn load(&self) -> Result<Artifact> {
        self.source.fetch(self.reference)
    }

    /// The items of a list, in order, without reading them.
    ///
    /// # Errors
    /// It can't be read, or is no list.
    pub fn items(&self) -> Result<Vec<Self>> {
        let items = self.source.items(self.reference)?;
        Ok(items.into_iter().map(|item| Self::new(item, self.source.clone())).collect())
    }

    /// Gives it the name `to` as a file with its canonical bytes, for a program that maps it. It is the store's own file
    /// if that is on this machine, and else a copy; either way it may only be read.
    ///
    /// # Errors
    /// It can't be read, or is a list, which has no file with its items; `to` can't be written.
    pub fn link(&self, to: &Path) -> Result<()> {
        if self.reference.kind == Kind::List {
            return Err(Error::usage("a list is no file").help("wire the artifacts of the list one by one"));
        }
        if self.source.link(self.reference, to)? {
            return Ok(());
        }
        let bytes = encode(&self.load()?)?.bytes();
        std::fs::write(to, bytes).context(format!("can't write {}", to.display()))
    }

    /// Reads it as what it must be.
    ///
    /// # Errors
    /// It can't be read, or is something else.
    pub fn load_as<T: TryFrom<Artifact, Error = Error>>(&self) -> Result<T> {
        T::try_from(self.load()?)
    }
}

impl fmt::Debug for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.reference.kind, self.reference.digest.short())
    }
}

/// One call of a stage, as plain data.
#[derive(Clone, Debug)]
pub struct TaskRequest {
    /// What to call it in progress and reports; behind the name of the task that asks for it: `best/trial-3`.
    pub label: String,
    /// The stage's name in the registry.
    pub stage: String,
    /// Its parameters.
    pub params: Value,
    /// Its inputs by port.
    pub inputs: BTreeMap<String, Vec<Ref>>,
    /// The seed.
    pub seed: u64,
    /// What it needs.
    pub needs: Needs,
}

/// A stage, shared.
#[derive(Clone)]
pub struct StageRef(pub Arc<dyn super::Stage>);

impl fmt::Debug for StageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("stage")
    }
}

/// Takes tasks and runs them.
pub trait Submit: Send + Sync {
    /// Runs a task, and answers once. It may hold back who hands in more than can be dealt with.
    fn submit(&self, task: TaskRequest) -> Pending;
}

/// A way for a stage to run other tasks. They are remembered and committed like any other.
#[derive(Clone, Default)]
pub struct Tasks(Option<Arc<dyn Submit>>);

impl Tasks {
    /// Tasks that go to `queue`.
    pub fn new(queue: Arc<dyn Submit>) -> Self {
        Self(Some(queue))
    }

    /// Hands a task in. Any number may be handed in; wait for them in an order that does not depend on which ends
    /// first. While thousands are under way, this waits until some of them have ended.
    pub fn submit(&self, task: TaskRequest) -> Pending {
        self.0.as_ref().map_or_else(Pending::given_up, |queue| queue.submit(task))
    }
}
