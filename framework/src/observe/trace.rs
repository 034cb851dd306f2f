//! A run's timeline in the Trace Event Format (JSON array), which `ui.perfetto.dev` and `chrome://tracing` open.
//!
//! The run is a process with a track for each stage, and counters of what waits and runs. Each worker is a process; an
//! attempt is a slice on the first of its tracks that is free. An arrow leads from the attempt that made a stage's
//! inputs to the attempt that took them.

use super::timeline::{Span, Timeline};
use crate::Result;
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::io::Write;

/// The process that stands for the run; workers follow. Viewers take 0 for the system itself.
const RUN: usize = 1;

/// One event of the format. Times are whole microseconds, so that what does not overlap does not overlap by rounding.
#[derive(Debug, Serialize)]
struct Entry<'a> {
    name: &'a str,
    cat: &'static str,
    ph: &'static str,
    ts: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    dur: Option<u64>,
    pid: usize,
    tid: usize,
    /// Ties the two ends of an arrow.
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<usize>,
    /// `e`: an arrow ends at the slice around it, not at the next one.
    #[serde(skip_serializing_if = "Option::is_none")]
    bp: Option<&'static str>,
    #[serde(skip_serializing_if = "Value::is_null")]
    args: Value,
}

impl<'a> Entry<'a> {
    fn new(ph: &'static str, name: &'a str, cat: &'static str, track: (usize, usize), ts: u64) -> Self {
        Self { name, cat, ph, ts, dur: None, pid: track.0, tid: track.1, id: None, bp: None, args: Value::Null }
    }

    fn slice(name: &'a str, cat: &'static str, track: (usize, usize), from: f64, to: f64) -> Self {
        let ts = micros(from);
        Self { dur: Some(micros(to).saturating_sub(ts)), ..Self::new("X", name, cat, track, ts) }
    }

    fn args(self, args: Value) -> Self {
        Self { args, ..self }
    }
}

/// Writes the trace of a run.
///
/// # Errors
/// `out` can't be written.
pub fn chrome_trace(timeline: &Timeline, out: &mut dyn Write) -> Result<()> {
    let mut array = Array { out, empty: true };
    run_tracks(timeline, &mut array)?;
    let places = worker_tracks(timeline, &mut array)?;
    arrows(timeline, &places, &mut array)?;
    counters(timeline, &mut array)?;
    Ok(array.out.write_all(if array.empty { b"[]\n" } else { b"\n]\n" })?)
}

/// A JSON array that is written one element a line.
struct Array<'a> {
    out: &'a mut dyn Write,
    empty: bool,
}

impl Array<'_> {
    fn push(&mut self, entry: &Entry) -> Result<()> {
        self.out.write_all(if self.empty { b"[\n" } else { b",\n" })?;
        self.empty = false;
        Ok(serde_json::to_writer(&mut *self.out, entry)?)
    }

    /// Names a process (`process`) or a track (`thread`), and puts it in its place.
    fn name(&mut self, what: &str, track: (usize, usize), name: &str) -> Result<()> {
        let order = if what == "process" { track.0 } else { track.1 };
        let (title, sort) = (format!("{what}_name"), format!("{what}_sort_index"));
        self.push(&Entry::new("M", &title, "__metadata", track, 0).args(json!({ "name": name })))?;
        self.push(&Entry::new("M", &sort, "__metadata", track, 0).args(json!({ "sort_index": order })))
    }
}

fn run_tracks(timeline: &Timeline, array: &mut Array) -> Result<()> {
    array.name("process", (RUN, 0), &format!("run {}", timeline.run))?;
    for (index, stage) in timeline.stages.iter().enumerate() {
        let Some(from) = stage.from else { continue };
        let track = (RUN, index + 1);
        array.name("thread", track, &stage.name)?;
        let args = json!({ "outcome": stage.outcome.map(|outcome| outcome.name()), "cached tasks": stage.cached });
        let to = stage.to.unwrap_or(timeline.seconds);
        array.push(&Entry::slice(&stage.name, "stage", track, from, to).args(args))?;
    }
    Ok(())
}

/// Writes the slices of all attempts; gives each one's track.
fn worker_tracks(timeline: &Timeline, array: &mut Array) -> Result<Vec<(usize, usize)>> {
    // A worker's name may come back; it is one process here.
    let mut processes: HashMap<&str, usize> = HashMap::new();
    for worker in &timeline.workers {
        let next = RUN + 1 + processes.len();
        let pid = *processes.entry(&worker.info.worker).or_insert(next);
        if pid == next {
            let title = format!("worker {} ({} cores, {})", worker.info.worker, worker.info.cores, worker.info.machine);
            array.name("process", (pid, 0), &title)?;
        }
    }
    let mut lanes: HashMap<usize, Lanes> = HashMap::new();
    let mut places = vec![(RUN, 0); timeline.spans.len()];
    let mut order: Vec<usize> = (0..timeline.spans.len()).collect();
    let times = |index: &usize| (micros(timeline.spans[*index].from), micros(timeline.spans[*index].to));
    order.sort_by_key(times);
    for index in order {
        let span = &timeline.spans[index];
        let next = RUN + 1 + processes.len();
        let pid = *processes.entry(&span.worker).or_insert(next);
        let (from, to) = times(&index);
        let (lane, fresh) = lanes.entry(pid).or_default().take(from, to);
        places[index] = (pid, lane);
        if fresh {
            array.name("thread", (pid, lane), &format!("lane {lane}"))?;
        }
        let many = format!("{} ({} tasks)", span.name, span.attempts);
        let name = if span.attempts == 1 { &span.name } else { &many };
        array.push(&Entry::slice(name, "attempt", (pid, lane), span.from, span.to).args(described(span)))?;
    }
    Ok(places)
}

fn described(span: &Span) -> Value {
    json!({
        "attempt": span.attempt,
        "end": span.end.map(|end| end.name()),
        "failed": span.failed,
        "device": span.device,
        "waited seconds": span.waited,
        "core-seconds": span.core_seconds,
        "GPU-seconds": span.gpu_seconds,
        "bytes read": span.read,
        "bytes written": span.written,
        "bytes moved": span.moved,
    })
}

/// The tracks of a worker: until when each is taken.
#[derive(Default)]
struct Lanes(Vec<u64>);

impl Lanes {
    /// The first track that is free from `from` on, now taken until `to`; and whether it is a new one.
    fn take(&mut self, from: u64, to: u64) -> (usize, bool) {
        match self.0.iter().position(|taken| *taken <= from) {
            Some(free) => {
                self.0[free] = to;
                (free + 1, false)
            }
            None => {
                self.0.push(to);
                (self.0.len(), true)
            }
        }
    }
}

/// Arrows along the pipeline: from the attempt that gave a stage's result to the first that took it.
fn arrows(timeline: &Timeline, places: &[(usize, usize)], array: &mut Array) -> Result<()> {
    let mut first: HashMap<&str, usize> = HashMap::new();
    let mut last: HashMap<&str, usize> = HashMap::new();
    for (index, span) in timeline.spans.iter().enumerate().filter(|(_, span)| span.name == span.stage()) {
        first.entry(&span.name).or_insert(index);
        last.insert(&span.name, index);
    }
    let mut id = 0;
    for stage in &timeline.stages {
        let Some(to) = first.get(stage.name.as_str()) else { continue };
        for from in stage.takes.iter().filter_map(|name| last.get(name.as_str())) {
            let (begin, end) = (micros(timeline.spans[*from].from), micros(timeline.spans[*from].to));
            id += 1;
            // Inside the slice, which is where an arrow finds it.
            let leaves = end.saturating_sub(1).max(begin);
            let arrives = micros(timeline.spans[*to].from).max(leaves);
            let arrow = |ph, track, ts| Entry { id: Some(id), ..Entry::new(ph, "data", "data", track, ts) };
            array.push(&arrow("s", places[*from], leaves))?;
            array.push(&Entry { bp: Some("e"), ..arrow("f", places[*to], arrives) })?;
        }
    }
    Ok(())
}

/// How many attempts wait and run; of many that were told together, the mean.
fn counters(timeline: &Timeline, array: &mut Array) -> Result<()> {
    let mut changes: Vec<(u64, f64, f64)> = Vec::new();
    for span in &timeline.spans {
        let (from, to) = (span.from, span.to);
        match span.attempts {
            1 => changes.extend([
                (micros(from - span.waited), 1.0, 0.0),
                (micros(from), -1.0, 1.0),
                (micros(to), 0.0, -1.0),
            ]),
            _ if to > from => {
                let (waiting, running) = (span.waited / (to - from), span.seconds / (to - from));
                changes.extend([(micros(from), waiting, running), (micros(to), -waiting, -running)]);
            }
            _ => {}
        }
    }
    changes.sort_by_key(|(at, ..)| *at);
    let (mut waiting, mut running) = (0.0, 0.0);
    for together in changes.chunk_by(|one, next| one.0 == next.0) {
        for (_, waits, runs) in together {
            waiting += waits;
            running += runs;
        }
        // Sums of fractions come back to nothing only nearly.
        let shown = |value: f64| ((value * 1000.0).round() / 1000.0).max(0.0);
        let args = json!({ "waiting": shown(waiting), "running": shown(running) });
        array.push(&Entry::new("C", "attempts", "attempt", (RUN, 0), together[0].0).args(args))?;
    }
    Ok(())
}

fn micros(seconds: f64) -> u64 {
    (seconds * 1e6).max(0.0) as u64
}

#[cfg(test)]
mod tests {
    use super::super::tests::{ended, started, story};
    use super::*;
    use crate::run::Line;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    /// Writes a trace, reads it back and checks that every event is what the format says.
    fn checked(lines: &[Line]) -> Vec<Value> {
        let mut bytes = Vec::new();
        chrome_trace(&Timeline::of(lines), &mut bytes).unwrap();
        let events: Vec<Value> = serde_json::from_slice(&bytes).unwrap();
        let mut tracks: BTreeMap<(u64, u64), Vec<(u64, u64)>> = BTreeMap::new();
        let mut ends: BTreeMap<u64, Vec<String>> = BTreeMap::new();
        for event in &events {
            let number = |field: &str| event[field].as_u64().unwrap_or_else(|| panic!("no {field} in {event}"));
            let (ts, track) = (number("ts"), (number("pid"), number("tid")));
            assert!(!event["name"].as_str().unwrap().is_empty() && !event["cat"].as_str().unwrap().is_empty());
            assert!(track.0 >= 1);
            match event["ph"].as_str().unwrap() {
                "X" => tracks.entry(track).or_default().push((ts, ts + number("dur"))),
                "M" => assert!(event["args"]["name"].is_string() || event["args"]["sort_index"].is_u64(), "{event}"),
                "C" => event["args"].as_object().unwrap().values().for_each(|v| assert!(v.as_f64().unwrap() >= 0.0)),
                flow @ ("s" | "f") => {
                    assert_eq!(event.get("bp").is_some(), flow == "f");
                    ends.entry(number("id")).or_default().push(flow.to_owned());
                }
                other => panic!("{other} is no phase that is written"),
            }
        }
        assert!(ends.values().all(|ends| ends == &["s", "f"]), "{ends:?}");
        for (track, slices) in &mut tracks {
            slices.sort_unstable();
            assert!(slices.windows(2).all(|pair| pair[0].1 <= pair[1].0), "slices overlap on {track:?}: {slices:?}");
            let named = |event: &Value| {
                event["name"] == "thread_name"
                    && (event["pid"].as_u64(), event["tid"].as_u64()) == (Some(track.0), Some(track.1))
            };
            assert!(events.iter().any(named), "{track:?} has no name");
        }
        events
    }

    fn of<'a>(events: &'a [Value], phase: &str) -> Vec<&'a Value> {
        events.iter().filter(|event| event["ph"] == phase).collect()
    }

    #[test]
    fn a_trace_is_well_formed_and_lanes_never_overlap() {
        let events = checked(&story());
        let attempts: Vec<_> = of(&events, "X").into_iter().filter(|event| event["cat"] == "attempt").collect();
        assert_eq!(attempts.len(), 4);
        let best = attempts.iter().find(|event| event["name"] == "best").unwrap();
        let trial = attempts.iter().find(|event| event["name"] == "best/trial-0").unwrap();
        assert_eq!((best["ts"].as_u64(), best["dur"].as_u64()), (Some(1_000_000), Some(3_000_000)));
        assert_eq!(best["pid"], trial["pid"], "they ran on one worker");
        assert_ne!(best["tid"], trial["tid"], "at the same time");
        let last = *of(&events, "C").last().unwrap();
        assert_eq!((last["args"]["waiting"].as_f64(), last["args"]["running"].as_f64()), (Some(0.0), Some(0.0)));
    }

    #[test]
    fn arrows_lead_from_what_made_the_inputs_to_what_took_them() {
        let events = checked(&story());
        let (from, to) = (of(&events, "s"), of(&events, "f"));
        assert_eq!((from.len(), to.len()), (1, 1));
        assert_eq!((from[0]["ts"].as_u64(), to[0]["ts"].as_u64()), (Some(999_999), Some(1_000_000)));
    }

    #[test]
    fn a_run_of_which_nothing_is_known_has_a_trace_too() {
        checked(&[]);
        (0..story().len()).for_each(|length| drop(checked(&story()[..length])));
    }

    proptest! {
        #[test]
        fn any_attempts_find_their_lanes(attempts in prop::collection::vec((0..2_u8, 0.0..10.0_f64, 0.0..3.0_f64, 0.0..1.0_f64), 0..40)) {
            let mut lines = Vec::new();
            for (task, (worker, at, seconds, waited)) in attempts.iter().enumerate() {
                let (worker, name) = (format!("w{worker}"), format!("s/{task}"));
                lines.push(started(*at, task as u64, &name, &worker, 1.0, *waited));
                lines.push(ended(at + seconds, task as u64, &name, &worker, *seconds));
            }
            lines.sort_by(|a, b| a.at.total_cmp(&b.at));
            let events = checked(&lines);
            prop_assert_eq!(of(&events, "X").iter().filter(|event| event["cat"] == "attempt").count(), attempts.len());
        }
    }
}
