//! A prediction over HTTP against the model alone, and against a bare round trip of as many bytes on loopback.
//!
//! `cargo bench --bench inference`

#![allow(missing_docs, reason = "criterion's macros make public functions")]
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark says what it measured, or fails")]

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ropeway::data::{Artifact, Frame};
use ropeway::pipeline::Pipeline;
use ropeway::run::{Line, Options, run};
use ropeway::runtime;
use ropeway::serving::{Client, Endpoint, Server};
use ropeway::store::Store;
use serde_json::json;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Instant;

/// Trains a small model on the digits; gives it, and rows to apply it to.
fn fitted() -> (Endpoint, Frame) {
    let registry = Arc::new(ropeway::standard());
    let pipeline = Pipeline::build("inference")
        .seed(7)
        .stage("rows", "dataset.digits")
        .stage("fit", "train")
        .from("rows")
        .with(json!({ "model": { "mlp": { "hidden": [64, 32] } }, "target": "label", "epochs": 2 }))
        .resolve(&registry)
        .unwrap();
    let store = Store::memory();
    let report = run(&pipeline, &registry, &store, &Options::default(), &mut |_: &Line| {}).unwrap();
    assert!(report.succeeded(), "{report:?}");
    let planned = ropeway::run::plan(&pipeline, &store, &[]).unwrap();
    let output =
        |stage: usize, port: &str| runtime().unwrap().block_on(store.get(planned[stage].outputs[port])).unwrap();
    let (Artifact::Frame(rows), Artifact::Model(model)) = (output(0, "output"), output(1, "model")) else {
        unreachable!("a source gives rows, and a training a model");
    };
    (Endpoint::new("digits", "1", [registry.load(&model).unwrap()]).unwrap(), rows)
}

/// A server that sends back what it gets, in a thread that ends with the process.
fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            stream.set_nodelay(true).unwrap();
            let mut bytes = vec![0; 1 << 20];
            while let Ok(read @ 1..) = stream.read(&mut bytes) {
                stream.write_all(&bytes[..read]).unwrap();
            }
        }
    });
    address
}

fn round_trip(stream: &mut TcpStream, bytes: &mut [u8]) {
    stream.write_all(bytes).unwrap();
    stream.read_exact(bytes).unwrap();
}

fn median(mut work: impl FnMut()) -> f64 {
    let mut once = || {
        let begun = Instant::now();
        work();
        begun.elapsed().as_secs_f64()
    };
    let mut times: Vec<f64> = (0..501).map(|_| once()).collect();
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn inference(criterion: &mut Criterion) {
    let (direct, rows) = fitted();
    let (endpoint, _) = fitted();
    let batch = rows.to_batch().unwrap();
    let bound = Server::new([endpoint]).bind("127.0.0.1:0").unwrap();
    let client = Client::new(&format!("http://{}", bound.local_addr())).unwrap();
    runtime().unwrap().spawn(bound.serve(std::future::pending()));
    let mut stream = TcpStream::connect(echo()).unwrap();
    stream.set_nodelay(true).unwrap();

    let mut lines = Vec::new();
    let mut group = criterion.benchmark_group("inference");
    for count in [1, 64, 1024] {
        let some = Frame::new(batch.schema(), vec![batch.slice(0, count)]).unwrap();
        let mut bytes = vec![0; count * 65 * 8];
        group.throughput(Throughput::Elements(count as u64));
        group.bench_function(BenchmarkId::new("http", count), |b| b.iter(|| client.infer("digits", &some).unwrap()));
        group.bench_function(BenchmarkId::new("direct", count), |b| b.iter(|| direct.apply(&some).unwrap()));
        group.bench_function(BenchmarkId::new("loopback", count), |b| b.iter(|| round_trip(&mut stream, &mut bytes)));
        let http = median(|| drop(client.infer("digits", &some).unwrap()));
        let least = median(|| drop(direct.apply(&some).unwrap())) + median(|| round_trip(&mut stream, &mut bytes));
        lines.push(format!("{count:5} rows: {:8.1} µs, {:.2} times the model and the wire", http * 1e6, http / least));
    }
    group.finish();
    println!("{}", lines.join("\n"));
}

criterion_group!(benches, inference);
criterion_main!(benches);
