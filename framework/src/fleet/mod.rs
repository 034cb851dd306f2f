//! Who brings workers: a fleet starts and stops them and knows nothing else. A worker that it started dials the
//! coordinator by itself, as any other does.

mod local;

pub use local::LocalFleet;

use crate::Result;
use crate::worker::Token;
use std::path::PathBuf;

/// The workers of a fleet: all are alike.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// The coordinator that they dial.
    pub join: String,
    /// The secret that they share with it.
    pub token: Token,
    /// The pool that they are started for.
    pub pool: String,
    /// Cores that each keeps busy.
    pub cores: f64,
    /// CUDA devices that each computes on.
    pub gpus: usize,
    /// Bytes that the tasks of each may take together, as they say under `needs`; nothing for what the machine
    /// has.
    pub room: Option<u64>,
    /// Bytes of artifacts that each holds in memory.
    pub memory: u64,
    /// Where they share what they read from a store that is far away, and how many bytes of it; nothing for where
    /// workers do by default.
    pub cache: Option<(PathBuf, u64)>,
}

/// Starts and stops workers.
pub trait Fleet: Send {
    /// Starts a worker of a name that no other had before.
    ///
    /// # Errors
    /// It can't be started: [`Fault::Unavailable`](crate::Fault::Unavailable).
    fn start(&mut self, name: &str) -> Result<()>;

    /// Makes a worker end, at once; that it has ended already is fine.
    ///
    /// # Errors
    /// It can't be stopped.
    fn stop(&mut self, name: &str) -> Result<()>;

    /// The workers that ended since the last call.
    fn ended(&mut self) -> Vec<Ended>;
}

/// A worker that is no more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Its name.
    pub name: String,
    /// How it ended, in words.
    pub how: String,
}
