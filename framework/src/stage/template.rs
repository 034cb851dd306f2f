//! Stages that are inputs themselves.

use super::{Input, Output, Stage, StageRef, TaskRequest};
use serde_json::Value;

/// A stage that is an input itself: to be run again and again with other parameters or other inputs.
#[derive(Clone, Debug)]
pub struct Template {
    /// The stage's name in the pipeline.
    pub name: String,
    /// The call as the pipeline states it.
    pub task: TaskRequest,
    /// The outputs that it gives, the default one first.
    pub outputs: Vec<Output>,
    /// The inputs that the stage takes, whether or not the pipeline wires them.
    pub accepts: Vec<Input>,
    /// Checks parameters as the pipeline would, and completes them.
    pub stage: StageRef,
}

/// A template as the stage that runs it sees it before anything runs. See [`Stage::fills`].
pub struct TemplateUse<'a> {
    /// The template's name in the pipeline.
    pub name: &'a str,
    /// The stage.
    pub stage: &'a dyn Stage,
    /// Its parameters, with every default filled in.
    pub params: &'a Value,
    /// The inputs that it must have and the pipeline does not give to it.
    pub open: Vec<&'a str>,
    /// The inputs that the pipeline gives to the stage that runs it, the template's port among them.
    pub beside: Vec<&'a str>,
}

impl Template {
    /// The same as [`Stage::fills`] was told, for a call whose inputs (templates too) are at these ports.
    pub fn used<'a>(&'a self, beside: impl IntoIterator<Item = &'a str>) -> TemplateUse<'a> {
        let required = self.accepts.iter().filter(|input| !input.optional && !input.template);
        let open = required.map(|input| input.name.as_str()).filter(|name| !self.task.inputs.contains_key(*name));
        TemplateUse {
            name: &self.name,
            stage: &*self.stage.0,
            params: &self.task.params,
            open: open.collect(),
            beside: beside.into_iter().collect(),
        }
    }
}
