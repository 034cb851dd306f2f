//! `ropeway schema`

use super::print;
use crate::cli::{Context, Exit};
use crate::pipeline::schema;

/// `ropeway schema`
#[derive(clap::Args)]
pub(crate) struct SchemaCommand {}

impl SchemaCommand {
    pub(crate) fn execute(self, context: &Context) -> Exit {
        print(serde_json::to_string_pretty(&schema(&context.registry))?)?;
        Ok(0)
    }
}
