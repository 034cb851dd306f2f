//! `ropeway run`

use super::{load, open_store, print, print_json};
use crate::cli::{Context, Exit, Format, PipelineArgs, complain};
use crate::live::Live;
use crate::run::{Line, Options, Report, Sink, run};
use crate::stage::Cancel;
use crate::table::summary;
use crate::{Error, Fault, Result, runtime};

/// `ropeway run PIPELINE`
#[derive(clap::Args)]
pub(crate) struct Run {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// Only these stages, and what they need
    #[arg(long, value_name = "STAGE", value_delimiter = ',')]
    only: Vec<String>,
    /// How many cores to keep busy; the result does not depend on it [default: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    cores: Option<u16>,
    /// How to print: a summary for people, or one event a line
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

impl Run {
    pub(crate) fn execute(self, context: &Context) -> Exit {
        let pipeline = load(&self.pipeline, context)?;
        let store = open_store(&self.pipeline, &pipeline)?;
        let mut options = Options { only: self.only, ..Options::default() };
        if let Some(cores) = self.cores {
            options.cores = cores.into();
        }
        interrupt_with(options.cancel.clone())?;
        let mut sink: Box<dyn Sink> = match self.format {
            Format::Text => Box::new(Live::new()),
            // A reader that goes away does not stop the run; the last line tells.
            Format::Json => Box::new(|line: &Line| drop(print_json(line))),
        };
        let report = run(&pipeline, &context.registry, &store, &options, &mut *sink)?;
        drop(sink);
        if self.format == Format::Text {
            print(summary(&report))?;
        }
        exit_code(&report)
    }
}

/// The first Ctrl-C stops the run in good order, the second at once. What is committed stays either way.
fn interrupt_with(cancel: Cancel) -> Result<()> {
    runtime()?.spawn(async move {
        if tokio::signal::ctrl_c().await.is_err() {
            return;
        }
        cancel.cancel();
        complain("stopping; what is committed stays (again to stop at once)");
        if tokio::signal::ctrl_c().await.is_ok() {
            std::process::exit(Fault::Interrupted.exit_code().into());
        }
    });
    Ok(())
}

fn exit_code(report: &Report) -> Exit {
    if report.interrupted {
        return Err(Error::new("interrupted").help("run it again to go on").fault(Fault::Interrupted));
    }
    Ok(if report.succeeded() { 0 } else { Fault::Stage.exit_code() })
}
