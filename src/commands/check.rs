//! `ropeway check`

use super::{load, print, print_json};
use crate::cli::{Context, Exit, Format, PipelineArgs};
use serde_json::json;

/// `ropeway check PIPELINE`
#[derive(clap::Args)]
pub(crate) struct Check {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

impl Check {
    pub(crate) fn execute(self, context: &Context) -> Exit {
        let pipeline = load(&self.pipeline, context)?;
        match self.format {
            Format::Text => print(format!(
                "{}: {} stages, {} endpoints, no mistakes",
                self.pipeline.pipeline.display(),
                pipeline.stages.len(),
                pipeline.serve.len()
            ))?,
            Format::Json => print_json(&json!({
                "pipeline": pipeline.name,
                "stages": pipeline.stages.iter().map(|node| &node.name).collect::<Vec<_>>(),
                "serve": pipeline.serve.keys().collect::<Vec<_>>(),
            }))?,
        }
        Ok(0)
    }
}
