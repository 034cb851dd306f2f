//! From the tree to a pipeline: every stage known, every parameter checked, every input wired.

use super::diagnostic::{Diagnostic, Place, Report, SourceFile, alternatives, suggest};
use super::overrides::{self, Override};
use super::params::{self, Subject};
use super::tree::{Content, Entry, Item, dotted, report_duplicates};
use super::wiring::Wires;
use super::{Batch, Node, Pipeline, Pool, Replicas, Serve, graph, open, parse};
use crate::stage::{Needs, Output, ParamError, ParamSchema, Parameters, Registry, Stage};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// Reads a pipeline file, applies overrides, and checks everything. All mistakes come back, in the order of their
/// places; the pipeline comes back if none of them is an error.
pub fn resolve(
    source: &SourceFile,
    registry: &Registry,
    overrides: &[Override],
) -> (Option<Pipeline>, Vec<Diagnostic>) {
    let mut report = Report::new(source.clone());
    let pipeline = parse::parse(&mut report).and_then(|mut root| {
        overrides::apply(&mut root, overrides, &mut report);
        resolve_tree(&root, registry, &mut report)
    });
    (pipeline, report.finish())
}

/// A stage on its way to a [`Node`].
pub(super) struct Draft<'t> {
    pub(super) name: &'t str,
    pub(super) place: Option<&'t Place>,
    pub(super) from: Option<&'t Item>,
    pub(super) with: Option<&'t Item>,
    pub(super) uses: &'t str,
    /// Nothing if there is no such stage.
    pub(super) stage: Option<Arc<dyn Stage>>,
    /// Nothing if they are wrong.
    pub(super) params: Option<Value>,
    pub(super) outputs: Vec<Output>,
    needs: Needs,
    needs_item: Option<&'t Item>,
}

pub(super) fn resolve_tree(root: &Item, registry: &Registry, report: &mut Report) -> Option<Pipeline> {
    report_duplicates(root, &mut Vec::new(), report);
    const KEYS: [&str; 6] = ["name", "seed", "store", "stage", "serve", "pool"];
    for entry in root.entries().unwrap_or_default().iter().filter(|entry| !KEYS.contains(&entry.key.as_str())) {
        report
            .error("unknown-key", entry.place.as_ref(), &entry.key, format!("unknown key `{}`", entry.key))
            .label("not a key of a pipeline")
            .help(suggest(&entry.key, "keys", KEYS));
    }
    let name = name_of(root, report);
    let seed = seed_of(root, report);
    let store = text_of(root, "store", report);
    let drafts: Vec<Draft<'_>> = tables(root, "stage", report).map(|entry| draft(entry, registry, report)).collect();
    if drafts.is_empty() && !report.has_errors() {
        report
            .error("no-stages", None, "stage", "the pipeline has no stages")
            .help("a stage is written [stage.NAME] with `use = \"...\"`");
    }
    let mut wires = Wires::new(&drafts);
    let inputs: Vec<_> = (0..drafts.len()).map(|node| wires.inputs(node, report)).collect();
    open::report(&wires, report);
    let serve: BTreeMap<String, Serve> = tables(root, "serve", report)
        .filter_map(|entry| Some((entry.key.clone(), serve_of(entry, &mut wires, report)?)))
        .collect();
    let pools: Vec<Pool> = tables(root, "pool", report).filter_map(|entry| pool_of(entry, report)).collect();
    let dependencies: Vec<Vec<usize>> =
        (0..drafts.len()).map(|node| wires.dependencies(node).map(|(before, _)| before).collect()).collect();
    let order = match graph::order(&dependencies) {
        Ok(order) => order,
        Err(cycles) => {
            cycles.iter().for_each(|cycle| report_cycle(cycle, &wires, report));
            return None;
        }
    };
    if report.has_errors() {
        return None;
    }
    let template_only = wires.template_only();
    drafts.iter().zip(&template_only).filter(|(_, only)| !**only).for_each(|(draft, _)| report_misfit(draft, report));
    if report.has_errors() {
        return None;
    }
    let mut position = vec![0; order.len()];
    order.iter().enumerate().for_each(|(at, node)| position[*node] = at);
    let mut nodes: Vec<Option<Node>> = drafts
        .into_iter()
        .zip(inputs)
        .zip(template_only)
        .map(|((draft, inputs), template_only)| {
            let inputs = inputs.into_iter().map(|(port, source)| (port, source.renumber(&position))).collect();
            Some(Node {
                name: draft.name.to_owned(),
                uses: draft.uses.to_owned(),
                stage: draft.stage?,
                inputs,
                params: draft.params?,
                needs: draft.needs,
                outputs: draft.outputs,
                template_only,
            })
        })
        .collect();
    let stages = order.into_iter().map(|node| nodes.get_mut(node)?.take()).collect::<Option<Vec<Node>>>()?;
    let renumbered = |mut serve: Serve| {
        serve.apply.iter_mut().for_each(|(node, _)| *node = position[*node]);
        serve
    };
    let serve = serve.into_iter().map(|(name, serve)| (name, renumbered(serve))).collect();
    Some(Pipeline { name, seed, store, stages, serve, pools })
}

fn name_of(root: &Item, report: &mut Report) -> String {
    text_of(root, "name", report).unwrap_or_else(|| {
        let file = report.source(0).map(|file| file.name.clone());
        let stem = file.as_deref().and_then(|name| Path::new(name).file_stem()?.to_str().map(str::to_owned));
        stem.unwrap_or_else(|| "pipeline".into())
    })
}

fn text_of(root: &Item, key: &str, report: &mut Report) -> Option<String> {
    let item = root.get(key).filter(|item| !item.is_wrong())?;
    match item.as_str() {
        Some(text) if !text.trim().is_empty() => Some(text.to_owned()),
        _ => {
            let message = format!("`{key}`: expected a string, found {}", item.found());
            report.error("wrong-type", item.place.as_ref(), key, message).label("expected a string");
            None
        }
    }
}

fn seed_of(root: &Item, report: &mut Report) -> u64 {
    let Some(item) = root.get("seed") else { return 0 };
    let table = Item::new(None, Content::Table(root.entry("seed").cloned().into_iter().collect()));
    let schema = json!({ "properties": { "seed": { "type": "integer", "minimum": 0 } } });
    params::check_schema(&schema, &table, Subject { noun: "key", of: "the pipeline", path: &[] }, report);
    item.to_json().as_u64().unwrap_or(0)
}

/// The tables `[kind.NAME]` with good names.
fn tables<'t>(root: &'t Item, kind: &'static str, report: &mut Report) -> impl Iterator<Item = &'t Entry> + use<'t> {
    let mut found: Vec<&Entry> = Vec::new();
    let item = root.get(kind).filter(|item| !item.is_wrong());
    if let Some(item) = item.filter(|item| item.entries().is_none()) {
        let message = format!("`{kind}`: expected tables [{kind}.NAME], found {}", item.found());
        report.error("wrong-type", item.place.as_ref(), kind, message).label("expected a table");
    }
    for entry in item.and_then(Item::entries).unwrap_or_default() {
        let name = entry.key.as_str();
        if !is_name(name) {
            report
                .error("bad-name", entry.place.as_ref(), dotted(&[kind, name]), format!("{name:?} can't be a name"))
                .label("not a name")
                .help("names begin with a letter from a to z; letters from a to z, digits, `-` and `_` may follow");
        }
        match &entry.item.content {
            Content::Wrong => {}
            // Only a builder makes two of the same name, and that is reported.
            Content::Table(_) if found.iter().any(|other| other.key == *name) => {}
            Content::Table(_) => found.push(entry),
            _ => {
                let path = dotted(&[kind, name]);
                let message = format!("`{path}`: expected a table, found {}", entry.item.found());
                report
                    .error("wrong-type", entry.item.place.as_ref(), path, message)
                    .label("expected a table")
                    .help(format!("begin it with [{kind}.{name}]"));
            }
        }
    }
    found.into_iter()
}

fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-')
}

fn draft<'t>(entry: &'t Entry, registry: &Registry, report: &mut Report) -> Draft<'t> {
    let name = entry.key.as_str();
    let (uses, stage) = used_stage(entry, registry, report);
    report_unknown_keys(entry, &["use", "from", "with", "needs"], stage.as_deref(), report);
    let of = if uses.is_empty() { format!("stage `{name}`") } else { format!("`{uses}`") };
    let params = stage.as_ref().and_then(|stage| {
        let absent = Item::empty_table(entry.place.clone());
        let item = entry.item.get("with").unwrap_or(&absent);
        let subject = Subject { noun: "parameter", of: &of, path: &["stage", name, "with"] };
        params::check(stage.signature().params.as_ref(), |params| stage.normalise(params), item, subject, report)
    });
    let check = |needs: &Needs| match &stage {
        Some(stage) => needs.check_for(uses, &**stage, None),
        None => needs.check(),
    };
    let needs_item = entry.item.get("needs");
    let needs = needs_item.and_then(|item| read_needs(name, item, check, report));
    let outputs = match (&stage, &params) {
        (Some(stage), Some(params)) => stage.outputs(params),
        (Some(stage), None) => stage.signature().outputs.clone(),
        (None, _) => Vec::new(),
    };
    for (index, output) in outputs.iter().enumerate() {
        if outputs.iter().take(index).any(|other| other.name == output.name) {
            let place = entry.item.get("with").and_then(|with| with.place.as_ref()).or(entry.place.as_ref());
            let message = format!("stage `{name}` has two outputs called `{}`", output.name);
            report
                .error("output-collision", place, dotted(&["stage", name, "with"]), message)
                .label(format!("gives `{}` twice", output.name))
                .help("give one of them another name");
        }
    }
    let (from, with) = (entry.item.get("from"), entry.item.get("with"));
    let needs = needs.unwrap_or_default();
    Draft { name, place: entry.place.as_ref(), from, with, uses, stage, params, outputs, needs, needs_item }
}

fn read_needs(
    stage: &str,
    item: &Item,
    check: impl Fn(&Needs) -> Result<(), ParamError>,
    report: &mut Report,
) -> Option<Needs> {
    let subject = Subject { noun: "key", of: "`needs`", path: &["stage", stage, "needs"] };
    read_checked(item, subject, check, report)
}

/// Reports needs that do not go with a stage's parameters: not of one that is only a template, for what runs it gives
/// others.
fn report_misfit(draft: &Draft<'_>, report: &mut Report) {
    let (Some(stage), Some(params), Some(item)) = (&draft.stage, &draft.params, draft.needs_item) else { return };
    read_needs(draft.name, item, |needs| needs.check_for(draft.uses, &**stage, Some(params)), report);
}

fn used_stage<'t>(entry: &'t Entry, registry: &Registry, report: &mut Report) -> (&'t str, Option<Arc<dyn Stage>>) {
    let name = entry.key.as_str();
    let path = dotted(&["stage", name, "use"]);
    let Some(item) = entry.item.get("use") else {
        report
            .error("missing-key", entry.place.as_ref(), path, format!("stage `{name}` does not say what it uses"))
            .label("`use` is missing")
            .help("write `use = \"...\"`; `ropeway stages` lists what there is");
        return ("", None);
    };
    let Some(uses) = item.as_str() else {
        if !item.is_wrong() {
            let message = format!("`use`: expected the name of a stage, found {}", item.found());
            report.error("wrong-type", item.place.as_ref(), path, message).label("expected a string");
        }
        return ("", None);
    };
    let stage = registry.get(uses).cloned();
    if stage.is_none() {
        let help = match registry.nearest(uses) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "`ropeway stages` lists what there is".to_owned(),
        };
        report
            .error("unknown-stage", item.place.as_ref(), path, format!("there is no kind of stage called `{uses}`"))
            .label("not known")
            .help(help);
    }
    (uses, stage)
}

fn report_unknown_keys(entry: &Entry, known: &[&str], stage: Option<&dyn Stage>, report: &mut Report) {
    let name = &entry.key;
    let params = stage.and_then(|stage| stage.signature().params.as_ref());
    let properties = params.and_then(|params| params.schema().get("properties"));
    for key in entry.item.entries().unwrap_or_default().iter().filter(|key| !known.contains(&key.key.as_str())) {
        let help = match properties.and_then(|properties| properties.get(&key.key)) {
            Some(_) => format!("parameters go into `with`: with = {{ {} = ... }}", key.key),
            None => suggest(&key.key, "keys", known.iter().copied()),
        };
        let kind = if known.contains(&"use") { "stage" } else { "serve" };
        report
            .error(
                "unknown-key",
                key.place.as_ref(),
                dotted(&[kind, name, &key.key]),
                format!("unknown key `{}` of {kind} `{name}`", key.key),
            )
            .label("not a key")
            .help(help);
    }
}

/// Reads a table into a type.
fn read<T: Parameters>(item: &Item, subject: Subject<'_>, report: &mut Report) -> Option<T> {
    read_checked(item, subject, |_| Ok(()), report)
}

/// Reads a table into a type, and checks what only the whole can show.
fn read_checked<T: Parameters>(
    item: &Item,
    subject: Subject<'_>,
    check: impl Fn(&T) -> Result<(), ParamError>,
    report: &mut Report,
) -> Option<T> {
    let schema = ParamSchema::of::<T>();
    let unreadable = |error: serde_json::Error| ParamError { path: Vec::new(), message: error.to_string() };
    let normalise = |value: &Value| {
        let value = schema.normalise(value)?;
        check(&T::deserialize(&value).map_err(unreadable)?)?;
        Ok(value)
    };
    let value = params::check(Some(&schema), normalise, item, subject, report)?;
    serde_json::from_value(value).ok()
}

fn pool_of(entry: &Entry, report: &mut Report) -> Option<Pool> {
    let name = entry.key.as_str();
    let of = format!("pool `{name}`");
    let subject = Subject { noun: "key", of: &of, path: &["pool", name] };
    let pool = read_checked(&entry.item, subject, Pool::check, report)?;
    Some(Pool { name: name.to_owned(), ..pool })
}

fn serve_of(entry: &Entry, wires: &mut Wires<'_>, report: &mut Report) -> Option<Serve> {
    let name = entry.key.as_str();
    report_unknown_keys(entry, &["apply", "batch", "replicas"], None, report);
    let path = |key: &'static str| ["serve", name, key];
    let batch: Option<Batch> = match entry.item.get("batch") {
        Some(item) => read(item, Subject { noun: "key", of: "`batch`", path: &path("batch") }, report),
        None => Some(Batch::default()),
    };
    let replicas: Option<Replicas> = match entry.item.get("replicas") {
        Some(item) => read(item, Subject { noun: "key", of: "`replicas`", path: &path("replicas") }, report),
        None => Some(Replicas::default()),
    };
    let Some(item) = entry.item.get("apply") else {
        report
            .error(
                "missing-key",
                entry.place.as_ref(),
                dotted(&path("apply")),
                format!("serve `{name}` applies nothing"),
            )
            .label("`apply` is missing")
            .help("write `apply = [\"...\"]`: the stages whose models a request passes through");
        return None;
    };
    let apply = wires.served(item, &dotted(&path("apply")), report)?;
    Some(Serve { apply, batch: batch?, replicas: replicas? })
}

fn report_cycle(cycle: &[usize], wires: &Wires<'_>, report: &mut Report) {
    let names: Vec<&str> = cycle.iter().chain(cycle.first()).map(|node| wires.name(*node)).collect();
    let mut edges = cycle.iter().zip(cycle.iter().cycle().skip(1)).map(|(node, before)| {
        let place = wires.dependencies(*node).find(|(other, _)| other == before).and_then(|(_, place)| place.clone());
        (wires.name(*node), wires.name(*before), place)
    });
    let Some((node, before, place)) = edges.next() else { return };
    let notes: Vec<String> = edges
        .filter_map(|(node, before, place)| {
            Some(format!("`{node}` takes from `{before}` in {}", report.line_of(place.as_ref())?))
        })
        .collect();
    let message = match cycle {
        [_] => format!("stage `{node}` depends on itself: {}", names.join(" -> ")),
        _ => format!(
            "{} depend on each other in a circle: {}",
            alternatives_and(&names, cycle.len()),
            names.join(" -> ")
        ),
    };
    let diagnostic = report.error("cycle", place.as_ref(), dotted(&["stage", node, "from"]), message);
    diagnostic.label(if node == before { "takes from itself".into() } else { format!("takes from `{before}`") });
    diagnostic.notes = notes;
}

fn alternatives_and(names: &[&str], count: usize) -> String {
    if count > 4 {
        return format!("{count} stages");
    }
    alternatives(names.iter().take(count).copied()).replace(" or ", " and ")
}
