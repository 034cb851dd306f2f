//! Text files of records: cut into blocks of whole records, which several threads parse.

use super::files::{Source, broken};
use super::groups::Groups;
use super::parallel::ordered;
use super::sniff::unpack;
use super::table::Selection;
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use ropeway_framework::data::Frame;
use ropeway_framework::stage::{Cancel, Progress, Threads};
use ropeway_framework::{Error, Result};
use std::io::{BufRead, BufReader, Read};
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes of a block; part of no result. Its text, fields and values together fit the second-level cache of a core.
pub(super) const BLOCK: usize = 128 << 10;
/// No record may be longer: offsets within a block have 30 bits.
const LONGEST: usize = 1 << 30;
/// Records at the head of each file from which types are inferred.
pub(super) const HEAD_ROWS: usize = 10_000;

/// A format of records in text.
pub(super) trait Records: Sync {
    /// How many bytes at the head of `text` are whole records; 0 if there is no whole one. `text` begins with a record.
    fn whole(&self, text: &[u8]) -> usize;

    /// The records of a block as a batch.
    fn parse(&self, block: &Block) -> Result<RecordBatch, RecordError>;
}

/// Whole records of one file.
pub(super) struct Block {
    /// Which of all blocks it is.
    place: usize,
    /// Which file.
    file: usize,
    /// Whether it is the file's first.
    pub(super) first: bool,
    /// How many bytes of the file's text are before it.
    start: u64,
    /// The records, with their ends.
    pub(super) text: Vec<u8>,
}

/// What is wrong with a record.
#[derive(Debug)]
pub(super) struct RecordError {
    /// The line within the block, from 1.
    pub(super) line: usize,
    /// What.
    pub(super) message: String,
    /// What to do about it.
    pub(super) help: Option<String>,
}

impl RecordError {
    pub(super) fn new(line: usize, message: impl Into<String>) -> Self {
        Self { line, message: message.into(), help: None }
    }

    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// As an error for people; `before` lines of the file come before the block.
    pub(super) fn at(self, file: &str, before: usize) -> Error {
        let error = Error::new(format!("{file}, line {}: {}", before + self.line, self.message));
        match self.help {
            Some(help) => error.help(help),
            None => error,
        }
    }
}

/// The blocks of one file.
pub(super) struct Blocks<'a> {
    source: &'a Source,
    reader: Box<dyn Read + Send>,
    rest: Vec<u8>,
    ended: bool,
}

impl<'a> Blocks<'a> {
    pub(super) fn open(source: &'a Source) -> Result<Self> {
        Ok(Self { source, reader: unpack(source)?.0, rest: Vec::new(), ended: false })
    }

    /// The next block's text; `None` at the end. `whole` says how many bytes are whole records, as in [`Records`].
    pub(super) fn next(&mut self, whole: impl Fn(&[u8]) -> usize) -> Result<Option<Vec<u8>>> {
        let mut text = std::mem::take(&mut self.rest);
        let mut wanted = BLOCK;
        while !self.ended {
            text.reserve(wanted.saturating_sub(text.len()) + 1);
            let room = wanted.saturating_sub(text.len()) as u64;
            let mut part = self.reader.by_ref().take(room);
            part.read_to_end(&mut text).map_err(|error| broken(self.source.name(), error))?;
            self.ended = text.len() < wanted;
            if self.ended {
                break;
            }
            let whole = whole(&text);
            if whole > 0 {
                self.rest = Vec::with_capacity(BLOCK + 1);
                self.rest.extend_from_slice(text.get(whole..).unwrap_or_default());
                text.truncate(whole);
                return Ok(Some(text));
            }
            if text.len() >= LONGEST {
                return Err(Error::new(format!("{} has a record of more than 1 GiB", self.source.name()))
                    .help("a quote that is opened and never closed makes one: check `quote` and `delimiter`"));
            }
            // Twice as much each time: a long record costs no more than twice its length.
            wanted = text.len() * 2;
        }
        Ok((!text.is_empty()).then_some(text))
    }
}

/// Reads all files into a frame of the given schema.
pub(super) fn read(
    sources: &[Source],
    records: &impl Records,
    schema: SchemaRef,
    selection: &Selection,
    (threads, cancel, progress): (Threads, Cancel, Progress),
) -> Result<Frame> {
    enum Stop {
        Io(Error),
        Record { file: usize, start: u64, error: RecordError },
    }
    let groups = Groups::new(schema.clone(), selection.limit);
    let (mut place, mut start) = (0, 0);
    let mut file = 0;
    let mut open: Option<Blocks<'_>> = None;
    let next = move || -> Result<Option<Block>, Stop> {
        cancel.check().map_err(Stop::Io)?;
        loop {
            let Some(source) = sources.get(file) else { return Ok(None) };
            let first = open.is_none();
            let blocks = match &mut open {
                Some(blocks) => blocks,
                None => open.insert(Blocks::open(source).map_err(Stop::Io)?),
            };
            match blocks.next(|text| records.whole(text)).map_err(Stop::Io)? {
                Some(text) => {
                    let block = Block { place, file, first, start, text };
                    place += 1;
                    start += block.text.len() as u64;
                    return Ok(Some(block));
                }
                None => (file, open, start) = (file + 1, None, 0),
            }
        }
    };
    let done = AtomicU64::new(0);
    let work = |block: Block| -> Result<u64, Stop> {
        let Block { place, file, start, .. } = block;
        let batch = records.parse(&block).map_err(|error| Stop::Record { file, start, error })?;
        let rows = batch.num_rows() as u64;
        let before = done.fetch_add(rows, Ordering::Relaxed);
        progress.step(before + rows, None, "row", &[]);
        drop(block);
        groups.put(place, batch).map_err(Stop::Io)?;
        Ok(rows)
    };
    let results = ordered(threads, selection.limit, next, work, |rows| *rows);
    let mut rows = 0;
    for result in results {
        // What comes after enough rows was read by chance.
        if selection.limit.is_some_and(|limit| rows >= limit) {
            break;
        }
        match result {
            Ok(more) => rows += more,
            Err(Stop::Io(error)) => return Err(error),
            Err(Stop::Record { file, start, error }) => {
                let Some(source) = sources.get(file) else { return Err(error.at("", 0)) };
                return Err(error.at(source.name(), lines(source, start)?));
            }
        }
    }
    progress.step(rows, Some(rows), "row", &[]);
    Frame::new(schema, groups.finish()?)
}

/// How many lines end in the first so many bytes of a file's text.
fn lines(source: &Source, bytes: u64) -> Result<usize> {
    let mut text = BufReader::new(unpack(source)?.0.take(bytes));
    let mut lines = 0;
    loop {
        let part = text.fill_buf().map_err(|error| broken(source.name(), error))?;
        if part.is_empty() {
            return Ok(lines);
        }
        lines += part.iter().filter(|byte| **byte == b'\n').count();
        let read = part.len();
        text.consume(read);
    }
}
