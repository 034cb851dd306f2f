//! How a program ended, in words.

use crate::sources::StreamFault;
use ropeway_framework::{Error, nearest};
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

/// What is known of a program that failed.
pub(super) struct Outcome {
    /// The command as people would type it.
    pub(super) program: String,
    /// The last lines of stderr.
    pub(super) lines: Vec<String>,
}

impl Outcome {
    fn error(&self, what: &str) -> Error {
        let mut message = format!("`{}` {what}", self.program);
        if !self.lines.is_empty() {
            message.push_str("; the last it said was:");
            self.lines.iter().for_each(|line| message.push_str(&format!("\n    {line}")));
        }
        Error::new(message)
    }

    /// It took too long.
    pub(super) fn timeout(&self, timeout: Duration) -> Error {
        self.error(&format!("did not end within {timeout:?} and was killed"))
            .help("raise `timeout`, or give it less to do")
    }

    /// It did not succeed.
    pub(super) fn status(&self, status: ExitStatus) -> Error {
        match (status.code(), status.signal()) {
            (Some(code), _) => self.error(&format!("ended with exit code {code}")),
            (None, Some(libc::SIGKILL)) => {
                self.error("was killed (SIGKILL)").help("mostly this means that the machine ran out of memory")
            }
            (None, signal) => {
                let number = signal.unwrap_or_default();
                self.error(&format!("was ended by {}", signal_name(number)))
            }
        }
    }

    /// It succeeded, but wrote no file.
    pub(super) fn no_file(&self) -> Error {
        self.error("wrote no output.arrow").help(
            "with io = \"files\", write the result as an Arrow IPC file called output.arrow into the folder that \
             ROPEWAY_OUTPUT names",
        )
    }

    /// It succeeded, but the file that it wrote is no frame.
    pub(super) fn file(&self, error: &Error) -> Error {
        self.error(&format!("wrote an output.arrow that can't be read: {error}"))
            .help("write it once, with an Arrow IPC file writer, and close the writer before the program ends")
    }

    /// It succeeded, but its output is no frame.
    pub(super) fn output(&self, fault: &StreamFault) -> Error {
        const HELP: &str = "write messages to stderr, and the result once, with an Arrow IPC stream writer, to stdout";
        match fault {
            StreamFault::Nothing => {
                self.error("wrote nothing to stdout, which must carry an Arrow IPC stream").help(HELP)
            }
            StreamFault::Other(found) => {
                let found: String = String::from_utf8_lossy(found).trim_end().chars().take(60).collect();
                self.error(&format!(
                    "wrote something else to stdout: it must carry an Arrow IPC stream; found {found:?}"
                ))
                .help(HELP)
            }
            StreamFault::Cut { rows } => self
                .error(&format!("wrote half an Arrow IPC stream to stdout: it stops after {rows} rows without an end"))
                .help("close the stream writer before the program ends"),
            StreamFault::Trailing => {
                self.error("wrote more to stdout after the end of the Arrow IPC stream").help(HELP)
            }
            StreamFault::Damaged(why) => {
                self.error(&format!("wrote an Arrow IPC stream that can't be read: {why}")).help(HELP)
            }
            StreamFault::Endless(fault) => self.output(fault),
            StreamFault::Io(error) => self.error(&format!("wrote output that can't be read: {error}")),
        }
    }
}

fn signal_name(number: i32) -> String {
    let name = match number {
        libc::SIGSEGV => "SIGSEGV, a memory error of its own",
        libc::SIGABRT => "SIGABRT, it gave up",
        libc::SIGTERM => "SIGTERM",
        libc::SIGINT => "SIGINT",
        libc::SIGHUP => "SIGHUP",
        libc::SIGPIPE => "SIGPIPE, it wrote where nobody reads",
        libc::SIGFPE => "SIGFPE, an arithmetic error",
        libc::SIGILL => "SIGILL, an instruction that this machine lacks",
        libc::SIGBUS => "SIGBUS, a memory error",
        libc::SIGXCPU => "SIGXCPU, its time on the processor was up",
        _ => return format!("signal {number}"),
    };
    name.to_owned()
}

/// The error for a program that can't be started.
pub(super) fn not_started(program: &str, error: io::Error) -> Error {
    let here = Path::new(program);
    match error.kind() {
        io::ErrorKind::NotFound if program.contains('/') && here.is_file() => {
            Error::usage(format!("{program} can't be started: the interpreter in its first line is missing"))
        }
        io::ErrorKind::NotFound => {
            let error = Error::usage(format!("there is no program {program:?}"));
            let names = if program.contains('/') { beside(here) } else { in_path() };
            let wanted = here.file_name().and_then(|name| name.to_str()).unwrap_or(program);
            if !program.contains('/') && here.is_file() {
                return error.help(format!("the file here is \"./{program}\"; a bare name is looked for in PATH"));
            }
            match nearest(wanted, names.iter().map(String::as_str)) {
                Some(near) if program.contains('/') => {
                    error.help(format!("did you mean {:?}?", here.with_file_name(near).display().to_string()))
                }
                Some(near) => error.help(format!("did you mean {near:?}?")),
                None => error.help("install it, or name it with its path"),
            }
        }
        io::ErrorKind::PermissionDenied => Error::usage(format!("{program} may not be run"))
            .help(format!("`chmod +x {program}`, or name its interpreter: run = [\"python3\", {program:?}]")),
        io::ErrorKind::ArgumentListTooLong => Error::usage("the parameters are too long for an environment variable")
            .help("hand large data over as inputs"),
        _ => Error::from(error).context(format!("{program} can't be started")),
    }
}

/// The names in the folder of a path.
fn beside(path: &Path) -> Vec<String> {
    path.parent().map(list).unwrap_or_default()
}

/// The names of all programs that can be run by name.
fn in_path() -> Vec<String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).flat_map(|folder| list(&folder)).collect()
}

fn list(folder: &Path) -> Vec<String> {
    let entries = folder.read_dir().into_iter().flatten();
    let mut names: Vec<String> = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    names.sort_unstable();
    names
}
