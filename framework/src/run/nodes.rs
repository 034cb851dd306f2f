//! The stages of a pipeline while it runs.

use super::task::Request;
use crate::data::Ref;
use crate::pipeline::{Pipeline, Source};
use crate::stage::{StageRef, TaskRequest, Template};
use crate::{Error, Result};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Where a stage stands.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Node {
    /// Not part of this run.
    Outside,
    /// Waits for its inputs.
    Waiting,
    /// Its task is under way.
    Running,
    /// It has its outputs.
    Ready(BTreeMap<String, Ref>),
    /// It has none and will have none.
    Failed,
}

/// The task of a stage whose inputs are all ready.
pub(super) fn request(pipeline: &Pipeline, node: usize, outputs: &[Node]) -> Result<Request> {
    let stage = &pipeline.stages[node];
    let mut inputs = BTreeMap::new();
    let mut templates = BTreeMap::new();
    for (port, source) in &stage.inputs {
        match source {
            Source::Outputs(refs) => {
                let refs = refs.iter().map(|(from, output)| resolve(pipeline, *from, output, outputs));
                inputs.insert(port.clone(), refs.collect::<Result<Vec<Ref>>>()?);
            }
            Source::Template(from) => {
                let inner = request(pipeline, *from, outputs)?;
                if !inner.templates.is_empty() {
                    return Err(Error::usage(format!(
                        "stage {:?} runs other stages and can't be a template itself",
                        inner.task.label
                    )));
                }
                let template = Template {
                    name: inner.task.label.clone(),
                    outputs: pipeline.stages[*from].outputs.clone(),
                    accepts: inner.stage.signature().inputs.clone(),
                    stage: StageRef(inner.stage),
                    task: Arc::unwrap_or_clone(inner.task),
                };
                templates.insert(port.clone(), template);
            }
        }
    }
    let task = TaskRequest {
        label: stage.name.clone(),
        stage: stage.uses.clone(),
        params: stage.params.clone(),
        inputs,
        seed: pipeline.seed,
        needs: stage.needs.clone(),
    };
    Ok(Request::new(task, stage.stage.clone(), templates))
}

fn resolve(pipeline: &Pipeline, from: usize, output: &str, outputs: &[Node]) -> Result<Ref> {
    let ready = match &outputs[from] {
        Node::Ready(refs) => refs.get(output).copied(),
        _ => None,
    };
    ready.ok_or_else(|| Error::new(format!("stage {:?} gave no output {output:?}", pipeline.stages[from].name)))
}
