//! An attempt in a process of its own: for as long as it lasts, this worker is the coordinator of another one, which
//! has nothing else to do. Whatever becomes of that process, nothing else goes with it.

use super::hub::{Heard, Hub, Terms};
use super::remote::RemoteWorker;
use super::{Assignment, Failure, Outcome, Token, process, program};
use crate::store::Store;
use crate::{Error, Fault, Result};
use std::process::{Child, ExitStatus};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

const HEARTBEAT: Duration = Duration::from_millis(500);
/// How long the process may be silent, also before it joins: it is on this machine, but may be short of processors.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often it is looked whether the attempt is to stop, or its process has ended before it joined.
const PULSE: Duration = Duration::from_millis(50);
/// How long an attempt has to stop, and a process to end, before it is killed.
const GRACE: Duration = Duration::from_secs(2);

/// What tells such a process from others.
const ALONE: &str = "ROPEWAY_ALONE";

/// Runs an assignment in a process of its own, and waits for it.
pub(super) fn execute(store: &Store, work: &Assignment) -> Result<Outcome, Failure> {
    attempt(store, work).unwrap_or_else(|error| Err(Failure::from(error)))
}

fn attempt(store: &Store, work: &Assignment) -> Result<Result<Outcome, Failure>> {
    if std::env::var_os(ALONE).is_some() {
        return Err(Error::new("a process that was started for one stage starts no other")
            .help("a program that runs pipelines with isolated stages must hand its arguments to `ropeway::main`"));
    }
    let (mouth, ear) = mpsc::channel();
    let token = Token::generate()?;
    let terms = Terms {
        build: program::identity()?,
        run: Some(format!("task {}", work.key.0.short())),
        heartbeat: HEARTBEAT,
        patience: PATIENCE,
    };
    // Once the attempt is over nobody listens.
    let mouth = move |heard: Vec<Heard>| heard.into_iter().for_each(|heard| drop(mouth.send(heard)));
    let hub = Hub::listen("127.0.0.1:0", &token, terms, store.clone(), Arc::new(mouth))?;
    let mut cell = Cell::start(&hub, &token, store, work)?;
    let (begun, mut stop_by) = (Instant::now(), None);
    loop {
        match ear.recv_timeout(PULSE) {
            Ok(Heard::Joined(mut worker)) => {
                worker.start(&Assignment { isolate: false, ..work.clone() }, Vec::new())?;
                worker.flush();
                cell.worker = Some(*worker);
            }
            Ok(Heard::Said { report, .. }) => work.progress.pass_on(report),
            Ok(Heard::Ended { result, .. }) => return Ok(result),
            Ok(Heard::Lost { reason, .. }) => return Err(cell.lost(&reason)),
            // It is alone: nobody waits for it, and it goes when this ends.
            Ok(Heard::Present { .. } | Heard::Leaving(_) | Heard::Asked(_)) => {}
            Err(_) if cell.worker.is_none() => {
                if let Some(status) = cell.process.try_wait()? {
                    return Err(ended(status));
                }
                if begun.elapsed() > PATIENCE {
                    return Err(Error::unavailable(format!("its own process gave no sign of life for {PATIENCE:?}")));
                }
            }
            Err(_) => {}
        }
        if work.cancel.is_cancelled() {
            let by = *stop_by.get_or_insert_with(|| {
                cell.worker.iter_mut().for_each(|worker| worker.stop(work.task, work.attempt));
                Instant::now() + GRACE
            });
            if cell.worker.is_none() || Instant::now() > by {
                return Err(Error::new("it was stopped").fault(Fault::Interrupted));
            }
        }
    }
}

/// The process of an attempt. It ends when this is dropped.
struct Cell {
    process: Child,
    worker: Option<RemoteWorker>,
}

impl Cell {
    fn start(hub: &Hub, token: &Token, store: &Store, work: &Assignment) -> Result<Self> {
        let cores = (work.threads.max(1) as f64).max(work.needs.millicores as f64 / 1000.0);
        let mut command = process::command(&hub.address().to_string(), token, &work.request.stage)?;
        if let Some((folder, limit)) = store.machine() {
            command.arg(format!("--cache-size={limit}")).arg("--cache").arg(folder);
        }
        let process = command
            .arg(format!("--cores={cores}"))
            .arg(format!("--room={}", work.needs.memory))
            // What this process may hold, its own may too.
            .arg(format!("--memory={}", store.memory_limit()))
            // Who is given a device finds all of them: they are told apart by number.
            .args(work.shares.is_empty().then_some("--gpus=0"))
            .env(ALONE, "1")
            .spawn()
            .map_err(|error| Error::unavailable(format!("can't start a process for the stage: {error}")))?;
        Ok(Self { process, worker: None })
    }

    /// The worker is gone: how its process ended, if it has.
    fn lost(&mut self, reason: &str) -> Error {
        match self.wait(GRACE) {
            Some(status) => ended(status),
            None => Error::new(format!("the process of its own that it ran in was lost: {reason}")),
        }
    }

    fn wait(&mut self, grace: Duration) -> Option<ExitStatus> {
        let until = Instant::now() + grace;
        loop {
            match self.process.try_wait() {
                Ok(None) if Instant::now() < until => std::thread::sleep(Duration::from_millis(1)),
                Ok(status) => return status,
                Err(_) => return None,
            }
        }
    }
}

impl Drop for Cell {
    fn drop(&mut self) {
        self.worker.iter_mut().for_each(RemoteWorker::farewell);
        if self.worker.is_none() || self.wait(GRACE).is_none() {
            // It may have ended in between.
            let _ = self.process.kill();
            let _ = self.process.wait();
        }
    }
}

fn ended(status: ExitStatus) -> Error {
    Error::new(format!("the process of its own that it ran in ended with {status}"))
        .help("signal 9 may mean that the machine had no memory left: say under `needs` how much the stage takes")
}
