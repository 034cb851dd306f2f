//! Every console block of README.md is run, and says what it shows.

use crate::support::root;
use std::path::Path;
use std::process::Command;

/// A command of a block, and the lines that it shows.
struct Shown {
    command: String,
    output: Vec<String>,
}

/// The blocks fenced as `console`: a command behind `$`, its output below it.
fn blocks(text: &str) -> Vec<Vec<Shown>> {
    let mut blocks = Vec::new();
    for block in text.split("```console\n").skip(1) {
        let mut shown: Vec<Shown> = Vec::new();
        for line in block.split("```").next().unwrap_or_default().lines() {
            match line.strip_prefix("$ ") {
                Some(command) => shown.push(Shown { command: command.to_owned(), output: Vec::new() }),
                None => shown.last_mut().expect("a block begins with a command").output.push(line.to_owned()),
            }
        }
        blocks.push(shown);
    }
    blocks
}

/// What stays of a line when numbers and spaces are another machine's.
fn skeleton(line: &str) -> String {
    let mut skeleton = String::new();
    for word in line.split_whitespace() {
        let word = if word.contains(|c: char| c.is_ascii_digit()) { "#" } else { word.trim_end_matches(':') };
        // Times differ in their unit too.
        if !["µs", "ms", "s", "min"].contains(&word) {
            skeleton.push_str(word);
            skeleton.push(' ');
        }
    }
    skeleton
}

#[test]
fn every_console_block_does_what_it_shows() {
    let folder = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(root().join("configs"), folder.path().join("configs")).unwrap();
    std::os::unix::fs::symlink(root().join("examples"), folder.path().join("examples")).unwrap();
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let blocks = blocks(&readme);
    assert!(blocks.len() >= 2, "README.md shows commands");
    let programs = Path::new(env!("CARGO_BIN_EXE_ropeway")).parent().unwrap().display();
    let path = format!("{programs}:{}", std::env::var("PATH").unwrap());
    for shown in blocks.iter().flatten() {
        // The program is built already, and on the path as the README says.
        let command = shown.command.replace("cargo run --release --", "ropeway");
        let ended =
            Command::new("sh").args(["-c", &command]).env("PATH", &path).current_dir(folder.path()).output().unwrap();
        let said = String::from_utf8_lossy(&ended.stdout).into_owned() + &String::from_utf8_lossy(&ended.stderr);
        assert!(ended.status.success(), "{}: {said}", shown.command);
        let said: Vec<String> = said.lines().map(skeleton).collect();
        for line in shown.output.iter().filter(|line| !line.trim().is_empty() && line.trim() != "…") {
            assert!(said.contains(&skeleton(line)), "{} does not say {line:?} but\n{}", shown.command, said.join("\n"));
        }
    }
}
