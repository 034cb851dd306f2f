//! The one error type that stages and the framework hand to people.

use serde::{Deserialize, Serialize};
use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

/// What went wrong, in words for a person: a message, what to do about it, and what caused it.
///
/// Any error converts into it with `?`; [`Context`] says what was being done.
///
/// ```
/// use ropeway_framework::{Context, Error, Result};
///
/// fn port(text: &str) -> Result<u16> {
///     text.parse().context(format!("`{text}` is no port"))
/// }
/// assert_eq!(port("x").unwrap_err().to_string(), "`x` is no port: invalid digit found in string");
/// ```
#[derive(Clone)]
pub struct Error {
    message: String,
    help: Option<String>,
    fault: Fault,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

/// A result whose error is for people.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Whose fault an error is; it decides the exit code of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fault {
    /// A stage failed: exit code 1.
    #[default]
    Stage,
    /// The pipeline, a flag or a request is wrong: exit code 2.
    Usage,
    /// The store or the fleet is unavailable: exit code 3.
    Unavailable,
    /// A device that a stage computed on failed: exit code 1. What else the process does with it may fail too, so that
    /// a worker ends, and what it did runs elsewhere.
    Device,
    /// A bug of Ropeway: exit code 70.
    Bug,
    /// The user stopped it: exit code 130.
    Interrupted,
}

impl Fault {
    /// The exit code of a process that ends with this fault.
    pub fn exit_code(self) -> u8 {
        match self {
            Fault::Stage | Fault::Device => 1,
            Fault::Usage => 2,
            Fault::Unavailable => 3,
            Fault::Bug => 70,
            Fault::Interrupted => 130,
        }
    }
}

impl Error {
    /// An error with a message. Write it as a sentence without a full stop: `column "age" is missing`.
    pub fn new(message: impl fmt::Display) -> Self {
        Self { message: message.to_string(), help: None, fault: Fault::default(), source: None }
    }

    /// An error of the user's input: a pipeline, a flag or a request (exit code 2).
    pub fn usage(message: impl fmt::Display) -> Self {
        Self::new(message).fault(Fault::Usage)
    }

    /// The store or the fleet can't be reached or used (exit code 3).
    pub fn unavailable(message: impl fmt::Display) -> Self {
        Self::new(message).fault(Fault::Unavailable)
    }

    /// Adds what the reader can do about it.
    pub fn help(mut self, help: impl fmt::Display) -> Self {
        self.help = Some(help.to_string());
        self
    }

    /// Says whose fault it is.
    pub fn fault(mut self, fault: Fault) -> Self {
        self.fault = fault;
        self
    }

    /// Puts what was being done before the message: `context: message`.
    pub fn context(mut self, context: impl fmt::Display) -> Self {
        self.message = format!("{context}: {}", self.message);
        self
    }

    /// What to do about it, where there is something to say.
    pub fn advice(&self) -> Option<&str> {
        self.help.as_deref()
    }

    /// Whose fault it is.
    pub fn whose(&self) -> Fault {
        self.fault
    }

    /// The underlying error, where there is one.
    pub fn source(&self) -> Option<&(dyn StdError + Send + Sync + 'static)> {
        self.source.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.message)?;
        self.help.as_ref().map_or(Ok(()), |help| write!(f, " (help: {help})"))
    }
}

impl<E: StdError + Send + Sync + 'static> From<E> for Error {
    fn from(source: E) -> Self {
        let mut message = source.to_string();
        let mut cause = source.source();
        while let Some(inner) = cause {
            let text = inner.to_string();
            if !message.contains(&text) {
                message = format!("{message}: {text}");
            }
            cause = inner.source();
        }
        Self { message, help: None, fault: Fault::default(), source: Some(Arc::new(source)) }
    }
}

/// Says what was being done when an error came.
pub trait Context<T> {
    /// Puts `context` before the error's message.
    fn context(self, context: impl fmt::Display) -> Result<T>;
}

impl<T, E: Into<Error>> Context<T> for std::result::Result<T, E> {
    fn context(self, context: impl fmt::Display) -> Result<T> {
        self.map_err(|error| error.into().context(context))
    }
}

impl<T> Context<T> for Option<T> {
    fn context(self, context: impl fmt::Display) -> Result<T> {
        self.ok_or_else(|| Error::new(context))
    }
}
