//! A collector, and runs that are traced, in this process and in workers. It is a program of its own, since a program has
//! one subscriber, and since workers are processes of the program that runs.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests end where they fail")]

use ropeway_framework::data::Metrics;
use ropeway_framework::otel::Exporter;
use ropeway_framework::pipeline::{Pipeline, Pool};
use ropeway_framework::run::{Elsewhere, Line, Options, run};
use ropeway_framework::stage::{Params, Registry, TaskRequest, Tasks, Template, stage};
use ropeway_framework::store::Store;
use ropeway_framework::worker::{Gpus, Leave, Token, WorkerMetrics, WorkerOptions, work};
use ropeway_framework::{Result, join_trace, runtime, trace_parent};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::{Request, Response, Status};

/// Where a process of this test finds the collector.
const ENDPOINT: &str = "ROPEWAY_TEST_COLLECTOR";

/// The part of OTLP that is looked at: `opentelemetry/proto/collector/trace/v1/trace_service.proto`.
#[derive(Clone, PartialEq, prost::Message)]
struct Export {
    #[prost(message, repeated, tag = "1")]
    resources: Vec<ResourceSpans>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ResourceSpans {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    scopes: Vec<ScopeSpans>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Resource {
    #[prost(message, repeated, tag = "1")]
    attributes: Vec<Attribute>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Attribute {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<Text>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Text {
    #[prost(string, tag = "1")]
    text: String,
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
    #[prost(message, repeated, tag = "9")]
    attributes: Vec<Attribute>,
    /// In whose name it was sent: no field of the protocol's span.
    #[prost(string, tag = "1000")]
    service: String,
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
        for ResourceSpans { resource, scopes } in request.into_inner().resources {
            let attributes = resource.unwrap_or_default().attributes;
            let service = attributes.into_iter().find(|attribute| attribute.key == "service.name").unwrap();
            let service = service.value.unwrap().text;
            let spans = scopes.into_iter().flat_map(|scope| scope.spans);
            self.0.lock().unwrap().extend(spans.map(|span| Span { service: service.clone(), ..span }));
        }
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

fn registry() -> Arc<Registry> {
    Arc::new(Registry::new().stage("number", stage(number)).stage("both", stage(both)))
}

fn traced(name: &str, options: &Options) {
    let registry = registry();
    let pipeline = Pipeline::build(name)
        .stage("each", "number")
        .with(json!({ "number": 0 }))
        .stage("all", "both")
        .from("each")
        .resolve(&registry)
        .unwrap();
    let report = run(&pipeline, &registry, &Store::memory(), options, &mut |_: &Line| {}).unwrap();
    assert!(report.succeeded());
}

/// A run that computes in a worker process.
fn elsewhere() -> Options {
    let pool = Pool { name: "local".into(), min: 1, max: 1, ..Pool::default() };
    let (listen, token) = ("127.0.0.1:0".to_owned(), Token::generate().unwrap());
    let elsewhere = Elsewhere { listen, open: false, token, pools: vec![pool], memory: 64 << 20, cache: None };
    Options { cores: 0, elsewhere: Some(elsewhere), ..Options::default() }
}

/// What the run starts: `worker --join ADDRESS --name NAME …`, with the token in the environment.
fn work_for(arguments: &[String]) {
    let after = |flag: &str| arguments.iter().skip_while(|argument| *argument != flag).nth(1).unwrap().clone();
    let pool = arguments.iter().find_map(|argument| argument.strip_prefix("--pool=")).unwrap();
    // It ends with who started it, but for its last words.
    let is_over = Arc::new(AtomicBool::new(false));
    let leaves = is_over.clone();
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        if !leaves.load(Ordering::Relaxed) {
            std::process::exit(1);
        }
    });
    let exporter = Exporter::start(&std::env::var(ENDPOINT).unwrap(), "a worker").unwrap();
    let options = WorkerOptions {
        name: after("--name"),
        join: after("--join"),
        token: std::env::var("ROPEWAY_TOKEN").unwrap().parse().unwrap(),
        cores: 1.0,
        gpus: Gpus::default(),
        room: None,
        memory: 64 << 20,
        cache: None,
        pool: pool.to_owned(),
        patience: Duration::from_secs(30),
        store_options: Vec::new(),
        metrics: WorkerMetrics::default(),
        leave: Leave::default(),
    };
    work(&registry(), &options, &mut |_| {}).unwrap();
    is_over.store(true, Ordering::Relaxed);
    exporter.shutdown().unwrap();
}

/// What is traced: a run in this process, one in a worker, and what joins other traces.
fn trace() {
    let exporter = Exporter::start(&std::env::var(ENDPOINT).unwrap(), "a test").unwrap();
    traced("traced", &Options::default());
    traced("spread", &elsewhere());

    // What another process does for a span is in its trace.
    let here = tracing::info_span!(target: "ropeway", "here");
    let parent = trace_parent(&here).unwrap();
    let there = tracing::info_span!(target: "ropeway", parent: None, "there");
    join_trace(&there, &parent);
    let strange = tracing::info_span!(target: "ropeway", parent: None, "strange");
    join_trace(&strange, "no traceparent");
    drop((here, there, strange));
    assert_eq!(parent.split('-').collect::<Vec<_>>()[1].len(), 32);
    exporter.shutdown().unwrap();
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    // Whoever starts the test may give it any argument.
    let what = std::env::var_os(ENDPOINT).and(arguments.get(1));
    match what.map(String::as_str) {
        Some("worker") => work_for(&arguments),
        Some("trace") => trace(),
        _ => runs_are_traces_that_a_collector_gets(),
    }
}

fn runs_are_traces_that_a_collector_gets() {
    let collector = Collector::default();
    let endpoint = collect(collector.clone());
    let traced = Command::new(std::env::current_exe().unwrap()).arg("trace").env(ENDPOINT, endpoint).status();
    assert!(traced.unwrap().success());

    let spans = collector.0.lock().unwrap();
    let find =
        |name: &str| spans.iter().find(|span| span.name == name).unwrap_or_else(|| panic!("no {name}: {spans:#?}"));
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
    let has = |run: &str, expected: &[(&str, &str)]| {
        let root = find(run);
        assert!(root.parent.is_empty());
        let mine: Vec<&Span> = spans.iter().filter(|span| span.trace == root.trace).collect();
        assert!(mine.iter().all(|span| span.start <= span.end && span.start >= root.start), "{mine:#?}");
        let lines: Vec<(&str, String)> = mine.iter().map(|span| (&*span.service, line(span))).collect();
        for (service, expected) in expected {
            let expected = (*service, format!("{expected} < {run}"));
            assert!(lines.contains(&expected), "no {expected:?} in {lines:#?}");
        }
    };
    let (here, there) = ("a test", "a worker");
    has(
        "run traced-1",
        &[
            (here, "attempt < all"),
            (here, "attempt < all/1 < all"),
            (here, "attempt < all/2 < all"),
            (here, "store put < attempt < all/1 < all"),
            (here, "store commit < attempt < all/2 < all"),
        ],
    );
    // What a worker does for an attempt is in the trace of the run.
    has(
        "run spread-1",
        &[
            (here, "attempt < all/1 < all"),
            (here, "attempt < all/2 < all"),
            (there, "number < attempt < all/1 < all"),
            (there, "number < attempt < all/2 < all"),
        ],
    );
    // An attempt is under way as long as its worker works for it, and says how it ended.
    let works: Vec<&Span> = spans.iter().filter(|span| line(span).starts_with("number < attempt < all/")).collect();
    assert_eq!(works.len(), 2);
    for work in works {
        let attempt = by_id[&work.parent[..]];
        assert!(attempt.start <= work.start && attempt.end >= work.end, "{attempt:?}, {work:?}");
        let outcome = attempt.attributes.iter().find(|attribute| attribute.key == "outcome").unwrap();
        assert_eq!(outcome.value.as_ref().unwrap().text, "done");
    }
    let (here, there) = (find("here"), find("there"));
    assert_eq!((&there.parent, &there.trace), (&here.id, &here.trace));
    assert!(find("strange").parent.is_empty());
}
