//! A folder of one's own, and the program run in it.

use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Lines};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use tempfile::TempDir;

/// The checkout.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A folder in which the program runs; its store is `.ropeway` there.
pub(crate) struct Project(TempDir);

impl Project {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn write(&self, file: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path().join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path
    }

    /// The program, ready to be started in this folder.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ropeway"));
        command.args(arguments).current_dir(self.path()).stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Ended {
        Ended::of(self.command(arguments).output().unwrap())
    }

    pub(crate) fn spawn(&self, arguments: &[&str]) -> Child {
        self.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }
}

/// How a program ended, and what it said.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    pub(crate) fn of(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:#?}");
        self
    }

    /// The events of `run --format json`.
    pub(crate) fn events(&self) -> Vec<Value> {
        self.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The stages of the last line of `run --format json`.
    pub(crate) fn stages(&self) -> Vec<Value> {
        let last = self.events().pop().unwrap();
        assert_eq!(last["event"], "finished");
        last["stages"].as_array().unwrap().clone()
    }

    /// The outputs of every stage.
    pub(crate) fn digests(&self) -> BTreeMap<String, Value> {
        let stages = self.stages().into_iter();
        stages.map(|stage| (stage["name"].as_str().unwrap().to_owned(), stage["outputs"].clone())).collect()
    }

    /// The outcome of every stage.
    pub(crate) fn outcomes(&self) -> BTreeMap<String, String> {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        self.stages().iter().map(|stage| (text(&stage["name"]), text(&stage["outcome"]))).collect()
    }
}

/// An address of this machine that nobody else is given: its port is none of those that the system gives away.
pub(crate) fn free_address() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let number = std::process::id().wrapping_mul(61).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let address = format!("127.0.0.1:{}", 12_000 + number % 18_000);
        if TcpListener::bind(&address).is_ok() {
            return address;
        }
    }
}

/// Says that a test does nothing, since this machine lacks something. Whoever knows that it does not says so in
/// `ROPEWAY_MUST`: there the test fails.
pub(crate) fn skip(kind: &str, reason: &str) {
    let must = std::env::var("ROPEWAY_MUST").unwrap_or_default();
    assert!(!must.split(' ').any(|one| one == kind), "this machine is said to have {kind}: {reason}");
    println!("skipped: {reason}");
}

/// The program, as another build of it.
pub(crate) fn another_build(project: &Project) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    // The same program but for one digit of the identity that the linker wrote into it.
    let mut program = std::fs::read(env!("CARGO_BIN_EXE_ropeway")).unwrap();
    let note = program.windows(16).position(|at| at == b"\x04\0\0\0\x14\0\0\0\x03\0\0\0GNU\0").or_else(|| {
        // The linker decides how long an identity is.
        program.windows(16).position(|at| at.starts_with(b"\x04\0\0\0") && at.ends_with(b"\x03\0\0\0GNU\0"))
    });
    program[note.unwrap() + 16] ^= 1;
    let other = project.write("other/ropeway", program);
    std::fs::set_permissions(&other, std::fs::Permissions::from_mode(0o755)).unwrap();
    other
}

/// The secret of runs that are tested.
pub(crate) const TOKEN: &str = "rw1-00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

/// How to run the digits pipeline: 24 trials, enough for something to happen to the run in the middle of it.
pub(crate) fn all_digits<'a>(more: &[&'a str]) -> Vec<&'a str> {
    let config: &'static str = concat!(env!("CARGO_MANIFEST_DIR"), "/configs/digits.toml");
    [&["run", config, "--format", "json"], more].concat()
}

/// So much work that a run is still under way when something has happened to it.
pub(crate) const MUCH: [&str; 2] = ["--set", "best.trials=96"];

/// How to run the digits pipeline, smaller: where it is used, nobody asks how good the model is.
pub(crate) fn digits<'a>(more: &[&'a str]) -> Vec<&'a str> {
    all_digits(&[&["--set", "best.trials=6", "--set", "fit.epochs=6"], more].concat())
}

/// A program that is under way. If its test fails, it ends with it.
pub(crate) struct Process(Option<Child>);

impl Process {
    pub(crate) fn start(mut command: Command) -> Self {
        Self(Some(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()))
    }

    fn child(&mut self) -> &mut Child {
        self.0.as_mut().unwrap()
    }

    pub(crate) fn id(&self) -> u32 {
        self.0.as_ref().unwrap().id()
    }

    pub(crate) fn kill(&mut self) {
        self.child().kill().unwrap();
        self.child().wait().unwrap();
    }

    /// Waits until it says on standard error what begins so; gives the rest of the line. What it says later is lost.
    pub(crate) fn hears(&mut self, begin: &str) -> String {
        let said = BufReader::new(self.child().stderr.take().unwrap());
        let mut lines = said.lines().map(Result::unwrap);
        let found = lines.find_map(|line| line.strip_prefix(begin).map(str::to_owned)).expect("it never said that");
        // Who writes to a pipe that nobody reads is ended.
        std::thread::spawn(move || lines.for_each(drop));
        found
    }

    /// Sends it a signal, such as `STOP`.
    pub(crate) fn signal(&self, name: &str) {
        let arguments = [format!("-{name}"), self.id().to_string()];
        assert!(Command::new("kill").args(arguments).status().unwrap().success());
    }

    /// Waits until it has ended, whatever it says.
    pub(crate) fn wait(&mut self) {
        self.child().wait().unwrap();
    }

    /// Waits for its end.
    pub(crate) fn end(mut self) -> Ended {
        Ended::of(self.0.take().unwrap().wait_with_output().unwrap())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A run with `--format json` that is under way.
pub(crate) struct Running {
    pub(crate) process: Process,
    lines: Lines<BufReader<ChildStdout>>,
    pub(crate) heard: Vec<Value>,
}

impl Running {
    pub(crate) fn start(project: &Project, arguments: &[&str]) -> Self {
        Self::of(project.command(arguments))
    }

    pub(crate) fn of(command: Command) -> Self {
        let mut process = Process::start(command);
        let lines = BufReader::new(process.child().stdout.take().unwrap()).lines();
        Self { process, lines, heard: Vec::new() }
    }

    /// Hears the next event; `None` at the end of the run.
    pub(crate) fn next(&mut self) -> Option<Value> {
        let line: Value = serde_json::from_str(&self.lines.next()?.unwrap()).unwrap();
        self.heard.push(line.clone());
        Some(line)
    }

    /// Hears events until one is as wanted.
    pub(crate) fn until(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        loop {
            let said = self.next().expect("the run ended before");
            if wanted(&said) {
                return said;
            }
        }
    }

    /// Where it listens.
    pub(crate) fn address(&mut self) -> String {
        self.until(|said| said["event"] == "listening")["address"].as_str().unwrap().to_owned()
    }

    /// Hears the rest.
    pub(crate) fn end(mut self) -> Ended {
        while self.next().is_some() {}
        let stdout = self.heard.iter().map(|line| format!("{line}\n")).collect();
        Ended { stdout, ..self.process.end() }
    }
}
