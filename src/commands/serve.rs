//! `ropeway serve`

use super::signals::Signals;
use super::{load, open_store, read};
use crate::cli::{Context, Exit, Format, PipelineArgs, complain};
use crate::data::{Artifact, Model};
use crate::pipeline::Pipeline;
use crate::run::{Planned, plan};
use crate::serving::{Endpoint, Limits, Server};
use crate::stage::{Apply, Registry};
use crate::store::Store;
use crate::{Context as _, Error, Result, runtime};
use serde_json::json;
use std::time::Duration;

/// `ropeway serve PIPELINE`
#[derive(clap::Args)]
pub(crate) struct Serve {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// The address to listen on; port 0 takes any free one
    #[arg(long, default_value = "127.0.0.1:8080", value_name = "HOST:PORT")]
    listen: String,
    /// How to say where it listens
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    #[command(flatten)]
    limits: LimitArgs,
}

/// What the server takes at most.
#[derive(clap::Args)]
#[command(next_help_heading = "Limits")]
struct LimitArgs {
    /// Connections at once; others wait, and those that rest between requests give way
    #[arg(long, value_name = "COUNT", default_value_t = Limits::default().connections)]
    max_connections: usize,
    /// Requests that wait for a model; others are told to come back
    #[arg(long, value_name = "COUNT", default_value_t = Limits::default().queue)]
    max_queue: usize,
    /// Bytes of a request
    #[arg(long, value_name = "BYTES", default_value_t = Limits::default().body)]
    max_body: usize,
    /// Seconds for the head of a request to arrive
    #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = "10")]
    head_timeout: Duration,
    /// Seconds for the body of a request to arrive
    #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = "60")]
    body_timeout: Duration,
    /// Seconds for a client to take the next bytes of an answer
    #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = "30")]
    write_timeout: Duration,
    /// Seconds that a connection stays open without a request
    #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = "90")]
    idle_timeout: Duration,
    /// Seconds for requests in flight to end when the server is asked to stop
    #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = "30")]
    drain_timeout: Duration,
}

impl LimitArgs {
    fn limits(&self) -> Limits {
        let mut limits = Limits::default();
        limits.connections = self.max_connections;
        limits.queue = self.max_queue;
        limits.body = self.max_body;
        limits.head = self.head_timeout;
        limits.read = self.body_timeout;
        limits.write = self.write_timeout;
        limits.idle = self.idle_timeout;
        limits.drain = self.drain_timeout;
        limits
    }
}

fn seconds(text: &str) -> std::result::Result<Duration, String> {
    let number = text.parse::<f64>().map_err(|_| "this is no number of seconds".to_owned())?;
    Duration::try_from_secs_f64(number).map_err(|error| error.to_string())
}

impl Serve {
    pub(crate) fn execute(self, context: &Context) -> Exit {
        let pipeline = load(&self.pipeline, context)?;
        let store = open_store(&self.pipeline, &pipeline)?;
        let names = self.pipeline.pipeline.display().to_string();
        let endpoints = endpoints(&pipeline, &store, &context.registry, &names)?;
        let served: Vec<String> = endpoints.iter().map(|endpoint| endpoint.name().to_owned()).collect();
        let server = Server::new(endpoints).limits(self.limits.limits()).bind(&self.listen)?;
        let address = server.local_addr();
        let mut signals = Signals::new()?;
        let stop = async move { signals.next().await };
        match self.format {
            Format::Text => {
                for name in &served {
                    complain(&format!("serving http://{address}/v2/models/{name}"));
                }
            }
            Format::Json => super::print_json(&json!({
                "event": "serving", "address": address.to_string(), "models": served,
            }))?,
        }
        runtime()?.block_on(server.serve(stop))?;
        Ok(0)
    }
}

/// The endpoints of a pipeline whose stages have run.
pub(super) fn endpoints(pipeline: &Pipeline, store: &Store, registry: &Registry, file: &str) -> Result<Vec<Endpoint>> {
    if pipeline.serve.is_empty() {
        return Err(Error::usage(format!("{file} has nothing to serve"))
            .help("add a table such as [serve.NAME] with apply = [\"features\", \"best\"]"));
    }
    let needed = pipeline.serve.values().flat_map(|serve| &serve.apply).map(|(node, _)| &pipeline.stages[*node].name);
    let only: Vec<String> = needed.cloned().collect();
    let planned = plan(pipeline, store, &only)?;
    let mut endpoints = Vec::new();
    for (name, serve) in &pipeline.serve {
        let mut chain: Vec<Box<dyn Apply>> = Vec::new();
        let mut version = String::new();
        for (node, output) in &serve.apply {
            let model = fitted(&planned, &pipeline.stages[*node].name, output, store, file)?;
            version = model.0;
            chain.push(registry.load(&model.1).context(format!("stage {:?}", pipeline.stages[*node].name))?);
        }
        endpoints.push(Endpoint::new(name, version, chain)?);
    }
    Ok(endpoints)
}

/// A model that a stage gave, and the name of its content.
fn fitted(planned: &[Planned], stage: &str, output: &str, store: &Store, file: &str) -> Result<(String, Model)> {
    let known = planned.iter().find(|planned| planned.name == stage).and_then(|planned| planned.outputs.get(output));
    let reference = *known.ok_or_else(|| {
        Error::usage(format!("stage {stage:?} has not run yet")).help(format!("run it first: ropeway run {file}"))
    })?;
    match read(store, reference)? {
        Artifact::Model(model) => Ok((reference.digest.short(), model)),
        other => {
            let what = other.kind().with_article();
            Err(Error::usage(format!("stage {stage:?} gave {what}, which can't be served")))
        }
    }
}
