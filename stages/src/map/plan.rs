//! What `map` is asked to do, checked against its template before anything runs.

use super::{Gather, MapParams};
use ropeway_framework::data::Kind;
use ropeway_framework::nearest;
use ropeway_framework::stage::{ParamError, Signature, TemplateUse};
use serde_json::{Map, Value};
use std::num::NonZeroUsize;

/// What the tasks differ in, and which of their outputs counts.
pub(super) struct Plan {
    pub(super) source: Source,
    /// The output that is kept.
    pub(super) take: String,
}

/// What the tasks differ in.
pub(super) enum Source {
    /// The artifact at an input: an item of a list, or a slice of so many rows.
    Input { port: String, rows: Option<NonZeroUsize> },
    /// The file that a parameter names.
    Files { param: String },
    /// All parameters, complete, for each task.
    Params(Vec<Value>),
}

fn wrong<T>(path: &[&str], message: impl Into<String>) -> Result<T, ParamError> {
    Err(ParamError { path: path.iter().map(|key| (*key).to_owned()).collect(), message: message.into() })
}

impl Plan {
    /// # Errors
    /// Parameters that contradict each other, or don't fit the template.
    pub(super) fn new(params: &MapParams, template: &TemplateUse<'_>) -> Result<Self, ParamError> {
        let over = template.beside.contains(&"over");
        let source = match (over, &params.files, params.values.is_empty()) {
            (true, None, true) => Source::Input { port: port(params, template)?, rows: params.rows },
            (true, Some(_), _) => return wrong(&["files"], "the items come from `over`; leave one of the two out"),
            (true, None, false) => return wrong(&["values"], "the items come from `over`; leave one of the two out"),
            (false, Some(_), false) => return wrong(&["values"], "`files` and `values` can't be combined"),
            (false, None, true) => {
                return wrong(&[], "there is nothing to run over: give `over`, `files` or `values`");
            }
            (false, files, _) => {
                if params.into.is_some() {
                    return wrong(&["into"], "only items of `over` go into an input");
                }
                if params.rows.is_some() {
                    return wrong(&["rows"], "only a frame at `over` has rows to slice");
                }
                match files {
                    Some(param) => files_of(param, template)?,
                    None => values(params, template)?,
                }
            }
        };
        Ok(Self { source, take: take(params, template)? })
    }

    /// The inputs that the template need not have from the pipeline.
    pub(super) fn fills(self) -> Vec<String> {
        match self.source {
            Source::Input { port, .. } => vec![port],
            Source::Files { .. } | Source::Params(_) => Vec::new(),
        }
    }
}

/// The input that takes the items.
fn port(params: &MapParams, template: &TemplateUse<'_>) -> Result<String, ParamError> {
    let signature: &Signature = template.stage.signature();
    let names: Vec<&str> =
        signature.inputs.iter().filter(|input| !input.template).map(|input| input.name.as_str()).collect();
    let name = template.name;
    if let Some(into) = &params.into {
        if names.contains(&into.as_str()) || signature.open.is_some() {
            return Ok(into.clone());
        }
        return wrong(&["into"], format!("stage `{name}` has no input `{into}`{}", meant(into, &names)));
    }
    match (template.open.as_slice(), names.as_slice()) {
        ([open], _) => Ok((*open).to_owned()),
        ([], [only]) => Ok((*only).to_owned()),
        ([], []) if signature.open.is_none() => {
            wrong(&[], format!("stage `{name}` takes no input that could be an item"))
        }
        ([], []) => wrong(&[], format!("which input of stage `{name}` takes the items? say `into = \"...\"`")),
        ([], names) | (names, _) => {
            let names = names.join("` or `");
            wrong(&[], format!("which input of stage `{name}` takes the items, `{names}`? say `into = \"...\"`"))
        }
    }
}

/// The output that is kept.
fn take(params: &MapParams, template: &TemplateUse<'_>) -> Result<String, ParamError> {
    let (name, outputs) = (template.name, template.stage.outputs(template.params));
    let names: Vec<&str> = outputs.iter().map(|output| output.name.as_str()).collect();
    let found = match &params.take {
        Some(take) => match outputs.iter().find(|output| output.name == *take) {
            Some(found) => found,
            None => return wrong(&["take"], format!("stage `{name}` has no output `{take}`{}", meant(take, &names))),
        },
        None => match outputs.first() {
            Some(first) => first,
            None => return wrong(&[], format!("stage `{name}` has no outputs")),
        },
    };
    match (params.gather, found.kind) {
        (Gather::Concat, Some(kind)) if kind != Kind::Frame => {
            wrong(&["gather"], format!("only frames can be put together, but `{name}.{}` is {kind}", found.name))
        }
        _ => Ok(found.name.clone()),
    }
}

fn files_of(param: &str, template: &TemplateUse<'_>) -> Result<Source, ParamError> {
    let Some(value) = template.params.get(param) else {
        let names: Vec<&str> =
            template.params.as_object().into_iter().flatten().map(|(name, _)| name.as_str()).collect();
        let message = format!("stage `{}` has no parameter `{param}`{}", template.name, meant(param, &names));
        return wrong(&["files"], message);
    };
    let is_text = |value: &Value| value.is_string();
    match is_text(value) || value.as_array().is_some_and(|list| list.iter().all(is_text)) {
        true => Ok(Source::Files { param: param.to_owned() }),
        false => wrong(&["files"], format!("`{param}` of stage `{}` is {value}, which names no files", template.name)),
    }
}

fn values(params: &MapParams, template: &TemplateUse<'_>) -> Result<Source, ParamError> {
    let mut columns = params.values.iter();
    let Some((first, column)) = columns.next() else { return Ok(Source::Params(Vec::new())) };
    if let Some((other, _)) = columns.find(|(_, other)| other.len() != column.len()) {
        let message = format!("`{first}` and `{other}` have different numbers of values");
        return wrong(&["values", other], message);
    }
    let mut tasks = Vec::with_capacity(column.len());
    for index in 0..column.len() {
        let mut task = template.params.clone();
        for (path, column) in &params.values {
            let value = column.get(index).cloned().unwrap_or_default();
            if let Err(message) = set(&mut task, path, value) {
                return wrong(&["values", path], message);
            }
        }
        match template.stage.normalise(&task) {
            Ok(task) => tasks.push(task),
            Err(error) => {
                let at = error.path.join(".");
                // The parameter that is wrong, if it is one of those that vary.
                let path = params.values.keys().find(|path| at.starts_with(path.as_str())).unwrap_or(first);
                let message = format!("stage `{}` does not take it: {error}", template.name);
                return wrong(&["values", path, &index.to_string()], message);
            }
        }
    }
    Ok(Source::Params(tasks))
}

/// Sets the parameter at a dotted path.
fn set(params: &mut Value, path: &str, value: Value) -> Result<(), String> {
    let mut place = params;
    let mut walked: Vec<&str> = Vec::new();
    for key in path.split('.') {
        if place.is_null() {
            *place = Value::Object(Map::new());
        }
        let found = place.to_string();
        let Value::Object(map) = place else {
            return Err(format!("`{}` is {found}, which has no `{key}`", walked.join(".")));
        };
        place = map.entry(key).or_insert(Value::Null);
        walked.push(key);
    }
    *place = value;
    Ok(())
}

/// "; did you mean `x`?", or which there are.
fn meant(name: &str, known: &[&str]) -> String {
    match (nearest(name, known.iter().copied()), known) {
        (Some(near), _) => format!("; did you mean `{near}`?"),
        (None, []) => String::new(),
        (None, known) => format!("; there is `{}`", known.join("`, `")),
    }
}
