//! Who takes what from whom.

use super::Source;
use super::diagnostic::{Place, Report, join, suggest};
use super::resolve::Draft;
use super::tree::{Content, Entry, Item, dotted};
use crate::data::Kind;
use crate::stage::{Input, Signature};
use std::collections::{BTreeMap, BTreeSet};

/// The references between stages. Stages are meant by their position in the file.
pub(super) struct Wires<'d> {
    drafts: &'d [Draft<'d>],
    dependencies: Vec<Vec<(usize, Option<Place>)>>,
    /// Who runs which template.
    templates: BTreeSet<(usize, usize)>,
    used: BTreeSet<usize>,
    /// The ports of each stage that are given something, right or wrong. No entry where a port's name is wrong: most
    /// likely it is the one that is missing.
    given: BTreeMap<usize, BTreeSet<String>>,
}

/// What a text like `split.train` means.
struct Reference {
    node: usize,
    /// The output's name; nothing if it is not known what the stage gives.
    output: Option<String>,
    kind: Option<Kind>,
}

/// A port and what is written for it.
struct Binding<'t> {
    port: String,
    /// The port as the stage declares it; nothing for one of an open stage.
    input: Option<Input>,
    item: &'t Item,
}

impl Source {
    pub(super) fn renumber(self, position: &[usize]) -> Self {
        let new = |node: usize| position.get(node).copied().unwrap_or(node);
        match self {
            Source::Outputs(outputs) => {
                Source::Outputs(outputs.into_iter().map(|(node, output)| (new(node), output)).collect())
            }
            Source::Template(node) => Source::Template(new(node)),
        }
    }
}

impl<'d> Wires<'d> {
    pub(super) fn new(drafts: &'d [Draft<'d>]) -> Self {
        let dependencies = vec![Vec::new(); drafts.len()];
        Self { drafts, dependencies, templates: BTreeSet::new(), used: BTreeSet::new(), given: BTreeMap::new() }
    }

    pub(super) fn name(&self, node: usize) -> &'d str {
        self.drafts.get(node).map_or("", |draft| draft.name)
    }

    /// The stages that come before one, and where that is written.
    pub(super) fn dependencies(&self, node: usize) -> impl Iterator<Item = (usize, &Option<Place>)> {
        self.dependencies.get(node).into_iter().flatten().map(|(before, place)| (*before, place))
    }

    /// For each stage, whether it is meant only as a template.
    pub(super) fn template_only(&self) -> Vec<bool> {
        let templates: BTreeSet<usize> = self.templates.iter().map(|(_, template)| *template).collect();
        (0..self.drafts.len()).map(|node| templates.contains(&node) && !self.used.contains(&node)).collect()
    }

    pub(super) fn draft(&self, node: usize) -> Option<&'d Draft<'d>> {
        self.drafts.get(node)
    }

    /// Who runs which template.
    pub(super) fn templates(&self) -> impl Iterator<Item = (usize, usize)> {
        self.templates.iter().copied()
    }

    /// The ports of a stage that are given something, right or wrong. Nothing if a port's name is wrong.
    pub(super) fn given(&self, node: usize) -> Option<&BTreeSet<String>> {
        self.given.get(&node)
    }

    /// Wires the inputs of a stage.
    pub(super) fn inputs(&mut self, node: usize, report: &mut Report) -> BTreeMap<String, Source> {
        let Some(draft) = self.drafts.get(node) else { return BTreeMap::new() };
        let mut inputs: BTreeMap<String, Source> = BTreeMap::new();
        let before = report.errors();
        let bindings = self.bindings(draft, report);
        if report.errors() == before {
            self.given.insert(node, bindings.iter().map(|binding| binding.port.clone()).collect());
        }
        for binding in bindings {
            let path = match binding.item {
                item if draft.from.is_some_and(|from| std::ptr::eq(from, item)) => {
                    dotted(&["stage", draft.name, "from"])
                }
                _ => dotted(&["stage", draft.name, "from", &binding.port]),
            };
            if inputs.contains_key(&binding.port) {
                let message = format!("two inputs of stage `{}` are called `{}`", draft.name, binding.port);
                report
                    .error("input-collision", binding.item.place.as_ref(), path, message)
                    .label("again here")
                    .help(format!("name them: from = {{ {} = \"...\", other = \"...\" }}", binding.port));
                continue;
            }
            if let Some(source) = self.source(node, &binding, &path, report) {
                inputs.insert(binding.port, source);
            }
        }
        inputs
    }

    /// Which port each part of `from` is for.
    fn bindings<'t>(&self, draft: &Draft<'t>, report: &mut Report) -> Vec<Binding<'t>> {
        let Some(from) = draft.from.filter(|from| !from.is_wrong()) else { return Vec::new() };
        let path = dotted(&["stage", draft.name, "from"]);
        let Some(stage) = &draft.stage else {
            // Nothing is known of its ports, but the names of other stages can be checked.
            return match &from.content {
                Content::Table(entries) => {
                    entries.iter().map(|e| Binding { port: e.key.clone(), input: None, item: &e.item }).collect()
                }
                _ => vec![Binding { port: String::new(), input: None, item: from }],
            };
        };
        let signature = stage.signature();
        let first = signature.inputs.first();
        if first.is_none() && signature.open.is_none() {
            let empty = from.entries().is_some_and(<[Entry]>::is_empty);
            if !empty {
                let message = format!("`{}` takes no inputs", draft.uses);
                report
                    .error("unknown-port", from.place.as_ref(), path, message)
                    .label("not taken")
                    .help("leave it out");
            }
            return Vec::new();
        }
        match (&from.content, first) {
            (Content::String(_), Some(first)) => {
                vec![Binding { port: first.name.clone(), input: Some(first.clone()), item: from }]
            }
            (Content::String(_), None) => by_reference(std::slice::from_ref(from), signature),
            (Content::Array(items), _) => match signature.inputs.iter().find(|input| input.many).or(first) {
                Some(port) if port.many || signature.open.is_none() => {
                    vec![Binding { port: port.name.clone(), input: Some(port.clone()), item: from }]
                }
                _ => by_reference(items, signature),
            },
            (Content::Table(entries), _) => {
                entries.iter().filter_map(|entry| self.named(entry, draft, signature, report)).collect()
            }
            _ => {
                let message = format!("`from`: expected a stage, a list or a table of stages, found {}", from.found());
                report.error("wrong-type", from.place.as_ref(), path, message).label("expected a stage");
                Vec::new()
            }
        }
    }

    fn named<'t>(
        &self,
        entry: &'t Entry,
        draft: &Draft<'_>,
        signature: &Signature,
        report: &mut Report,
    ) -> Option<Binding<'t>> {
        let input = signature.inputs.iter().find(|input| input.name == entry.key).cloned();
        if input.is_none() && signature.open.is_none() {
            let message = format!("`{}` has no input `{}`", draft.uses, entry.key);
            let path = dotted(&["stage", draft.name, "from", &entry.key]);
            report.error("unknown-port", entry.place.as_ref(), path, message).label("not an input").help(suggest(
                &entry.key,
                "inputs",
                signature.inputs.iter().map(|input| input.name.as_str()),
            ));
            return None;
        }
        Some(Binding { port: entry.key.clone(), input, item: &entry.item })
    }

    fn source(&mut self, node: usize, binding: &Binding<'_>, path: &str, report: &mut Report) -> Option<Source> {
        let draft = self.drafts.get(node)?;
        let known = draft.stage.is_some();
        let open_kind = draft.stage.as_ref().and_then(|stage| stage.signature().open.flatten());
        let input = binding.input.clone().unwrap_or_else(|| Input { kind: open_kind, ..Input::default() });
        let (template, many) = (input.template, input.many);
        let items = match &binding.item.content {
            Content::Array(items) if (many && !template) || !known => items.as_slice(),
            Content::Wrong => return None,
            Content::String(_) => std::slice::from_ref(binding.item),
            _ if !known => std::slice::from_ref(binding.item),
            _ => {
                let message = format!("input `{}`: expected one stage, found {}", binding.port, binding.item.found());
                let diagnostic = report.error("wrong-type", binding.item.place.as_ref(), path, message);
                diagnostic.label("expected a stage");
                if matches!(binding.item.content, Content::Array(_)) {
                    diagnostic.help(format!("`{}` takes one artifact at `{}`", draft.uses, binding.port));
                }
                return None;
            }
        };
        if items.is_empty() {
            let message = format!("input `{}` is given an empty list", binding.port);
            report.error("missing-input", binding.item.place.as_ref(), path, message).label("names no stage");
            return None;
        }
        if template {
            return self.template(node, items.first()?, path, report);
        }
        let mut outputs = Vec::new();
        for item in items {
            let reference = self.reference(item, path, report);
            if let Some(reference) = &reference {
                self.used.insert(reference.node);
                self.depend(node, reference.node, item);
                self.check_kind(
                    reference,
                    &input,
                    &format!("input `{}` of `{}`", binding.port, draft.uses),
                    item,
                    path,
                    report,
                );
            }
            outputs.push(reference.and_then(|reference| Some((reference.node, reference.output?))));
        }
        outputs.into_iter().collect::<Option<Vec<_>>>().map(Source::Outputs)
    }

    fn template(&mut self, node: usize, item: &Item, path: &str, report: &mut Report) -> Option<Source> {
        let text = item.as_str()?;
        if let Some((stage, _)) = text.split_once('.')
            && self.drafts.iter().any(|draft| draft.name == stage)
        {
            report
                .error(
                    "wrong-kind",
                    item.place.as_ref(),
                    path,
                    format!("`{text}` is an output; a stage itself is meant"),
                )
                .label("expected a stage")
                .help(format!("write \"{stage}\": it is run again and again"));
            return None;
        }
        let reference = self.reference(item, path, report)?;
        self.templates.insert((node, reference.node));
        self.depend(node, reference.node, item);
        Some(Source::Template(reference.node))
    }

    fn depend(&mut self, node: usize, before: usize, item: &Item) {
        if let Some(dependencies) = self.dependencies.get_mut(node) {
            dependencies.push((before, item.place.clone()));
        }
    }

    /// The models that a request passes through.
    pub(super) fn served(&mut self, item: &Item, path: &str, report: &mut Report) -> Option<Vec<(usize, String)>> {
        let items = match &item.content {
            Content::Array(items) if !items.is_empty() => items.as_slice(),
            Content::String(_) => std::slice::from_ref(item),
            Content::Wrong => return None,
            _ => {
                let message = format!("`apply`: expected a list of stages, found {}", item.found());
                report.error("wrong-type", item.place.as_ref(), path, message).label("expected a list of stages");
                return None;
            }
        };
        let mut models = Vec::new();
        for item in items {
            let reference = self.reference(item, path, report);
            if let Some(reference) = &reference {
                self.used.insert(reference.node);
                let model = Input { kind: Some(Kind::Model), ..Input::default() };
                self.check_kind(reference, &model, "`apply`", item, path, report);
            }
            models.push(reference.and_then(|reference| Some((reference.node, reference.output?))));
        }
        models.into_iter().collect()
    }

    /// Looks up `stage` or `stage.output`.
    fn reference(&self, item: &Item, path: &str, report: &mut Report) -> Option<Reference> {
        let Some(text) = item.as_str() else {
            if !item.is_wrong() {
                let message = format!("expected the name of a stage, found {}", item.found());
                report.error("wrong-type", item.place.as_ref(), path, message).label("expected a string");
            }
            return None;
        };
        let (stage, output) = match text.split_once('.') {
            Some((stage, output)) => (stage, Some(output)),
            None => (text, None),
        };
        let Some(node) = self.drafts.iter().position(|draft| draft.name == stage) else {
            let help = self
                .owner(stage)
                .unwrap_or_else(|| suggest(stage, "stages", self.drafts.iter().map(|draft| draft.name)));
            let place = item.part(report, 0, stage.len());
            report
                .error("unknown-stage", place.as_ref(), path, format!("there is no stage `{stage}`"))
                .label("not a stage of this pipeline")
                .help(help);
            return None;
        };
        let draft = self.drafts.get(node)?;
        let unsure = draft.params.is_none();
        let found = match output {
            Some(name) => draft.outputs.iter().find(|known| known.name == name),
            None => draft.outputs.first(),
        };
        let names = || draft.outputs.iter().map(|known| known.name.as_str());
        if let Some(found) = found {
            return Some(Reference { node, output: Some(found.name.clone()), kind: found.kind });
        }
        match output {
            // Parameters may name outputs. While they are wrong, only what looks like a slip is reported.
            Some(name) if !unsure || crate::nearest(name, names()).is_some() => {
                let place = item.part(report, stage.len() + 1, name.len());
                report
                    .error("unknown-output", place.as_ref(), path, format!("stage `{stage}` has no output `{name}`"))
                    .label("not an output")
                    .help(suggest(name, "outputs", names()));
            }
            None if !unsure => {
                let message = format!("stage `{stage}` gives nothing that could be taken");
                report.error("unknown-output", item.place.as_ref(), path, message).label("has no outputs");
            }
            _ => {}
        }
        Some(Reference { node, output: None, kind: None })
    }

    /// For a name that is the output of a stage: "did you mean `split.train`?".
    fn owner(&self, output: &str) -> Option<String> {
        let owner = self.drafts.iter().find(|draft| draft.outputs.iter().any(|known| known.name == output))?;
        Some(format!("did you mean `{}.{output}`?", owner.name))
    }

    fn check_kind(&self, reference: &Reference, input: &Input, by: &str, item: &Item, path: &str, report: &mut Report) {
        let (Some(wanted), Some(found), Some(draft)) = (input.kind, reference.kind, self.drafts.get(reference.node))
        else {
            return;
        };
        if input.takes(found) {
            return;
        }
        let text = item.as_str().unwrap_or_default();
        let fitting: Vec<String> = draft
            .outputs
            .iter()
            .filter(|output| output.kind.is_some_and(|kind| input.takes(kind)))
            .map(|output| format!("`{}.{}`", draft.name, output.name))
            .collect();
        let found = found.with_article();
        let or_parts = if input.parts { ", whole or as a list of parts" } else { "" };
        let message = format!("{by} takes {}{or_parts}, but `{text}` is {found}", wanted.with_article());
        let diagnostic = report.error("wrong-kind", item.place.as_ref(), path, message);
        diagnostic.label(found);
        if !fitting.is_empty() {
            diagnostic.help(format!("did you mean {}?", join(fitting, "or")));
        }
    }
}

/// Ports of an open stage that are not named are called like what they are given: `split.train` is `train`.
fn by_reference<'t>(items: &'t [Item], signature: &Signature) -> Vec<Binding<'t>> {
    let port = |item: &Item| item.as_str().and_then(|text| text.rsplit('.').next()).unwrap_or_default().to_owned();
    let declared = |name: &str| signature.inputs.iter().find(|input| input.name == name).cloned();
    let binding = |item| {
        let port = port(item);
        Binding { input: declared(&port), port, item }
    };
    items.iter().map(binding).collect()
}
