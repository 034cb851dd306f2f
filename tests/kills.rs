//! Real kills (SIGKILL) of workers and coordinators, at any moment: nothing is lost, nothing is committed twice, the bytes
//! are those of a run that nobody disturbed, and nothing is left behind.

use crate::support::{Ended, Process, Project, Running, TOKEN, digits, free_address};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Kills in all, two of three of workers and one of a coordinator. `ROPEWAY_KILLS` asks for another number.
fn kills() -> usize {
    std::env::var("ROPEWAY_KILLS").map_or(60, |number| number.parse().unwrap())
}

/// The processes that a process started.
pub(crate) fn children(of: u32) -> Vec<u32> {
    let listed = fs::read_to_string(format!("/proc/{of}/task/{of}/children"));
    listed.unwrap_or_default().split_whitespace().map(|id| id.parse().unwrap()).collect()
}

/// Whether a process lives: one that has ended has no command line any more.
pub(crate) fn lives(process: u32) -> bool {
    fs::read_to_string(format!("/proc/{process}/cmdline")).is_ok_and(|line| !line.is_empty())
}

/// Kills a process; whether it lived.
pub(crate) fn kill(process: u32) -> bool {
    lives(process) && Command::new("kill").args(["-9", &process.to_string()]).status().unwrap().success()
}

/// A project with a folder of its own for temporary files, of which every file and process is known.
pub(crate) struct Watched(Project);

impl Watched {
    pub(crate) fn new() -> Self {
        let watched = Self(Project::new());
        fs::create_dir(watched.temporary()).unwrap();
        watched
    }

    fn temporary(&self) -> PathBuf {
        self.0.path().join("tmp")
    }

    fn store(&self, folder: &str) -> PathBuf {
        self.0.path().join(".ropeway").join(folder)
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.0.command(arguments);
        command.env("TMPDIR", self.temporary());
        command
    }

    /// Processes that work here.
    pub(crate) fn processes(&self) -> Vec<u32> {
        let entries = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().into_string().ok());
        let here = |id: &u32| fs::read_link(format!("/proc/{id}/cwd")).is_ok_and(|folder| folder == self.0.path());
        entries.filter_map(|name| name.parse().ok()).filter(here).filter(|id| lives(*id)).collect()
    }

    /// Runs once more, as nothing ever happened, and looks at everything.
    fn inspect(&self, reference: &Reference) {
        let again = Ended::of(self.command(&digits(&[])).output().unwrap()).ok();
        assert_eq!(again.digests(), reference.digests);
        let outcomes = again.outcomes();
        assert!(outcomes.values().all(|outcome| outcome == "cached"), "lost: {outcomes:?}");
        assert_eq!(files(&self.store("memo")), reference.memos, "a task was committed under another key");
        assert_eq!(files(&self.store("corrupt")), BTreeSet::new(), "set aside, and so committed twice");
        assert_eq!(files(&self.store("staging")), BTreeSet::new(), "left in the store");
        assert_eq!(files(&self.temporary()), BTreeSet::new(), "left among temporary files");
        assert_eq!(self.processes(), Vec::<u32>::new(), "left running");
    }
}

/// What there is under a folder, by name.
fn files(folder: &Path) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for entry in fs::read_dir(folder).into_iter().flatten().map(Result::unwrap) {
        match entry.file_type().unwrap().is_dir() {
            true => all.extend(files(&entry.path())),
            false => drop(all.insert(entry.file_name().into_string().unwrap())),
        }
    }
    all
}

/// A run that nobody disturbed.
pub(crate) struct Reference {
    digests: BTreeMap<String, Value>,
    memos: BTreeSet<String>,
    pub(crate) events: usize,
}

impl Reference {
    pub(crate) fn new() -> Self {
        let project = Watched::new();
        let run = Ended::of(project.command(&digits(&[])).output().unwrap()).ok();
        let memos = files(&project.store("memo"));
        Self { digests: run.digests(), memos, events: run.events().len() }
    }

    #[track_caller]
    pub(crate) fn same(&self, run: &Ended) {
        assert_eq!(run.digests(), self.digests);
        assert!(!run.stdout.contains("not deterministic"), "{}", run.stdout);
    }
}

#[test]
fn killed_workers_change_nothing() {
    let reference = Reference::new();
    let (wanted, mut killed, mut rounds) = (kills() - kills() / 3, 0, 0);
    while killed < wanted {
        rounds += 1;
        assert!(rounds < 5 * wanted, "only {killed} workers were killed in {rounds} runs");
        let project = Watched::new();
        let mut running = Running::of(project.command(&digits(&["--workers", "3"])));
        let run = running.process.id();
        let mut heard = 0;
        // Every few events another worker dies.
        while running.next().is_some() {
            heard += 1;
            let workers = children(run);
            if heard % 11 == rounds % 11 && !workers.is_empty() {
                killed += usize::from(kill(workers[(rounds + heard) % workers.len()]));
            }
        }
        reference.same(&running.end().ok());
        project.inspect(&reference);
    }
    println!("{killed} workers killed in {rounds} runs");
}

#[test]
fn a_killed_coordinator_goes_on_with_the_workers_that_it_had() {
    let reference = Reference::new();
    let (crashes, mut killed, mut rounds) = (kills() / 3, 0, 0);
    while killed < crashes {
        rounds += 1;
        assert!(rounds < 3 * crashes, "only {killed} coordinators were killed in {rounds} runs");
        let project = Watched::new();
        // The second coordinator must have the first one's.
        let address = free_address();
        let arguments = digits(&["--workers", "0", "--listen", &address, "--token", TOKEN]);
        let mut first = Running::of(project.command(&arguments));
        first.address();
        let join = ["worker", "--join", &address, "--token", TOKEN, "--quiet"];
        let workers = [0; 2].map(|_| Process::start(project.command(&join)));
        for _ in 0..reference.events * (rounds - 1) / crashes % reference.events {
            first.next();
        }
        killed += usize::from(lives(first.process.id()));
        first.process.kill();
        let second = Ended::of(project.command(&arguments).output().unwrap()).ok();
        reference.same(&second);
        // What the first one said that it had done is not done again.
        let outcomes = second.outcomes();
        for said in first.heard.iter().filter(|said| said["event"] == "stage_finished") {
            assert_eq!(outcomes[said["name"].as_str().unwrap()], "cached", "{said}");
        }
        // One that came too late for the second run would look for a third.
        drop(workers);
        project.inspect(&reference);
    }
    println!("{killed} coordinators killed in {rounds} runs");
}

#[test]
fn what_runs_for_a_coordinator_that_is_gone_is_begun_again_where_its_store_went_with_it() {
    let project = Watched::new();
    // It begins twice: what it gives is large, so that a worker leaves it where the run's store is.
    let script = "touch begun-$$; while ! [ -e go ]; do sleep 0.01; done; cat";
    let text = format!(
        "name = \"p\"\n[stage.rows]\nuse = \"dataset.digits\"\n[stage.held]\nuse = \"command\"\nfrom = \"rows\"\n\
         with = {{ run = [\"sh\", \"-c\", \"{script}\"] }}\n"
    );
    project.0.write("p.toml", text);
    let begun = || files(project.0.path()).into_iter().filter(|name| name.starts_with("begun-")).count();
    let address = free_address();
    let run = ["run", "p.toml", "--format", "json", "--store", "memory://", "--workers", "0"];
    let run = [&run[..], &["--listen", &address, "--token", TOKEN]].concat();
    let mut first = Running::of(project.command(&run));
    first.address();
    let worker = Process::start(project.command(&["worker", "--join", &address, "--token", TOKEN]));
    while begun() < 1 {
        std::thread::yield_now();
    }
    first.process.kill();
    let second = Running::of(project.command(&run));
    while begun() < 2 {
        std::thread::yield_now();
    }
    project.0.write("go", "");
    let ended = second.end().ok();
    assert!(ended.outcomes().values().all(|outcome| outcome == "done"), "{ended:#?}");
    worker.end().ok();
    assert_eq!(files(&project.temporary()), BTreeSet::new(), "left among temporary files");
}

#[test]
fn a_program_of_a_stage_ends_with_whoever_runs_it() {
    for workers in [&[][..], &["--workers", "1"]] {
        let project = Watched::new();
        let script = "echo $$ > program.id.new; mv program.id.new program.id; exec sleep 1000";
        project.0.write(
            "p.toml",
            format!("name = \"p\"\n[stage.a]\nuse = \"command\"\nwith = {{ run = [\"sh\", \"-c\", \"{script}\"] }}\n"),
        );
        let mut running = Running::of(project.command(&[&["run", "p.toml", "--format", "json"], workers].concat()));
        let file = project.0.path().join("program.id");
        while !file.exists() {
            std::thread::yield_now();
        }
        let program: u32 = fs::read_to_string(&file).unwrap().trim().parse().unwrap();
        // Between two programs a process has no command line.
        let line = format!("/proc/{program}/cmdline");
        while !fs::read_to_string(&line).unwrap().starts_with("sleep") {
            std::thread::yield_now();
        }
        running.process.kill();
        while lives(program) {
            std::thread::yield_now();
        }
    }
}

#[test]
fn nothing_is_left_when_everything_is_killed() {
    let reference = Reference::new();
    let project = Watched::new();
    let mut running = Running::of(project.command(&digits(&["--workers", "3"])));
    running.until(|said| said["event"] == "task_finished");
    assert_eq!(children(running.process.id()).len(), 3);
    running.process.kill();
    // The workers' pipes have closed: they end by themselves.
    while !project.processes().is_empty() {
        std::thread::yield_now();
    }
    reference.same(&Ended::of(project.command(&digits(&["--workers", "2"])).output().unwrap()).ok());
    project.inspect(&reference);
}
