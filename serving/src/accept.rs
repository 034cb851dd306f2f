//! Taking connections: no more at once than there are places, and in good order to the end.

use crate::Limits;
use crate::connection::{Patience, Signals, drive};
use axum::Router;
use std::io::{self, ErrorKind};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// How often a server without free places asks a connection that rests to give way.
const ASK: Duration = Duration::from_millis(50);

/// How long a server that has no file descriptors left (say) waits before it tries again.
const PAUSE: Duration = Duration::from_millis(250);

/// Serves connections until `stop` completes, and then those with a request in flight, for as long as
/// [`Limits::drain`]; whether all of them ended in that time.
///
/// When all places are taken, further connections wait with the operating system, and those that rest between two
/// requests give way, the one that has been there longest first.
pub(crate) async fn accept(
    listener: TcpListener,
    router: Router,
    limits: &Limits,
    stop: impl Future<Output = ()>,
) -> bool {
    let places = limits.connections.max(1);
    let patience = Patience { head: limits.head, idle: limits.idle, write: limits.write };
    let give_way = Arc::new(Notify::new());
    let (stopping, stopped) = watch::channel(false);
    let signals = Signals { stop: stopped, give_way: give_way.clone() };
    let mut connections = JoinSet::new();
    let mut stop = pin!(stop);
    loop {
        let full = connections.len() >= places;
        tokio::select! {
            () = &mut stop => break,
            Some(_) = connections.join_next() => {}
            () = sleep(ASK), if full => give_way.notify_one(),
            accepted = listener.accept(), if !full => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(drive(stream, router.clone(), patience, signals.clone()));
                }
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    tracing::warn!("can't take a connection: {error}");
                    give_way.notify_one();
                    tokio::select! {
                        () = &mut stop => break,
                        () = sleep(PAUSE) => {}
                    }
                }
            },
        }
    }
    drop(listener);
    // Nobody listens if there are no connections.
    let _ = stopping.send(true);
    timeout(limits.drain, async { while connections.join_next().await.is_some() {} }).await.is_ok()
}

/// Whether an error is about the connection that was to be taken, and not about taking connections.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset)
}
