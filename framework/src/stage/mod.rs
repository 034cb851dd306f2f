//! What computes: a stage is a function from artifacts and parameters to artifacts.
//!
//! Most stages are plain functions whose arguments say what they need ([`Argument`]); [`stage()`] gives such a
//! function port names, a version and the rest. A [`Registry`] knows stages by name.

mod argument;
mod call;
mod devices;
mod function;
mod gang;
mod keep;
mod model;
mod needs;
mod once;
mod pace;
mod params;
mod parts;
mod past_cache;
mod pending;
mod registry;
mod returns;
mod seed;
mod signature;
mod tasks;
mod template;

pub use argument::{Argument, Inputs, OneOrMany, Params};
pub use call::{Call, Cancel, Checkpoint, Checkpoints, Models, Progress, Report, ReportSink, Scratch, Threads};
pub use devices::{DeviceShare, Devices};
pub use function::{FnStage, IntoStage, stage};
pub(crate) use gang::check_parts;
pub use gang::{Collective, Gang, Meeting};
pub use keep::{Keep, Keeper};
pub use model::{Apply, LoadModel};
pub use needs::{Device, Needs};
pub use once::{Once, Outcomes};
pub(crate) use pace::Pace;
pub use params::{ParamError, ParamSchema, Parameters};
pub use parts::Parts;
pub use past_cache::copy_past_cache;
pub use pending::{Answer, Pending, pending};
pub use registry::Registry;
pub use returns::{Given, Outputs, Returns};
pub use seed::Seed;
pub use signature::{Input, Output, Signature};
pub use tasks::{Fetch, StageRef, Stored, Submit, TaskRequest, Tasks};
pub use template::{Template, TemplateUse};

pub use crate::data::canonical_json;

use crate::Result;
use serde_json::Value;

/// A function from artifacts and parameters to artifacts.
///
/// A plain function becomes one by [`IntoStage`]; implement it by hand for a stage whose ports depend on its
/// parameters.
pub trait Stage: Send + Sync + 'static {
    /// What it takes and gives.
    fn signature(&self) -> &Signature;

    /// Checks parameters and fills in the defaults; equal meanings give equal values.
    ///
    /// # Errors
    /// The first mistake and where in the parameters it is.
    fn normalise(&self, params: &Value) -> Result<Value, ParamError> {
        match &self.signature().params {
            Some(schema) => schema.normalise(params),
            None => params::expect_none(params),
        }
    }

    /// The outputs that a call with these (normalised) parameters gives; the first is the default one.
    fn outputs(&self, params: &Value) -> Vec<Output> {
        let _ = params;
        self.signature().outputs.clone()
    }

    /// The inputs of a stage at one of its template ports that it gives to it itself, so that the pipeline may leave
    /// them open. It is asked before anything runs, for every template.
    ///
    /// # Errors
    /// The parameters don't fit the template: what is wrong, and where in the parameters.
    fn fills(&self, params: &Value, template: &TemplateUse<'_>) -> Result<Vec<String>, ParamError> {
        let _ = (params, template);
        Ok(Vec::new())
    }

    /// How many workers can compute one call with these (normalised) parameters together at most, and what it is that they
    /// share, in words that follow the number; nothing if any number can.
    fn most_workers(&self, params: &Value) -> Option<(usize, &'static str)> {
        let _ = params;
        None
    }

    /// What the result depends on besides inputs and parameters, such as the content of a file that the parameters
    /// name. It becomes part of the key.
    ///
    /// # Errors
    /// Something that it depends on is missing.
    fn fingerprint(&self, params: &Value) -> Result<Option<String>> {
        let _ = params;
        Ok(None)
    }

    /// Whether what the [fingerprint](Stage::fingerprint) covers is the same wherever the stage runs, as what lies in a
    /// remote store is. If not, it runs only where the files of the run are.
    fn reads_anywhere(&self, params: &Value) -> bool {
        let _ = params;
        false
    }

    /// Does the work. It runs on a thread of its own and may block.
    ///
    /// # Errors
    /// Whatever goes wrong, in words for the user.
    fn run(&self, call: Call) -> Result<Outputs>;
}
