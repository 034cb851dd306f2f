//! Draws the mistakes in a pipeline at their place in the file.

use crate::cli::complain;
use crate::pipeline::{Diagnostic, Severity, SourceFile};
use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};
use std::io::IsTerminal;

/// Draws mistakes on stderr, in the order of their places.
pub(crate) fn draw(source: &SourceFile, found: &[Diagnostic]) {
    let renderer = if std::io::stderr().is_terminal() { Renderer::styled() } else { Renderer::plain() };
    let mut found: Vec<&Diagnostic> = found.iter().collect();
    found.sort_by_key(|diagnostic| {
        (diagnostic.file.name != source.name, diagnostic.span.as_ref().map(|span| span.start))
    });
    found.into_iter().for_each(|diagnostic| complain(&render(&renderer, diagnostic)));
}

fn render(renderer: &Renderer, diagnostic: &Diagnostic) -> String {
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let mut group = level.primary_title(&diagnostic.message).elements(None::<annotate_snippets::Message<'_>>);
    if let Some(span) = &diagnostic.span {
        let annotation = AnnotationKind::Primary.span(span.clone()).label(&diagnostic.label);
        let snippet = Snippet::source(&*diagnostic.file.text).path(&*diagnostic.file.name).annotation(annotation);
        group = group.element(snippet);
    }
    if let Some(help) = &diagnostic.help {
        group = group.element(Level::HELP.message(help));
    }
    for note in &diagnostic.notes {
        group = group.element(Level::NOTE.message(note));
    }
    format!("{}\n", renderer.render(&[group]))
}
