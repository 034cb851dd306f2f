//! `/metrics`, which Prometheus reads.

use crate::server::not_bound;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use ropeway_framework::{Context, Result};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

/// The OpenMetrics text format.
const FORMAT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

type Text = Arc<dyn Fn() -> Result<String> + Send + Sync>;

/// A small server that has its address: scrapes wait until it serves.
#[derive(Debug)]
pub struct MetricsServer {
    listener: TcpListener,
    address: SocketAddr,
}

impl MetricsServer {
    /// Takes an address, such as `127.0.0.1:9464`; port 0 takes any free port.
    ///
    /// # Errors
    /// An address that can't be had; the message says why.
    pub fn bind(address: &str) -> Result<Self> {
        let listener = TcpListener::bind(address).map_err(|error| not_bound(address, &error))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address })
    }

    /// Its address, with the port that port 0 became.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Answers `GET /metrics` with what `text` gives at that moment, for as long as it is polled.
    ///
    /// # Errors
    /// The runtime can't drive the socket.
    pub async fn serve(self, text: impl Fn() -> Result<String> + Send + Sync + 'static) -> Result<()> {
        let listener = tokio::net::TcpListener::from_std(self.listener).context("can't serve metrics")?;
        let router =
            Router::new().route("/metrics", get(metrics)).fallback(elsewhere).with_state(Arc::new(text) as Text);
        axum::serve(listener, router).await.context("can't serve metrics")
    }
}

async fn metrics(State(text): State<Text>) -> Response {
    match text() {
        Ok(text) => ([(header::CONTENT_TYPE, FORMAT)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn elsewhere() -> Response {
    (StatusCode::NOT_FOUND, "the metrics are at /metrics\n").into_response()
}
