//! The run's events, kept in the store.
//!
//! A run writes what it has to tell once a second, in one numbered piece, beside its other work: so a run that is
//! under way can be watched, and one that is killed loses a second of its story (and none of its results).

use super::Line;
use crate::store::{Log, Store};
use crate::{Context, Error, Result, runtime};
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;

/// How long an event may wait to be written.
const PATIENCE: Duration = Duration::from_secs(1);

/// Writes a run's events in numbered pieces.
pub(super) struct RunLog {
    pending: Vec<u8>,
    /// When the oldest of what is pending was kept.
    since: Duration,
    writer: Option<Writer>,
}

/// A task of the runtime that writes pieces in order.
struct Writer {
    pieces: UnboundedSender<Vec<u8>>,
    ended: JoinHandle<Result<()>>,
}

impl RunLog {
    /// Opens the log of a new run of a pipeline, and names the run: `NAME-1`, `NAME-2`, … Gives the first event as it
    /// stands in the log.
    pub(super) fn create(store: &Store, pipeline: &str, first: impl Fn(String) -> Line) -> Result<(Self, Line)> {
        let runtime = runtime()?;
        let runs = runtime.block_on(store.runs())?;
        let number = |run: &String| run.strip_prefix(pipeline)?.strip_prefix('-')?.parse::<u64>().ok();
        let mut next = runs.iter().filter_map(number).max().unwrap_or(0) + 1;
        // Whoever writes the first piece of a name has it; the other takes the next name.
        loop {
            let run = format!("{pipeline}-{next}");
            let log = store.log(&run);
            let line = first(run);
            if runtime.block_on(log.begin(json_line(&line)?.into()))? {
                let (pieces, waiting) = unbounded_channel();
                let writer = Writer { pieces, ended: runtime.spawn(write(log, waiting)) };
                return Ok((Self { pending: Vec::new(), since: Duration::ZERO, writer: Some(writer) }, line));
            }
            next += 1;
        }
    }

    /// Keeps an event; [`RunLog::pulse`] sees that it is written.
    pub(super) fn keep(&mut self, line: &Line, now: Duration) -> Result<()> {
        if self.pending.is_empty() {
            self.since = now;
        }
        self.pending.extend(json_line(line)?);
        Ok(())
    }

    /// Hands on what has waited long enough. Call it often.
    pub(super) fn pulse(&mut self, now: Duration) -> Result<()> {
        let due = !self.pending.is_empty() && now.saturating_sub(self.since) >= PATIENCE;
        if due { self.hand_on() } else { Ok(()) }
    }

    /// Writes everything and waits for it.
    pub(super) fn close(&mut self) -> Result<()> {
        if !self.pending.is_empty() {
            self.hand_on()?;
        }
        self.wait()
    }

    fn hand_on(&mut self) -> Result<()> {
        let piece = std::mem::take(&mut self.pending);
        match &self.writer {
            Some(writer) if writer.pieces.send(piece).is_ok() => Ok(()),
            // The writer ended before its time, which tells why.
            _ => self.wait(),
        }
    }

    fn wait(&mut self) -> Result<()> {
        let Some(Writer { pieces, ended }) = self.writer.take() else { return Ok(()) };
        drop(pieces);
        runtime()?.block_on(ended)?
    }
}

async fn write(log: Log, mut pieces: UnboundedReceiver<Vec<u8>>) -> Result<()> {
    while let Some(mut piece) = pieces.recv().await {
        // What came while a slow store wrote the last piece goes into one.
        while let Ok(next) = pieces.try_recv() {
            piece.extend(next);
        }
        log.append(piece.into()).await?;
    }
    Ok(())
}

fn json_line(line: &Line) -> Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec(line).context("an event must be JSON")?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// The events of a run, in order; of one that is under way, those up to about a second ago.
///
/// # Errors
/// There is no such run, or its log can't be read.
pub fn read_events(store: &Store, run: &str) -> Result<Vec<Line>> {
    let pieces = runtime()?.block_on(store.log(run).read_all())?;
    if pieces.is_empty() {
        return Err(Error::usage(format!("there is no run {run:?} in {}", store.url())));
    }
    let lines = pieces.iter().flat_map(|piece| piece.split(|byte| *byte == b'\n')).filter(|line| !line.is_empty());
    lines.map(|line| serde_json::from_slice(line).context(format!("the log of run {run:?} is damaged"))).collect()
}

#[cfg(test)]
mod tests {
    use super::super::Event;
    use super::*;

    fn line(number: u32) -> Line {
        Line { event: Event::Log { name: "s".into(), line: number.to_string() }, at: f64::from(number) }
    }

    fn pieces(store: &Store) -> usize {
        runtime().unwrap().block_on(store.log("p-1").list()).unwrap().len()
    }

    #[test]
    fn what_is_told_is_written_within_a_second_and_in_order() {
        let store = Store::memory();
        let (mut log, first) = RunLog::create(&store, "p", |_| line(0)).unwrap();
        log.keep(&line(1), Duration::from_millis(500)).unwrap();
        log.keep(&line(2), Duration::from_millis(1400)).unwrap();
        log.pulse(Duration::from_millis(1499)).unwrap();
        assert_eq!(pieces(&store), 1);
        log.pulse(Duration::from_millis(1500)).unwrap();
        // The writer is beside us: it may take a moment, but needs nobody to ask again.
        while pieces(&store) < 2 {
            std::thread::yield_now();
        }
        assert_eq!(read_events(&store, "p-1").unwrap(), [first.clone(), line(1), line(2)]);
        log.keep(&line(3), Duration::from_secs(2)).unwrap();
        log.close().unwrap();
        assert_eq!(read_events(&store, "p-1").unwrap(), [first, line(1), line(2), line(3)]);
    }

    #[test]
    fn a_store_that_can_not_be_written_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store");
        let store = runtime().unwrap().block_on(Store::open(path.to_str().unwrap())).unwrap();
        let (mut log, _) = RunLog::create(&store, "p", |_| line(0)).unwrap();
        // A file stands where the folder of the log was.
        let runs = path.join("runs");
        std::fs::remove_dir_all(&runs).unwrap();
        std::fs::write(&runs, "").unwrap();
        log.keep(&line(1), Duration::ZERO).unwrap();
        assert!(log.close().is_err());
    }
}
