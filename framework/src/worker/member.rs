//! A worker's place in a run: one connection to the coordinator, its orders, and what is said back.

use super::attempts::{Attempts, EndedHere, Spoken};
use super::client::{WorkerOptions, unreachable};
use super::embedded::EmbeddedWorker;
use super::execute::Failure;
use super::gang::Seats;
use super::hands::Hands;
use super::orders::refused;
use super::peers::{Counter, Peers};
use super::row::Row;
use super::shelf::Reached;
use super::wire::coordinator_client::CoordinatorClient;
use super::wire::{self, FromWorker, ToWorker, from_worker, to_worker};
use super::{current_folder, program};
use crate::schedule::Capacity;
use crate::soon::Soon;
use crate::stage::Registry;
use crate::store::{Store, kernel};
use crate::{Error, Result, machine, runtime};
use bytes::Bytes;
use prost::Message as _;
use std::collections::VecDeque;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

/// Words that are sent in one message.
const BATCH: usize = 1024;
/// Bytes of results in one message; the last one may go beyond.
const BATCH_BYTES: usize = 1 << 20;
/// Results that are brought along to the next connection, in case that this one loses them.
const BROUGHT_BYTES: usize = 1 << 20;

/// How a worker and its coordinator parted.
pub(super) enum Parted {
    /// The run is over.
    Farewell,
    /// The connection broke: when the coordinator was heard last, and why.
    Broken(Instant, String),
}

/// A worker of a run, through all its connections.
pub(super) struct Member {
    options: WorkerOptions,
    client: CoordinatorClient<Channel>,
    registry: Arc<Registry>,
    /// Where the run's store is, and what runs attempts on it.
    hands: Option<(String, Hands<u64>)>,
    attempts: Attempts,
    /// What this worker holds, for others, and what others hold.
    counter: Option<Counter>,
    /// The gangs that this worker has members of.
    seats: Arc<Seats>,
    peers: Arc<Peers>,
    inbox: UnboundedReceiver<Spoken>,
    /// The newest results that the store does not have from us.
    unsaved: Unsaved,
}

impl Member {
    pub(super) fn new(registry: Arc<Registry>, options: WorkerOptions, client: CoordinatorClient<Channel>) -> Self {
        let (outbox, inbox) = unbounded_channel();
        let seats = Arc::new(Seats::default());
        let attempts = Attempts::new(outbox, seats.clone(), options.token.clone());
        let peers = Arc::new(Peers::new(options.token.clone()));
        let (hands, counter, unsaved) = (None, None, Unsaved::default());
        Self { options, client, registry, hands, attempts, counter, seats, peers, inbox, unsaved }
    }

    /// One connection, from hello to its end.
    ///
    /// # Errors
    /// There is no coordinator ([`Fault::Unavailable`](crate::Fault)), or it refuses this worker; or a device failed
    /// ([`Fault::Device`](crate::Fault)).
    pub(super) async fn attach(&mut self, say: &mut (dyn FnMut(String) + Send)) -> Result<Parted> {
        if self.counter.is_none() {
            // Without it others fetch from the store.
            let (join, token, seats) = (self.options.join.clone(), self.options.token.clone(), self.seats.clone());
            // What others fetch must not be in the way of orders.
            let opened = runtime()?.spawn(async move { Counter::open(&join, &token, seats).await });
            self.counter = opened.await?.ok();
        }
        while let Ok(spoken) = self.inbox.try_recv() {
            if let Spoken::Ended(ended) = spoken {
                self.check_device(&ended)?;
                let (ended, unsaved) = self.close(ended);
                self.unsaved.keep_if(unsaved, &ended);
            }
        }
        let (words, outgoing) = unbounded_channel();
        send(&words, from_worker::Word::Hello(self.hello()?));
        let attached = self.client.attach(UnboundedReceiverStream::new(outgoing)).await;
        let mut orders = attached.map_err(|status| unreachable(&self.options.join, &status))?.into_inner();
        let welcome = match orders.message().await {
            Ok(Some(ToWorker { word: Some(to_worker::Word::Welcome(welcome)) })) => welcome,
            Ok(Some(ToWorker { word: Some(to_worker::Word::Refusal(refusal)) })) => {
                return Err(refused(refusal));
            }
            Ok(_) => return Err(Error::unavailable("whoever answers there is no coordinator")),
            Err(status) => return Err(unreachable(&self.options.join, &status)),
        };
        // The coordinator commits what the hello brings before it welcomes.
        self.unsaved = Unsaved::default();
        self.attempts.orphan(std::time::Instant::now());
        self.open(&welcome).await?;
        self.options.metrics.connected();
        let run = if welcome.run.is_empty() { "the coordinator".to_owned() } else { format!("run {}", welcome.run) };
        say(format!("joined {run} at {} as worker {}", self.options.join, welcome.worker));
        let parted = self.obey(&welcome, orders, words).await;
        self.options.metrics.parted();
        parted
    }

    /// What this worker has for tasks.
    fn has(&self) -> Capacity {
        Capacity {
            millicores: (self.options.cores * 1000.0).round() as u64,
            memory: self.options.room.or_else(machine::memory).unwrap_or(u64::MAX),
            devices: self.options.gpus.memory(),
            files: true,
            ..Capacity::default()
        }
    }

    fn hello(&self) -> Result<wire::Hello> {
        let has = self.has();
        Ok(wire::Hello {
            build: program::identity()?,
            name: self.options.name.clone(),
            machine: kernel(),
            host: machine::name(),
            millicores: has.millicores,
            memory: has.memory,
            devices: has.devices,
            peer: self.counter.as_ref().map(|counter| counter.address().to_string()).unwrap_or_default(),
            folder: current_folder(),
            pool: self.options.pool.clone(),
            finished: self.unsaved.row(),
        })
    }

    /// Opens the run's store, by the shortest way there is.
    async fn open(&mut self, welcome: &wire::Welcome) -> Result<()> {
        let place = format!("{} {}", welcome.store, welcome.exchange);
        if self.hands.as_ref().is_some_and(|(known, _)| *known == place) {
            return Ok(());
        }
        // What still runs would leave its result where nobody looks for it.
        self.attempts.stop_all();
        let direct = self.direct(welcome).await;
        let near = direct.is_some() && !welcome.folder.is_empty();
        let store = match direct {
            Some(store) => store,
            None => {
                let (url, client) = (welcome.store.clone(), self.client.clone());
                let through = Reached { url, client, patience: self.options.patience };
                let store = Store::remote(Arc::new(through));
                let exchange = Path::new(&welcome.exchange);
                // In a container the path may be there and mean something else: then nobody adopts what is put there.
                match !welcome.exchange.is_empty() && exchange.is_dir() {
                    true => store.with_exchange(exchange),
                    false => store,
                }
            }
        };
        // Files of this machine are nearer than any peer.
        let store = if near { store } else { store.with_peers(self.peers.clone()) };
        let store = store.with_memory(self.options.memory);
        let store = match &self.options.cache {
            Some((folder, limit)) => store.with_machine(folder, *limit),
            None => store,
        };
        if let Some(counter) = &self.counter {
            counter.serve(store.clone());
        }
        let worker = EmbeddedWorker::new(store.clone(), self.has())?.with_gpus(self.options.gpus.clone());
        let hands = Hands::new(worker);
        self.options.metrics.works_at(Some((store, hands.clone())));
        self.hands = Some((place, hands));
        Ok(())
    }

    /// The run's store, if this process reaches it by itself.
    async fn direct(&self, welcome: &wire::Welcome) -> Option<Store> {
        if welcome.store.starts_with("memory:") {
            return None;
        }
        let is_folder = !welcome.folder.is_empty();
        // A folder of another kernel is another folder, whatever its path.
        if is_folder && !welcome.folder.starts_with(&format!("{}:", kernel())) {
            return None;
        }
        let store = Store::open_with(&welcome.store, self.options.store_options.iter().cloned()).await.ok()?;
        (!is_folder || store.folder_identity().as_ref() == Some(&welcome.folder)).then_some(store)
    }

    /// Takes orders until the connection ends.
    async fn obey(
        &mut self,
        welcome: &wire::Welcome,
        mut orders: Streaming<ToWorker>,
        words: UnboundedSender<FromWorker>,
    ) -> Result<Parted> {
        let mut pulse = interval(Duration::from_millis(u64::from(welcome.heartbeat_millis.max(10))));
        pulse.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut spoken, mut soon) = (Vec::new(), Soon::default());
        let leave = self.options.leave.clone();
        let (mut asked, mut leaves) = (pin!(leave.asked()), false);
        loop {
            let inbox = &mut self.inbox;
            let next = async {
                tokio::select! {
                    () = &mut asked, if !leaves => {
                        leaves = true;
                        send(&words, from_worker::Word::Leaving(wire::Leaving {}));
                        None
                    }
                    order = orders.message() => Some(order),
                    _ = inbox.recv_many(&mut spoken, BATCH) => None,
                    _ = pulse.tick() => {
                        send(&words, from_worker::Word::Heartbeat(wire::Heartbeat {}));
                        None
                    }
                }
            };
            let order = soon.wait(next).await;
            self.pass_on(&mut spoken, &words)?;
            self.attempts.stop_unwanted(std::time::Instant::now());
            if let Some(order) = order
                && let Some(parted) = self.take(order, &words)
            {
                return Ok(parted);
            }
        }
    }

    /// Takes an order; gives how they parted, if it was the last.
    fn take(&mut self, order: Result<Option<ToWorker>, Status>, words: &UnboundedSender<FromWorker>) -> Option<Parted> {
        let heard = Instant::now();
        let word = match order {
            Ok(Some(ToWorker { word })) => word,
            Ok(None) => return Some(Parted::Broken(heard, "the coordinator is gone".into())),
            Err(status) => {
                return Some(Parted::Broken(heard, format!("the connection broke: {}", status.message())));
            }
        };
        match word {
            Some(to_worker::Word::Start(batch)) => {
                for start in wire::starts(batch) {
                    match start {
                        Ok(start) => self.start(start, words),
                        Err(error) => {
                            tracing::warn!("the coordinator is left: {error}");
                            return Some(Parted::Broken(heard, error.to_string()));
                        }
                    }
                }
            }
            Some(to_worker::Word::Stop(attempt)) => self.stop(attempt.into(), words),
            Some(to_worker::Word::Circle(circle)) => {
                if let Ok(number) = wire::number(circle.attempt) {
                    self.attempts.gather(number, circle.into());
                }
            }
            Some(to_worker::Word::Farewell(_)) => {
                self.attempts.stop_all();
                return Some(Parted::Farewell);
            }
            // Only a coordinator of another build says anything else, and none such takes this worker.
            _ => {}
        }
        None
    }

    /// Begins an attempt; one that can't begin has failed.
    fn start(&mut self, start: wire::Start, words: &UnboundedSender<FromWorker>) {
        let (attempt, key, stage) = (start.attempt, start.key.clone(), start.stage.clone());
        if let Ok(inputs) = wire::inputs(&start.inputs) {
            self.peers.learn(inputs.into_values().flatten(), &start.peers);
        }
        let begun = match &self.hands {
            Some((_, hands)) => self.attempts.begin(start, &self.registry, hands),
            None => Err(Error::new("no store is open")),
        };
        if let Err(error) = begun {
            let end = wire::from_end(Err(Failure::from(error)));
            self.options.metrics.ended(&end);
            send_one(words, &wire::Ended { attempt, key, stage, end: Some(end) });
        }
    }

    /// An attempt is over: what the coordinator hears of it, and whether it is to commit it.
    fn close(&mut self, ended: EndedHere) -> (Bytes, bool) {
        let ended = self.attempts.close(ended);
        ended.end.iter().for_each(|end| self.options.metrics.ended(end));
        let unsaved = matches!(&ended.end, Some(wire::ended::End::Done(done)) if !done.committed);
        (encoded(&ended), unsaved)
    }

    fn stop(&mut self, number: wire::Number, words: &UnboundedSender<FromWorker>) {
        let Some((_, hands)) = &self.hands else { return };
        if let Some(ended) = self.attempts.stop(number, hands) {
            ended.end.iter().for_each(|end| self.options.metrics.ended(end));
            send_one(words, &ended);
        }
    }

    /// Fails if an attempt's device did. The coordinator does not hear of the attempt, but loses this worker: so it runs
    /// elsewhere, a gang goes on meanwhile, and a pool starts another worker, whose process finds the device anew.
    fn check_device(&self, ended: &EndedHere) -> Result<()> {
        let Some(error) = ended.device_failure() else { return Ok(()) };
        Err(error.context("this worker ends, since it can't trust the device any more"))
    }

    /// Tells the coordinator what attempts have said, in as few messages as can be.
    ///
    /// # Errors
    /// A device failed.
    fn pass_on(&mut self, spoken: &mut Vec<Spoken>, words: &UnboundedSender<FromWorker>) -> Result<()> {
        let mut all = Row::default();
        for word in spoken.drain(..) {
            match word {
                Spoken::Ended(ended) => {
                    self.check_device(&ended)?;
                    let (ended, unsaved) = self.close(ended);
                    self.unsaved.keep_if(unsaved, &ended);
                    all.push(&ended);
                    // A message has an end: its results may be large.
                    if all.bytes() >= BATCH_BYTES {
                        send_row(words, &mut all);
                    }
                }
                Spoken::Said(name, report) => {
                    if let Some(number) = self.attempts.number(name) {
                        send(words, from_worker::Word::Progress(wire::from_report(number, report)));
                    }
                }
                Spoken::Present(name, present) => {
                    // A coordinator that does not know it yet is told when it does.
                    if let Some(number) = self.attempts.number(name) {
                        send(words, from_worker::Word::Present(wire::from_present(number, present)));
                    }
                }
            }
        }
        send_row(words, &mut all);
        Ok(())
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // Whoever asks for the numbers later must not hold the store.
        self.options.metrics.works_at(None);
    }
}

/// The newest results that a worker left to the coordinator to commit: nobody says whether a connection that breaks
/// still carried them.
#[derive(Default)]
struct Unsaved {
    results: VecDeque<Bytes>,
    bytes: usize,
}

impl Unsaved {
    fn row(&self) -> Bytes {
        let mut row = Row::default();
        self.results.iter().for_each(|result| row.push(result));
        row.take().unwrap_or_default()
    }

    fn keep_if(&mut self, unsaved: bool, ended: &Bytes) {
        if !unsaved {
            return;
        }
        self.bytes += ended.len();
        self.results.push_back(ended.clone());
        while self.bytes > BROUGHT_BYTES
            && let Some(oldest) = self.results.pop_front()
        {
            self.bytes -= oldest.len();
        }
    }
}

fn encoded(ended: &wire::Ended) -> Bytes {
    ended.encode_to_vec().into()
}

/// A connection that broke is found by whoever reads from it.
fn send(words: &UnboundedSender<FromWorker>, word: from_worker::Word) {
    let _ = words.send(FromWorker { word: Some(word) });
}

/// Tells how attempts ended, if any did.
fn send_row(words: &UnboundedSender<FromWorker>, row: &mut Row) {
    if let Some(attempts) = row.take() {
        send(words, from_worker::Word::Ended(wire::EndedBatch { attempts }));
    }
}

/// Tells how one attempt ended.
fn send_one(words: &UnboundedSender<FromWorker>, ended: &wire::Ended) {
    let mut row = Row::default();
    row.push(&encoded(ended));
    send_row(words, &mut row);
}
