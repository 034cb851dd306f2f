//! The way in. Whoever has not shown the run's token yet is one of few, and has little time.

use futures::{Stream, stream};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::sleep;
use tonic::transport::server::Connected;

/// Connections that have shown no token yet. Others wait in the system's queue, where they cost no descriptor: a crowd
/// of strangers must not take those that the store needs.
const STRANGERS: usize = 128;
/// What is waited after the system could not give a connection.
const PAUSE: Duration = Duration::from_millis(50);

/// Who comes in by a listener. It never ends: that one connection can't be had is no reason to take none any more.
pub(super) fn visitors(listener: TcpListener) -> impl Stream<Item = io::Result<Visitor>> {
    let places = Arc::new(Semaphore::new(STRANGERS));
    stream::unfold((listener, places), |(listener, places)| async move {
        let place = places.clone().acquire_owned().await.ok()?;
        let stream = loop {
            match listener.accept().await {
                Ok((stream, _)) => break stream,
                Err(error) => {
                    tracing::debug!("a connection can't be accepted: {error}");
                    sleep(PAUSE).await;
                }
            }
        };
        // A worker waits for each attempt: nothing is held back to be sent with more.
        let _ = stream.set_nodelay(true);
        let place = Place(Arc::new(Mutex::new(Some(place))));
        Some((Ok(Visitor { stream, place }), (listener, places)))
    })
}

/// One of the places for strangers.
#[derive(Clone)]
pub(super) struct Place(Arc<Mutex<Option<OwnedSemaphorePermit>>>);

impl Place {
    /// The visitor is no stranger: its place is another's.
    pub(super) fn leave(&self) {
        drop(self.0.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

/// A connection that came in.
pub(super) struct Visitor {
    stream: TcpStream,
    place: Place,
}

impl Connected for Visitor {
    type ConnectInfo = Place;

    fn connect_info(&self) -> Place {
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
