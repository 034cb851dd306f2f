//! What is seen of a run while it is under way: lines without a terminal, bars on one.

use crate::support::{Ended, Project, root};
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const PIPELINE: &str = r#"name = "seen"
seed = 1

[stage.rows]
use = "dataset.wine"

[stage.same]
use  = "command"
from = "rows"
with = { run = ["sh", "-c", "echo 'as it came' >&2; cat"] }

[stage.fit]
use  = "train"
from = { train = "same" }
with = { target = "label", model = { softmax = {} }, epochs = 2 }
"#;

fn project(text: &str) -> Project {
    let project = Project::new();
    project.write("seen.toml", text);
    project
}

/// The lines on stderr; times, which differ, are written `TIME`.
fn lines(ended: &Ended) -> Vec<String> {
    assert!(!ended.stderr.contains('\x1b') && !ended.stderr.contains('\r'), "nothing is drawn: {ended:?}");
    let line = |line: &str| {
        let Some((stage, rest)) = line.split_once(" done ") else { return line.to_owned() };
        let mut words = rest.split_whitespace();
        let (number, unit) = (words.next().unwrap(), words.next().unwrap());
        assert!(number.parse::<f64>().is_ok() && ["µs", "ms", "s"].contains(&unit), "{line}");
        format!("{stage} done TIME {}", words.collect::<Vec<_>>().join(" ")).trim_end().to_owned()
    };
    ended.stderr.lines().map(line).collect()
}

#[test]
fn without_a_terminal_each_stage_is_told_in_a_line() {
    let project = project(PIPELINE);
    let first = project.run(&["run", "seen.toml"]).ok();
    let said = lines(&first);
    let fitted = "best.epoch 2  epochs 2  parameters 42  steps 6".replace("  ", " ");
    assert_eq!(
        said,
        ["run seen-1", "rows done TIME", "same: as it came", "same done TIME", &format!("fit  done TIME {fitted}")]
    );
    // Stdout has the summary and nothing of that.
    assert!(first.stdout.starts_with("stage  outcome") && !first.stdout.contains("as it came"), "{first:?}");
    let second = project.run(&["run", "seen.toml"]).ok();
    let fitted = "fit  cached             best.epoch 2  epochs 2  parameters 42  steps 6";
    assert_eq!(lines(&second), ["run seen-2", "rows cached", "same cached", fitted]);
}

#[test]
fn without_a_terminal_failures_and_what_they_stop_are_told() {
    let failing = PIPELINE.replace("cat\"", "exit 3\"");
    let ended = project(&failing).run(&["run", "seen.toml"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let said = lines(&ended);
    assert_eq!(said[..3], ["run seen-1", "rows done TIME", "same: as it came"], "{ended:?}");
    let why = "`sh -c echo 'as it came' >&2; exit 3` ended with exit code 3; the last it said was:";
    assert_eq!(said[3..], [&format!("same failed   {why}"), "    as it came", "fit  skipped"], "{ended:?}");
}

/// A run on a terminal of its own, ended with the test.
struct Terminal {
    script: Child,
    read: Vec<u8>,
}

impl Terminal {
    /// `None`, said in a line, where no terminal can be had.
    fn start(project: &Project, arguments: &str) -> Option<Self> {
        let script = |command: &str| {
            let mut script = Command::new("script");
            script.args(["-qec", command, "/dev/null"]).current_dir(project.path());
            script.env("TERM", "xterm").env("SHELL", "/bin/sh").stderr(Stdio::null());
            script
        };
        if !script("stty cols 240 rows 40")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status()
            .is_ok_and(|s| s.success())
        {
            println!("skipped: there is no `script` that opens a terminal");
            return None;
        }
        let command = format!("stty cols 240 rows 40; exec '{}' {arguments}", env!("CARGO_BIN_EXE_ropeway"));
        let script = script(&command).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        Some(Self { script, read: Vec::new() })
    }

    /// Reads on; whether there was more.
    fn read(&mut self) -> bool {
        let mut more = [0; 4096];
        let read = self.script.stdout.as_mut().unwrap().read(&mut more).unwrap();
        self.read.extend_from_slice(&more[..read]);
        read > 0
    }

    /// What was drawn so far, frame by frame: the text without colours and movements of the cursor.
    fn frames(&self) -> Vec<String> {
        let text = String::from_utf8_lossy(&self.read).into_owned();
        let mut plain = String::new();
        let mut rest = text.chars();
        while let Some(c) = rest.next() {
            match c {
                '\x1b' => drop(rest.by_ref().find(char::is_ascii_alphabetic)),
                '\r' => plain.push('\n'),
                c => plain.push(c),
            }
        }
        // A line that is filled up with spaces is followed by the next without an end.
        let fill = " ".repeat(20);
        let spaced = |line: &str| line.split(&fill).map(|part| part.trim().to_owned()).collect::<Vec<_>>();
        plain.lines().flat_map(spaced).filter(|line| !line.is_empty()).collect()
    }

    /// Waits for a frame, and presses Ctrl-C; gives the frame.
    fn until(&mut self, wanted: impl Fn(&str) -> bool) -> String {
        let end = Instant::now() + Duration::from_secs(60);
        let found = loop {
            if let Some(found) = self.frames().into_iter().find(|frame| wanted(frame)) {
                break found;
            }
            assert!(Instant::now() < end && self.read(), "it was never drawn: {:#?}", self.frames());
        };
        self.script.stdin.as_mut().unwrap().write_all(b"\x03").unwrap();
        while self.read() {
            assert!(Instant::now() < end, "it goes on: {:#?}", self.frames());
        }
        found
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Its terminal goes with it, and so does what runs there.
        let _ = self.script.kill();
        let _ = self.script.wait();
    }
}

/// Whether a text ends with a time and says that it is left: `2h left`, `57m left`.
fn has_time_left(frame: &str) -> bool {
    let time = frame.strip_suffix(" left").and_then(|frame| frame.rsplit(' ').next()).unwrap_or_default();
    let number = time.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    number.len() < time.len() && number.parse::<u64>().is_ok()
}

#[test]
fn on_a_terminal_a_training_shows_its_steps_its_loss_and_the_time_left() {
    let project = project(PIPELINE);
    // Longer than anybody waits.
    let Some(mut terminal) = Terminal::start(&project, "run seen.toml --set fit.epochs=100000000") else { return };
    let frame =
        terminal.until(|frame| frame.starts_with("fit ") && frame.contains("train.loss ") && has_time_left(frame));
    let words: Vec<&str> = frame.split_whitespace().collect();
    let (done, all) = words[2].split_once('/').unwrap_or_else(|| panic!("{frame}"));
    // 178 rows, 64 at a time.
    assert_eq!((all, words[3]), ("300000000", "steps"), "{frame}");
    assert!(done.parse::<u64>().unwrap() > 0 && words[1].contains('─'), "{frame}");
    let loss = words.iter().position(|word| *word == "train.loss").unwrap();
    assert!(words[loss + 1].parse::<f64>().is_ok(), "{frame}");
    // Shares of the time come last, as people read them.
    assert!(words[loss..].contains(&"forward") && frame.contains('%') && !frame.contains("time."), "{frame}");

    let frames = terminal.frames();
    assert_eq!(frames[0], "run seen-1");
    assert!(frames.iter().any(|frame| frame.starts_with("rows done ")), "{frames:#?}");
    assert!(frames.iter().any(|frame| frame == "same: as it came"), "{frames:#?}");
    let stopping = "stopping; what is committed stays (again to stop at once)";
    assert!(frames.iter().any(|frame| frame.ends_with(stopping)), "{frames:#?}");
    assert_eq!(terminal.script.wait().unwrap().code(), Some(130), "{frames:#?}");
}

#[test]
fn on_a_terminal_a_search_shows_its_trials_the_best_and_the_time_left() {
    let project = Project::new();
    let config = root().join("configs/digits.toml").display().to_string();
    let set = "--set best.trials=100000 --set best.pruner=none --set fit.epochs=1";
    let Some(mut terminal) = Terminal::start(&project, &format!("run '{config}' {set}")) else { return };
    let frame = terminal.until(|frame| frame.contains("/100000 trials  best ") && has_time_left(frame));
    let words: Vec<&str> = frame.split_whitespace().collect();
    assert_eq!((words[0], words[3], words[4]), ("best", "trials", "best"), "{frame}");
    let done = words[2].strip_suffix("/100000").unwrap_or_else(|| panic!("{frame}"));
    assert!(done.parse::<u64>().unwrap() > 0 && words[5].parse::<f64>().is_ok(), "{frame}");
    // Before the first trial nobody can guess.
    let frames = terminal.frames();
    assert!(!frames.iter().any(|frame| frame.contains(" 0/100000 ") && frame.ends_with("left")), "{frames:#?}");
    assert_eq!(terminal.script.wait().unwrap().code(), Some(130), "{frames:#?}");
}
