//! Mistakes in a pipeline: what, where, and what to do about it.

use serde::Serialize;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// A text that a mistake can point into: a pipeline file or an argument. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFile {
    /// What to call it: the file's path, or the flag.
    pub name: Arc<str>,
    /// What it says.
    pub text: Arc<str>,
    /// Where it comes from.
    pub origin: Origin,
}

/// Where a [`SourceFile`] comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A file: places have a line and a column.
    File,
    /// An argument of one line: shown whole.
    Argument,
    /// A program: there is no text.
    Code,
}

impl SourceFile {
    /// A file of a name and text.
    pub fn new(name: impl AsRef<str>, text: impl AsRef<str>) -> Self {
        Self { name: name.as_ref().into(), text: text.as_ref().into(), origin: Origin::File }
    }

    pub(super) fn argument(text: &str) -> Self {
        Self { name: "--set".into(), text: text.into(), origin: Origin::Argument }
    }

    pub(super) fn code(name: &str) -> Self {
        Self { name: format!("pipeline {name:?}").into(), text: "".into(), origin: Origin::Code }
    }

    /// The line and column (in characters) of a byte position; both count from 1.
    pub fn line_column(&self, position: usize) -> (usize, usize) {
        let mut end = position.min(self.text.len());
        while !self.text.is_char_boundary(end) {
            end -= 1;
        }
        let before = self.text.get(..end).unwrap_or_default();
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let line = before.matches('\n').count() + 1;
        (line, before.get(line_start..).unwrap_or_default().chars().count() + 1)
    }
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Nothing can run.
    Error,
    /// It runs, but may not be what was meant.
    Warning,
}

/// A mistake in a pipeline. Its `Display` is one line: `file:line:column: message`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// A short name for this sort of mistake; it stays the same between versions.
    pub code: &'static str,
    /// What is wrong, in a sentence without a full stop.
    pub message: String,
    /// A few words to write under the place; may be empty.
    pub label: String,
    /// The place in `file.text`, in bytes; always on character boundaries.
    pub span: Option<Range<usize>>,
    /// Where the place is.
    pub file: SourceFile,
    /// The key it is about, as a path: `stage.fit.with.epochs`.
    pub path: String,
    /// What to do about it.
    pub help: Option<String>,
    /// What else is good to know.
    pub notes: Vec<String>,
}

impl Diagnostic {
    /// The line and column of the place, from 1, if it is in a file.
    pub fn line_column(&self) -> Option<(usize, usize)> {
        match (self.file.origin, &self.span) {
            (Origin::File, Some(span)) => Some(self.file.line_column(span.start)),
            _ => None,
        }
    }

    /// Whether nothing can run because of it.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }

    /// As JSON: `severity`, `code`, `message`, `file`, `line`, `column`, `path`, `help`, `notes`.
    pub fn to_json(&self) -> serde_json::Value {
        let place = self.line_column();
        serde_json::json!({
            "severity": self.severity,
            "code": self.code,
            "message": self.message,
            "file": &*self.file.name,
            "line": place.map(|(line, _)| line),
            "column": place.map(|(_, column)| column),
            "path": self.path,
            "help": self.help,
            "notes": self.notes,
        })
    }

    pub(super) fn label(&mut self, label: impl Into<String>) -> &mut Self {
        self.label = label.into();
        self
    }

    pub(super) fn help(&mut self, help: impl Into<String>) -> &mut Self {
        self.help = Some(help.into());
        self
    }

    pub(super) fn note(&mut self, note: impl Into<String>) -> &mut Self {
        self.notes.push(note.into());
        self
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.line_column(), self.file.origin) {
            (Some((line, column)), _) => write!(f, "{}:{line}:{column}: ", self.file.name)?,
            (None, Origin::Argument) => write!(f, "{} {}: ", self.file.name, self.file.text)?,
            (None, Origin::Code) if !self.path.is_empty() => write!(f, "{}, {}: ", self.file.name, self.path)?,
            (None, _) => write!(f, "{}: ", self.file.name)?,
        }
        f.write_str(&self.message)
    }
}

/// A place in one of the sources of a [`Report`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) source: usize,
    pub(super) span: Range<usize>,
}

/// Collects mistakes. The first source is the pipeline itself.
#[derive(Debug)]
pub(super) struct Report {
    sources: Vec<SourceFile>,
    found: Vec<(usize, Diagnostic)>,
}

impl Report {
    pub(super) fn new(source: SourceFile) -> Self {
        Self { sources: vec![source], found: Vec::new() }
    }

    /// Adds a source and says its number.
    pub(super) fn add_source(&mut self, source: SourceFile) -> usize {
        self.sources.push(source);
        self.sources.len() - 1
    }

    pub(super) fn source(&self, source: usize) -> Option<&SourceFile> {
        self.sources.get(source)
    }

    /// Adds a mistake; the rest is filled in on what this gives back.
    pub(super) fn error(
        &mut self,
        code: &'static str,
        place: Option<&Place>,
        path: impl Into<String>,
        message: impl Into<String>,
    ) -> &mut Diagnostic {
        let number = place.map_or(0, |place| place.source);
        let file = self.sources.get(number).cloned().unwrap_or_else(|| SourceFile::code(""));
        let span = match file.origin {
            Origin::Code => None,
            _ => place.map(|place| clamp(&place.span, &file.text)),
        };
        let diagnostic = Diagnostic {
            severity: Severity::Error,
            code,
            message: message.into(),
            label: String::new(),
            span,
            file,
            path: path.into(),
            help: None,
            notes: Vec::new(),
        };
        let at = self.found.len();
        self.found.push((number, diagnostic));
        &mut self.found[at].1
    }

    pub(super) fn has_errors(&self) -> bool {
        self.found.iter().any(|(_, diagnostic)| diagnostic.is_error())
    }

    pub(super) fn errors(&self) -> usize {
        self.found.iter().filter(|(_, diagnostic)| diagnostic.is_error()).count()
    }

    /// "line 3", where a place is in a file.
    pub(super) fn line_of(&self, place: Option<&Place>) -> Option<String> {
        let place = place?;
        let file = self.source(place.source).filter(|file| file.origin == Origin::File)?;
        Some(format!("line {}", file.line_column(place.span.start).0))
    }

    /// The mistakes in the order of their places.
    pub(super) fn finish(mut self) -> Vec<Diagnostic> {
        self.found.sort_by_key(|(source, diagnostic)| (*source, diagnostic.span.as_ref().map(|span| span.start)));
        self.found.into_iter().map(|(_, diagnostic)| diagnostic).collect()
    }
}

fn clamp(span: &Range<usize>, text: &str) -> Range<usize> {
    let floor = |position: usize| {
        let mut position = position.min(text.len());
        while !text.is_char_boundary(position) {
            position -= 1;
        }
        position
    };
    let start = floor(span.start);
    start..floor(span.end).max(start)
}

/// "`a`, `b` or `c`".
pub(super) fn alternatives<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    join(names.into_iter().map(|name| format!("`{name}`")).collect(), "or")
}

/// "a, b or c" of phrases.
pub(super) fn join(mut phrases: Vec<String>, word: &str) -> String {
    match phrases.pop() {
        None => String::new(),
        Some(last) if phrases.is_empty() => last,
        Some(last) => format!("{} {word} {last}", phrases.join(", ")),
    }
}

/// "did you mean `x`?", or which names there are.
pub(super) fn suggest<'a>(name: &str, plural: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    const SHOWN: usize = 16;
    let known: Vec<&str> = known.into_iter().collect();
    if let Some(near) = crate::nearest(name, known.iter().copied()) {
        return format!("did you mean `{near}`?");
    }
    match known.len() {
        0 => format!("there are no {plural}"),
        n if n > SHOWN => {
            let shown: Vec<String> = known.iter().take(SHOWN).map(|name| format!("`{name}`")).collect();
            format!("the {plural} are {} and {} more", shown.join(", "), n - SHOWN)
        }
        1 => format!("there is only `{}`", known.first().unwrap_or(&"")),
        _ => format!("the {plural} are {}", join(known.iter().map(|name| format!("`{name}`")).collect(), "and")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_columns_count_characters() {
        let file = SourceFile::new("x.toml", "a\nöb\r\nc");
        assert_eq!(file.line_column(0), (1, 1));
        assert_eq!(file.line_column(2), (2, 1));
        assert_eq!(file.line_column(3), (2, 1), "inside a character is at its start");
        assert_eq!(file.line_column(4), (2, 2));
        assert_eq!(file.line_column(99), (3, 2));
    }

    #[test]
    fn one_line_says_the_place() {
        let mut report = Report::new(SourceFile::new("p.toml", "seed = 1\nx = 2\n"));
        let set = report.add_source(SourceFile::argument("fit.x=3"));
        report.error("b", Some(&Place { source: set, span: 6..7 }), "stage.fit.with.x", "wrong");
        report.error("a", Some(&Place { source: 0, span: 9..10 }), "x", "unknown key `x`").help("h");
        let shown: Vec<String> = report.finish().iter().map(Diagnostic::to_string).collect();
        assert_eq!(shown, ["p.toml:2:1: unknown key `x`", "--set fit.x=3: wrong"]);
    }

    #[test]
    fn suggestions_name_the_nearest_or_all() {
        assert_eq!(suggest("epoch", "parameters", ["epochs", "batch"]), "did you mean `epochs`?");
        assert_eq!(suggest("zebra", "parameters", ["epochs", "batch"]), "the parameters are `epochs` and `batch`");
        assert_eq!(suggest("zebra", "parameters", []), "there are no parameters");
    }
}
