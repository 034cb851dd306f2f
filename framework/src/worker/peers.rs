//! Artifacts between workers: what one holds, others fetch from it, without the way over the store.

use super::door::{greet, visitors};
use super::gang::{Seats, receive};
use super::token::Token;
use super::wire::peer_client::PeerClient;
use super::wire::peer_server::{Peer, PeerServer};
use super::wire::{self, CHUNK_BYTES};
use crate::data::{Digest, Ref};
use crate::store::{PeerSource, Store};
use crate::{Context, Error, Result};
use arrow::buffer::MutableBuffer;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, stream};
use std::collections::{BTreeMap, HashMap};
use std::net::{SocketAddr, ToSocketAddrs, UdpSocket};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Code, Request, Response, Status, Streaming};

/// How long a peer may take for each piece; then the store is asked.
const PATIENCE: Duration = Duration::from_secs(5);
/// What is reserved for an artifact before anything of it has come.
const RESERVED: usize = 256 << 20;
/// Artifacts whose holders are remembered.
const REMEMBERED: usize = 4096;
/// Workers that connections are kept to.
const DIALLED: usize = 256;

/// Serves what this worker holds, as long as it is kept.
pub(super) struct Counter {
    address: SocketAddr,
    store: Arc<Mutex<Option<Store>>>,
    server: AbortHandle,
}

impl Counter {
    /// Listens at the address from which this machine reaches the coordinator.
    ///
    /// # Errors
    /// There is none, or it can't be listened at.
    pub(super) async fn open(coordinator: &str, token: &Token, seats: Arc<Seats>) -> Result<Self> {
        let address = own_address(coordinator)?;
        let listener = TcpListener::bind((address.ip(), 0)).await.context("can't listen for other workers")?;
        let address = listener.local_addr()?;
        let store = Arc::new(Mutex::new(None));
        let server = Server::builder()
            .tls_config(token.server()?)
            .context("the token gives no certificate")?
            .http2_keepalive_interval(Some(wire::KEEPALIVE))
            .http2_keepalive_timeout(Some(wire::KEEPALIVE_PATIENCE))
            .add_service(InterceptedService::new(PeerServer::new(Service(store.clone(), seats)), greet))
            .serve_with_incoming(visitors(listener));
        let server = async move {
            if let Err(error) = server.await {
                tracing::warn!("other workers can fetch nothing here any more: {error}");
            }
        };
        Ok(Self { address, store, server: tokio::spawn(server).abort_handle() })
    }

    /// Where it listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves what is at hand in a store.
    pub(super) fn serve(&self, store: Store) {
        *lock(&self.store) = Some(store);
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        self.server.abort();
        // Connections end when they please; until then they must not hold the store.
        lock(&self.store).take();
    }
}

/// The address of this machine on the way to another. Nothing is sent.
pub(super) fn own_address(to: &str) -> Result<SocketAddr> {
    let host = to.split_once("://").map_or(to, |(_, host)| host);
    let to = host.to_socket_addrs()?.next().context("the coordinator has no address")?;
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any)?;
    socket.connect(to)?;
    Ok(socket.local_addr()?)
}

struct Service(Arc<Mutex<Option<Store>>>, Arc<Seats>);

#[tonic::async_trait]
impl Peer for Service {
    type FetchStream = BoxStream<'static, Result<wire::Chunk, Status>>;

    async fn fetch(&self, request: Request<wire::Artifact>) -> Result<Response<Self::FetchStream>, Status> {
        let reference = wire::reference(Some(request.get_ref()));
        let reference = reference.map_err(|error| Status::invalid_argument(error.to_string()))?;
        let gone = || Status::not_found("it is no longer at hand");
        let store = lock(&self.0).clone().ok_or_else(gone)?;
        let piece = move |offset: u64| {
            let store = store.clone();
            async move {
                let part = store.at_hand(reference, offset, CHUNK_BYTES as u64).await;
                part.map_err(|error| Status::unavailable(error.to_string()))?.ok_or_else(gone)
            }
        };
        // The first piece now, so that "not found" is the answer and no broken stream.
        let first = piece(0).await?;
        let rest = (1..reference.bytes.div_ceil(CHUNK_BYTES as u64)).map(|index| index * CHUNK_BYTES as u64);
        let pieces = stream::once(async { Ok(first) }).chain(stream::iter(rest).then(piece));
        let chunks = pieces.map(|piece| piece.map(|content| wire::Chunk { content }));
        Ok(Response::new(chunks.boxed()))
    }

    async fn give(&self, request: Request<Streaming<wire::Part>>) -> Result<Response<wire::Nothing>, Status> {
        receive(&self.1, request.into_inner()).await?;
        Ok(Response::new(wire::Nothing {}))
    }
}

/// The other workers, as one that fetches sees them.
pub(super) struct Peers {
    token: Token,
    holders: Mutex<Holders>,
    channels: Mutex<BTreeMap<String, PeerClient<Channel>>>,
}

#[derive(Default)]
struct Holders {
    of: HashMap<Digest, Vec<String>>,
}

impl Peers {
    pub(super) fn new(token: Token) -> Self {
        Self { token, holders: Mutex::default(), channels: Mutex::default() }
    }

    /// Remembers who may hold some artifacts.
    pub(super) fn learn(&self, artifacts: impl Iterator<Item = Ref>, peers: &[String]) {
        if peers.is_empty() {
            return;
        }
        let mut holders = lock(&self.holders);
        // What is forgotten is fetched from the store.
        if holders.of.len() > REMEMBERED {
            holders.of.clear();
        }
        artifacts.for_each(|one| drop(holders.of.insert(one.digest, peers.to_vec())));
    }

    fn client(&self, address: &str) -> Result<PeerClient<Channel>> {
        let mut channels = lock(&self.channels);
        if let Some(client) = channels.get(address) {
            return Ok(client.clone());
        }
        let client = peer(address, &self.token)?;
        // Most of so many are gone; the others are dialled again.
        if channels.len() >= DIALLED {
            channels.clear();
        }
        channels.insert(address.to_owned(), client.clone());
        Ok(client)
    }

    async fn fetch_from(&self, address: &str, reference: Ref) -> Result<Option<Bytes>> {
        let mut client = self.client(address)?;
        let late = || Error::new(format!("worker {address} gave nothing for {PATIENCE:?}"));
        match timeout(PATIENCE, client.fetch(wire::Artifact::from(reference))).await {
            Err(_) => Err(late()),
            Ok(Err(status)) if status.code() == Code::NotFound => Ok(None),
            Ok(Err(status)) => Err(status.into()),
            Ok(Ok(chunks)) => read(chunks.into_inner(), reference.bytes).await.map(Some),
        }
    }
}

/// Another worker, which is dialled when it is first asked for something.
///
/// # Errors
/// An address that is none.
pub(super) fn peer(address: &str, token: &Token) -> Result<PeerClient<Channel>> {
    let endpoint = Endpoint::from_shared(format!("https://{address}"))?.tls_config(token.client()?)?;
    let endpoint = endpoint.connect_timeout(PATIENCE).tcp_nodelay(true);
    let endpoint = endpoint.http2_keep_alive_interval(wire::KEEPALIVE).keep_alive_timeout(wire::KEEPALIVE_PATIENCE);
    Ok(PeerClient::new(endpoint.connect_lazy()))
}

/// The pieces of an artifact, aligned so that arrays can be used where they lie.
async fn read(mut chunks: Streaming<wire::Chunk>, bytes: u64) -> Result<Bytes> {
    let length = usize::try_from(bytes)?;
    // What somebody claims to have is not believed before it comes.
    let mut whole = MutableBuffer::with_capacity(length.min(RESERVED));
    while whole.len() < length {
        let chunk = timeout(PATIENCE, chunks.message()).await.context("it stopped in the middle")??;
        let chunk = chunk.context("it ended too soon")?;
        if whole.len() + chunk.content.len() > length {
            return Err(Error::new("it is longer than it should be"));
        }
        whole.extend_from_slice(&chunk.content);
    }
    Ok(Bytes::from_owner(Whole(whole)))
}

/// An aligned buffer as an owner of [`Bytes`].
pub(super) struct Whole(pub(super) MutableBuffer);

impl AsRef<[u8]> for Whole {
    fn as_ref(&self) -> &[u8] {
        self.0.as_slice()
    }
}

impl PeerSource for Peers {
    fn fetch(&self, reference: Ref) -> BoxFuture<'_, Result<Option<Bytes>>> {
        async move {
            let holders = lock(&self.holders).of.get(&reference.digest).cloned().unwrap_or_default();
            let mut last = None;
            for address in holders {
                match self.fetch_from(&address, reference).await {
                    Ok(Some(bytes)) => return Ok(Some(bytes)),
                    Ok(None) => {}
                    Err(error) => last = Some(error),
                }
            }
            last.map_or(Ok(None), Err)
        }
        .boxed()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Artifact;
    use crate::runtime;

    #[test]
    fn what_one_holds_another_fetches_and_strangers_do_not() {
        runtime().unwrap().block_on(async {
            let token = Token::generate().unwrap();
            let counter = Counter::open("127.0.0.1:1", &token, Arc::default()).await.unwrap();
            assert!(counter.address().ip().is_loopback());
            let (holder, peers) = (Store::memory(), Peers::new(token));
            let content: Vec<u8> = (0..3 * CHUNK_BYTES + 7).map(|index| (index % 251) as u8).collect();
            let reference = holder.put(&Artifact::Bytes(content.clone().into())).await.unwrap();
            peers.learn([reference].into_iter(), &[counter.address().to_string()]);
            assert_eq!(peers.fetch(reference).await.unwrap(), None, "it serves no store yet");
            counter.serve(holder.clone());
            assert_eq!(peers.fetch(reference).await.unwrap().unwrap(), content);
            let other = Ref { digest: Digest::of(b"other"), ..reference };
            assert_eq!(peers.fetch(other).await.unwrap(), None, "nobody is known to hold it");

            let stranger = Peers::new(Token::generate().unwrap());
            stranger.learn([reference].into_iter(), &[counter.address().to_string()]);
            assert!(stranger.fetch(reference).await.is_err());
            drop(counter);
            let late = Peers::new(Token::generate().unwrap());
            assert_eq!(late.fetch(reference).await.unwrap(), None);
        });
    }
}
