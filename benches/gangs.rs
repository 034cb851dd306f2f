//! What it costs to train together, as ratios to a copy in memory and to a run that nobody disturbs.
//!
//! `cargo bench --bench gangs`; `benches/peers/training.py` sets two workers beside PyTorch's two ranks.

#![allow(clippy::print_stdout, reason = "a benchmark says what it measured")]

use ropeway::pipeline::Pool;
use ropeway::prelude::*;
use ropeway::run::{Elsewhere, Event, Line, Options, Report, run};
use ropeway::stage::{Cancel, Gang, Progress, copy_past_cache};
use ropeway::worker::Token;
use serde_json::{Value, json};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const MIB: usize = 1 << 20;
const BYTES: usize = 64 * MIB;
const BLOCK: usize = 1024;
const ROUNDS: usize = 9;
/// Bytes of the gradient of the perceptron that `beat` stands for, and of its weights and both moments.
const GRADIENT: usize = 4 * (784 * 256 + 256 + 256 * 128 + 128 + 128 * 10 + 10);
const STATE: usize = 3 * GRADIENT;
const BEATS: Duration = Duration::from_secs(9);
const KILL_EVERY: Duration = Duration::from_secs(2);

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Halves of a sum, from two members and back, as trainings exchange them: each gives the other half of its values, adds
/// up its own half where the other reads it, and takes the other half of the sum. What that takes, in copies of the same
/// bytes in memory.
fn exchange(gang: Gang, cancel: Cancel, progress: Progress) -> Result<Metrics> {
    let mine: Vec<f32> = (0..BYTES / 4).map(|index| index as f32).collect();
    let (mut sum, mut copy) = (vec![0.0f32; BYTES / 4], vec![0.0f32; BYTES / 4]);
    let (mut copies, mut times) = (Vec::new(), Vec::new());
    let (half, halves) = (BYTES / 2, [0..BYTES / 2, BYTES / 2..BYTES]);
    'circle: loop {
        let mut circle = gang.meet(&cancel)?;
        if circle.size() != 2 {
            continue;
        }
        let (rank, other) = (circle.rank(), 1 - circle.rank());
        let place = |rank: usize| rank * half / 4..(rank + 1) * half / 4;
        while times.len() < ROUNDS {
            // Both wait for each other here, so that only the exchange itself is measured.
            circle.outgoing(8)?;
            if !circle.exchange(&[0..8, 0..8])? {
                continue 'circle;
            }
            let begun = Instant::now();
            copy.copy_from_slice(&mine);
            std::hint::black_box(&mut copy);
            copies.push(begun.elapsed().as_secs_f64());
            bytemuck::cast_slice_mut(circle.outgoing(BYTES)?).copy_from_slice(&mine);
            let begun = Instant::now();
            if !circle.exchange(&halves)? {
                continue 'circle;
            }
            let (outgoing, given) = circle.answer(half)?;
            let (a, b): (&[f32], &[f32]) = (bytemuck::cast_slice(given[0]), bytemuck::cast_slice(given[1]));
            let mut room = [0.0f32; BLOCK];
            for ((out, a), b) in outgoing.chunks_mut(4 * BLOCK).zip(a.chunks(BLOCK)).zip(b.chunks(BLOCK)) {
                room.iter_mut().zip(a).zip(b).for_each(|((sum, a), b)| *sum = a + b);
                copy_past_cache(&bytemuck::cast_slice(&room)[..out.len()], out, half);
            }
            if !circle.exchange(&[0..half, 0..half])? {
                continue 'circle;
            }
            copy_past_cache(circle.incoming(other), bytemuck::cast_slice_mut(&mut sum[place(other)]), half);
            times.push(begun.elapsed().as_secs_f64());
        }
        // Its own half of the sum lies where the other has read it.
        sum[place(rank)].copy_from_slice(bytemuck::cast_slice(circle.incoming(rank)));
        let right = sum.iter().zip(&mine).all(|(sum, mine)| *sum == 2.0 * mine);
        if rank == 0 {
            let words = json!({ "right": right, "seconds": median(times.clone()), "copy": median(copies.clone()) });
            progress.log(words.to_string());
        }
        return Ok(Metrics::new().with("bytes", BYTES as f64));
    }
}

/// Exchanges for some seconds, as a training of a perceptron of 784-256-128-10 would make them: all give a gradient to all,
/// and who comes takes the weights and moments of another. The one that began first says what the longest pause between
/// two steps was.
fn beat(gang: Gang, cancel: Cancel, progress: Progress) -> Result<Metrics> {
    let (begun, mut last, mut longest) = (Instant::now(), None::<Instant>, Duration::ZERO);
    // How far it is, and its state; nothing of one that has just come.
    let (mut steps, mut state) = (0u64, Vec::new());
    'circle: loop {
        let mut circle = gang.meet(&cancel)?;
        let (rank, size) = (circle.rank(), circle.size());
        circle.outgoing(8)?.copy_from_slice(&steps.to_le_bytes());
        if !circle.exchange(&vec![0..8; size])? {
            continue 'circle;
        }
        let far: Vec<u64> = (0..size).map(|rank| number(circle.incoming(rank))).collect();
        if !circle.is_whole() {
            continue 'circle;
        }
        let farthest = far.iter().max().copied().unwrap_or_default();
        let giver = far.iter().position(|steps| *steps == farthest && farthest > 0);
        let given = if giver == Some(rank) { state.as_slice() } else { &[] };
        circle.outgoing(given.len())?.copy_from_slice(given);
        let parts: Vec<_> = far.iter().map(|steps| 0..if *steps < farthest { given.len() } else { 0 }).collect();
        if !circle.exchange(&parts)? {
            continue 'circle;
        }
        let taken = giver.filter(|_| far[rank] < farthest).map(|giver| circle.incoming(giver).to_vec());
        if !circle.is_whole() {
            continue 'circle;
        }
        state = taken.unwrap_or(state);
        state.resize(STATE, 7);
        steps = farthest;
        loop {
            let stop = u64::from(begun.elapsed() > BEATS);
            let gradient = circle.outgoing(GRADIENT)?;
            gradient.copy_from_slice(&state[..GRADIENT]);
            gradient[..8].copy_from_slice(&stop.to_le_bytes());
            if !circle.exchange(&vec![0..GRADIENT; size])? {
                continue 'circle;
            }
            let over = (0..size).any(|rank| number(circle.incoming(rank)) == 1);
            steps += 1;
            longest = longest.max(last.map_or(Duration::ZERO, |last| last.elapsed()));
            last = Some(Instant::now());
            if over && stop == 0 {
                // The run ends with the first who does: it must be the one that has seen everything.
                continue 'circle;
            }
            if over {
                progress.log(longest.as_secs_f64().to_string());
                return Ok(Metrics::new());
            }
        }
    }
}

fn number(bytes: &[u8]) -> u64 {
    bytes.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

fn registry() -> Registry {
    ropeway::standard().stage("exchange", stage(exchange).version(1)).stage("beat", stage(beat).version(1))
}

fn options(local: u32) -> Result<Options> {
    let pool = Pool { name: "local".into(), min: local, max: local, cpus: 1.0, ..Pool::default() };
    let (token, memory) = (Token::generate()?, 1 << 30);
    let elsewhere =
        Elsewhere { listen: "127.0.0.1:0".into(), open: false, token, pools: vec![pool], memory, cache: None };
    Ok(Options { cores: 0, elsewhere: Some(elsewhere), ..Options::default() })
}

/// Runs a pipeline on some workers; `hear` hears its events.
fn with_workers(pipeline: &Pipeline, workers: u32, hear: &mut dyn FnMut(&Line)) -> Result<Report> {
    let report =
        run(pipeline, &Arc::new(registry()), &Store::memory(), &options(workers)?, &mut |line: &Line| hear(line))?;
    match report.stages.iter().find_map(|stage| stage.error.clone()) {
        Some(error) => Err(Error::new(error)),
        None => Ok(report),
    }
}

fn training(workers: u32, epochs: u32) -> Result<Pipeline> {
    let model = json!({ "mlp": { "hidden": [256, 128] } });
    Pipeline::build("training")
        .stage("rows", "dataset.digits")
        .stage("fit", "train")
        .from("rows")
        .needs(json!({ "workers": workers }))
        .with(json!({ "model": model, "epochs": epochs, "batch": 256, "shards": 8, "checkpoint": { "every": "1h" } }))
        .resolve(&registry())
}

/// The digests of what the training gave.
fn outputs(report: &Report) -> Option<String> {
    let fit = report.stages.iter().find(|stage| stage.name == "fit")?;
    Some(format!("{:?}", fit.outputs))
}

/// Trains; kills a worker every so often. Gives the seconds, what came of it, and how many were killed.
fn disturbed(workers: u32, epochs: u32, every: Option<Duration>) -> Result<(f64, Option<String>, u32)> {
    let (mut begun, mut last, mut killed) = (None, Instant::now(), 0);
    let pipeline = training(workers, epochs)?;
    let report = with_workers(&pipeline, workers, &mut |line| {
        let now = Instant::now();
        if matches!(&line.event, Event::StageStarted { name, .. } if name == "fit") {
            (begun, last) = (Some(now), now);
        }
        if begun.is_some() && every.is_some_and(|every| now - last > every) && kill_one(killed) {
            (last, killed) = (now, killed + 1);
        }
    })?;
    let seconds = begun.map_or(0.0, |begun| begun.elapsed().as_secs_f64());
    Ok((seconds, outputs(&report), killed))
}

/// The processes of the workers, the oldest first.
fn workers() -> Vec<String> {
    let own = std::process::id();
    let listed = std::fs::read_to_string(format!("/proc/{own}/task/{own}/children")).unwrap_or_default();
    listed.split_whitespace().map(str::to_owned).collect()
}

/// Kills one of the workers.
fn kill_one(number: u32) -> bool {
    let workers = workers();
    let Some(worker) = workers.get(number as usize % workers.len().max(1)) else { return false };
    Command::new("kill").args(["-9", worker]).status().is_ok_and(|status| status.success())
}

/// The longest pause of a gang of three when one of the others dies every so often, and another comes for it.
fn pause() -> Result<(f64, u32)> {
    let pipeline = Pipeline::build("beat").stage("beat", "beat").needs(json!({ "workers": 3 })).resolve(&registry())?;
    let ended = Arc::new(AtomicBool::new(false));
    let killer = std::thread::spawn({
        let ended = ended.clone();
        move || {
            let (begun, mut killed) = (Instant::now(), 0);
            while !ended.load(Ordering::Acquire) {
                std::thread::sleep(Duration::from_millis(20));
                // The first worker stays: it says how long the pauses were.
                let due = begun.elapsed() > KILL_EVERY * (killed + 1) && workers().len() == 3;
                killed += u32::from(due && kill_one(1 + killed % 2));
            }
            killed
        }
    });
    let mut longest = f64::NAN;
    let done = with_workers(&pipeline, 3, &mut |line| {
        if let Event::Log { line, .. } = &line.event {
            longest = line.parse().unwrap_or(f64::NAN);
        }
    });
    ended.store(true, Ordering::Release);
    let killed = killer.join().unwrap_or(0);
    done.map(|_| (longest, killed))
}

/// From the start of a gang to the end of its first step.
fn start(workers: u32) -> Result<f64> {
    let begun = Instant::now();
    let pipeline = training(workers, 1)?;
    let (mut started, mut ended) = (None, None);
    with_workers(&pipeline, workers, &mut |line| match &line.event {
        Event::AttemptStarted(attempt) if attempt.name == "fit" => drop(started.get_or_insert(begun.elapsed())),
        Event::StageFinished(stage) if stage.name == "fit" => ended = Some(begun.elapsed()),
        _ => {}
    })?;
    Ok(started.zip(ended).map_or(f64::NAN, |(started, ended)| (ended - started).as_secs_f64()))
}

fn measure() -> Result<Value> {
    let pipeline = Pipeline::build("exchange").stage("sum", "exchange").needs(json!({ "workers": 2 }));
    let mut exchanged = Value::Null;
    with_workers(&pipeline.resolve(&registry())?, 2, &mut |line| {
        if let Event::Log { line, .. } = &line.event {
            exchanged = serde_json::from_str(line).unwrap_or_default();
        }
    })?;
    let (seconds, copy) = (exchanged["seconds"].as_f64(), exchanged["copy"].as_f64());
    // Each takes half of the values from the other, and half of the sum.
    let bandwidth = seconds.zip(copy).map(|(seconds, copy)| copy / seconds);

    let epochs = 1500;
    let whole = disturbed(2, epochs, None)?;
    let killed = disturbed(2, epochs, Some(KILL_EVERY))?;
    let (longest, deaths) = pause()?;
    let starts = (0..5).map(|_| start(4)).collect::<Result<Vec<_>>>()?;
    Ok(json!({
        "exchange": {
            "right": exchanged["right"], "sum and hand-over, in copies of the same bytes": bandwidth.map(|part| 1.0 / part),
            "bandwidth over that of a copy (asked: 0.7 at least)": bandwidth,
        },
        "killed every 2 s": {
            "same bytes": whole.1 == killed.1, "killed": killed.2, "time over undisturbed (asked: 1.1 at most)": killed.0 / whole.0,
            "seconds a kill": (killed.0 - whole.0) / f64::from(killed.2.max(1)),
        },
        "three workers, one killed and replaced every 2 s": { "killed": deaths, "longest pause in seconds (asked: 0.1 at most)": longest },
        "four workers, from placed to the end of an epoch of 8 steps, in seconds (asked: 0.2 at most)": median(starts),
    }))
}

fn main() -> ExitCode {
    // Workers are this program too.
    if std::env::args().nth(1).as_deref() == Some("worker") {
        return ropeway::main(registry());
    }
    match measure() {
        Ok(figures) => {
            println!("{figures:#}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("{error}");
            ExitCode::FAILURE
        }
    }
}
