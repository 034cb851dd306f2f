//! What a process that is killed between two effects has done, and what the next one does, with real processes.

use crate::data::Metrics;
use crate::pipeline::{SourceFile, resolve};
use crate::run::{Options, Outcome, run};
use crate::stage::{Once, Registry, stage};
use crate::store::Store;
use crate::{Error, Result, runtime};
use std::fs::{OpenOptions, read_to_string};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

/// Where the child finds the store and writes its effects; without it the child's test does nothing.
const FOLDER: &str = "ROPEWAY_TEST_ONCE_FOLDER";
/// Before which effect the child waits until it is killed.
const WAITS: &str = "ROPEWAY_TEST_ONCE_WAITS";

/// What the outside world sees of an effect: a line with its name, its token and its process.
fn effect(name: &str, token: &str) -> Result<u32> {
    let path = PathBuf::from(std::env::var(FOLDER)?).join("effects");
    let process = std::process::id();
    let mut file = OpenOptions::new().append(true).create(true).open(path)?;
    file.write_all(format!("{name} {token} {process}\n").as_bytes())?;
    Ok(process)
}

/// Says where it is, and waits there for ever if it is told so.
fn reach(place: &str) -> Result<()> {
    println!("reached {place}");
    if std::env::var(WAITS).is_ok_and(|wanted| wanted == place) {
        // Nothing ever comes.
        std::io::stdin().read_to_end(&mut Vec::new())?;
    }
    Ok(())
}

fn notify(once: Once) -> Result<Metrics> {
    let mut processes = Metrics::new();
    for name in ["charge", "mail", "publish"] {
        reach(&format!("before-{name}"))?;
        let process: u32 = once.run(name, |token| {
            let process = effect(name, token)?;
            reach(&format!("in-{name}"))?;
            Ok::<_, Error>(process)
        })?;
        processes.insert(name, f64::from(process));
    }
    reach("end")?;
    Ok(processes)
}

#[test]
#[ignore = "run by the tests below as a process of its own"]
fn child() {
    let Ok(folder) = std::env::var(FOLDER) else { return };
    let registry = Arc::new(Registry::new().stage("notify", stage(notify).version(1)));
    let (pipeline, found) = resolve(&SourceFile::new("p.toml", "[stage.a]\nuse = \"notify\"\n"), &registry, &[]);
    let pipeline = pipeline.unwrap_or_else(|| panic!("{found:?}"));
    let store = runtime().unwrap().block_on(Store::open(&format!("{folder}/store"))).unwrap();
    let report = run(&pipeline, &registry, &store, &Options::default(), &mut |_: &_| {}).unwrap();
    let stage = &report.stages[0];
    assert_ne!(stage.outcome, Outcome::Failed, "{stage:?}");
    println!("ended {} {:?}", stage.outcome == Outcome::Cached, stage.outputs);
}

fn start(folder: &Path, waits: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "worker::killed::child", "--ignored", "--nocapture"])
        .env(FOLDER, folder)
        .env(WAITS, waits)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Starts a child, and kills it where it waits.
fn kill_at(folder: &Path, place: &str) {
    let mut child = start(folder, place);
    let wanted = format!("reached {place}");
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.contains(&wanted)), "never {wanted}");
    child.kill().unwrap();
    child.wait().unwrap();
}

/// What the child says in the end.
fn finish(folder: &Path) -> String {
    let output = start(folder, "nowhere").wait_with_output().unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().find_map(|line| line.split_once("ended ")).unwrap().1.to_owned()
}

/// The effects that the outside world has seen: name, token, process.
fn effects(folder: &Path) -> Vec<[String; 3]> {
    let text = read_to_string(folder.join("effects")).unwrap();
    let words = |line: &str| <[String; 3]>::try_from(line.split(' ').map(str::to_owned).collect::<Vec<_>>()).unwrap();
    text.lines().map(words).collect()
}

#[test]
fn a_kill_between_effects_repeats_none_of_them() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    for place in ["before-mail", "before-mail", "before-publish", "end"] {
        kill_at(folder, place);
    }
    let ended = finish(folder);
    assert!(ended.starts_with("false"), "it was not committed: {ended}");
    let seen = effects(folder);
    let names: Vec<&str> = seen.iter().map(|[name, ..]| name.as_str()).collect();
    assert_eq!(names, ["charge", "mail", "publish"]);
    let mut processes: Vec<&str> = seen.iter().map(|[.., process]| process.as_str()).collect();
    processes.dedup();
    assert_eq!(processes.len(), 3, "each effect was another process's");
    // The result is committed: nothing runs any more.
    assert_eq!(finish(folder), ended.replacen("false", "true", 1));
    assert_eq!(effects(folder), seen);
}

#[test]
fn a_kill_inside_an_effect_repeats_it_under_the_same_token() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    kill_at(folder, "in-mail");
    finish(folder);
    let seen = effects(folder);
    let names: Vec<&str> = seen.iter().map(|[name, ..]| name.as_str()).collect();
    assert_eq!(names, ["charge", "mail", "mail", "publish"]);
    assert_eq!(seen[1][1], seen[2][1], "the outside can tell that it is the same effect");
    assert_ne!(seen[0][1], seen[1][1]);
}
