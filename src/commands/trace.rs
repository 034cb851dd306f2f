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
}

impl TraceFile {
    /// Makes the file, before a run rather than after it: what can't be written is said early.
    pub(super) fn create(path: &Path) -> Result<Self> {
        let file = File::create(path).map_err(|error| {
            Error::usage(format!("can't write the trace to {}: {error}", path.display()))
                .help("name a file in a folder that exists and that you may write")
        })?;
        Ok(Self { path: path.to_owned(), file })
    }

    /// Writes the trace and says what to do with it.
    pub(super) fn write(self, timeline: &Timeline) -> Result<()> {
        let mut out = BufWriter::new(self.file);
        chrome_trace(timeline, &mut out)?;
        out.flush()?;
        complain(&format!("the trace is in {}; open it at https://ui.perfetto.dev", self.path.display()));
        Ok(())
    }
}
