//! A worker process: it dials a coordinator and works for it until the run is over.

use super::member::{Member, Parted};
use super::metrics::WorkerMetrics;
use super::wire::coordinator_client::CoordinatorClient;
use super::wire::{KEEPALIVE, KEEPALIVE_PATIENCE};
use super::{Gpus, token::Token};
use crate::stage::Registry;
use crate::{Error, Fault, Result, links};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::unbounded_channel;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tonic::transport::Endpoint;

/// The first pause before a coordinator is dialled again; each is twice the one before, up to the last.
pub(crate) const FIRST_PAUSE: Duration = Duration::from_millis(20);
pub(crate) const LAST_PAUSE: Duration = Duration::from_millis(500);

/// How a worker is asked to leave a run in good order: it takes nothing new and goes when what it runs has ended. Cloning
/// shares it.
#[derive(Clone, Debug, Default)]
pub struct Leave(Arc<watch::Sender<bool>>);

impl Leave {
    /// Asks.
    pub fn ask(&self) {
        self.0.send_replace(true);
    }

    pub(super) fn is_asked(&self) -> bool {
        *self.0.borrow()
    }

    /// Ends when it is asked.
    pub(super) async fn asked(&self) {
        drop(self.0.subscribe().wait_for(|asked| *asked).await);
    }
}

/// How a worker process works.
#[derive(Clone, Debug)]
pub struct WorkerOptions {
    /// The coordinator's address: `https://host:port`, or `host:port`.
    pub join: String,
    /// The secret of the run.
    pub token: Token,
    /// Who it is, for people.
    pub name: String,
    /// Cores that it keeps busy; parts of one are fine.
    pub cores: f64,
    /// The CUDA devices that it computes on.
    pub gpus: Gpus,
    /// Bytes that its tasks may take together, as they say under `needs`; nothing for what the machine has.
    pub room: Option<u64>,
    /// Bytes of artifacts that it holds in memory.
    pub memory: u64,
    /// Where it shares with the other processes of the machine what it reads from a remote store, and how many bytes of
    /// it ([`Store::with_machine`](crate::store::Store::with_machine)).
    pub cache: Option<(PathBuf, u64)>,
    /// Which pool it was started for, if any.
    pub pool: String,
    /// How long it looks for a coordinator that it can't reach.
    pub patience: Duration,
    /// Options of remote stores, as of [`Store::open_with`](crate::store::Store::open_with).
    pub store_options: Vec<(String, String)>,
    /// What counts what it does.
    pub metrics: WorkerMetrics,
    /// How it is asked to leave.
    pub leave: Leave,
}

/// Works for a coordinator until the run is over, or it is asked to leave. `say` hears in words what happens, for a log.
///
/// A connection that breaks is made again, and what runs meanwhile goes on: its result is brought along.
///
/// # Errors
/// The coordinator refuses the worker (another program, a wrong token) or can't be reached for as long as the options
/// say, or a device failed that an attempt computed on.
pub fn work(registry: &Arc<Registry>, options: &WorkerOptions, say: &mut dyn FnMut(String)) -> Result<()> {
    let runtime = links()?;
    let _entered = runtime.enter();
    let client = CoordinatorClient::new(endpoint(&options.join, &options.token)?.connect_lazy())
        .max_decoding_message_size(usize::MAX)
        .max_encoding_message_size(usize::MAX);
    let mut member = Member::new(registry.clone(), options.clone(), client);
    let mut last_heard = Instant::now();
    let mut pause = FIRST_PAUSE;
    loop {
        // On the thread of the links, where the connection is: what goes from one to the other wakes nobody.
        let (mouth, mut ear) = unbounded_channel();
        let mut attached = runtime.spawn(async move {
            let parted = member.attach(&mut |line| drop(mouth.send(line))).await;
            (member, parted)
        });
        let parted;
        (member, parted) = runtime.block_on(async {
            loop {
                tokio::select! {
                    biased;
                    Some(line) = ear.recv() => say(line),
                    ended = &mut attached => return ended,
                }
            }
        })?;
        // A connection that broke is tried again at least once, however long ago anything was heard on it.
        let (broke, tried) = match parted {
            Ok(Parted::Farewell) => return Ok(()),
            Ok(Parted::Broken(heard, reason)) => {
                last_heard = heard;
                pause = FIRST_PAUSE;
                (Error::unavailable(reason), false)
            }
            Err(error) if error.whose() == Fault::Unavailable => (error, true),
            Err(error) => return Err(error),
        };
        if options.leave.is_asked() {
            return Ok(());
        }
        if tried && last_heard.elapsed() > options.patience {
            let waited = options.patience.as_secs_f64();
            return Err(broke
                .context(format!("no coordinator at {} for {waited:.0} s", options.join))
                .help("is the run still going on, and are these the address and the token that it printed?"));
        }
        say(format!("{broke}; trying again"));
        runtime.block_on(async {
            tokio::select! {
                () = sleep(pause) => {}
                () = options.leave.asked() => {}
            }
        });
        pause = (pause * 2).min(LAST_PAUSE);
    }
}

pub(super) fn endpoint(join: &str, token: &Token) -> Result<Endpoint> {
    let address = match join.split_once("://") {
        None => format!("https://{join}"),
        Some(("https", _)) => join.to_owned(),
        Some((other, rest)) => {
            return Err(Error::usage(format!("a coordinator is not reached by {other}://"))
                .help(format!("write https://{rest}")));
        }
    };
    let wrong = || format!("{join:?} is no address of a coordinator");
    Endpoint::from_shared(address)
        .map_err(|error| Error::usage(format!("{}: {error}", wrong())))?
        .tls_config(token.client()?)
        .map(|endpoint| {
            endpoint
                .tcp_nodelay(true)
                .connect_timeout(Duration::from_secs(5))
                .http2_keep_alive_interval(KEEPALIVE)
                .keep_alive_timeout(KEEPALIVE_PATIENCE)
                .keep_alive_while_idle(true)
                .initial_connection_window_size(8 << 20)
                .initial_stream_window_size(4 << 20)
        })
        .map_err(|error| Error::usage(format!("{}: {error}", wrong())))
}

/// What is said of a coordinator that can't be reached: the innermost reason.
pub(super) fn unreachable(join: &str, status: &tonic::Status) -> Error {
    let mut reason = status.message().to_owned();
    let mut cause = std::error::Error::source(status);
    while let Some(inner) = cause {
        reason = inner.to_string();
        cause = inner.source();
    }
    Error::unavailable(format!("can't join the coordinator at {join}: {reason}"))
}
