//! The pipeline as it was written: values with their places. Files, overrides and builders all make this tree.

use super::diagnostic::{Place, Report};
use serde_json::{Map, Number, Value};

/// A value and where it was written.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub(super) place: Option<Place>,
    pub(super) content: Content,
}

/// What a value is.
#[derive(Clone, Debug)]
pub(super) enum Content {
    /// Only from a program; TOML has none.
    Null,
    Bool(bool),
    Number(Number),
    String(String),
    Array(Vec<Item>),
    /// In the order in which it was written.
    Table(Vec<Entry>),
    /// Reported already: it fits everywhere, so that nothing is said twice.
    Wrong,
}

/// A key with its value.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) place: Option<Place>,
    pub(super) item: Item,
}

impl Item {
    pub(super) fn new(place: Option<Place>, content: Content) -> Self {
        Self { place, content }
    }

    pub(super) fn empty_table(place: Option<Place>) -> Self {
        Self::new(place, Content::Table(Vec::new()))
    }

    /// A value of a program, without places.
    pub(super) fn from_json(value: &Value) -> Self {
        Self::new(
            None,
            match value {
                Value::Null => Content::Null,
                Value::Bool(value) => Content::Bool(*value),
                Value::Number(value) => Content::Number(value.clone()),
                Value::String(value) => Content::String(value.clone()),
                Value::Array(items) => Content::Array(items.iter().map(Self::from_json).collect()),
                Value::Object(map) => Content::Table(
                    map.iter()
                        .map(|(key, value)| Entry { key: key.clone(), place: None, item: Self::from_json(value) })
                        .collect(),
                ),
            },
        )
    }

    pub(super) fn to_json(&self) -> Value {
        match &self.content {
            Content::Null | Content::Wrong => Value::Null,
            Content::Bool(value) => Value::Bool(*value),
            Content::Number(value) => Value::Number(value.clone()),
            Content::String(value) => Value::String(value.clone()),
            Content::Array(items) => Value::Array(items.iter().map(Self::to_json).collect()),
            Content::Table(entries) => {
                Value::Object(entries.iter().map(|e| (e.key.clone(), e.item.to_json())).collect::<Map<_, _>>())
            }
        }
    }

    /// The entries, if it is a table.
    pub(super) fn entries(&self) -> Option<&[Entry]> {
        match &self.content {
            Content::Table(entries) => Some(entries),
            _ => None,
        }
    }

    pub(super) fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries()?.iter().find(|entry| entry.key == key)
    }

    pub(super) fn get(&self, key: &str) -> Option<&Item> {
        self.entry(key).map(|entry| &entry.item)
    }

    pub(super) fn as_str(&self) -> Option<&str> {
        match &self.content {
            Content::String(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn is_wrong(&self) -> bool {
        matches!(self.content, Content::Wrong)
    }

    /// What was found, for "expected ..., found ...".
    pub(super) fn found(&self) -> String {
        const SHOWN: usize = 40;
        match &self.content {
            Content::Null => "null".into(),
            Content::Bool(value) => format!("`{value}`"),
            Content::Number(value) => value.to_string(),
            Content::String(text) if text.chars().count() > SHOWN => {
                format!("{:?} ...", text.chars().take(SHOWN).collect::<String>())
            }
            Content::String(text) => format!("{text:?}"),
            Content::Array(items) if items.is_empty() => "an empty list".into(),
            Content::Array(_) => "a list".into(),
            Content::Table(entries) if entries.is_empty() => "an empty table".into(),
            Content::Table(_) => "a table".into(),
            Content::Wrong => "something else".into(),
        }
    }

    /// The longest part of a path that exists: the place of the deepest value, and how many segments lead to it.
    /// Segments that are not found at their level are skipped, because serde names some levels that TOML has not.
    pub(super) fn locate(&self, path: &[String]) -> (Option<&Place>, Vec<String>) {
        let mut item = self;
        let mut walked = Vec::new();
        for segment in path {
            let next = match &item.content {
                Content::Table(_) => item.get(segment),
                Content::Array(items) => segment.parse::<usize>().ok().and_then(|index| items.get(index)),
                _ => None,
            };
            if let Some(next) = next {
                item = next;
                walked.push(segment.clone());
            }
        }
        (item.place.as_ref(), walked)
    }

    /// The place of a part of a plain string: `text[start..start + length]`, or the whole where it was escaped.
    pub(super) fn part(&self, report: &Report, start: usize, length: usize) -> Option<Place> {
        let place = self.place.as_ref()?;
        let text = self.as_str()?;
        let written = report.source(place.source)?.text.get(place.span.clone())?;
        let quotes = if written == text { 0 } else { 1 };
        let plain = written.get(quotes..written.len().saturating_sub(quotes)) == Some(text);
        if !plain {
            return Some(place.clone());
        }
        let start = place.span.start + quotes + start;
        Some(Place { source: place.source, span: start..start + length })
    }
}

/// A dotted path; keys that need them get quotes.
pub(super) fn dotted<S: AsRef<str>>(path: &[S]) -> String {
    let plain = |key: &str| !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    let keys: Vec<String> = path
        .iter()
        .map(|key| key.as_ref())
        .map(|key| if plain(key) { key.to_owned() } else { format!("{key:?}") })
        .collect();
    keys.join(".")
}

/// Reports keys that a table has twice. The TOML parser finds those of a file; this finds those of a builder.
pub(super) fn report_duplicates(item: &Item, path: &mut Vec<String>, report: &mut Report) {
    match &item.content {
        Content::Table(entries) => {
            for (index, entry) in entries.iter().enumerate() {
                path.push(entry.key.clone());
                if entries.iter().take(index).any(|other| other.key == entry.key) {
                    let message = match path.as_slice() {
                        [stage, name] if stage == "stage" => format!("stage `{name}` is defined twice"),
                        _ => format!("`{}` is given twice", entry.key),
                    };
                    report.error("duplicate", entry.place.as_ref(), dotted(path), message);
                }
                report_duplicates(&entry.item, path, report);
                path.pop();
            }
        }
        Content::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                path.push(index.to_string());
                report_duplicates(item, path, report);
                path.pop();
            }
        }
        _ => {}
    }
}
