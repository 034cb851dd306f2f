//! One connection: HTTP/1.1 on a socket, with an end to every wait for its client.

use axum::Router;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, Sleep, sleep};

/// A connection younger than this is not asked to give way: its first request may be under way.
const YOUNG: Duration = Duration::from_secs(1);

/// How long a connection waits for its client.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// For a whole head, from its first byte on or from the beginning of the connection.
    pub(crate) head: Duration,
    /// For the next request.
    pub(crate) idle: Duration,
    /// For the client to take the next bytes of an answer.
    pub(crate) write: Duration,
}

/// What makes a connection end before its client does.
#[derive(Clone)]
pub(crate) struct Signals {
    /// The server stops.
    pub(crate) stop: watch::Receiver<bool>,
    /// Another client waits for a place: the connection that has listened longest gives way.
    pub(crate) give_way: Arc<Notify>,
}

/// Answers the requests of a connection until its client or a signal ends it. A request that has begun is answered.
pub(crate) async fn drive(stream: TcpStream, router: Router, patience: Patience, mut signals: Signals) {
    // Small answers must not wait for the acknowledgement of the last one.
    drop(stream.set_nodelay(true));
    let phase = Arc::new(Shared::new(Phase::Head));
    let router = TowerToHyperService::new(router);
    let service = service_fn(|request: hyper::Request<Incoming>| {
        let (phase, answer) = (phase.clone(), router.call(request));
        async move {
            phase.set(Phase::Request);
            let answer = answer.await;
            phase.set(Phase::Answer);
            answer
        }
    });
    let stream = TokioIo::new(Watched::new(stream, phase.clone(), patience));
    // `Watched` keeps the time: a timeout for heads alone would also end connections that rest between requests.
    let connection = http1::Builder::new().header_read_timeout(None).serve_connection(stream, service);
    let mut connection = pin!(connection);
    let leave = async {
        let stopped = async { drop(signals.stop.wait_for(|stop| *stop).await) };
        let gave_way = async {
            sleep(YOUNG).await;
            signals.give_way.notified().await;
        };
        tokio::select! {
            () = stopped => {}
            () = gave_way => {}
        }
    };
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        // A request of which not even the head is there has not begun.
        () = leave => if phase.is(Phase::Head) {
            return;
        } else {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!("a connection broke off: {error}");
    }
}

/// Where in the exchange of requests and answers a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nothing of the next request has come.
    Rest,
    /// Its head is coming.
    Head,
    /// Its body is coming, or it is being worked on. Both have limits of their own.
    Request,
    /// Its answer is there, and nothing of it is sent yet.
    Answer,
}

/// A phase that the socket and the service both change, on one thread at a time.
struct Shared(AtomicU8);

impl Shared {
    fn new(phase: Phase) -> Self {
        Self(AtomicU8::new(phase as u8))
    }

    fn set(&self, phase: Phase) {
        self.0.store(phase as u8, Ordering::Relaxed);
    }

    fn is(&self, phase: Phase) -> bool {
        self.0.load(Ordering::Relaxed) == phase as u8
    }
}

/// A socket that fails with `TimedOut` when its client takes too long.
struct Watched {
    stream: TcpStream,
    phase: Arc<Shared>,
    patience: Patience,
    /// When patience ends. It matters while a read waits between requests or for a head, or while a write waits.
    alarm: Pin<Box<Sleep>>,
    /// Whether the last write had to wait.
    stuck: bool,
}

impl Watched {
    fn new(stream: TcpStream, phase: Arc<Shared>, patience: Patience) -> Self {
        Self { stream, phase, patience, alarm: Box::pin(sleep(patience.head)), stuck: false }
    }

    fn set_alarm(&mut self, patience: Duration) {
        // Times that no clock can express are as good as never.
        let now = Instant::now();
        let end = now.checked_add(patience).unwrap_or(now + Duration::from_secs(1 << 31));
        self.alarm.as_mut().reset(end);
    }

    fn poll_alarm<T>(&mut self, context: &mut Context<'_>, waits_for: &str) -> Poll<io::Result<T>> {
        self.alarm.as_mut().poll(context).map(|()| Err(io::Error::new(io::ErrorKind::TimedOut, waits_for)))
    }

    /// Does what a write calls for, given how it went.
    fn after_write(&mut self, context: &mut Context<'_>, wrote: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if wrote.is_pending() {
            if !self.stuck {
                self.stuck = true;
                self.set_alarm(self.patience.write);
            }
            return self.poll_alarm(context, "the client does not take its answer");
        }
        self.stuck = false;
        // Bytes that are written while a request comes in ask for more of it; those of an answer come before rest.
        if self.phase.is(Phase::Answer) || self.phase.is(Phase::Rest) {
            self.phase.set(Phase::Rest);
            self.set_alarm(self.patience.idle);
        }
        wrote
    }
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, into);
        if read.is_pending() {
            return match self.phase.is(Phase::Rest) || self.phase.is(Phase::Head) {
                true => self.poll_alarm(context, "no request came"),
                false => Poll::Pending,
            };
        }
        if into.filled().len() > before && self.phase.is(Phase::Rest) {
            self.phase.set(Phase::Head);
            let head = self.patience.head;
            self.set_alarm(head);
        }
        read
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.after_write(context, wrote)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        self.after_write(context, wrote)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
