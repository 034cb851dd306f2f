//! `--trace FILE`

use crate::cli::complain;
use crate::observe::{Timeline, chrome_trace};
use crate::{Error, Result};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// A file for a run's trace.
pub(super) struct TraceFile {
    path: PathBuf,
    file: File,
    /// Whether it is there for nothing yet: it goes again if no trace comes.
    is_new: bool,
}

impl TraceFile {
    /// Makes the file, before a run rather than after it: what can't be written is said early.
    pub(super) fn create(path: &Path) -> Result<Self> {
        let is_new = !path.exists();
        let opened = File::options().write(true).create(true).truncate(false).open(path);
        let file = opened.map_err(|error| {
            Error::usage(format!("can't write the trace to {}: {error}", path.display()))
                .help("name a file in a folder that exists and that you may write")
        })?;
        Ok(Self { path: path.to_owned(), file, is_new })
    }

    /// Writes the trace and says what to do with it.
    pub(super) fn write(mut self, timeline: &Timeline) -> Result<()> {
        self.is_new = false;
        // What is no file, as a pipe is none, has nothing in it yet.
        if self.file.metadata()?.is_file() {
            self.file.set_len(0)?;
        }
        let mut out = BufWriter::new(&self.file);
        chrome_trace(timeline, &mut out)?;
        out.flush()?;
        complain(&format!("the trace is in {}; open it at https://ui.perfetto.dev", self.path.display()));
        Ok(())
    }
}

impl Drop for TraceFile {
    fn drop(&mut self) {
        if self.is_new {
            // Nobody misses what is empty.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
