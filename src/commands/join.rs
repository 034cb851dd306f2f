//! `ropeway run PIPELINE --join ADDRESS`: a coordinator of many runs sees it through.

use super::run::interrupt_with;
use crate::cli::complain;
use crate::pipeline::SourceFile;
use crate::run::{Ask, Report, Sink, Standing, ask};
use crate::stage::Cancel;
use crate::{Error, Result};
use std::time::Duration;

/// How a run is asked for.
#[derive(clap::Args)]
pub(super) struct JoinArgs {
    /// Have the coordinator at this address see the run through, on its workers and beside its other runs: HOST:PORT, as
    /// `ropeway coordinator` prints it
    #[arg(
        long,
        value_name = "ADDRESS",
        conflicts_with_all = [
            "cores", "gpus", "metrics", "workers", "embedded", "listen", "store", "memory", "cache", "cache_size"
        ],
    )]
    join: Option<String>,
    /// With --join, what the run is due of the workers while others want theirs: one of 2 gets twice as much as one of 1
    #[arg(long, value_name = "N", requires = "join", default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(1..=1000))]
    share: u32,
    /// With --join, runs of a higher priority come before those of a lower one, whatever their shares
    #[arg(long, value_name = "N", requires = "join", default_value_t = 0, allow_negative_numbers = true)]
    priority: i32,
    /// With --join, how many seconds to look for a coordinator that can't be reached
    #[arg(long, value_name = "SECONDS", requires = "join", default_value_t = 60)]
    patience: u64,
}

impl JoinArgs {
    /// Whether a coordinator is to be asked.
    pub(super) fn asks(&self) -> bool {
        self.join.is_some()
    }

    /// Asks for a run of a pipeline file, with overrides, of which only some stages are wanted.
    ///
    /// # Errors
    /// There is no token, or the coordinator refuses it or can't be reached.
    pub(super) fn execute(
        self,
        source: &SourceFile,
        (overrides, only): (Vec<String>, Vec<String>),
        token: Option<String>,
        sink: &mut dyn Sink,
    ) -> Result<Report> {
        let token = token.ok_or_else(|| {
            Error::usage("a coordinator is asked with its token").help("give the one that it printed: --token TOKEN")
        })?;
        let cancel = Cancel::default();
        interrupt_with(cancel.clone())?;
        let asked = Ask {
            join: self.join.unwrap_or_default(),
            token: token.parse()?,
            name: source.name.to_string(),
            text: source.text.to_string(),
            overrides,
            only,
            standing: Standing { priority: self.priority, weight: self.share },
            patience: Duration::from_secs(self.patience),
            cancel,
        };
        let (report, store) = ask(&asked, sink)?;
        if let Some(store) = store {
            complain(&format!("results are in {store}"));
        }
        Ok(report)
    }
}
