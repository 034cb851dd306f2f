//! One run of a program: started, fed, read, and ended without a trace.

use super::outcome::{self, Outcome};
use super::ports::Variable;
use crate::sources::{StreamFault, read_path, read_stream};
use arrow::ipc::writer::StreamWriter;
use ropeway_framework::data::Frame;
use ropeway_framework::stage::{Cancel, Progress};
use ropeway_framework::{Error, Result};
use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

/// How often cancellation and the end of the program are looked for.
const BEAT: Duration = Duration::from_millis(20);
/// Lines of stderr that an error shows.
const SHOWN_LINES: usize = 12;
/// A longer line of stderr is cut.
const LONGEST_LINE: u64 = 16 << 10;
/// What a program may still print after its output turned out wrong, before it is killed.
const PATIENCE: u64 = 64 << 20;

/// What to run.
pub(super) struct Program {
    pub(super) program: String,
    pub(super) arguments: Vec<String>,
    pub(super) environment: Vec<Variable>,
    pub(super) timeout: Option<Duration>,
    pub(super) log: bool,
}

/// How its input and output travel.
pub(super) enum Travel {
    /// A frame on stdin, and another on stdout.
    Pipe(Option<Frame>),
    /// Nothing on stdin, and the output in this file.
    File(PathBuf),
}

/// A child in a process group of its own; dropped, the whole group is gone.
struct Group(Child);

impl Group {
    /// Kills everything in the group.
    fn kill(&self) {
        if let Ok(group) = i32::try_from(self.0.id()) {
            // SAFETY: kill has no memory effects. The child has not been waited for (only `end` and `drop` do, after
            // their last kill), so its id and its group's can't have been given to others.
            unsafe { libc::kill(-group, libc::SIGKILL) };
        }
    }

    /// Whether the child has ended, without collecting it: until then its id stays its own.
    fn has_ended(&self) -> bool {
        // SAFETY: siginfo_t is plain data, for which all zeros is a value.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        // SAFETY: `info` outlives the call, which writes nothing else.
        let result = unsafe { libc::waitid(libc::P_PID, self.0.id(), &mut info, options) };
        // SAFETY: waitid filled `info` or left its zeros; the field is valid in both cases.
        result != 0 || unsafe { info.si_pid() } != 0
    }

    /// Kills what the child left behind, and collects the child.
    fn end(&mut self) -> io::Result<ExitStatus> {
        self.kill();
        self.0.wait()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Collected already, `try_wait` tells; killing then would hit whoever has the id now.
        if matches!(self.0.try_wait(), Ok(None)) {
            self.kill();
            let _ = self.0.wait();
        }
    }
}

/// Why the program was not left to end by itself.
enum Stopped {
    Timeout,
    Cancelled,
}

impl Program {
    /// Runs it to its end and gives the frame that it wrote.
    ///
    /// # Errors
    /// It can't be started, fails, is stopped, or writes something other than a whole Arrow IPC stream or file.
    pub(super) fn run(&self, travel: &Travel, progress: &Progress, cancel: &Cancel) -> Result<Frame> {
        cancel.check()?;
        let deadline = self.timeout.map(|timeout| Instant::now() + timeout);
        let mut group = self.start()?;
        let (stdin, stdout, stderr) = (group.0.stdin.take(), group.0.stdout.take(), group.0.stderr.take());
        let (ended, end) = channel();
        let (output, fed, stopped, status, lines) = thread::scope(|scope| {
            // Feeding and both kinds of reading go on at once: whichever the program waits for, it gets.
            let log = self.log.then_some(progress);
            let feeder = scope.spawn(move || feed(stdin, travel));
            let listener = scope.spawn(move || listen(stderr, log));
            let reader = scope.spawn(move || {
                let output = match travel {
                    Travel::Pipe(_) => stdout.map_or(Err(StreamFault::Nothing), collect).map(Some),
                    Travel::File(_) => {
                        listen(stdout, log);
                        Ok(None)
                    }
                };
                let _ = ended.send(());
                output
            });
            let stopped = wait(&group, &end, deadline, cancel);
            let status = group.end();
            let output = reader.join().unwrap_or_else(|_| Err(StreamFault::Damaged("the reader failed".into())));
            let lines = listener.join().unwrap_or_default();
            let fed = feeder.join().unwrap_or_else(|_| Err(Error::new("the input can't be written")));
            (output, fed, stopped, status, lines)
        });
        let outcome = Outcome { program: self.shown(), lines };
        match stopped {
            Some(Stopped::Cancelled) => return cancel.check().and(Err(Error::new("interrupted"))),
            Some(Stopped::Timeout) => return Err(outcome.timeout(self.timeout.unwrap_or_default())),
            None => {}
        }
        let status = status.map_err(|error| Error::from(error).context("can't wait for the program"))?;
        match output {
            Err(StreamFault::Io(error)) => Err(Error::from(error).context("can't read the program's output")),
            // A program that printed without end was killed here; its output is what was wrong with it.
            Err(fault) if status.success() || matches!(fault, StreamFault::Endless(_)) => Err(outcome.output(&fault)),
            Ok(Some(frame)) if status.success() => fed.map(|()| frame),
            Ok(None) if status.success() => match travel {
                Travel::File(path) if path.is_file() => read_path(path).map_err(|error| outcome.file(&error)),
                _ => Err(outcome.no_file()),
            },
            _ => Err(outcome.status(status)),
        }
    }

    /// The command as people would type it.
    fn shown(&self) -> String {
        std::iter::once(&self.program).chain(&self.arguments).map(String::as_str).collect::<Vec<_>>().join(" ")
    }

    fn start(&self) -> Result<Group> {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).env_clear().envs(self.environment.iter().map(|(key, value)| (key, value)));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        end_with_us(&mut command);
        command.spawn().map(Group).map_err(|error| outcome::not_started(&self.program, error))
    }
}

/// Has the system end the program when this process ends, however it ends. What the program started is not ended with
/// it, but finds its pipes closed.
#[cfg(target_os = "linux")]
fn end_with_us(command: &mut Command) {
    use std::os::unix::process::CommandExt;
    let own = std::process::id();
    let ask = move || {
        // SAFETY: prctl and getppid take plain numbers and are safe to call between fork and exec.
        let (asked, parent) =
            unsafe { (libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong), libc::getppid()) };
        if asked != 0 {
            return Err(io::Error::last_os_error());
        }
        // It may have ended before it was asked.
        if parent.unsigned_abs() == own { Ok(()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
    };
    // SAFETY: `ask` allocates nothing, takes no lock, and calls only what is safe between fork and exec.
    unsafe { command.pre_exec(ask) };
}

#[cfg(not(target_os = "linux"))]
fn end_with_us(_: &mut Command) {}

/// Waits until the program ends by itself, or has to be stopped.
fn wait(group: &Group, output_ended: &Receiver<()>, deadline: Option<Instant>, cancel: &Cancel) -> Option<Stopped> {
    let mut beat = BEAT;
    let mut open = true;
    loop {
        if group.has_ended() {
            return None;
        }
        if cancel.is_cancelled() {
            return Some(Stopped::Cancelled);
        }
        let left = deadline.map_or(beat, |deadline| deadline.saturating_duration_since(Instant::now()));
        if left.is_zero() {
            return Some(Stopped::Timeout);
        }
        if open {
            // The end of the output mostly means the end of the program: then it is looked for often.
            if !matches!(output_ended.recv_timeout(left.min(beat)), Err(RecvTimeoutError::Timeout)) {
                (open, beat) = (false, Duration::from_millis(1));
            }
        } else {
            thread::sleep(left.min(beat));
            beat = (beat * 2).min(BEAT);
        }
    }
}

/// Writes the input. That the program stops reading is its own affair.
fn feed(stdin: Option<ChildStdin>, travel: &Travel) -> Result<()> {
    let (Some(stdin), Travel::Pipe(Some(frame))) = (stdin, travel) else { return Ok(()) };
    let written = || -> Result<(), arrow::error::ArrowError> {
        let mut writer = StreamWriter::try_new(BufWriter::with_capacity(1 << 16, stdin), frame.schema())?;
        for batch in frame.batches() {
            writer.write(batch)?;
        }
        writer.finish()?;
        Ok(writer.get_mut().flush()?)
    };
    match written() {
        Err(arrow::error::ArrowError::IoError(_, error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}

/// Reads the output; if it is wrong, reads on, so that the program can end and say why.
fn collect(mut stdout: impl Read) -> Result<Frame, StreamFault> {
    read_stream(&mut stdout).map_err(|fault| match io::copy(&mut stdout.by_ref().take(PATIENCE), &mut io::sink()) {
        Ok(PATIENCE) => StreamFault::Endless(Box::new(fault)),
        _ => fault,
    })
}

/// Logs stderr line by line, and keeps the last lines.
fn listen(stderr: Option<impl Read>, progress: Option<&Progress>) -> Vec<String> {
    let mut last = VecDeque::with_capacity(SHOWN_LINES);
    let Some(stderr) = stderr else { return Vec::new() };
    let mut stderr = BufReader::new(stderr);
    let mut line = Vec::new();
    while stderr.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        line.clear();
        if let Some(progress) = progress {
            progress.log(text.clone());
        }
        if last.len() == SHOWN_LINES {
            last.pop_front();
        }
        last.push_back(text);
    }
    last.into()
}
