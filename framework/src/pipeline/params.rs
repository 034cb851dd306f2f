//! Parameters against the stage's JSON Schema: all mistakes at once, each at its place.
//!
//! The walk reports only what reading the parameters would refuse too; what a schema can't say, the stage's own
//! `normalise` checks afterwards.

use super::diagnostic::{Place, Report, suggest};
use super::shape::{Root, Shape, fits};
use super::tree::{Content, Entry, Item, dotted};
use crate::stage::{ParamError, ParamSchema};
use serde_json::Value;

/// Whose parameters are checked, for messages.
#[derive(Clone, Copy)]
pub(super) struct Subject<'a> {
    /// "parameter" or "key".
    pub(super) noun: &'static str,
    /// Whose: "`train`".
    pub(super) of: &'a str,
    /// The path of the table in the file.
    pub(super) path: &'a [&'a str],
}

/// A mistake that is not reported yet: only the option that comes nearest reports its own.
#[derive(Clone)]
pub(super) struct Mistake {
    pub(super) code: &'static str,
    pub(super) place: Option<Place>,
    pub(super) path: Vec<String>,
    pub(super) message: String,
    pub(super) label: String,
    pub(super) help: Option<String>,
}

/// Checks a table, and reads it if nothing is wrong: the value with every default filled in.
pub(super) fn check(
    schema: Option<&ParamSchema>,
    normalise: impl Fn(&Value) -> Result<Value, ParamError>,
    item: &Item,
    subject: Subject<'_>,
    report: &mut Report,
) -> Option<Value> {
    let before = report.errors();
    match schema {
        Some(schema) => check_schema(schema.schema(), item, subject, report),
        None => expect_nothing(item, subject, report),
    }
    if report.errors() > before || holds_wrong(item) {
        return None;
    }
    match normalise(&item.to_json()) {
        Ok(value) => Some(value),
        Err(error) => {
            report_wrong(error, item, subject, report);
            None
        }
    }
}

/// Reports what a type or a stage found wrong with a table, as near to its place as can be.
pub(super) fn report_wrong(error: ParamError, item: &Item, subject: Subject<'_>, report: &mut Report) {
    let (place, walked) = item.locate(&error.path);
    let key = if walked.is_empty() { String::new() } else { format!("`{}` of ", dotted(&walked)) };
    let mut path: Vec<String> = subject.path.iter().map(|key| (*key).to_owned()).collect();
    path.extend(walked);
    let message = format!("{key}{}: {}", subject.of, error.message);
    report.error("wrong-value", place, dotted(&path), message).label(error.message);
}

/// Reports all that a schema says is wrong.
pub(super) fn check_schema(schema: &Value, item: &Item, subject: Subject<'_>, report: &mut Report) {
    let mut walk = Walk { root: Root(schema), subject, path: Vec::new(), depth: 0 };
    let mut found = Vec::new();
    walk.item(schema, item, &[], &mut found);
    for mistake in found {
        let mut path: Vec<String> = subject.path.iter().map(|key| (*key).to_owned()).collect();
        path.extend(mistake.path);
        let diagnostic = report.error(mistake.code, mistake.place.as_ref(), dotted(&path), mistake.message);
        diagnostic.label(mistake.label);
        diagnostic.help = mistake.help;
    }
}

fn expect_nothing(item: &Item, subject: Subject<'_>, report: &mut Report) {
    let first = match &item.content {
        Content::Table(entries) => entries.first().map(|entry| entry.place.as_ref()),
        Content::Null | Content::Wrong => None,
        _ => Some(item.place.as_ref()),
    };
    if let Some(place) = first {
        let message = format!("{} takes no {}s", subject.of, subject.noun);
        report.error("unknown-parameter", place, dotted(subject.path), message).label("not taken");
    }
}

fn holds_wrong(item: &Item) -> bool {
    match &item.content {
        Content::Wrong => true,
        Content::Array(items) => items.iter().any(holds_wrong),
        Content::Table(entries) => entries.iter().any(|entry| holds_wrong(&entry.item)),
        _ => false,
    }
}

pub(super) struct Walk<'s, 'a> {
    pub(super) root: Root<'s>,
    pub(super) subject: Subject<'a>,
    pub(super) path: Vec<String>,
    depth: usize,
}

/// A schema can refer to itself without end; no TOML that a parser takes is nested this deep.
const DEEPEST: usize = 256;

impl<'s> Walk<'s, '_> {
    /// Checks a value. `beside` are keys that belong to what stands around the schema.
    pub(super) fn item(&mut self, schema: &'s Value, item: &Item, beside: &[&'s str], out: &mut Vec<Mistake>) {
        if item.is_wrong() || self.depth > DEEPEST {
            return;
        }
        self.depth += 1;
        self.value(schema, item, beside, out);
        self.depth -= 1;
    }

    fn value(&mut self, schema: &'s Value, item: &Item, beside: &[&'s str], out: &mut Vec<Mistake>) {
        let shape = self.root.shape(schema);
        let wrong_type = shape.types().is_some_and(|types| !types.iter().any(|name| fits(name, item)));
        let not_allowed =
            shape.allowed().is_some_and(|allowed| !allowed.into_iter().any(|value| *value == item.to_json()));
        if wrong_type || not_allowed || *schema == Value::Bool(false) {
            let names: Vec<&str> = shape.allowed().into_iter().flatten().filter_map(Value::as_str).collect();
            let near = item.as_str().and_then(|text| crate::nearest(text, names));
            let not_finite =
                matches!(item.content, Content::Null) && shape.types().is_some_and(|types| types.contains(&"number"));
            out.push(Mistake {
                help: match near {
                    Some(near) => Some(format!("did you mean `{near}`?")),
                    None => not_finite.then(|| "JSON has null for numbers that are not finite".to_owned()),
                },
                ..self.expected(schema, item, if wrong_type { "wrong-type" } else { "unknown-choice" })
            });
            return;
        }
        match &item.content {
            Content::Number(number) => {
                let bounds = shape.type_bounds();
                if number.as_f64().is_some_and(|number| !bounds.hold(number)) {
                    let plain = shape.bounds();
                    let kind = if shape.types().is_some_and(|types| types.contains(&"number")) { "" } else { "whole " };
                    let out_of_plain = number.as_f64().is_some_and(|number| !plain.hold(number));
                    let range = if out_of_plain { plain.in_words() } else { bounds.in_words() };
                    out.push(self.mistake("out-of-range", item, format!("a {kind}number{range}")));
                }
            }
            Content::String(text) => self.length("Length", "character", text.chars().count(), &shape, item, out),
            Content::Array(items) => self.list(&shape, item, items, out),
            Content::Table(entries) => self.table(&shape, item, entries, beside, out),
            _ => {}
        }
        if !shape.choices.is_empty() {
            let mut beside = beside.to_vec();
            beside.extend(shape.properties());
            for choice in &shape.choices {
                self.choice(schema, choice, item, &beside, out);
            }
        }
    }

    fn list(&mut self, shape: &Shape<'s>, item: &Item, items: &[Item], out: &mut Vec<Mistake>) {
        self.length("Items", "element", items.len(), shape, item, out);
        for part in &shape.parts {
            let first = part.get("prefixItems").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
            let rest = part.get("items").filter(|rest| rest.is_object());
            for (index, item) in items.iter().enumerate() {
                if let Some(schema) = first.get(index).or(rest) {
                    self.path.push(index.to_string());
                    self.item(schema, item, &[], out);
                    self.path.pop();
                }
            }
        }
    }

    fn length(&self, what: &str, unit: &str, count: usize, shape: &Shape<'s>, item: &Item, out: &mut Vec<Mistake>) {
        let count = count as u64;
        let (least, most) = (shape.count(&format!("min{what}")), shape.count(&format!("max{what}")));
        if least.is_none_or(|least| count >= least) && most.is_none_or(|most| count <= most) {
            return;
        }
        let units = |n: u64| format!("{n} {unit}{}", if n == 1 { "" } else { "s" });
        let wanted = match (least, most) {
            (Some(least), Some(most)) if least == most => units(least),
            (Some(least), _) if count < least => format!("at least {}", units(least)),
            (_, most) => format!("at most {}", units(most.unwrap_or_default())),
        };
        let name = self.name();
        out.push(Mistake {
            message: format!("{name}expected {wanted}, found {count}"),
            label: format!("expected {wanted}"),
            ..self.mistake("out-of-range", item, wanted)
        });
    }

    fn table(&mut self, shape: &Shape<'s>, item: &Item, entries: &[Entry], beside: &[&'s str], out: &mut Vec<Mistake>) {
        let additional = shape.additional();
        let closed = additional.is_empty() && (shape.closed() || (beside.is_empty() && shape.silent()));
        let mut known = shape.properties();
        known.extend(beside);
        if closed {
            known.extend(
                shape.choices.iter().flat_map(|choice| choice.iter()).flat_map(|o| self.root.shape(o).properties()),
            );
        }
        for entry in entries {
            self.path.push(entry.key.clone());
            let schemas = shape.property(&entry.key);
            if !schemas.is_empty() {
                for schema in schemas {
                    self.item(schema, &entry.item, &[], out);
                }
            } else if !known.contains(&entry.key.as_str()) {
                let numeric = entry.key.trim_start_matches('-').chars().all(|c| c.is_ascii_digit());
                let patterns = shape.parts.iter().filter_map(|part| part.get("patternProperties")?.as_object());
                let by_pattern: Vec<&Value> = patterns.flat_map(|map| map.values()).filter(|_| numeric).collect();
                for schema in by_pattern.iter().chain(&additional) {
                    self.item(schema, &entry.item, &[], out);
                }
                if closed && by_pattern.is_empty() {
                    out.push(self.unknown(entry, &known));
                }
            }
            self.path.pop();
        }
        for name in shape.required() {
            // A wrong key that is close to a missing one is the same mistake.
            let meant = |entry: &&Entry| closed && !known.contains(&entry.key.as_str());
            let misspelt = entries.iter().filter(meant).any(|entry| crate::nearest(&entry.key, [name]).is_some());
            if !misspelt && !entries.iter().any(|entry| entry.key == name) {
                out.push(self.missing(shape, name, item));
            }
        }
    }

    fn unknown(&self, entry: &Entry, known: &[&str]) -> Mistake {
        let Subject { noun, of, .. } = self.subject;
        let path = dotted(&self.path);
        Mistake {
            code: if noun == "parameter" { "unknown-parameter" } else { "unknown-key" },
            place: entry.place.clone(),
            path: self.path.clone(),
            message: format!("unknown {noun} `{path}` of {of}"),
            label: format!("not a {noun}"),
            help: Some(suggest(&entry.key, &format!("{noun}s"), known.iter().copied())),
        }
    }

    fn missing(&self, shape: &Shape<'s>, name: &str, item: &Item) -> Mistake {
        let Subject { noun, of, .. } = self.subject;
        let mut path = self.path.clone();
        path.push(name.to_owned());
        let about = shape.property(name).into_iter().find_map(|schema| schema.get("description")?.as_str());
        Mistake {
            code: "missing-parameter",
            place: item.place.clone(),
            message: format!("{noun} `{}` of {of} is missing", dotted(&path)),
            label: format!("`{name}` is missing"),
            help: about.map(|about| format!("`{name}`: {}", about.lines().next().unwrap_or_default())),
            path,
        }
    }

    /// "`rate` of `train`: ".
    fn name(&self) -> String {
        match self.path.as_slice() {
            [] => format!("{}: ", self.subject.of),
            path => format!("`{}` of {}: ", dotted(path), self.subject.of),
        }
    }

    pub(super) fn mistake(&self, code: &'static str, item: &Item, expected: String) -> Mistake {
        Mistake {
            code,
            place: item.place.clone(),
            path: self.path.clone(),
            message: format!("{}expected {expected}, found {}", self.name(), item.found()),
            label: format!("expected {expected}"),
            help: None,
        }
    }

    pub(super) fn expected(&self, schema: &'s Value, item: &Item, code: &'static str) -> Mistake {
        self.mistake(code, item, self.root.expected(schema))
    }
}
