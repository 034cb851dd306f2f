//! The way in. Of those who have not shown the run's token yet there are few, and they have little time.

use futures::{Stream, stream};
use std::collections::BTreeMap;
use std::io;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;
use tonic::transport::server::Connected;
use tonic::{Request, Status};

/// Connections that have shown no token yet. Where one more comes, the oldest goes: a worker needs milliseconds, and a
/// crowd that only stands there must neither keep it out nor take the descriptors that the store needs.
pub(super) const STRANGERS: usize = 128;
/// What is waited after the system could not give a connection.
const PAUSE: Duration = Duration::from_millis(50);

/// Who comes in by a listener. It never ends: that one connection can't be had is no reason to take none any more.
pub(super) fn visitors(listener: TcpListener) -> impl Stream<Item = io::Result<Visitor>> {
    stream::unfold((listener, Arc::new(Strangers::default())), |(listener, strangers)| async move {
        loop {
            let came = match listener.accept().await {
                Ok((stream, _)) => Visitor::new(stream, &strangers),
                Err(error) => Err(error),
            };
            match came {
                Ok(visitor) => return Some((Ok(visitor), (listener, strangers))),
                Err(error) => {
                    tracing::debug!("a connection can't be taken: {error}");
                    sleep(PAUSE).await;
                }
            }
        }
    })
}

/// Connections by arrival, each with a handle that can close it.
#[derive(Default)]
struct Strangers(Mutex<(u64, BTreeMap<u64, std::net::TcpStream>)>);

impl Strangers {
    fn lock(&self) -> MutexGuard<'_, (u64, BTreeMap<u64, std::net::TcpStream>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn admit(&self, handle: std::net::TcpStream) -> u64 {
        let mut strangers = self.lock();
        strangers.0 += 1;
        let arrival = strangers.0;
        strangers.1.insert(arrival, handle);
        if strangers.1.len() > STRANGERS
            && let Some((_, oldest)) = strangers.1.pop_first()
        {
            // It may have closed by itself.
            let _ = oldest.shutdown(Shutdown::Both);
        }
        arrival
    }
}

/// A stranger's place.
pub(super) struct Place {
    arrival: u64,
    strangers: Arc<Strangers>,
}

impl Place {
    /// The visitor is no stranger any more.
    pub(super) fn leave(&self) {
        self.strangers.lock().1.remove(&self.arrival);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.leave();
    }
}

/// Sees to requests: only those of somebody who has shown the token come so far.
pub(super) fn greet(request: Request<()>) -> Result<Request<()>, Status> {
    if let Some(place) = request.extensions().get::<Arc<Place>>() {
        place.leave();
    }
    Ok(request)
}

/// A connection that came in.
pub(super) struct Visitor {
    stream: TcpStream,
    place: Arc<Place>,
}

impl Visitor {
    fn new(stream: TcpStream, strangers: &Arc<Strangers>) -> io::Result<Self> {
        // A worker waits for each attempt: nothing is held back to be sent with more.
        let _ = stream.set_nodelay(true);
        let handle = stream.as_fd().try_clone_to_owned()?;
        let arrival = strangers.admit(handle.into());
        Ok(Self { stream, place: Arc::new(Place { arrival, strangers: strangers.clone() }) })
    }
}

impl Connected for Visitor {
    type ConnectInfo = Arc<Place>;

    fn connect_info(&self) -> Arc<Place> {
        self.place.clone()
    }
}

impl AsyncRead for Visitor {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buf)
    }
}

impl AsyncWrite for Visitor {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
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
