//! `ropeway plan`

use super::{load, open_store, print, print_json};
use crate::cli::{Context, Exit, Format, PipelineArgs};
use crate::run::{State, plan};
use crate::table::{Table, seconds};

/// `ropeway plan PIPELINE`
#[derive(clap::Args)]
pub(crate) struct Plan {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// Only these stages, and what they need
    #[arg(long, value_name = "STAGE", value_delimiter = ',')]
    only: Vec<String>,
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

impl Plan {
    pub(crate) fn execute(self, context: &Context) -> Exit {
        let pipeline = load(&self.pipeline, context)?;
        let store = open_store(&self.pipeline, &pipeline)?;
        let planned = plan(&pipeline, &store, &self.only)?;
        if self.format == Format::Json {
            planned.iter().try_for_each(print_json)?;
            return Ok(0);
        }
        let mut table = Table::new(["stage", "uses", "plan", "took"]);
        for stage in planned {
            let state = match stage.state {
                State::Cached => "cached",
                State::Run => "run",
                State::Depends => "depends on what is above",
            };
            let took = stage.seconds.map(seconds).unwrap_or_default();
            table.row([stage.name, stage.uses, state.to_owned(), took]);
        }
        print(table)?;
        Ok(0)
    }
}
