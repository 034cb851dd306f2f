//! An artifact from one stage to the next, against what a machine can do: a copy in memory, and BLAKE3.
//!
//! `cargo bench --bench handover`

#![allow(missing_docs, reason = "criterion's macros make public functions")]
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark says what it measured, or fails")]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ropeway::data::{Artifact, Ref, Tensor, Tensors};
use ropeway::runtime;
use ropeway::store::Store;
use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

const BYTES: usize = 64 << 20;

fn tensors(salt: f32) -> Artifact {
    let values: Vec<f32> = (0..BYTES / 4).map(|index| index as f32 + salt).collect();
    Artifact::Tensors(Tensors::new().with("x", Tensor::from_vec(vec![BYTES / 4], values).unwrap()))
}

fn open(folder: &Path) -> Store {
    runtime().unwrap().block_on(Store::open(folder.to_str().unwrap())).unwrap()
}

fn put(store: &Store, artifact: &Artifact) -> Ref {
    runtime().unwrap().block_on(store.put(artifact)).unwrap()
}

fn get(store: &Store, reference: Ref) -> Artifact {
    runtime().unwrap().block_on(store.get(reference)).unwrap()
}

fn timed<T>(work: impl FnOnce() -> T) -> Duration {
    let begun = Instant::now();
    black_box(work());
    begun.elapsed()
}

/// Puts artifacts that the store does not have yet.
fn fresh_put(salt: &mut f32) -> Duration {
    *salt += 1.0;
    let (store, artifact) = (Store::memory(), tensors(*salt));
    timed(|| put(&store, &artifact))
}

fn file_put(salt: &mut f32) -> Duration {
    *salt += 1.0;
    let (folder, artifact) = (tempfile::tempdir().unwrap(), tensors(*salt));
    let store = open(folder.path());
    timed(|| put(&store, &artifact))
}

fn handover(criterion: &mut Criterion) {
    let mut salt = 0.0;
    let source = vec![1u8; BYTES];
    let mut target = vec![0u8; BYTES];
    let mut copy = || timed(|| target.copy_from_slice(black_box(&source)));
    let (memory, artifact) = (Store::memory(), tensors(0.0));
    let known = put(&memory, &artifact);
    let folder = tempfile::tempdir().unwrap();
    put(&open(folder.path()), &artifact);
    // Another process has nothing of it in its memory: it maps the file and checks the digest.
    let elsewhere = || {
        let store = open(folder.path());
        timed(|| get(&store, known))
    };

    let mut group = criterion.benchmark_group("hand-over of 64 MiB");
    group.sample_size(10).throughput(Throughput::Bytes(BYTES as u64));
    group.bench_function("copy", |b| b.iter_custom(|rounds| (0..rounds).map(|_| copy()).sum()));
    group.bench_function("put in memory", |b| b.iter_custom(|rounds| (0..rounds).map(|_| fresh_put(&mut salt)).sum()));
    group.bench_function("put in a folder", |b| b.iter_custom(|rounds| (0..rounds).map(|_| file_put(&mut salt)).sum()));
    group.bench_function("get in the same process", |b| b.iter(|| get(&memory, known)));
    group.bench_function("get in another process", |b| b.iter_custom(|rounds| (0..rounds).map(|_| elsewhere()).sum()));
    group.finish();

    let median = |measure: &mut dyn FnMut() -> Duration| {
        let mut times: Vec<Duration> = (0..9).map(|_| measure()).collect();
        times.sort();
        times[4].as_secs_f64()
    };
    let least = median(&mut copy);
    let rate = BYTES as f64 / least / 1e9;
    println!("a copy of 64 MiB: {rate:.1} GB/s; in times of it:");
    println!("  put in memory           {:8.2}", median(&mut || fresh_put(&mut salt)) / least);
    println!("  put in a folder         {:8.2}", median(&mut || file_put(&mut salt)) / least);
    println!("  get in the same process {:8.4}", median(&mut || timed(|| get(&memory, known))) / least);
    println!("  get in another process  {:8.2}", median(&mut || elsewhere()) / least);
}

criterion_group!(benches, handover);
criterion_main!(benches);
