//! The coordinator's ear: workers dial it, say hello, and from then on take attempts and say how they ended.

use super::current_folder;
use super::door::{greet, visitors};
use super::execute::settle;
use super::orders::{Client, Order, Words};
use super::peers::own_address;
use super::remote::RemoteWorker;
use super::row::messages;
use super::shelf::{Chunks, Shelf};
use super::token::Token;
use super::wire::coordinator_server::{Coordinator, CoordinatorServer};
use super::wire::{self, FromWorker, ToWorker, from_worker, to_worker};
use super::{Failure, Outcome, Present};
use crate::data::{Digest, Ref};
use crate::schedule::{Capacity, TaskId, WorkerId};
use crate::soon::Soon;
use crate::stage::Report;
use crate::store::{Memo, Store, kernel};
use crate::{Context, Error, Result, links};
use bytes::Bytes;
use futures::{StreamExt, stream};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

/// How long a connection may take to say hello.
const HELLO: Duration = Duration::from_secs(10);
/// Results of one message that are committed at the same time.
const COMMITS: usize = 16;
/// Those that are committed and told together, at most.
const TOLD: usize = 256;
/// Reports of one worker that are heard in a second; the network holds back those that come faster.
const REPORTS: u32 = 2000;
/// A million cores: whoever says more can't count.
const MOST_MILLICORES: u64 = 1_000_000_000;

/// Circles of one gang, at most.
const MOST_CIRCLES: u64 = u32::MAX as u64 / 2;

/// What a coordinator offers its workers.
pub(crate) struct Terms {
    /// Only workers of this program are taken.
    pub(crate) build: String,
    /// The run's name, unless it coordinates many, which it is asked for.
    pub(crate) run: Option<String>,
    /// How often a worker must show that it lives.
    pub(crate) heartbeat: Duration,
    /// How long one may be silent before it counts as lost.
    pub(crate) patience: Duration,
}

/// What a coordinator hears of its workers.
pub(crate) enum Heard {
    /// A worker came.
    Joined(Box<RemoteWorker>),
    /// A worker is gone.
    Lost {
        /// Who.
        worker: WorkerId,
        /// Why, for people.
        reason: String,
    },
    /// A worker takes nothing new, and goes when what it runs has ended.
    Leaving(WorkerId),
    /// Somebody asks for a run.
    Asked(Box<Order>),
    /// An attempt ended.
    Ended {
        /// Where.
        worker: WorkerId,
        /// Which task.
        task: TaskId,
        /// Which attempt.
        attempt: u32,
        /// How.
        result: Result<Outcome, Failure>,
    },
    /// An attempt is there, as a member of a gang.
    Present {
        /// Where.
        worker: WorkerId,
        /// Which task.
        task: TaskId,
        /// Which attempt.
        attempt: u32,
        /// What it says.
        present: Present,
    },
    /// An attempt says how far it is.
    Said {
        /// Where.
        worker: WorkerId,
        /// Which task.
        task: TaskId,
        /// Which attempt.
        attempt: u32,
        /// What it says.
        report: Report,
    },
}

/// Hears what workers say; called from the I/O threads, in order for each worker. What one says at the same time is told
/// together: there may be millions of ends, and to hear each by itself takes longer than they do.
pub(crate) type Ear = Arc<dyn Fn(Vec<Heard>) + Send + Sync>;

/// Listens for workers until it is dropped.
pub(crate) struct Hub {
    address: SocketAddr,
    shelf: Arc<Shelf>,
    server: AbortHandle,
}

impl Hub {
    /// Listens at an address such as `127.0.0.1:0`. Results go to `store`.
    ///
    /// # Errors
    /// The address can't be had.
    pub(crate) fn listen(address: &str, token: &Token, terms: Terms, store: Store, ear: Ear) -> Result<Self> {
        let runtime = links()?;
        let listener = runtime.block_on(TcpListener::bind(address)).map_err(|error| {
            Error::unavailable(format!("can't listen for workers at {address}: {error}"))
                .help("give another address, such as --listen 127.0.0.1:0")
        })?;
        let local = listener.local_addr()?;
        let shelf = Arc::new(Shelf::new(store));
        let desk = Desk { terms, ear, shelf: shelf.clone(), workers: AtomicU64::new(1) };
        let service = CoordinatorServer::new(Service(Arc::new(desk)))
            .max_decoding_message_size(wire::MESSAGE_BYTES)
            .max_encoding_message_size(usize::MAX);
        let service = InterceptedService::new(service, greet);
        let server = Server::builder()
            .tls_config(token.server()?)
            .context("the token gives no certificate")?
            .initial_connection_window_size(8 << 20)
            .initial_stream_window_size(4 << 20)
            .http2_keepalive_interval(Some(wire::KEEPALIVE))
            .http2_keepalive_timeout(Some(wire::KEEPALIVE_PATIENCE))
            .add_service(service)
            .serve_with_incoming(visitors(listener));
        let server = async move {
            if let Err(error) = server.await {
                tracing::error!("no more workers are heard: {error}");
            }
        };
        Ok(Self { address: local, shelf, server: runtime.spawn(server).abort_handle() })
    }

    /// Where it is reached from this machine.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it is reached from others too: if it listens everywhere, at this machine's address.
    pub(crate) fn reached_at(&self) -> SocketAddr {
        reached_at(self.address)
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.server.abort();
        // Connections end when they please; until then they must not hold the store.
        self.shelf.close();
    }
}

/// Where others reach what listens at an address.
fn reached_at(address: SocketAddr) -> SocketAddr {
    if !address.ip().is_unspecified() {
        return address;
    }
    // An address for documentation (RFC 5737): on the way to it is where most others are. Nothing is sent.
    let own = own_address("192.0.2.1:9").map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |own| own.ip());
    SocketAddr::new(own, address.port())
}

/// The number by which a scheduler knows a machine.
pub(crate) fn machine_number(name: &str) -> u32 {
    Digest::of(name.as_bytes()).as_bytes().first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

/// What the connections share.
struct Desk {
    terms: Terms,
    ear: Ear,
    shelf: Arc<Shelf>,
    workers: AtomicU64,
}

struct Service(Arc<Desk>);

#[tonic::async_trait]
impl Coordinator for Service {
    type AttachStream = UnboundedReceiverStream<Result<ToWorker, Status>>;
    type ReadStream = Chunks;
    type RunStream = Words;

    async fn attach(&self, request: Request<Streaming<FromWorker>>) -> Result<Response<Self::AttachStream>, Status> {
        let mut words = request.into_inner();
        let first = timeout(HELLO, words.message()).await;
        let Ok(Ok(Some(FromWorker { word: Some(from_worker::Word::Hello(hello)) }))) = first else {
            return Err(Status::invalid_argument("a worker says hello first"));
        };
        let (link, answers) = unbounded_channel();
        match self.0.refuse(&hello) {
            Some(refusal) => drop(link.send(Ok(ToWorker { word: Some(to_worker::Word::Refusal(refusal)) }))),
            None => drop(tokio::spawn(self.0.clone().attend(hello, words, link))),
        }
        Ok(Response::new(answers.into()))
    }

    async fn read(&self, request: Request<wire::Object>) -> Result<Response<Chunks>, Status> {
        self.0.shelf.read(request.into_inner()).await.map(Response::new)
    }

    async fn create(&self, request: Request<Streaming<wire::CreatePart>>) -> Result<Response<wire::Created>, Status> {
        self.0.shelf.create(request.into_inner()).await.map(Response::new)
    }

    async fn adopt(&self, request: Request<wire::Object>) -> Result<Response<wire::Created>, Status> {
        self.0.shelf.adopt(request.into_inner()).await.map(Response::new)
    }

    async fn size(&self, request: Request<wire::Object>) -> Result<Response<wire::ObjectSize>, Status> {
        self.0.shelf.size(request.into_inner()).await.map(Response::new)
    }

    async fn list(&self, request: Request<wire::Object>) -> Result<Response<wire::Listing>, Status> {
        self.0.shelf.list(request.into_inner()).await.map(Response::new)
    }

    async fn remove(&self, request: Request<wire::Object>) -> Result<Response<wire::Nothing>, Status> {
        self.0.shelf.remove(request.into_inner()).await.map(Response::new)
    }

    async fn set_aside(&self, request: Request<wire::Object>) -> Result<Response<wire::ObjectSize>, Status> {
        self.0.shelf.set_aside(request.into_inner()).await.map(Response::new)
    }

    async fn run(&self, request: Request<wire::Order>) -> Result<Response<Words>, Status> {
        let (client, words) = Client::new();
        match self.0.terms.order(request.into_inner(), client.clone()) {
            Ok(order) => self.0.tell(Heard::Asked(Box::new(order))),
            Err(error) => client.refuse(&error),
        }
        Ok(Response::new(words))
    }
}

impl Desk {
    fn refuse(&self, hello: &wire::Hello) -> Option<wire::Refusal> {
        (hello.build != self.terms.build).then(|| {
            let wire::Hello { name, build, .. } = hello;
            let error = format!("worker {name} is {build}, but this run is computed by {}", self.terms.build);
            wire::refusal(&Error::usage(error).help(
                "equal bytes are promised for one build on one instruction-set level: start the worker from the \
                 executable that runs the pipeline",
            ))
        })
    }

    /// A worker's life, from its welcome to its loss.
    async fn attend(
        self: Arc<Self>,
        hello: wire::Hello,
        words: Streaming<FromWorker>,
        link: UnboundedSender<Result<ToWorker, Status>>,
    ) {
        // What it finished while it had no coordinator is committed before anybody may ask it for the same again.
        for ended in messages(hello.finished) {
            let settled = async { self.settle(wire::ended(ended?)?).await };
            if let Err(error) = settled.await {
                tracing::warn!("what worker {} brought is of no use from here on: {error}", hello.name);
                break;
            }
        }
        let id = WorkerId(self.workers.fetch_add(1, Ordering::Relaxed));
        let near = hello.machine == kernel();
        let Ok(store) = self.shelf.store() else { return };
        let exchange = near.then(|| store.exchange()).flatten();
        store.make_folder();
        let welcome = wire::Welcome {
            worker: id.0,
            run: self.terms.run.clone().unwrap_or_default(),
            store: store.url().to_owned(),
            folder: store.folder_identity().unwrap_or_default(),
            exchange: exchange.map(|folder| folder.display().to_string()).unwrap_or_default(),
            heartbeat_millis: u32::try_from(self.terms.heartbeat.as_millis()).unwrap_or(u32::MAX),
        };
        let _ = link.send(Ok(ToWorker { word: Some(to_worker::Word::Welcome(welcome)) }));
        let has = Capacity {
            millicores: hello.millicores.min(MOST_MILLICORES),
            memory: hello.memory,
            devices: wire::devices(&hello.devices),
            files: near && hello.folder == current_folder(),
            peers: !hello.peer.is_empty(),
            machine: machine_number(&hello.machine),
            ..Capacity::default()
        };
        let worker = RemoteWorker::new(id, wire::name(hello.name), has, link)
            .of_pool(wire::name(hello.pool))
            .serving_at(hello.peer, hello.machine, wire::name(hello.host));
        self.tell(Heard::Joined(Box::new(worker)));
        let reason = self.listen(id, words).await;
        self.tell(Heard::Lost { worker: id, reason });
    }

    /// Hears a worker out; gives why it is no longer heard.
    async fn listen(&self, worker: WorkerId, mut words: Streaming<FromWorker>) -> String {
        let (mut pace, mut soon) = (Pace::new(), Soon::default());
        loop {
            let word = match timeout(self.terms.patience, soon.wait(words.message())).await {
                Ok(Ok(Some(FromWorker { word }))) => word,
                Ok(Ok(None)) => return "it left".into(),
                Ok(Err(status)) => return format!("its connection broke: {}", status.message()),
                Err(_) => return format!("it said nothing for {:?}", self.terms.patience),
            };
            let taken = match word {
                Some(from_worker::Word::Heartbeat(_)) => Ok(()),
                Some(from_worker::Word::Leaving(_)) => {
                    self.tell(Heard::Leaving(worker));
                    Ok(())
                }
                Some(from_worker::Word::Ended(batch)) => self.ended(worker, batch).await,
                Some(from_worker::Word::Progress(said)) => self.said(worker, &mut pace, said).await,
                Some(from_worker::Word::Present(present)) => self.present(worker, present),
                Some(from_worker::Word::Hello(_)) => Err(Error::new("it said hello twice")),
                None => Err(Error::new("it says something that this program does not know")),
            };
            if let Err(error) = taken {
                return format!("it sent a message that makes no sense: {error}");
            }
        }
    }

    async fn ended(&self, worker: WorkerId, batch: wire::EndedBatch) -> Result<()> {
        let settle = |ended| self.settle_of(worker, ended);
        let settled = stream::iter(messages(batch.attempts)).map(settle).buffer_unordered(COMMITS);
        let mut settled = pin!(settled.ready_chunks(TOLD));
        while let Some(settled) = settled.next().await {
            self.tell_all(settled)?;
        }
        Ok(())
    }

    /// Commits what an attempt of a worker gave, and says how it ended if anybody waits for it.
    async fn settle_of(&self, worker: WorkerId, ended: Result<Bytes>) -> Result<Option<Heard>> {
        let ended = wire::ended(ended?)?;
        // One without a number was begun for a coordinator that is gone: it is committed, and nobody waits for it.
        let number = ended.attempt.map(wire::Number::from);
        match (self.settle(ended).await, number) {
            (result, Some((task, attempt))) => Ok(Some(Heard::Ended { worker, task, attempt, result: result? })),
            (Ok(_), None) => Ok(None),
            (Err(error), None) => {
                tracing::warn!("what was done for another coordinator is of no use: {error}");
                Ok(None)
            }
        }
    }

    fn tell(&self, heard: Heard) {
        (self.ear)(vec![heard]);
    }

    /// Tells what makes sense; fails if something does not.
    fn tell_all(&self, all: Vec<Result<Option<Heard>>>) -> Result<()> {
        let mut result = Ok(());
        let sense = |one: Result<Option<Heard>>| {
            one.unwrap_or_else(|error| {
                result = Err(error);
                None
            })
        };
        let heard: Vec<Heard> = all.into_iter().filter_map(sense).collect();
        if !heard.is_empty() {
            (self.ear)(heard);
        }
        result
    }

    async fn said(&self, worker: WorkerId, pace: &mut Pace, said: wire::Progress) -> Result<()> {
        let (task, attempt) = wire::number(said.attempt)?;
        pace.step().await;
        self.tell(Heard::Said { worker, task, attempt, report: wire::report(said) });
        Ok(())
    }

    fn present(&self, worker: WorkerId, present: wire::Present) -> Result<()> {
        let (task, attempt) = wire::number(present.attempt)?;
        let wire::Present { after, seat, memory, .. } = present;
        if after > MOST_CIRCLES {
            return Err(Error::new(format!("it was in circle {after} of a gang")));
        }
        self.tell(Heard::Present { worker, task, attempt, present: Present { after, seat, memory } });
        Ok(())
    }

    /// Reads how an attempt ended, and commits what the worker left to us.
    ///
    /// # Errors
    /// The message makes no sense. A store that fails is a failure of the attempt.
    async fn settle(&self, ended: wire::Ended) -> Result<Result<Outcome, Failure>> {
        let key = wire::key(&ended.key)?;
        let end = ended.end.context("an attempt that ended says how")?;
        let done = match end {
            wire::ended::End::Done(done) => done,
            wire::ended::End::Failed(failed) => return Ok(Err(wire::failure(failed)?)),
        };
        let (mut outcome, left) = wire::outcome(done)?;
        let Some(left) = left else {
            // Its word alone would do for nobody who asks for the key again: what counts is in the store.
            let committed = async { self.shelf.store()?.committed(key).await };
            return match committed.await.transpose() {
                Some(memo) => {
                    let differs = outcome.differs;
                    Ok(counted(outcome, memo.map(|memo| (memo.outputs, differs))))
                }
                None => Err(Error::new("it says that it committed a result that the store does not have")),
            };
        };
        let memo = Memo {
            outputs: std::mem::take(&mut outcome.outputs),
            stage: ended.stage,
            seconds: outcome.seconds,
            device: outcome.device.clone(),
            build: self.terms.build.clone(),
        };
        let committed = async {
            let store = self.shelf.store()?;
            let brought = |made: &&Ref| left.left.contains(made) || left.blobs.iter().any(|(blob, _)| blob == *made);
            // What it does not bring must be there: a memo is never written over less.
            let there: Vec<Ref> = memo.outputs.values().filter(|made| !brought(made)).copied().collect();
            for reference in there {
                if !store.has(reference).await? {
                    return Err(Error::new(format!("it names {reference:?}, which the store does not have")));
                }
            }
            for (reference, content) in left.blobs {
                store.put_bytes(reference, content).await?;
            }
            for reference in left.left {
                store.take_in(reference).await?;
            }
            settle(&store, key, memo).await
        };
        Ok(counted(outcome, committed.await))
    }
}

/// What an attempt comes to, with the outputs that count and whether its own are others, or why it gave nothing.
fn counted(outcome: Outcome, committed: Result<(BTreeMap<String, Ref>, bool)>) -> Result<Outcome, Failure> {
    match committed {
        Ok((outputs, differs)) => Ok(Outcome { outputs, differs, ..outcome }),
        Err(error) => Err(Failure { moved: outcome.moved, ..Failure::from(error) }),
    }
}

/// Holds back whoever speaks too fast.
struct Pace {
    since: Instant,
    steps: u32,
}

impl Pace {
    fn new() -> Self {
        Self { since: Instant::now(), steps: 0 }
    }

    async fn step(&mut self) {
        self.steps += 1;
        if self.steps > REPORTS {
            sleep_until(self.since + Duration::from_secs(1)).await;
            *self = Self::new();
        }
    }
}
