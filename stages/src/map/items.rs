//! What the tasks of `map` are given.

use super::plan::{Plan, Source};
use crate::sources::Paths;
use ropeway_framework::data::{Frame, Kind};
use ropeway_framework::stage::{Call, Input, Stored, TaskRequest, Template};
use ropeway_framework::{Context, Error, Result};
use serde::Deserialize;
use serde_json::Value;

/// One thing for each task, in order.
pub(super) enum Items {
    /// Stored artifacts for an input.
    Stored(String, Vec<Stored>),
    /// A frame whose slices of so many rows are for an input.
    Slices(String, Frame, usize),
    /// Files for a parameter.
    Files(String, Vec<String>),
    /// All parameters.
    Params(Vec<Value>),
}

impl Items {
    /// # Errors
    /// They can't be found or read, or the template can't take them.
    pub(super) fn new(plan: &Plan, template: &Template, call: &Call) -> Result<Self> {
        match &plan.source {
            Source::Params(tasks) => Ok(Self::Params(tasks.clone())),
            Source::Files { param } => {
                let paths = Paths::deserialize(template.task.params.get(param).context("the parameter is gone")?)?;
                let files = paths.find()?;
                Ok(Self::Files(param.clone(), files.iter().map(|file| file.name().to_owned()).collect()))
            }
            Source::Input { port, rows } => {
                let over =
                    call.inputs.get("over").and_then(|over| over.first()).context("input \"over\" is missing")?;
                let wanted = template.accepts.iter().find(|input| input.name == *port);
                let items = match (over.reference.kind, rows) {
                    (Kind::List, None) => Self::Stored(port.clone(), over.items()?),
                    (Kind::Frame, Some(rows)) => Self::Slices(port.clone(), over.load_as()?, rows.get()),
                    (Kind::List, Some(_)) => {
                        return Err(Error::usage("`over` is a list, and `rows` slices frames").help("leave `rows` out"));
                    }
                    (Kind::Frame, None) => {
                        return Err(Error::usage("`over` is a frame, and nothing says how to slice it")
                            .help("say how many rows a task takes: with = { rows = 10_000 }"));
                    }
                    (kind, _) => return Err(Error::usage(format!("`over` is {kind}, which has no items"))),
                };
                items.check_kinds(wanted, port, &template.name)?;
                Ok(items)
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Items::Stored(_, items) => items.len(),
            // A frame without rows is one slice, so that its columns are not lost.
            Items::Slices(_, frame, rows) => frame.rows().div_ceil(*rows).max(1),
            Items::Files(_, files) => files.len(),
            Items::Params(tasks) => tasks.len(),
        }
    }

    /// What to call one of them in an error.
    pub(super) fn name(&self, index: usize) -> String {
        match self {
            Items::Files(_, files) => format!("item {index} ({})", files.get(index).map_or("", String::as_str)),
            Items::Slices(_, frame, rows) => {
                format!("item {index} (rows {} to {})", index * rows, ((index + 1) * rows).min(frame.rows()))
            }
            _ => format!("item {index}"),
        }
    }

    /// The task of one of them.
    ///
    /// # Errors
    /// A slice can't be kept.
    pub(super) fn task(&self, index: usize, template: &Template, call: &Call) -> Result<TaskRequest> {
        let mut task = template.task.clone();
        match self {
            Items::Stored(port, items) => {
                let item = items.get(index).context("there is no such item")?;
                task.inputs.insert(port.clone(), vec![item.reference]);
            }
            Items::Slices(port, frame, rows) => {
                let slice = call.keep.put(frame.slice(index * rows, *rows))?;
                task.inputs.insert(port.clone(), vec![slice.reference]);
            }
            Items::Files(param, files) => {
                if let Some(place) = task.params.get_mut(param) {
                    *place = files.get(index).cloned().into();
                }
            }
            Items::Params(tasks) => task.params = tasks.get(index).cloned().context("there is no such item")?,
        }
        Ok(task)
    }

    fn check_kinds(&self, wanted: Option<&Input>, port: &str, stage: &str) -> Result<()> {
        let kind = |index: usize| match self {
            Items::Stored(_, items) => items.get(index).map(|item| item.reference.kind),
            _ => Some(Kind::Frame),
        };
        let Some((input, wanted)) = wanted.and_then(|input| Some((input, input.kind?))) else { return Ok(()) };
        match (0..self.len()).find_map(|index| Some((index, kind(index).filter(|kind| !input.takes(*kind))?))) {
            None => Ok(()),
            Some((index, kind)) => Err(Error::usage(format!(
                "item {index} is {kind}, but input {port:?} of stage {stage:?} takes {wanted}"
            ))),
        }
    }
}
