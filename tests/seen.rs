//! A run, seen from outside: its timeline, its trace, its metrics.

use crate::support::{Ended, Process, Project, Running, TOKEN};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// The second stage runs until there is a file `go`.
const HELD: &str = r#"name = "held"
seed = 1

[stage.rows]
use = "dataset.wine"

[stage.hold]
use  = "command"
from = "rows"
with = { run = ["sh", "-c", "until [ -e go ]; do sleep 0.02; done; cat"] }

[stage.count]
use  = "sql"
from = { wines = "hold" }
with = { query = "SELECT label, count(*) AS wines FROM wines GROUP BY label ORDER BY label" }
"#;

fn project() -> Project {
    let project = Project::new();
    project.write("held.toml", HELD);
    project
}

/// A project whose run is over.
fn done() -> Project {
    let project = project();
    project.write("go", "");
    project.run(&["run", "held.toml"]).ok();
    project
}

/// A run under way, killed if the test fails before it ends.
struct Held(Child);

impl Held {
    /// Lets it go on, and waits for its end.
    fn release(mut self, project: &Project) {
        project.write("go", "");
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Looks again and again until there is what is looked for.
fn until<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "it never came");
        std::thread::yield_now();
    }
}

fn told<'a>(lines: &'a [Value], what: &str) -> Vec<&'a Value> {
    lines.iter().filter(|line| line["what"] == what).collect()
}

#[test]
fn show_draws_who_ran_what_when_and_what_it_cost() {
    let project = done();
    let shown = project.run(&["show", "last"]).ok().stdout;
    let parts: Vec<&str> = shown.split("\n\n").collect();
    let [stages, timeline, cost] = parts[..] else { panic!("{shown}") };
    assert!(stages.contains("outcome"), "{shown}");
    let rows: Vec<&str> = timeline.lines().collect();
    // The scale, the stages, the worker, and two lines that say what the signs mean.
    assert_eq!(rows.len(), 1 + 3 + 1 + 2, "{shown}");
    for (row, name) in rows[1..].iter().zip(["rows", "hold", "count", "embedded"]) {
        assert!(row.starts_with(name) && row.chars().count() <= 100, "{row}");
        assert!(row.contains(['█', '▁', '▂', '▃', '▄', '▅', '▆', '▇']), "{row}");
    }
    assert!(rows[4].ends_with("cores") || rows[4].ends_with("core"), "{shown}");
    let costs: Vec<&str> = cost.lines().map(|line| line.split_whitespace().next().unwrap()).collect();
    assert_eq!(costs, ["stage", "rows", "hold", "count", "total"]);
    // No price list, no price; no network, nothing moved.
    assert!(!cost.contains("price") && !cost.contains("moved") && cost.contains("core-seconds"), "{shown}");
}

#[test]
fn a_cached_run_has_nothing_to_draw() {
    let project = done();
    project.run(&["run", "held.toml"]).ok();
    let shown = project.run(&["show", "last"]).ok().stdout;
    assert!(shown.contains("cached") && !shown.contains('█'), "{shown}");
}

#[test]
fn show_tells_the_same_as_data() {
    let project = done();
    let lines = project.run(&["show", "held-1", "--format", "json"]).ok().events();
    let names =
        |what| told(&lines, what).iter().map(|line| line["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
    assert_eq!(names("stage"), ["rows", "hold", "count"]);
    assert_eq!(names("attempt"), ["rows", "hold", "count"]);
    let number = |value: &Value| value.as_f64().unwrap_or_else(|| panic!("no number in {lines:?}"));
    let (mut seconds, mut bytes) = (0.0, 0);
    for (stage, attempt) in told(&lines, "stage").into_iter().zip(told(&lines, "attempt")) {
        assert_eq!(
            (&stage["outcome"], &attempt["end"], &attempt["worker"]),
            (&"done".into(), &"done".into(), &"embedded".into())
        );
        assert!(number(&attempt["from"]) <= number(&attempt["to"]));
        // The stage itself ran within the time for which it held its place.
        assert!(number(&stage["seconds"]) <= number(&attempt["seconds"]) + 1e-3, "{stage} {attempt}");
        assert_eq!(stage["cost"]["core_seconds"], attempt["core_seconds"]);
        seconds += number(&stage["cost"]["core_seconds"]);
        bytes += stage["cost"]["written"].as_u64().unwrap();
    }
    let total = told(&lines, "total")[0];
    assert!((number(&total["cost"]["core_seconds"]) - seconds).abs() < 1e-9 && total["ended"] == true, "{total}");
    assert_eq!(total["cost"]["written"].as_u64(), Some(bytes));
    let worker = told(&lines, "worker")[0];
    assert!(number(&worker["cores"]) >= 1.0 && !worker["machine"].as_str().unwrap().is_empty(), "{worker}");
}

#[test]
fn a_run_under_way_can_be_watched() {
    let project = project();
    let held =
        Held(project.command(&["run", "held.toml"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    let lines = until(|| {
        let shown = project.run(&["show", "last", "--format", "json"]);
        let lines = if shown.code == Some(0) { shown.events() } else { Vec::new() };
        told(&lines, "attempt").iter().any(|line| line["name"] == "hold").then_some(lines)
    });
    let hold = told(&lines, "attempt").into_iter().find(|line| line["name"] == "hold").unwrap();
    assert!(hold.get("end").is_none() && told(&lines, "total")[0]["ended"] == false, "{lines:?}");
    let shown = project.run(&["show", "last"]).ok();
    assert!(shown.stdout.contains("hold") && shown.stdout.contains("under way?"), "{shown:?}");
    held.release(&project);
}

/// Every event of a trace as the format wants it; slices by track, and arrows' ends by their number.
fn check_trace(text: &str) -> Vec<Value> {
    let events: Vec<Value> = serde_json::from_str(text).unwrap();
    let mut tracks: BTreeMap<(u64, u64), Vec<(u64, u64)>> = BTreeMap::new();
    let mut named = BTreeSet::new();
    for event in &events {
        let number = |field: &str| event[field].as_u64().unwrap_or_else(|| panic!("no {field} in {event}"));
        let track = (number("pid"), number("tid"));
        match event["ph"].as_str().unwrap() {
            "X" => tracks.entry(track).or_default().push((number("ts"), number("ts") + number("dur"))),
            "M" if event["name"] == "thread_name" => drop(named.insert(track)),
            "M" | "C" => assert!(event["args"].is_object(), "{event}"),
            "s" | "f" => drop(number("id")),
            other => panic!("{other} is no phase that is written"),
        }
    }
    for (track, mut slices) in tracks {
        slices.sort_unstable();
        assert!(slices.windows(2).all(|pair| pair[0].1 <= pair[1].0), "slices overlap on {track:?}: {slices:?}");
        assert!(named.contains(&track));
    }
    events
}

#[test]
fn a_trace_can_be_written_during_and_after_a_run() {
    let project = project();
    project.write("go", "");
    let ended = project.run(&["run", "held.toml", "--trace", "during.json"]).ok();
    assert!(ended.stderr.contains("ui.perfetto.dev"), "{ended:?}");
    project.run(&["show", "held-1", "--trace", "after.json"]).ok();
    let read = |file: &str| std::fs::read_to_string(project.path().join(file)).unwrap();
    assert_eq!(read("during.json"), read("after.json"));
    let events = check_trace(&read("after.json"));
    let count = |phase: &str| events.iter().filter(|event| event["ph"] == phase).count();
    assert_eq!((count("X"), count("s"), count("f")), (6, 2, 2));
}

#[test]
fn a_trace_that_can_not_be_is_refused() {
    let project = done();
    let wrong = project.run(&["run", "held.toml", "--trace", "no/such/folder.json"]);
    assert!(wrong.code == Some(2) && wrong.stderr.contains("can't write the trace"), "{wrong:?}");
    let wrong = project.run(&["show", "count", "--trace", "t.json"]);
    assert!(wrong.code == Some(2) && wrong.stderr.contains("only a run has a trace"), "{wrong:?}");
}

/// Reads the OpenMetrics text format, and takes nothing that it does not allow: values by name and labels.
fn parse_metrics(text: &str) -> BTreeMap<String, f64> {
    let mut values = BTreeMap::new();
    let mut families: BTreeMap<String, String> = BTreeMap::new();
    let (body, end) = text.rsplit_once("# EOF").expect("it ends with an EOF");
    assert_eq!(end, "\n");
    for line in body.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            let [keyword, name, rest] = comment.splitn(3, ' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
            match keyword {
                "TYPE" => assert_eq!(families.insert(name.into(), rest.into()), None, "{name} comes twice"),
                "UNIT" => assert!(name.ends_with(&format!("_{rest}")), "{line}"),
                "HELP" => assert!(rest.ends_with('.'), "{line}"),
                other => panic!("{other} is no keyword"),
            }
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap();
        let name = series.split('{').next().unwrap();
        assert!(name.starts_with("ropeway_") && name.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{line}");
        if let Some(labels) = series.strip_prefix(name).filter(|labels| !labels.is_empty()) {
            let labels = labels.strip_prefix('{').and_then(|labels| labels.strip_suffix('}')).unwrap();
            for label in labels.split(',') {
                let (_, value) = label.split_once('=').unwrap();
                assert!(value.len() >= 2 && value.starts_with('"') && value.ends_with('"'), "{line}");
            }
        }
        let family = families.iter().find(|(family, kind)| {
            name.strip_prefix(family.as_str()).is_some_and(|suffix| match kind.as_str() {
                "counter" => suffix == "_total",
                "gauge" => suffix.is_empty(),
                "histogram" => ["_bucket", "_sum", "_count"].contains(&suffix),
                _ => false,
            })
        });
        assert!(family.is_some(), "{line} belongs to no family");
        let value: f64 = value.parse().unwrap();
        assert!(value >= 0.0, "{line}");
        assert_eq!(values.insert(series.to_owned(), value), None, "{series} comes twice");
    }
    for (series, count) in values.iter().filter(|(series, _)| series.contains("_count")) {
        let all = series.replace("_count{", "_bucket{le=\"+Inf\",");
        let other = series.replace("_count{", "_bucket{").replace('}', ",le=\"+Inf\"}");
        assert_eq!(values.get(&all).or(values.get(&other)), Some(count), "{series}");
    }
    values
}

#[test]
fn a_run_can_be_scraped_while_it_runs() {
    let project = project();
    let mut command = project.command(&["run", "held.toml", "--metrics", "127.0.0.1:0"]);
    let mut held = Held(command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap());
    let mut said = BufReader::new(held.0.stderr.take().unwrap()).lines();
    let url = said.find_map(|line| line.unwrap().strip_prefix("metrics at ").map(str::to_owned)).unwrap();
    // A scrape is no snapshot: what happens meanwhile stands in some of its lines. But once the second stage is held,
    // nothing happens any more.
    let expected = [
        ("ropeway_attempts_total{stage=\"rows\",outcome=\"done\"}", 1.0),
        ("ropeway_tasks_running", 1.0),
        ("ropeway_tasks_total{stage=\"rows\",outcome=\"done\"}", 1.0),
        ("ropeway_attempt_duration_seconds_count{stage=\"rows\"}", 1.0),
        ("ropeway_queue_wait_seconds_count{stage=\"hold\"}", 1.0),
        ("ropeway_tasks_waiting", 0.0),
        ("ropeway_workers", 1.0),
        ("ropeway_commits_total{outcome=\"first\"}", 1.0),
    ];
    let values = until(|| {
        Some(scrape(&url)).filter(|values| expected.iter().all(|(series, value)| values.get(*series) == Some(value)))
    });
    assert!(values["ropeway_store_written_bytes_total{tier=\"store\"}"] > 0.0);
    let lost = ureq::get(url.replace("/metrics", "/")).call().unwrap_err();
    assert!(matches!(lost, ureq::Error::StatusCode(404)), "{lost}");
    held.release(&project);
    drop(said);
}

/// What is served for Prometheus.
pub(crate) fn scrape(url: &str) -> BTreeMap<String, f64> {
    let mut answer = ureq::get(url).call().unwrap();
    let kind = answer.headers()["content-type"].to_str().unwrap().to_owned();
    assert_eq!(kind, "application/openmetrics-text; version=1.0.0; charset=utf-8");
    parse_metrics(&answer.body_mut().read_to_string().unwrap())
}

#[test]
fn a_worker_can_be_scraped_while_it_works_and_says_what_moved() {
    let project = project();
    let listen = ["--workers", "0", "--listen", "127.0.0.1:0", "--token", TOKEN];
    let run = [&["run", "held.toml", "--store", "memory://", "--format", "json"][..], &listen].concat();
    let mut running = Running::start(&project, &run);
    let address = running.address();
    let join = ["worker", "--join", &address, "--token", TOKEN, "--metrics", "127.0.0.1:0", "--memory", "64MiB"];
    let mut worker = Process::start(project.command(&join));
    let url = worker.hears("metrics at ");
    let expected = [
        ("ropeway_worker_connected", 1.0),
        ("ropeway_worker_connections_total", 1.0),
        ("ropeway_worker_attempts_total{outcome=\"done\"}", 1.0),
        ("ropeway_worker_attempts_total{outcome=\"failed\"}", 0.0),
        ("ropeway_worker_attempts_here{state=\"running\"}", 1.0),
        ("ropeway_worker_attempts_here{state=\"waiting\"}", 0.0),
        ("ropeway_memory_cap_bytes", f64::from(64 << 20)),
    ];
    let values = until(|| {
        // Before the store is open there are fewer lines.
        let values = scrape(&url);
        let holds = values.get("ropeway_memory_held_bytes").is_some_and(|held| *held > 0.0);
        let all = expected.iter().all(|(series, value)| values.get(*series) == Some(value));
        (all && holds).then_some(values)
    });
    // The first stage's output went to the coordinator.
    let moved = values["ropeway_worker_moved_bytes_total"];
    assert!(moved > 1000.0, "{values:?}");
    project.write("go", "");
    let ended = running.end().ok();
    worker.end().ok();
    let attempts = ended.events().into_iter().filter(|event| event["event"] == "attempt_ended");
    let moved_by: BTreeMap<String, u64> =
        attempts.map(|end| (end["name"].as_str().unwrap().to_owned(), end["moved"].as_u64().unwrap_or(0))).collect();
    assert_eq!(moved_by["rows"] as f64, moved, "{moved_by:?}");
    assert!(moved_by.values().all(|moved| *moved > 0), "{moved_by:?}");
}

#[test]
fn an_address_in_use_is_said() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let project = project();
    let ended: Ended = project.run(&["run", "held.toml", "--metrics", &address]);
    assert!(ended.code == Some(3) && ended.stderr.contains("is in use by another program"), "{ended:?}");
}
