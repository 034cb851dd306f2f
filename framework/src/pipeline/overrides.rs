//! `--set key=value`: settings that replace what the file says.

use super::diagnostic::{Place, Report, SourceFile, suggest};
use super::parse;
use super::tree::{Content, Entry, Item, dotted};
use crate::{Error, Result};
use std::fmt;
use std::ops::Range;

/// One setting that replaces what the pipeline says.
///
/// The key is `seed`, `name`, `store`, `STAGE.PARAMETER`, `STAGE.with.PARAMETER`, `STAGE.needs.KEY`,
/// `STAGE.from.PORT`, `STAGE.use`, or a whole path (`stage.STAGE.with.PARAMETER`, `serve.NAME.batch.rows`, `pool.NAME.max`). The value
/// is TOML; a word that is no TOML value is a string. Tables that are missing on the way are made.
///
/// ```
/// use ropeway_framework::pipeline::Override;
///
/// let set = Override::parse("fit.epochs=3")?;
/// assert_eq!(set.to_string(), "fit.epochs=3");
/// assert!(Override::parse("fit.epochs").is_err());
/// # Ok::<_, ropeway_framework::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Override {
    text: String,
    key: Vec<(String, Range<usize>)>,
    value: Range<usize>,
    bare: bool,
}

impl Override {
    /// Reads `KEY=VALUE`.
    ///
    /// # Errors
    /// No `=`, a key that is no TOML key, or a value that begins like a TOML list, table or string and is none.
    pub fn parse(text: &str) -> Result<Self> {
        let example = "write KEY=VALUE, such as `fit.epochs=3` or `seed=7`";
        let no_setting = || Error::usage(format!("`--set {text}` is no setting")).help(example);
        let equals = equals_sign(text).ok_or_else(no_setting)?;
        let (key, rest) = (text.get(..equals).unwrap_or_default(), text.get(equals + 1..).unwrap_or_default());
        let key = parse::parse_key(key).ok_or_else(no_setting)?;
        let value = rest.trim();
        let start = text.len() - rest.trim_start().len();
        if value.is_empty() {
            return Err(Error::usage(format!("`--set {text}` has no value")).help("an empty text is written '\"\"'"));
        }
        let bare = !parse::is_value(value);
        if bare && value.starts_with(['[', '{', '"', '\'']) {
            let help = "lists are [1, 2], tables { key = 1 }, texts \"a\"; the shell may need quotes around the whole";
            return Err(Error::usage(format!("the value in `--set {text}` is not TOML")).help(help));
        }
        Ok(Self { text: text.to_owned(), key, value: start..start + value.len(), bare })
    }

    fn item(&self, source: usize, report: &mut Report) -> Item {
        let text = self.text.get(self.value.clone()).unwrap_or_default();
        let parsed = if self.bare { None } else { parse::parse_value(text, source, self.value.start, report) };
        parsed.unwrap_or_else(|| {
            Item::new(Some(Place { source, span: self.value.clone() }), Content::String(text.to_owned()))
        })
    }
}

impl fmt::Display for Override {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The first `=` outside of quotes.
fn equals_sign(text: &str) -> Option<usize> {
    let mut quote = None;
    for (index, c) in text.char_indices() {
        match (quote, c) {
            (None, '=') => return Some(index),
            (None, '"' | '\'') => quote = Some(c),
            (Some(open), c) if c == open => quote = None,
            _ => {}
        }
    }
    None
}

/// Applies settings to a tree, in order.
pub(super) fn apply(root: &mut Item, overrides: &[Override], report: &mut Report) {
    for set in overrides {
        let source = report.add_source(SourceFile::argument(&set.text));
        let item = set.item(source, report);
        let key: Vec<(String, Place)> =
            set.key.iter().map(|(name, span)| (name.clone(), Place { source, span: span.clone() })).collect();
        if let Some(path) = full_path(root, &key, report) {
            insert(root, &path, item, report);
        }
    }
}

/// The path in the file that a key means.
fn full_path(root: &Item, key: &[(String, Place)], report: &mut Report) -> Option<Vec<(String, Place)>> {
    let stages: Vec<&str> =
        root.get("stage").and_then(Item::entries).unwrap_or_default().iter().map(|entry| entry.key.as_str()).collect();
    let names: Vec<&str> = key.iter().map(|(name, _)| name.as_str()).collect();
    // Where the stage's name stands: a whole path has `stage` before it.
    let (name, at) = match names.as_slice() {
        ["name" | "seed" | "store"] | ["serve" | "pool", _, ..] => return Some(key.to_vec()),
        ["stage", name, ..] => (*name, 1),
        [name, ..] => (*name, 0),
        [] => return None,
    };
    let place = key.get(at).map(|(_, place)| place.clone());
    if !stages.contains(&name) {
        let mut known = stages.clone();
        if names.len() == 1 {
            known.extend(["seed", "store", "name"]);
        }
        report
            .error("unknown-stage", place.as_ref(), dotted(&names), format!("there is no stage `{name}`"))
            .label("not a stage of this pipeline")
            .help(suggest(name, "stages", known));
        return None;
    }
    let Some(field) = key.get(at + 1) else {
        report
            .error("incomplete", place.as_ref(), dotted(&names), format!("what of stage `{name}` is to be set?"))
            .help(format!("name a parameter: `{name}.PARAMETER=VALUE`"));
        return None;
    };
    if at == 1 {
        return Some(key.to_vec());
    }
    let mut path = vec![("stage".to_owned(), field.1.clone())];
    path.extend(key.first().cloned());
    if !matches!(field.0.as_str(), "with" | "needs" | "from" | "use") {
        path.push(("with".to_owned(), field.1.clone()));
    }
    path.extend(key.iter().skip(1).cloned());
    Some(path)
}

fn insert(root: &mut Item, path: &[(String, Place)], value: Item, report: &mut Report) {
    let mut item = root;
    let mut walked: Vec<&str> = Vec::new();
    for (name, place) in path {
        if item.is_wrong() {
            return;
        }
        let found = item.found();
        item = match &mut item.content {
            Content::Table(entries) => {
                let index = entries.iter().position(|entry| entry.key == *name).unwrap_or_else(|| {
                    let item = Item::empty_table(Some(place.clone()));
                    entries.push(Entry { key: name.clone(), place: Some(place.clone()), item });
                    entries.len() - 1
                });
                &mut entries[index].item
            }
            Content::Array(items) => {
                let length = items.len();
                match name.parse::<usize>().ok().and_then(|index| items.get_mut(index)) {
                    Some(item) => item,
                    None => {
                        let message = format!("`{}` is a list of {length}, it has no `{name}`", dotted(&walked));
                        report.error("wrong-type", Some(place), dotted(&walked), message).label("not in the list");
                        return;
                    }
                }
            }
            _ => {
                let path = dotted(&walked);
                report
                    .error("wrong-type", Some(place), path.as_str(), format!("`{path}` is {found}, not a table"))
                    .label("nothing can be set in it")
                    .help(format!("set the whole: `{path}={{ {name} = ... }}`"));
                return;
            }
        };
        walked.push(name);
    }
    *item = value;
}
