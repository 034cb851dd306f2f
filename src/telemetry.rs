//! Spans for OpenTelemetry, where the environment asks for them.

use crate::Result;

/// Sends spans until it is stopped, if anybody wants them.
pub(crate) struct Telemetry {
    #[cfg(feature = "otel")]
    exporter: Option<ropeway_framework::otel::Exporter>,
}

#[cfg(feature = "otel")]
impl Telemetry {
    /// Begins to send spans to `OTEL_EXPORTER_OTLP_ENDPOINT`, if it is set, in the name of `OTEL_SERVICE_NAME`.
    pub(crate) fn start() -> Result<Self> {
        let set = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let service = set("OTEL_SERVICE_NAME").unwrap_or_else(|| "ropeway".to_owned());
        let endpoint = set("OTEL_EXPORTER_OTLP_ENDPOINT");
        let exporter = endpoint.map(|endpoint| ropeway_framework::otel::Exporter::start(&endpoint, &service));
        Ok(Self { exporter: exporter.transpose()? })
    }

    /// Sends what is left.
    pub(crate) fn stop(self) {
        if let Some(Err(error)) = self.exporter.map(ropeway_framework::otel::Exporter::shutdown) {
            crate::cli::complain(&format!("warning: {error}"));
        }
    }
}

#[cfg(not(feature = "otel"))]
impl Telemetry {
    /// Built without the feature `otel`: nothing is sent.
    pub(crate) fn start() -> Result<Self> {
        Ok(Self {})
    }

    pub(crate) fn stop(self) {}
}
