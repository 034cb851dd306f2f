//! Where artifacts are, and what goes there: tasks go to what they read, and workers fetch from each other.

use crate::seen::scrape;
use crate::support::{Process, Project, Running, TOKEN};
use serde_json::Value;

/// `far` is for a larger worker than the one that there is at first; `near` reads what that one made, and waits for `far`.
const PIPELINE: &str = r#"name = "locality"

[stage.rows]
use = "dataset.digits"

[stage.big]
use  = "sql"
from = { digits = "rows" }
with = { query = "SELECT *, pixel_0_0 + 1 AS more FROM digits" }

[stage.far]
use   = "sql"
from  = { digits = "rows" }
with  = { query = "SELECT count(*) AS rows FROM digits" }
needs = { cpus = 3 }

[stage.near]
use  = "sql"
from = { big = "big", far = "far" }
with = { query = "SELECT sum(more) AS more, max(rows) AS rows FROM big, far" }

[stage.held]
use  = "command"
from = "near"
with = { run = ["sh", "-c", "while ! [ -e go ]; do sleep 0.01; done; cat"] }
"#;

/// Where a stage runs.
fn place(running: &mut Running, stage: &str) -> String {
    let starts = |said: &Value| said["event"] == "attempt_started" && said["name"] == stage;
    let heard = running.heard.iter().find(|said| starts(said)).cloned();
    heard.unwrap_or_else(|| running.until(starts))["worker"].as_str().unwrap().to_owned()
}

#[test]
fn tasks_go_to_what_they_read_and_workers_fetch_from_each_other() {
    let project = Project::new();
    project.write("p.toml", PIPELINE);
    let expected = {
        project.write("go", "");
        let alone = ["run", "p.toml", "--format", "json", "--store", "memory://", "--cores", "4"];
        let whole = project.run(&alone).ok().digests();
        std::fs::remove_file(project.path().join("go")).unwrap();
        whole
    };
    let listen = ["run", "p.toml", "--format", "json", "--workers", "0", "--listen", "127.0.0.1:0", "--token", TOKEN];
    let mut running = Running::start(&project, &listen);
    let address = running.address();
    // In folders of their own they reach the run's store through the coordinator only, and they share no cache.
    let elsewhere = [Project::new(), Project::new()];
    let join = |at: usize, name: &str, cores: &str| {
        let join = ["worker", "--join", &address, "--token", TOKEN, "--name", name, "--cores", cores];
        Process::start(elsewhere[at].command(&[&join[..], &["--metrics", "127.0.0.1:0", "--cache", "cache"]].concat()))
    };
    let small = join(0, "small", "1");
    running.until(|said| said["event"] == "stage_finished" && said["name"] == "big");
    let mut large = join(1, "large", "4");
    let url = large.hears("metrics at ");
    assert_eq!(place(&mut running, "far"), "large");
    assert_eq!(place(&mut running, "near"), "small", "it has what it needs, though the other has more room");
    // A program runs where the run's files are: this one keeps the run going until somebody comes from there.
    running.until(|said| said["event"] == "warning" && said["name"] == "held");
    let read = scrape(&url);
    let tier = |tier: &str| read[&format!("ropeway_store_read_bytes_total{{tier=\"{tier}\"}}")];
    // What is small, and so known at nobody, comes through the coordinator.
    assert!(tier("peer") > 100_000.0 && tier("store") < 65_536.0, "{read:?}");
    project.write("go", "");
    let here = Process::start(project.command(&["worker", "--join", &address, "--token", TOKEN]));
    assert_eq!(running.end().ok().digests(), expected);
    small.end().ok();
    large.end().ok();
    here.end().ok();
}
