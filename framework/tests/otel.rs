//! A collector, and a run that is traced. It is a program of its own, since a program has one subscriber.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests end where they fail")]

use ropeway_framework::data::Metrics;
use ropeway_framework::otel::Exporter;
use ropeway_framework::pipeline::Pipeline;
use ropeway_framework::run::{Line, Options, run};
use ropeway_framework::stage::{Params, Registry, TaskRequest, Tasks, Template, stage};
use ropeway_framework::store::Store;
use ropeway_framework::{Result, join_trace, runtime, trace_parent};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::{Request, Response, Status};

/// The part of OTLP that is looked at: `opentelemetry/proto/collector/trace/v1/trace_service.proto`.
#[derive(Clone, PartialEq, prost::Message)]
struct Export {
    #[prost(message, repeated, tag = "1")]
    resources: Vec<ResourceSpans>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ResourceSpans {
    #[prost(message, repeated, tag = "2")]
    scopes: Vec<ScopeSpans>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ScopeSpans {
    #[prost(message, repeated, tag = "2")]
    spans: Vec<Span>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Span {
    #[prost(bytes = "vec", tag = "1")]
    trace: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    id: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    parent: Vec<u8>,
    #[prost(string, tag = "5")]
    name: String,
    #[prost(fixed64, tag = "7")]
    start: u64,
    #[prost(fixed64, tag = "8")]
    end: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Exported {}

/// A collector that keeps what it gets.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<Span>>>);

impl NamedService for Collector {
    const NAME: &'static str = "opentelemetry.proto.collector.trace.v1.TraceService";
}

impl UnaryService<Export> for Collector {
    type Response = Exported;
    type Future = Ready<Result<Response<Exported>, Status>>;

    fn call(&mut self, request: Request<Export>) -> Self::Future {
        let resources = request.into_inner().resources.into_iter();
        let spans = resources.flat_map(|resource| resource.scopes).flat_map(|scope| scope.spans);
        self.0.lock().unwrap().extend(spans);
        ready(Ok(Response::new(Exported {})))
    }
}

impl Service<http::Request<tonic::body::Body>> for Collector {
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            Ok(Grpc::new(tonic_prost::ProstCodec::<Exported, Export>::default()).unary(this, request).await)
        })
    }
}

/// Starts a collector and gives its endpoint.
fn collect(collector: Collector) -> String {
    runtime().unwrap().block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tonic::transport::Server::builder().add_service(collector);
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        format!("http://{address}")
    })
}

#[derive(Serialize, Deserialize, JsonSchema)]
struct Number {
    number: u64,
}

fn number(Params(p): Params<Number>) -> Metrics {
    Metrics::new().with("number", p.number as f64)
}

fn both(each: Template, tasks: Tasks) -> Result<Metrics> {
    let submit = |number: u64| {
        let params = json!({ "number": number });
        tasks.submit(TaskRequest { label: number.to_string(), params, ..each.task.clone() })
    };
    let pending = [1, 2].map(submit);
    pending.into_iter().try_for_each(|pending| pending.wait().map(drop))?;
    Ok(Metrics::new())
}

#[test]
fn a_run_is_one_trace_that_a_collector_gets() {
    let collector = Collector::default();
    let exporter = Exporter::start(&collect(collector.clone()), "a test").unwrap();

    let registry = Arc::new(Registry::new().stage("number", stage(number)).stage("both", stage(both)));
    let pipeline = Pipeline::build("traced")
        .stage("each", "number")
        .with(json!({ "number": 0 }))
        .stage("all", "both")
        .from("each")
        .resolve(&registry)
        .unwrap();
    let report = run(&pipeline, &registry, &Store::memory(), &Options::default(), &mut |_: &Line| {}).unwrap();
    assert!(report.succeeded());

    // What another process does for a span is in its trace.
    let here = tracing::info_span!(target: "ropeway", "here");
    let parent = trace_parent(&here).unwrap();
    let there = tracing::info_span!(target: "ropeway", parent: None, "there");
    join_trace(&there, &parent);
    let strange = tracing::info_span!(target: "ropeway", parent: None, "strange");
    join_trace(&strange, "no traceparent");
    drop((here, there, strange));
    exporter.shutdown().unwrap();

    let spans = collector.0.lock().unwrap();
    let find =
        |name: &str| spans.iter().find(|span| span.name == name).unwrap_or_else(|| panic!("no {name}: {spans:#?}"));
    let root = find("run traced-1");
    assert!(root.parent.is_empty());
    let by_id: BTreeMap<&[u8], &Span> = spans.iter().map(|span| (&span.id[..], span)).collect();
    let line = |span: &Span| {
        let mut names = vec![span.name.clone()];
        let mut above = by_id.get(&span.parent[..]);
        while let Some(span) = above {
            names.push(span.name.clone());
            above = by_id.get(&span.parent[..]);
        }
        names.join(" < ")
    };
    let mine: Vec<&Span> = spans.iter().filter(|span| span.trace == root.trace).collect();
    assert!(mine.iter().all(|span| span.start <= span.end && span.start >= root.start), "{mine:#?}");
    let lines: Vec<String> = mine.iter().map(|span| line(span)).collect();
    for expected in [
        "attempt < all < run traced-1",
        "attempt < all/1 < all < run traced-1",
        "attempt < all/2 < all < run traced-1",
        "store put < attempt < all/1 < all < run traced-1",
        "store commit < attempt < all/2 < all < run traced-1",
    ] {
        assert!(lines.iter().any(|line| line == expected), "no {expected} in {lines:#?}");
    }
    let (here, there) = (find("here"), find("there"));
    assert_eq!((&there.parent, &there.trace), (&here.id, &here.trace));
    assert_eq!(parent.split('-').collect::<Vec<_>>()[1].len(), 32);
    assert!(find("strange").parent.is_empty());
}
