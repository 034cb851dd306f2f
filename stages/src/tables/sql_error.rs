//! DataFusion's errors, for people.

use datafusion::common::{Column, DataFusionError, SchemaError};
use datafusion::sql::sqlparser::parser::ParserError;
use ropeway_framework::{Error, nearest};

/// The error in words for the one who wrote the query: what is wrong, and where in the query where that is known.
pub(super) fn explain(error: &DataFusionError, text: &str) -> Error {
    let place = error.diagnostic().and_then(|found| found.span).map(|span| (span.start.line, span.start.column));
    match error.find_root() {
        DataFusionError::SQL(mistake, _) => syntax(mistake, text),
        DataFusionError::SchemaError(mistake, _) => schema(mistake, place, text),
        root => at(Error::new(plain(&root.strip_backtrace())), place, text),
    }
}

fn syntax(mistake: &ParserError, text: &str) -> Error {
    let message = match mistake {
        ParserError::TokenizerError(message) | ParserError::ParserError(message) => message.as_str(),
        ParserError::RecursionLimitExceeded => return Error::usage("the query is nested too deeply"),
    };
    // The parser ends its messages with the place: "Expected: an expression, found: EOF at Line: 1, Column: 7".
    let (what, place) = match message.rsplit_once(" at Line: ") {
        Some((what, place)) => (what, position(place)),
        None => (message, None),
    };
    match place {
        Some((line, column)) => {
            let error = Error::usage(format!("syntax error at line {line}, column {column} of the query: {what}"));
            match line_of(text, line) {
                Some(source) => error.help(format!("the line is `{source}`")),
                None => error,
            }
        }
        None => Error::usage(format!("syntax error in the query: {what}")),
    }
}

fn position(place: &str) -> Option<(u64, u64)> {
    let (line, column) = place.split_once(", Column: ")?;
    let digits = |text: &str| text.chars().take_while(char::is_ascii_digit).collect::<String>().parse().ok();
    Some((digits(line)?, digits(column)?))
}

fn line_of(text: &str, line: u64) -> Option<&str> {
    let index = usize::try_from(line).ok()?.checked_sub(1)?;
    text.lines().nth(index).map(str::trim).filter(|line| !line.is_empty())
}

fn schema(mistake: &SchemaError, place: Option<(u64, u64)>, text: &str) -> Error {
    let error = match mistake {
        SchemaError::FieldNotFound { field, valid_fields } => {
            let names: Vec<&str> = valid_fields.iter().map(Column::name).collect();
            let error = Error::new(format!("there is no column {:?}", field.name()));
            match nearest(field.name(), names.iter().copied()) {
                Some(near) => error.help(format!("did you mean {near:?}?")),
                None => error.help(format!("the columns are {}", names.join(", "))),
            }
        }
        SchemaError::AmbiguousReference { field } => {
            Error::new(format!("the column {:?} is ambiguous: several tables have it", field.name()))
                .help("write the table before it: `table.column`")
        }
        SchemaError::DuplicateQualifiedField { name, .. } | SchemaError::DuplicateUnqualifiedField { name } => {
            Error::new(format!("the query gives two columns called {name:?}")).help("name one of them with AS")
        }
    };
    at(error, place, text)
}

/// Says where in the query the mistake is.
fn at(error: Error, place: Option<(u64, u64)>, text: &str) -> Error {
    match place.filter(|(line, _)| line_of(text, *line).is_some()) {
        Some((line, column)) => error.context(format!("line {line}, column {column} of the query")),
        None => error,
    }
}

/// A message without the prefixes by which DataFusion sorts its errors.
fn plain(message: &str) -> String {
    let mut message = message.trim();
    for prefix in ["Error during planning: ", "Execution error: ", "Arrow error: ", "Optimizer rule "] {
        message = message.strip_prefix(prefix).unwrap_or(message);
    }
    message.replace("datafusion.public.", "").replace('\n', " ")
}
