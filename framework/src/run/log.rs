//! The run's events, kept in the store.

use super::Line;
use crate::store::{Log, Store};
use crate::{Context, Error, Result, runtime};

/// Writes a run's events in numbered pieces.
pub(super) struct RunLog {
    log: Log,
    pending: Vec<u8>,
}

impl RunLog {
    /// Opens the log of a new run of a pipeline, and names the run: `NAME-1`, `NAME-2`, … Gives the first event as it
    /// stands in the log.
    pub(super) fn create(store: &Store, pipeline: &str, first: impl Fn(String) -> Line) -> Result<(Self, Line)> {
        let runs = runtime()?.block_on(store.runs())?;
        let number = |run: &String| run.strip_prefix(pipeline)?.strip_prefix('-')?.parse::<u64>().ok();
        let mut next = runs.iter().filter_map(number).max().unwrap_or(0) + 1;
        // Whoever writes the first piece of a name has it; the other takes the next name.
        loop {
            let run = format!("{pipeline}-{next}");
            let log = store.log(&run);
            let line = first(run);
            if runtime()?.block_on(log.begin(json_line(&line)?.into()))? {
                return Ok((Self { log, pending: Vec::new() }, line));
            }
            next += 1;
        }
    }

    /// Keeps an event; `flush` writes what is kept.
    pub(super) fn keep(&mut self, line: &Line) -> Result<()> {
        self.pending.extend(json_line(line)?);
        Ok(())
    }

    pub(super) fn flush(&mut self) -> Result<()> {
        if !self.pending.is_empty() {
            runtime()?.block_on(self.log.append(std::mem::take(&mut self.pending).into()))?;
        }
        Ok(())
    }
}

fn json_line(line: &Line) -> Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec(line).context("an event must be JSON")?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// The events of a run, in order.
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
