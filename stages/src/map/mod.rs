//! `map`: a stage over many things, each a task of its own.
//!
//! ```toml
//! [stage.clean_one]                  # a template: its input stays open, `map` gives it
//! use = "sql"
//! with = { query = "SELECT * FROM rows WHERE amount > 0" }
//!
//! [stage.clean]
//! use  = "map"
//! from = { each = "clean_one", over = "table" }
//! with = { into = "rows", rows = 10_000, gather = "concat" }
//! ```
//!
//! | `over` and `with` | a task for each |
//! |---|---|
//! | `over` is a list | item of the list |
//! | `over` is a frame, `rows = 10_000` | slice of so many rows; a frame without rows is one empty slice |
//! | `files = "path"` | file that the template's parameter `path` names (a path, a glob, a URL, or a list of them) |
//! | `values = { "model.depth" = [2, 4] }` | value, in place of the one that the template states |
//!
//! The results are a list in the order of the input, whatever ends first, or with `gather = "concat"` one frame of all
//! their rows. Tasks are remembered one by one: another file, item or value means one more task, and the rest is
//! cached. All have the template's own seed. Items go to the tasks by reference and results come back by reference:
//! neither is read here, unless they are concatenated.

mod gather;
mod items;
mod params;
mod plan;
#[cfg(test)]
mod tests;

pub use self::params::{Gather, MapParams};

use self::items::Items;
use self::plan::Plan;
use ropeway_framework::data::Kind;
use ropeway_framework::stage::{
    Call, Input, Output, Outputs, ParamError, ParamSchema, Pending, Progress, Registry, Signature, Stage, Stored,
    TaskRequest, Template, TemplateUse,
};
use ropeway_framework::{Context, Error, Result};
use serde::Deserialize;
use serde_json::Value;
use std::collections::VecDeque;

/// Tasks that are under way at the same time, at most.
const WINDOW: usize = 4096;

/// The stages of this folder.
pub fn registry() -> Registry {
    Registry::new().stage("map", Map::new())
}

/// The `map` stage. Its output is a list or a frame, as its parameters say.
struct Map(Signature);

impl Map {
    fn new() -> Self {
        let each = Input { name: "each".into(), template: true, ..Input::default() };
        let over = Input { name: "over".into(), optional: true, ..Input::default() };
        Self(Signature {
            version: 1,
            about: "Runs another stage over each item of a list, slice of a frame, file or value. Results keep their \
                    order."
                .into(),
            inputs: vec![each, over],
            outputs: vec![Output::new("items", Kind::List)],
            params: Some(ParamSchema::of::<MapParams>()),
            submits: true,
            ..Signature::default()
        })
    }
}

impl Stage for Map {
    fn signature(&self) -> &Signature {
        &self.0
    }

    fn outputs(&self, params: &Value) -> Vec<Output> {
        match MapParams::deserialize(params).map(|params| params.gather) {
            Ok(Gather::Concat) => vec![Output::new("rows", Kind::Frame)],
            _ => vec![Output::new("items", Kind::List)],
        }
    }

    fn fills(&self, params: &Value, template: &TemplateUse<'_>) -> Result<Vec<String>, ParamError> {
        let params = MapParams::deserialize(params)
            .map_err(|error| ParamError { path: Vec::new(), message: error.to_string() })?;
        Ok(Plan::new(&params, template)?.fills())
    }

    fn run(&self, mut call: Call) -> Result<Outputs> {
        let params = MapParams::deserialize(&call.params).context("the parameters do not fit")?;
        let template = call.templates.remove("each").context("input \"each\" is missing")?;
        let plan = Plan::new(&params, &template.used(call.inputs.keys().map(String::as_str))).map_err(Error::usage)?;
        let items = Items::new(&plan, &template, &call)?;
        let results = results(&items, &template, &plan.take, &call)?;
        match params.gather {
            Gather::List => Ok(Outputs::new().with("items", call.keep.list(&results)?)),
            Gather::Concat => Ok(Outputs::new().with("rows", gather::concat(&results)?)),
        }
    }
}

/// Runs the template over each item, and gives the output `take` of each, in the order of the items.
fn results(items: &Items, template: &Template, take: &str, call: &Call) -> Result<Vec<Stored>> {
    let mut results = Vec::with_capacity(items.len());
    let mut under_way: VecDeque<Pending> = VecDeque::new();
    while results.len() < items.len() {
        call.cancel.check()?;
        let done = results.len();
        while under_way.len() < WINDOW && done + under_way.len() < items.len() {
            let index = done + under_way.len();
            let task = items.task(index, template, call)?;
            under_way.push_back(call.tasks.submit(TaskRequest { label: index.to_string(), ..task }));
        }
        // In the order of the items: which failure is told does not depend on which task ends first.
        let outcome = under_way.pop_front().context("a task was not handed in")?.wait();
        let mut outputs = outcome.map_err(|error| error.context(items.name(done)))?;
        results.push(outputs.remove(take).context(format!("stage {:?} gave no output {take:?}", template.name))?);
        report(&call.progress, results.len(), items.len());
    }
    Ok(results)
}

/// Says how far it is, a few hundred times at most.
fn report(progress: &Progress, done: usize, total: usize) {
    let step = (total / 200).max(1);
    if done.is_multiple_of(step) || done == total {
        progress.step(done as u64, Some(total as u64), "item", &[]);
    }
}
