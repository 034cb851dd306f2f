//! Spans for OpenTelemetry: of runs, stages, tasks, attempts and the store's reads and writes.

use crate::{Context, Error, Result, runtime};
use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::Level;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Sends the spans of this process to a collector until it is shut down.
#[derive(Debug)]
pub struct Exporter(SdkTracerProvider);

impl Exporter {
    /// Begins to send spans over OTLP (gRPC) to `endpoint`, such as `http://127.0.0.1:4317`, in the name of `service`.
    /// They are sent in batches beside the work; a collector that can't be reached stops nothing.
    ///
    /// # Errors
    /// An endpoint that is no URL, or a program that has a subscriber of its own already.
    pub fn start(endpoint: &str, service: &str) -> Result<Self> {
        // The connection lives on the runtime.
        let _runtime = runtime()?.enter();
        let exporter = SpanExporter::builder().with_tonic().with_endpoint(endpoint).build();
        let exporter = exporter.map_err(|error| {
            Error::usage(format!("can't send spans to {endpoint:?}: {error}"))
                .help("an OTLP endpoint is a URL such as http://127.0.0.1:4317")
        })?;
        let resource = Resource::builder().with_service_name(service.to_owned()).build();
        let provider = SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build();
        // Spans of the libraries below, the exporter's own among them, are not about the run.
        let ours = Targets::new().with_target("ropeway", Level::DEBUG);
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("ropeway")).with_filter(ours);
        tracing_subscriber::registry().with(layer).try_init().context("this program has a tracing subscriber")?;
        Ok(Self(provider))
    }

    /// Sends what is left and stops.
    ///
    /// # Errors
    /// The collector can't be reached.
    pub fn shutdown(self) -> Result<()> {
        self.0.shutdown().context("the last spans could not be sent")
    }
}
