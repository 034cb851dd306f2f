//! The hard cap on memory: 10 GiB of artifacts through 256 MiB, in a chain (each made of the one before) and in a fan
//! (all made at once and then read), with a store in memory and one in a folder. Every artifact is checked when it is
//! read, against its digest and against what it must be. Stages run in the process of the run, and then in two worker
//! processes; the limit is each process's.
//!
//! `cargo bench --bench memory`, with 11 GiB free where temporary files are (`TMPDIR` says where else).

#![allow(clippy::print_stdout, reason = "a benchmark says what it measured")]

use ropeway::pipeline::Pool;
use ropeway::prelude::*;
use ropeway::run::{Elsewhere, Line, Options, run};
use ropeway::stage::TaskRequest;
use ropeway::worker::Token;
use serde_json::json;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::Instant;

#[global_allocator]
static ALLOCATOR: ropeway::Allocator = ropeway::Allocator;

const ARTIFACTS: u64 = 160;
const EACH: u64 = 64 << 20;
const CAP: u64 = 256 << 20;
/// What the peak of a process may be.
const LIMIT: u64 = 400 << 20;
const WORKERS: u32 = 2;
/// Names the folder where processes leave their peaks.
const PEAKS: &str = "ROPEWAY_BENCH_PEAKS";

#[derive(Serialize, Deserialize, JsonSchema)]
struct Number {
    number: u64,
}

/// The words of an artifact.
fn words(number: u64) -> impl Iterator<Item = u64> {
    let seed = (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (0..EACH / 8).map(move |place| (seed ^ place).wrapping_mul(0xbf58_476d_1ce4_e5b9))
}

fn make(Params(p): Params<Number>) -> Result<Tensors> {
    let made = Tensors::new().with("words", Tensor::from_vec(vec![(EACH / 8) as usize], words(p.number).collect())?);
    note_peak().map(|()| made)
}

fn check(artifact: &Tensors, number: u64) -> Result<()> {
    let found = artifact.get("words").context("it has words")?.values::<u64>()?;
    match found.iter().copied().eq(words(number)) {
        true => Ok(()),
        false => Err(Error::new(format!("artifact {number} is not what it was"))),
    }
}

fn next(before: Tensors, Params(p): Params<Number>) -> Result<Tensors> {
    check(&before, p.number - 1)?;
    drop(before);
    make(Params(p))
}

/// Submits all tasks at once, and then reads what each gave.
fn fan(each: Template, tasks: Tasks) -> Result<Metrics> {
    let submit = |number: u64| {
        let params = json!({ "number": number });
        tasks.submit(TaskRequest { label: number.to_string(), params, ..each.task.clone() })
    };
    let pending: Vec<_> = (0..ARTIFACTS).map(submit).collect();
    for (number, pending) in pending.into_iter().enumerate() {
        let artifact: Tensors = pending.wait()?.remove("output").context("a task gives an artifact")?.load_as()?;
        check(&artifact, number as u64)?;
    }
    Ok(Metrics::new().with("artifacts", ARTIFACTS as f64))
}

fn pipeline(shape: &str, registry: &Registry) -> Result<Pipeline> {
    let number = |number: u64| json!({ "number": number });
    if shape == "fan" {
        let fan = Pipeline::build("fan").stage("each", "make").with(number(0)).stage("all", "fan").from("each");
        return fan.resolve(registry);
    }
    let mut chain = Pipeline::build("chain").stage("s0", "make").with(number(0));
    for step in 1..ARTIFACTS {
        chain = chain.stage(&format!("s{step}"), "next").with(number(step)).from(format!("s{}", step - 1).as_str());
    }
    chain.resolve(registry)
}

fn registry() -> Registry {
    Registry::new()
        .stage("make", stage(make).version(1))
        .stage("next", stage(next).version(1))
        .stage("fan", stage(fan).version(1))
}

/// A run that computes in so many worker processes, or in this one.
fn options(workers: u32) -> Result<Options> {
    if workers == 0 {
        return Ok(Options::default());
    }
    let pool = Pool { name: "local".into(), min: workers, max: workers, ..Pool::default() };
    let (listen, token) = ("127.0.0.1:0".to_owned(), Token::generate()?);
    let elsewhere = Elsewhere { listen, open: false, token, pools: vec![pool], memory: CAP, cache: None };
    Ok(Options { cores: 0, elsewhere: Some(elsewhere), ..Options::default() })
}

/// Runs one case in this process and says how long it took.
fn case(shape: &str, url: &str, workers: u32) -> Result<()> {
    let registry = Arc::new(registry());
    let pipeline = pipeline(shape, &registry)?;
    let store = ropeway::runtime()?.block_on(Store::open(url))?.with_memory(CAP);
    let begun = Instant::now();
    let report = run(&pipeline, &registry, &store, &options(workers)?, &mut |_: &Line| {})?;
    let failed = report.stages.iter().find_map(|stage| stage.error.as_deref());
    assert!(report.succeeded(), "{}", failed.unwrap_or("a stage failed"));
    println!("{}", begun.elapsed().as_secs_f64());
    note_peak()
}

/// The most memory that this process had, in bytes.
fn peak() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("Linux says it")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>().map_err(Error::new)? << 10)
}

/// Leaves this process's peak where all are looked at.
fn note_peak() -> Result<()> {
    let Some(folder) = std::env::var_os(PEAKS) else { return Ok(()) };
    std::fs::write(Path::new(&folder).join(std::process::id().to_string()), peak()?.to_string())?;
    Ok(())
}

/// The largest of the peaks that processes left in a folder.
fn largest_peak(folder: &Path) -> Result<u64> {
    let read = |entry: std::io::Result<std::fs::DirEntry>| -> Result<u64> {
        std::fs::read_to_string(entry?.path())?.parse().map_err(Error::new)
    };
    let peaks = std::fs::read_dir(folder)?.map(read).collect::<Result<Vec<_>>>()?;
    peaks.into_iter().max().context("processes leave their peaks")
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let arguments: Vec<&str> = arguments.iter().skip(1).map(String::as_str).collect();
    let done = match arguments.as_slice() {
        ["worker", ..] => return ropeway::main(registry()),
        ["case", shape, url, workers] => {
            workers.parse().map_err(Error::new).and_then(|workers| case(shape, url, workers))
        }
        _ => measure(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn measure() -> Result<()> {
    let mib = |bytes: u64| bytes as f64 / (1 << 20) as f64;
    println!("{ARTIFACTS} artifacts of {} MiB through a cap of {} MiB:", mib(EACH), mib(CAP));
    for (shape, workers) in [("chain", 0), ("fan", 0), ("chain", WORKERS), ("fan", WORKERS)] {
        let folder = tempfile::tempdir()?;
        for url in ["memory://".to_owned(), format!("file://{}", folder.path().display())] {
            let peaks = tempfile::tempdir()?;
            // A process of its own, for a peak of its own.
            let mut command = Command::new(std::env::current_exe()?);
            let output = command.args(["case", shape, &url, &workers.to_string()]).env(PEAKS, peaks.path()).output()?;
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
            let (seconds, peak) = (said.trim().parse::<f64>().map_err(Error::new)?, largest_peak(peaks.path())?);
            println!(
                "{shape:5} {workers} workers {:9} largest peak {:5.1} MiB, {:.2} of {} MiB; {:.2} GiB/s",
                url.split("//").next().unwrap_or_default(),
                mib(peak),
                peak as f64 / LIMIT as f64,
                mib(LIMIT),
                (ARTIFACTS * EACH) as f64 / (1u64 << 30) as f64 / seconds,
            );
            assert!(peak <= LIMIT, "the peak is past the limit");
        }
    }
    Ok(())
}
