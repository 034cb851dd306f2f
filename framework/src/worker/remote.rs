//! A worker in another process, as the coordinator sees it.

use super::row::Row;
use super::wire::{self, ToWorker, to_worker};
use super::{Assignment, Circle};
use crate::schedule::{Capacity, TaskId, WorkerId};
use crate::{Result, trace_parent};
use std::time::Duration;
use tokio::sync::mpsc::UnboundedSender;
use tonic::Status;

/// Attempts in one message.
const BATCH: usize = 256;

/// A worker in another process, as the coordinator sees it.
pub(crate) struct RemoteWorker {
    /// Who, for the scheduler; one that comes back is another.
    pub(crate) id: WorkerId,
    /// Who, for people: no other that is here at the same time has the name.
    pub(crate) name: String,
    /// What it calls itself.
    pub(crate) called: String,
    /// When it came.
    pub(crate) since: Duration,
    /// Whether it ever gave a result, or said how far one is.
    pub(crate) served: bool,
    /// Whether it means to leave.
    pub(crate) leaves: bool,
    /// What it has.
    pub(crate) has: Capacity,
    /// Which pool it was started for.
    pub(crate) pool: String,
    /// Where other workers fetch what it holds; empty if nowhere.
    pub(crate) peer: String,
    /// The kernel that it runs on.
    pub(crate) machine: String,
    /// What its machine is called.
    pub(crate) host: String,
    /// Attempts that are handed over and not sent yet.
    starts: Row,
    link: UnboundedSender<Result<ToWorker, Status>>,
}

impl RemoteWorker {
    /// A worker that just joined and hears what is sent to `link`.
    pub(super) fn new(
        id: WorkerId,
        name: String,
        has: Capacity,
        link: UnboundedSender<Result<ToWorker, Status>>,
    ) -> Self {
        Self {
            id,
            called: name.clone(),
            name,
            since: Duration::ZERO,
            served: false,
            leaves: false,
            has,
            pool: String::new(),
            peer: String::new(),
            machine: String::new(),
            host: String::new(),
            starts: Row::default(),
            link,
        }
    }

    /// Says which pool it was started for.
    pub(super) fn of_pool(self, pool: String) -> Self {
        Self { pool, ..self }
    }

    /// Says where other workers fetch what it holds, and on which machine it is.
    pub(super) fn serving_at(self, peer: String, machine: String, host: String) -> Self {
        Self { peer, machine, host, ..self }
    }

    /// Hands an attempt over, with the next [`flush`](Self::flush) at the latest; `peers` are workers that hold inputs of
    /// it.
    pub(crate) fn start(&mut self, work: &Assignment, peers: Vec<String>) -> Result<()> {
        let start = wire::Start {
            attempt: Some((work.task, work.attempt).into()),
            stage: work.request.stage.clone(),
            key: wire::key_bytes(work.key),
            params: serde_json::to_vec(&work.request.params)?.into(),
            inputs: wire::from_inputs(&work.request.inputs),
            seed: work.seed.run(),
            millicores: work.needs.millicores,
            memory: work.needs.memory,
            shares: work.shares.iter().copied().map(wire::Share::from).collect(),
            demands_device: work.demands_device,
            isolate: work.isolate,
            gang: work.member,
            threads: u32::try_from(work.threads).unwrap_or(u32::MAX),
            peers,
            trace: trace_parent(&work.span).unwrap_or_default(),
        };
        self.starts.encode(&start)?;
        // It may begin while others are still handed over.
        if self.starts.messages() >= BATCH {
            self.flush();
        }
        Ok(())
    }

    /// Asks it to stop an attempt.
    pub(crate) fn stop(&mut self, task: TaskId, attempt: u32) {
        self.flush();
        self.say(to_worker::Word::Stop((task, attempt).into()));
    }

    /// Sends what was handed over.
    pub(crate) fn flush(&mut self) {
        if let Some(attempts) = self.starts.take() {
            self.say(to_worker::Word::Start(wire::StartBatch { attempts }));
        }
    }

    /// Tells a member of a gang who works with it.
    pub(crate) fn gather(&mut self, task: TaskId, attempt: u32, circle: &Circle) {
        self.flush();
        self.say(to_worker::Word::Circle(wire::Circle {
            attempt: Some((task, attempt).into()),
            epoch: circle.epoch,
            rank: circle.rank as u32,
            chairs: circle.chairs.iter().cloned().map(wire::Chair::from).collect(),
        }));
    }

    /// Says that the run is over.
    pub(crate) fn farewell(&mut self) {
        self.say(to_worker::Word::Farewell(wire::Farewell {}));
    }

    fn say(&self, word: to_worker::Word) {
        // One that is gone is reported as lost by whoever listens to it.
        let _ = self.link.send(Ok(ToWorker { word: Some(word) }));
    }
}
