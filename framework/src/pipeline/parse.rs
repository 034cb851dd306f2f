//! TOML to the tree, with the place of every key and value.

use super::diagnostic::{Place, Report};
use super::tree::{Content, Entry, Item, dotted};
use serde_json::Number;
use std::ops::Range;
use toml::Spanned;
use toml::de::{DeFloat, DeInteger, DeTable, DeValue};

/// Reads the first source of a report. Nothing comes back if it is no TOML at all; a key that is given twice is
/// reported, and the rest is read.
pub(super) fn parse(report: &mut Report) -> Option<Item> {
    let text = report.source(0)?.text.clone();
    let (root, errors) = DeTable::parse_recoverable(&text);
    let mut broken = false;
    let mut lines = Vec::new();
    let mut double_headers = Vec::new();
    for error in errors {
        let span = error.span().unwrap_or(text.len()..text.len());
        if error.message() == "duplicate key" {
            report_duplicate(&text, span, root.get_ref(), &mut double_headers, report);
            continue;
        }
        if error.message().starts_with("cannot extend value") {
            let message = format!("{} given elsewhere", error.message());
            report.error("duplicate", Some(&Place { source: 0, span }), "", message);
            continue;
        }
        broken = true;
        // One slip often makes the parser stumble several times; what comes first is what was wrong.
        let line = text.as_bytes().iter().take(span.start).filter(|byte| **byte == b'\n').count();
        if lines.contains(&line) {
            continue;
        }
        lines.push(line);
        report
            .error("syntax", Some(&Place { source: 0, span }), "", format!("this is not TOML: {}", error.message()))
            .label(error.message());
    }
    if broken {
        return None;
    }
    let mut reader = Reader { source: 0, offset: 0, path: Vec::new(), report };
    Some(reader.table(root.get_ref(), 0..0))
}

/// Reads a value that stands at `offset` of a source.
pub(super) fn parse_value(text: &str, source: usize, offset: usize, report: &mut Report) -> Option<Item> {
    let value = DeValue::parse(text).ok()?;
    Some(Reader { source, offset, path: Vec::new(), report }.value(&value))
}

/// Whether a text is a TOML value.
pub(super) fn is_value(text: &str) -> bool {
    DeValue::parse(text).is_ok()
}

/// The segments of a dotted key with their places.
pub(super) fn parse_key(key: &str) -> Option<Vec<(String, Range<usize>)>> {
    let line = format!("{key} = 0");
    let table = DeTable::parse(&line).ok()?;
    let mut path = Vec::new();
    let mut level = table.get_ref();
    loop {
        let mut entries = level.iter();
        let (Some((name, value)), None) = (entries.next(), entries.next()) else { return None };
        path.push((name.get_ref().to_string(), name.span()));
        match value.get_ref() {
            DeValue::Table(inner) => level = inner,
            // A key of several lines, or one with a `=` in it, gives another value.
            DeValue::Integer(zero) if zero.as_str() == "0" && value.span().end == line.len() => return Some(path),
            _ => return None,
        }
    }
}

struct Reader<'a> {
    source: usize,
    offset: usize,
    /// The keys that lead to what is read.
    path: Vec<String>,
    report: &'a mut Report,
}

impl Reader<'_> {
    fn place(&self, span: Range<usize>) -> Place {
        Place { source: self.source, span: span.start + self.offset..span.end + self.offset }
    }

    fn value(&mut self, value: &Spanned<DeValue<'_>>) -> Item {
        let place = self.place(value.span());
        let content = match value.get_ref() {
            DeValue::String(text) => Content::String(text.to_string()),
            DeValue::Integer(integer) => self.number(integer_of(integer), integer.as_str(), &place, "too large"),
            DeValue::Float(float) => self.number(float_of(float), float.as_str(), &place, "not finite"),
            DeValue::Boolean(value) => Content::Bool(*value),
            DeValue::Datetime(datetime) => Content::String(datetime.to_string()),
            DeValue::Array(items) => Content::Array(items.iter().map(|item| self.value(item)).collect()),
            DeValue::Table(table) => return self.table(table, value.span()),
        };
        Item::new(Some(place), content)
    }

    fn table(&mut self, table: &DeTable<'_>, span: Range<usize>) -> Item {
        let mut entries: Vec<_> = table.iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        let entries = entries
            .into_iter()
            .map(|(key, value)| {
                self.path.push(key.get_ref().to_string());
                let item = self.value(value);
                let key_is_at = Some(self.place(key.span()));
                Entry { key: self.path.pop().unwrap_or_default(), place: key_is_at, item }
            })
            .collect();
        Item::new(Some(self.place(span)), Content::Table(entries))
    }

    fn number(&mut self, number: Option<Number>, text: &str, place: &Place, why: &str) -> Content {
        match number {
            Some(number) => Content::Number(number),
            None => {
                let path: Vec<&str> = self.path.iter().map(String::as_str).collect();
                let of = if path.is_empty() { String::new() } else { format!("`{}`: ", dotted(&path)) };
                self.report.error("number", Some(place), dotted(&path), format!("{of}{text} is {why}")).label(why);
                Content::Wrong
            }
        }
    }
}

fn integer_of(integer: &DeInteger<'_>) -> Option<Number> {
    let (text, radix) = (integer.as_str(), integer.radix());
    let signed = i64::from_str_radix(text, radix).ok().map(Number::from);
    signed.or_else(|| u64::from_str_radix(text, radix).ok().map(Number::from))
}

fn float_of(float: &DeFloat<'_>) -> Option<Number> {
    Number::from_f64(float.as_str().parse().ok()?)
}

/// Reports a key or a header that occurs twice, and where it was first.
fn report_duplicate(
    text: &str,
    span: Range<usize>,
    root: &DeTable<'_>,
    double_headers: &mut Vec<usize>,
    report: &mut Report,
) {
    let place = Place { source: 0, span: span.clone() };
    let lines = || {
        let mut start = 0;
        text.split_inclusive('\n').map(move |line| {
            start += line.len();
            (start - line.len(), line.trim())
        })
    };
    let header = lines().take_while(|(start, _)| *start <= span.start).filter(|(_, line)| line.starts_with('[')).last();
    if let Some((start, line)) = header {
        if span.start < start + line.len() {
            double_headers.push(start);
            let first = lines().find(|(at, other)| *at < start && *other == line);
            let inner = line.split('#').next().unwrap_or(line).trim().trim_matches(['[', ']']);
            let message = match inner.split_once('.') {
                Some(("stage", name)) => format!("stage `{name}` is defined twice"),
                _ => format!("`[{inner}]` is given twice"),
            };
            let first = first.map(|(at, _)| Place { source: 0, span: at..at });
            let line = report.line_of(first.as_ref());
            let diagnostic = report.error("duplicate", Some(&place), inner, message).label("again here");
            if let Some(line) = line {
                diagnostic.note(format!("it is first given in {line}"));
            }
            return;
        }
        // The keys of a table that is given twice are not news.
        if double_headers.contains(&start) {
            return;
        }
    }
    let key = text.get(span.clone()).unwrap_or_default().trim_matches(['"', '\'']);
    let mut first = None;
    nearest_before(root, key, span.start, &mut first);
    let line = report.line_of(first.map(|at| Place { source: 0, span: at..at }).as_ref());
    let diagnostic =
        report.error("duplicate", Some(&place), key, format!("`{key}` is given twice")).label("again here");
    if let Some(line) = line {
        diagnostic.note(format!("it is first given in {line}"));
    }
}

fn nearest_before(table: &DeTable<'_>, key: &str, before: usize, found: &mut Option<usize>) {
    for (name, value) in table {
        let at = name.span().start;
        if name.get_ref() == key && at < before && found.is_none_or(|other| other < at) {
            *found = Some(at);
        }
        if let DeValue::Table(inner) = value.get_ref() {
            nearest_before(inner, key, before, found);
        }
    }
}
