//! The same answer, however the run goes: fresh stores, other numbers of cores, kills, two runs at once.

use crate::support::{Ended, Project, root};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;

/// The digits pipeline, smaller: what is tested here is not how good the model is.
fn digits() -> Vec<String> {
    let config = root().join("configs/digits.toml").display().to_string();
    let small = ["run", &config, "--format", "json", "--set", "best.trials=6", "--set", "fit.epochs=6"];
    small.map(str::to_owned).to_vec()
}

fn run(project: &Project, more: &[&str]) -> Ended {
    let mut arguments = digits();
    arguments.extend(more.iter().map(|text| (*text).to_owned()));
    project.run(&arguments.iter().map(String::as_str).collect::<Vec<_>>()).ok()
}

/// The keys that are committed in a project's store, and the kind of stage that each is of.
fn committed(project: &Project) -> BTreeMap<String, String> {
    fn files(folder: &Path, found: &mut BTreeMap<String, String>) {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.path().is_dir() {
                files(&entry.path(), found);
            } else {
                let memo: Value = serde_json::from_slice(&fs::read(entry.path()).unwrap()).unwrap();
                found.insert(entry.file_name().into_string().unwrap(), memo["stage"].as_str().unwrap().to_owned());
            }
        }
    }
    let mut found = BTreeMap::new();
    files(&project.path().join(".ropeway/memo"), &mut found);
    found
}

/// How the trials of a run ended: how many ran, and how many were known.
fn trials(ended: &Ended) -> (usize, usize) {
    let events = ended.events();
    let tasks: Vec<&Value> = events.iter().filter(|event| event["event"] == "task_finished").collect();
    let count = |outcome: &str| tasks.iter().filter(|task| task["outcome"] == outcome).count();
    assert_eq!(count("done") + count("cached"), tasks.len(), "{tasks:?}");
    (count("done"), count("cached"))
}

#[test]
fn fresh_stores_and_other_numbers_of_cores_give_equal_bytes() {
    let first = run(&Project::new(), &[]).digests();
    for cores in ["1", "2", "4", "8"] {
        assert_eq!(run(&Project::new(), &["--cores", cores]).digests(), first, "at {cores} cores");
    }
}

#[test]
fn how_much_memory_there_is_does_not_matter() {
    let first = run(&Project::new(), &[]).digests();
    for memory in ["0", "100KiB", "1MiB"] {
        for store in ["file://.ropeway", "memory://"] {
            let project = Project::new();
            let temporary = tempfile::tempdir().unwrap();
            let mut arguments = digits();
            arguments.extend(["--memory", memory, "--store", store].map(str::to_owned));
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            let ended = project.command(&arguments).env("TMPDIR", temporary.path()).output().unwrap();
            assert_eq!(Ended::of(ended).ok().digests(), first, "{store} with {memory}");
            let left = fs::read_dir(temporary.path()).unwrap().map(|entry| entry.unwrap().file_name());
            let spilled = left.filter(|name| name.to_string_lossy().starts_with("ropeway-spill-")).count();
            assert_eq!(spilled, 0, "{store} with {memory}");
        }
    }
}

/// Kills that a run must survive.
const KILLS: usize = 20;

#[test]
fn a_killed_run_goes_on_and_does_nothing_twice() {
    let undisturbed = run(&Project::new(), &[]);
    let reference = undisturbed.digests();
    let events = undisturbed.events().len();
    let (all, none) = trials(&undisturbed);
    assert!(all >= 6 && none == 0, "each of {all} trials is another one, {none} of them came again");
    let arguments = digits();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut kills = 0;
    for attempt in 0.. {
        if kills == KILLS {
            break;
        }
        assert!(attempt < 5 * KILLS, "only {kills} of {attempt} runs were killed before their end");
        let project = Project::new();
        let mut child = project.spawn(&arguments);
        // Killed after so many events, from none to almost all; what it does at that moment is its own affair.
        let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
        let heard = said.by_ref().take(events * (attempt % KILLS) / KILLS).map(Result::unwrap);
        let told = heard.filter(|line| line.contains(r#""event":"task_finished""#)).count();
        child.kill().unwrap();
        // One that had ended already does not count.
        kills += usize::from(!child.wait().unwrap().success());
        let before = committed(&project);
        let again = run(&project, &[]);
        assert_eq!(again.digests(), reference, "after kill {attempt}");
        for stage in again.stages() {
            let known = before.contains_key(stage["key"].as_str().unwrap());
            assert_eq!(stage["outcome"] == "cached", known, "{stage} after kill {attempt}");
        }
        // `fit` is a template: whatever `train` had committed is a trial's. A search that is known asks for none.
        let known = before.values().filter(|stage| *stage == "train").count();
        assert!(known >= told, "{told} trials were told, {known} are committed after kill {attempt}");
        let expected = if again.outcomes()["best"] == "cached" { (0, 0) } else { (all - known, known) };
        assert_eq!(trials(&again), expected, "trials that ran and were known after kill {attempt}");
        assert!(run(&project, &[]).outcomes().values().all(|outcome| outcome == "cached"));
    }
}

#[test]
fn two_processes_on_one_store_commit_each_key_once() {
    let project = Project::new();
    let arguments = digits();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let both = [project.spawn(&arguments), project.spawn(&arguments)];
    let [one, other] = both.map(|child| Ended::of(child.wait_with_output().unwrap()).ok());
    assert_eq!(one.digests(), other.digests());
    let keys = |ended: &Ended| -> BTreeSet<String> {
        ended.stages().iter().map(|stage| stage["key"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(keys(&one), keys(&other));
    assert!(keys(&one).is_subset(&committed(&project).into_keys().collect()));
    for ended in [&one, &other] {
        assert!(!ended.stdout.contains("not deterministic"), "{}", ended.stdout);
    }
}

#[test]
fn only_what_changed_runs_again() {
    let project = Project::new();
    run(&project, &[]);
    assert!(run(&project, &[]).outcomes().values().all(|outcome| outcome == "cached"));
    let changed = run(&project, &["--set", "best.trials=7"]).outcomes();
    let done: BTreeSet<&str> =
        changed.iter().filter(|(_, outcome)| *outcome == "done").map(|(name, _)| name.as_str()).collect();
    assert!(done.contains("best") && !done.contains("features") && !done.contains("split"), "{changed:?}");
}
