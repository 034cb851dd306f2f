//! `ropeway gc`

use super::{open, print, print_json};
use crate::cli::{Context, Exit, Format};
use crate::runtime;
use crate::store::Collect;
use crate::table::bytes;
use ropeway_framework::parse_time;
use std::time::Duration;

/// `ropeway gc`
#[derive(clap::Args)]
pub(crate) struct Gc {
    /// The store [default: file://.ropeway]
    #[arg(long, value_name = "URL")]
    store: Option<String>,
    /// Keep only the results of the newest N runs [default: all results]
    #[arg(long, value_name = "N")]
    keep: Option<usize>,
    /// Keep only the results that are younger than this, such as 30d; with --keep, either reason suffices
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    age: Option<Duration>,
    /// Keep what a run that was killed has, which may be under way, up to this time after its last word
    #[arg(long, value_name = "TIME", value_parser = parse_time, default_value = "7d")]
    unfinished: Duration,
    /// Only say what would be removed
    #[arg(long)]
    dry_run: bool,
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

impl Gc {
    pub(crate) fn execute(self, _: &Context) -> Exit {
        let store = open(self.store.as_deref())?;
        let Self { keep: runs, age, unfinished, dry_run, .. } = self;
        let options = Collect { runs, age, unfinished, dry_run, ..Collect::default() };
        let gone = runtime()?.block_on(store.collect(options))?;
        match self.format {
            Format::Json => print_json(&gone)?,
            Format::Text => print(format!(
                "{} {}: {} artifacts, {} results, {} runs, {} checkpoints, {} outcomes, {} leftovers; {} artifacts stay ({})",
                if dry_run { "would free" } else { "freed" },
                bytes(gone.bytes),
                gone.blobs,
                gone.memos,
                gone.runs,
                gone.checkpoints,
                gone.outcomes,
                gone.leftovers,
                gone.kept_blobs,
                bytes(gone.kept_bytes),
            ))?,
        }
        Ok(0)
    }
}
