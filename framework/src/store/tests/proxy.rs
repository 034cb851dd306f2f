//! A bad network: a proxy that cuts connections, loses answers and takes its time.

use super::super::faulty::mix;
use crate::runtime;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// What becomes of one request and its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum Fate {
    /// Both arrive.
    Arrive,
    /// The connection breaks when so many bytes of the request have come; the server gets those.
    CutRequest(usize),
    /// The server gets the whole request and does what it asks; the connection breaks before the first byte of the
    /// answer.
    LoseAnswer,
    /// The connection breaks when so many bytes of the answer have gone.
    CutAnswer(usize),
    /// The answer takes its time.
    Late(Duration),
}

/// What becomes of the request with a number, the first of which is 0.
type Plan = dyn Fn(u64) -> Fate + Send + Sync;

/// A proxy in front of a server; dropping it breaks all connections.
pub(in crate::store) struct Proxy {
    address: SocketAddr,
    requests: Arc<AtomicU64>,
    connections: Arc<AtomicU64>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    pub(in crate::store) fn new(server: SocketAddr, plan: impl Fn(u64) -> Fate + Send + Sync + 'static) -> Self {
        let runtime = runtime().unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let (requests, connections): (Arc<AtomicU64>, Arc<AtomicU64>) = Default::default();
        let (count, taken, plan): (_, _, Arc<Plan>) = (requests.clone(), connections.clone(), Arc::new(plan));
        let accepting = runtime.spawn(async move {
            let listener = TcpListener::from_std(listener).unwrap();
            let mut relays = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                taken.fetch_add(1, Ordering::SeqCst);
                let (count, plan) = (count.clone(), plan.clone());
                relays.spawn(async move { drop(relay(client, server, &count, &*plan).await) });
            }
        });
        Self { address, requests, connections, accepting }
    }

    /// One that lets a tenth of the requests and a tenth of the answers fail, by chance, from a seed.
    pub(in crate::store) fn bad(server: SocketAddr, seed: u64) -> Self {
        Self::new(server, move |request| {
            let chance = mix(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(request));
            let bytes = (chance >> 32) as usize;
            match chance % 20 {
                0 => Fate::CutRequest(bytes % 300),
                1 => Fate::CutRequest(bytes % 300_000),
                2 => Fate::LoseAnswer,
                3 => Fate::CutAnswer(bytes % 400),
                4 => Fate::Late(Duration::from_millis(chance >> 32 & 31)),
                _ => Fate::Arrive,
            }
        })
    }

    pub(in crate::store) fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many requests there were.
    pub(in crate::store) fn requests(&self) -> u64 {
        self.requests.load(Ordering::SeqCst)
    }

    /// How many connections there were, also those that found no server.
    pub(in crate::store) fn connections(&self) -> u64 {
        self.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Carries the requests of one connection, one after the other as HTTP/1.1 has them, until one of them breaks it.
async fn relay(mut client: TcpStream, server: SocketAddr, count: &AtomicU64, plan: &Plan) -> std::io::Result<()> {
    let mut server = TcpStream::connect(server).await?;
    let (mut up, mut down) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    let mut fate = Fate::Arrive;
    // Bytes of the current request and of its answer that have passed.
    let (mut asked, mut answered) = (0, None);
    loop {
        tokio::select! {
            read = client.read(&mut up) => {
                let read = read?;
                if read == 0 {
                    return Ok(());
                }
                if asked == 0 || answered.is_some() {
                    fate = plan(count.fetch_add(1, Ordering::SeqCst));
                    (asked, answered) = (0, None);
                }
                asked += read;
                match fate {
                    Fate::CutRequest(bytes) if asked > bytes => {
                        server.write_all(&up[..read - (asked - bytes)]).await?;
                        return server.shutdown().await;
                    }
                    _ => server.write_all(&up[..read]).await?,
                }
            }
            read = server.read(&mut down) => {
                let read = read?;
                let before = answered.unwrap_or(0);
                answered = Some(before + read);
                match fate {
                    _ if read == 0 => return Ok(()),
                    Fate::LoseAnswer => return Ok(()),
                    Fate::CutAnswer(bytes) if before + read > bytes => {
                        return client.write_all(&down[..bytes - before]).await;
                    }
                    Fate::Late(time) if before == 0 => tokio::time::sleep(time).await,
                    _ => {}
                }
                client.write_all(&down[..read]).await?;
            }
        }
    }
}
