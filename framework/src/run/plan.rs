//! What a run would do.

use super::key::{Known, key, known};
use super::nodes::{Node, request};
use super::wanted;
use crate::data::Ref;
use crate::pipeline::Pipeline;
use crate::store::{Key, Store};
use crate::{Result, runtime};
use serde::Serialize;
use std::collections::BTreeMap;

/// What would become of a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Its result is known.
    Cached,
    /// It would run.
    Run,
    /// It depends on what the stages above it give: if they give what they gave before, its result may be known.
    Depends,
}

/// A stage, and what would become of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Planned {
    /// Its name in the pipeline.
    pub name: String,
    /// What it runs.
    pub uses: String,
    /// What would become of it.
    pub state: State,
    /// Its key, if its inputs are known.
    pub key: Option<Key>,
    /// What it gave, if its result is known.
    #[serde(skip)]
    pub outputs: BTreeMap<String, Ref>,
    /// Seconds that it ran when its result was computed.
    pub seconds: Option<f64>,
}

/// Says what a run would do, without doing it.
///
/// # Errors
/// The store can't be read, or `only` names no stage.
pub fn plan(pipeline: &Pipeline, store: &Store, only: &[String]) -> Result<Vec<Planned>> {
    let mut nodes = vec![Node::Outside; pipeline.stages.len()];
    let mut planned = Vec::new();
    for node in wanted(pipeline, only)? {
        let stage = &pipeline.stages[node];
        let ready = pipeline.dependencies(node).iter().all(|from| matches!(nodes[*from], Node::Ready(_)));
        let mut entry = Planned {
            name: stage.name.clone(),
            uses: stage.uses.clone(),
            state: State::Depends,
            key: None,
            outputs: BTreeMap::new(),
            seconds: None,
        };
        if ready {
            let request = request(pipeline, node, &nodes)?;
            let (key, _) = key(&request)?;
            entry.key = Some(key);
            entry.state = State::Run;
            if let Known::Whole(memo) = runtime()?.block_on(known(store, key))? {
                entry.state = State::Cached;
                entry.seconds = Some(memo.seconds);
                entry.outputs.clone_from(&memo.outputs);
                nodes[node] = Node::Ready(memo.outputs);
            }
        }
        planned.push(entry);
    }
    Ok(planned)
}
