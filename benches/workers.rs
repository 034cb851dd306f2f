//! What worker processes cost, as one JSON object of figures: seconds and bytes.
//!
//! `cargo bench --bench workers`; `benches/peers/workers.py` sets them beside Ray's.

#![allow(clippy::print_stdout, reason = "a benchmark says what it measured")]

use memmap2::MmapMut;
use ropeway::data::Artifact;
use ropeway::pipeline::Pool;
use ropeway::prelude::*;
use ropeway::run::{Elsewhere, Event, Line, Options, Report, run};
use ropeway::runtime;
use ropeway::stage::TaskRequest;
use ropeway::worker::Token;
use serde_json::{Value, json};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// As in the program.
#[global_allocator]
static ALLOCATOR: ropeway::Allocator = ropeway::Allocator;

const WORKERS: u32 = 2;
const CALLS: u64 = 2_000;
const TASKS: u64 = 200_000;
const MILLION: u64 = 1_000_000;
const ROUNDS: usize = 5;
const MIB: usize = 1 << 20;

#[derive(Serialize, Deserialize, JsonSchema)]
struct Number {
    number: u64,
}

#[derive(Serialize, Deserialize, JsonSchema)]
struct Count {
    count: u64,
}

#[derive(Serialize, Deserialize, JsonSchema)]
struct Size {
    bytes: usize,
    round: u64,
}

fn nothing(Params(_): Params<Number>) -> Metrics {
    Metrics::new()
}

/// An array of doubles.
fn array(Params(p): Params<Size>) -> Result<Tensors> {
    let values: Vec<f64> = (0..p.bytes / 8).map(|index| (index as u64 + p.round) as f64).collect();
    Ok(Tensors::new().with("values", Tensor::from_vec(vec![values.len()], values)?))
}

fn add_one(input: Tensors) -> Result<Tensors> {
    let more: Vec<f64> = input.get("values")?.values::<f64>()?.iter().map(|value| value + 1.0).collect();
    Ok(Tensors::new().with("values", Tensor::from_vec(vec![more.len()], more)?))
}

/// Seconds of the machine's calendar.
fn now() -> Result<f64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH).map_err(Error::new)?.as_secs_f64())
}

/// An array of doubles, and when it was there.
fn stamped(Params(p): Params<Size>) -> Result<Tensors> {
    let array = array(Params(p))?;
    Ok(array.with("made", Tensor::from_vec(vec![1], vec![now()?])?))
}

/// Says for how long its input was on the way, and reads it.
fn take(input: Tensors) -> Result<Metrics> {
    let seconds = now()? - input.get("made")?.values::<f64>()?[0];
    let sum = input.get("values")?.values::<f64>()?.iter().sum::<f64>();
    Ok(Metrics::new().with("seconds", seconds).with("sum", sum))
}

fn task(each: &Template, number: u64) -> TaskRequest {
    TaskRequest { label: number.to_string(), params: json!({ "number": number }), ..each.task.clone() }
}

/// One task after the other; gives the median of their round trips.
fn one_by_one(each: Template, tasks: Tasks, Params(p): Params<Count>) -> Result<Metrics> {
    let mut times = Vec::new();
    for number in 0..p.count {
        let begun = Instant::now();
        tasks.submit(task(&each, number)).wait()?;
        times.push(begun.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    Ok(Metrics::new().with("median", times[times.len() / 2]))
}

/// All tasks at once; gives the seconds from the first word to the last result.
fn at_once(each: Template, tasks: Tasks, Params(p): Params<Count>) -> Result<Metrics> {
    // Workers that are still starting would be measured too.
    tasks.submit(task(&each, u64::MAX)).wait()?;
    let begun = Instant::now();
    let pending: Vec<_> = (0..p.count).map(|number| tasks.submit(task(&each, number))).collect();
    for pending in pending {
        pending.wait()?;
    }
    Ok(Metrics::new().with("seconds", begun.elapsed().as_secs_f64()))
}

/// Bytes of memory of this process and those that it started, once they have nothing to do; shared pages count in parts.
fn idle(each: Template, tasks: Tasks) -> Result<Metrics> {
    tasks.submit(task(&each, 0)).wait()?;
    std::thread::sleep(Duration::from_secs(2));
    let mut processes = vec!["self".to_owned()];
    for thread in std::fs::read_dir("/proc/self/task")? {
        let children = std::fs::read_to_string(thread?.path().join("children"))?;
        processes.extend(children.split_whitespace().map(str::to_owned));
    }
    let pss = |process: &String| {
        let told = std::fs::read_to_string(format!("/proc/{process}/smaps_rollup"))?;
        let line = told.lines().find_map(|line| line.strip_prefix("Pss:")).context("Linux says it")?;
        line.trim().trim_end_matches(" kB").parse::<f64>().map_err(Error::new)
    };
    let kib = processes.iter().map(pss).sum::<Result<f64>>()?;
    Ok(Metrics::new().with("bytes", kib * 1024.0).with("processes", processes.len() as f64))
}

fn registry() -> Registry {
    Registry::new()
        .stage("nothing", stage(nothing).version(1))
        .stage("array", stage(array).version(1))
        .stage("add", stage(add_one).version(1))
        .stage("stamped", stage(stamped).version(1))
        .stage("take", stage(take).version(1))
        .stage("one_by_one", stage(one_by_one).version(1))
        .stage("at_once", stage(at_once).version(1))
        .stage("idle", stage(idle).version(1))
}

fn options(local: u32) -> Result<Options> {
    let elsewhere = Elsewhere {
        listen: "127.0.0.1:0".into(),
        open: false,
        token: Token::generate()?,
        pools: vec![Pool { name: "local".into(), min: local, max: local, ..Pool::default() }],
        memory: 2048 * MIB as u64,
        cache: None,
    };
    Ok(Options { cores: 0, elsewhere: Some(elsewhere), ..Options::default() })
}

fn lead(stage: &str, params: Value, local: u32) -> Result<Report> {
    let registry = Arc::new(registry());
    let pipeline = Pipeline::build("workers")
        .stage("each", "nothing")
        .with(json!({ "number": 0 }))
        .stage("all", stage)
        .from("each")
        .with(params)
        .resolve(&registry)?;
    done(run(&pipeline, &registry, &Store::memory(), &options(local)?, &mut |_: &Line| {})?)
}

fn many(stage: &str, count: u64) -> Result<Report> {
    lead(stage, json!({ "count": count }), WORKERS)
}

fn done(report: Report) -> Result<Report> {
    match report.stages.iter().find_map(|stage| stage.error.clone()) {
        None => Ok(report),
        Some(error) => Err(Error::new(error)),
    }
}

fn metric(report: &Report, name: &str) -> f64 {
    report.stages.iter().find_map(|stage| stage.metrics.get(name)).unwrap_or(f64::NAN)
}

/// A source and what is done with it, in a fresh store; gives the seconds from the source's end to the last stage's.
fn chain(uses: &[&str], bytes: usize, local: u32) -> Result<f64> {
    let registry = Arc::new(registry());
    let mut builder = Pipeline::build("chain").stage("s0", "array").with(json!({ "bytes": bytes, "round": 0 }));
    for (index, uses) in uses.iter().enumerate() {
        builder = builder.stage(&format!("s{}", index + 1), uses).from(format!("s{index}").as_str());
    }
    let pipeline = builder.resolve(&registry)?;
    let mut ends = Vec::new();
    let mut sink = |line: &Line| {
        if matches!(line.event, Event::StageFinished(_)) {
            ends.push(line.at);
        }
    };
    done(run(&pipeline, &registry, &Store::memory(), &options(local)?, &mut sink)?)?;
    Ok(ends.last().zip(ends.first()).map_or(f64::NAN, |(last, first)| last - first))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn rounds(mut each: impl FnMut() -> Result<f64>) -> Result<f64> {
    (0..ROUNDS).map(|_| each()).collect::<Result<Vec<_>>>().map(median)
}

/// Runs this program again, for figures of a whole process; gives what it prints.
fn again(what: &str) -> Result<Value> {
    let output = Command::new(std::env::current_exe()?).arg(what).stderr(Stdio::inherit()).output()?;
    serde_json::from_slice(&output.stdout).context(format!("{what} printed no figures"))
}

fn status(field: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line.and_then(|text| text.trim().trim_end_matches(" kB").parse::<f64>().ok()).unwrap_or(f64::NAN) * 1024.0
}

/// Bytes a second that a copy onto fresh pages makes: onto huge ones, which the allocator takes, and onto those of 4 KiB
/// that memory has which several processes share.
fn memcpy_rates(bytes: usize) -> Result<[f64; 2]> {
    let from = vec![1u8; bytes];
    let timed = |copy: &dyn Fn() -> Result<()>| -> Result<f64> {
        let begun = Instant::now();
        copy()?;
        Ok(begun.elapsed().as_secs_f64())
    };
    let huge = || {
        std::hint::black_box(from.clone());
        Ok(())
    };
    let small = || {
        let mut to = MmapMut::map_anon(bytes)?;
        to.copy_from_slice(&from);
        std::hint::black_box(&to);
        Ok(())
    };
    Ok([rounds(|| timed(&huge))?, rounds(|| timed(&small))?].map(|seconds| bytes as f64 / seconds))
}

/// Tensors of so many bytes: the seconds until a task of the same worker has them; and those until a task of another
/// worker process has, which maps what the first one left.
fn hand_over(bytes: usize) -> Result<(f64, f64)> {
    let tensors = || array(Params(Size { bytes, round: 0 })).map(Artifact::Tensors);
    let store = Store::memory().with_memory(4 * bytes as u64);
    let made = runtime()?.block_on(store.put_owned(tensors()?))?;
    let timed = |work: &mut dyn FnMut() -> Result<Artifact>| -> Result<f64> {
        let begun = Instant::now();
        std::hint::black_box(work()?);
        Ok(begun.elapsed().as_secs_f64())
    };
    let same = rounds(|| timed(&mut || runtime()?.block_on(store.get(made))))?;
    drop(store);
    let other = rounds(|| across(bytes))?;
    Ok((same, other))
}

/// The seconds from when a worker has made tensors until a task of another one has them: of the two stages each fits one
/// worker only.
fn across(bytes: usize) -> Result<f64> {
    let registry = Arc::new(registry());
    let pool = |name: &str, cpus: f64, memory: usize| {
        let memory = (memory * MIB) as u64;
        Pool { name: name.into(), min: 1, max: 1, cpus, memory, ..Pool::default() }
    };
    let mut options = options(0)?;
    if let Some(elsewhere) = &mut options.elsewhere {
        elsewhere.pools = vec![pool("maker", 2.0, 1024), pool("taker", 1.0, 4096)];
    }
    let pipeline = Pipeline::build("across")
        .stage("made", "stamped")
        .with(json!({ "bytes": bytes, "round": 0 }))
        .needs(json!({ "cpus": 2 }))
        .stage("taken", "take")
        .from("made")
        .needs(json!({ "memory": "2GiB" }))
        .resolve(&registry)?;
    let report = done(run(&pipeline, &registry, &Store::memory(), &options, &mut |_: &Line| {})?)?;
    Ok(metric(&report, "seconds"))
}

fn measure() -> Result<Value> {
    let call = rounds(|| Ok(metric(&many("one_by_one", CALLS)?, "median")))?;
    let seconds = rounds(|| Ok(metric(&many("at_once", TASKS)?, "seconds")))?;
    let first_result = rounds(|| {
        let begun = Instant::now();
        again("first")?;
        Ok(begun.elapsed().as_secs_f64())
    })?;
    let new_worker = rounds(|| Ok(again("first")?["new_worker"].as_f64().unwrap_or(f64::NAN)))?;
    let chain_seconds = rounds(|| chain(&["add", "add", "add", "add"], 10 * MIB, WORKERS))?;
    let million = again("million")?;
    let (same_worker, another_process) = hand_over(512 * MIB)?;
    let [memcpy, small_memcpy] = memcpy_rates(512 * MIB)?;
    Ok(json!({
        "call": call,
        "tasks_per_second": TASKS as f64 / seconds,
        "first_result": first_result,
        "new_worker": new_worker,
        "chain": chain_seconds,
        "same_worker": same_worker,
        "hand_over_rate": (512 * MIB) as f64 / another_process,
        "memcpy_rate": memcpy,
        "small_pages_memcpy_rate": small_memcpy,
        "idle_bytes": again("idle")?["bytes"],
        "million_tasks": million["seconds"],
        "million_tasks_peak": million["peak"],
    }))
}

/// One task in one new worker process.
fn first() -> Result<Value> {
    let registry = Arc::new(registry());
    let pipeline = Pipeline::build("first").stage("one", "nothing").with(json!({ "number": 0 })).resolve(&registry)?;
    let begun = Instant::now();
    done(run(&pipeline, &registry, &Store::memory(), &options(1)?, &mut |_: &Line| {})?)?;
    Ok(json!({ "new_worker": begun.elapsed().as_secs_f64() }))
}

fn million() -> Result<Value> {
    let seconds = metric(&many("at_once", MILLION)?, "seconds");
    Ok(json!({ "seconds": seconds, "peak": status("VmHWM") }))
}

fn main() -> ExitCode {
    let figures = match std::env::args().nth(1).as_deref() {
        Some("worker") => return ropeway::main(registry()),
        Some("first") => first(),
        Some("million") => million(),
        Some("idle") => lead("idle", Value::Null, 1)
            .map(|report| json!({ "bytes": metric(&report, "bytes"), "processes": metric(&report, "processes") })),
        Some("hand_over") => hand_over(512 * MIB).map(|(same, other)| json!([same, (512 * MIB) as f64 / other])),
        Some("memcpy") => memcpy_rates(512 * MIB).map(|rates| json!(rates)),
        Some("call") => many("one_by_one", CALLS).map(|report| json!(metric(&report, "median"))),
        Some("tasks") => many("at_once", TASKS).map(|report| json!(TASKS as f64 / metric(&report, "seconds"))),
        Some("chain") => chain(&["add", "add", "add", "add"], 10 * MIB, WORKERS).map(|seconds| json!(seconds)),
        _ => measure(),
    };
    match figures {
        Ok(figures) => {
            println!("{figures}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("{}", json!({ "error": error.to_string() }));
            ExitCode::FAILURE
        }
    }
}
