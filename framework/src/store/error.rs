//! What can go wrong with a store, in words for people.

use crate::{Error, Fault};
use std::error::Error as StdError;
use std::io;

/// What went wrong with a store. It stands behind the [`Error`]s that a store gives; find it there by
/// [`StoreError::of`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Something that should be in the store is not there.
    #[error("{what} is not in the store {url}")]
    Missing {
        /// What is missing, and its path.
        what: String,
        /// The store.
        url: String,
    },
    /// Something in the store is not what was put there.
    #[error("{what} in the store {url} is corrupt: {reason}")]
    Corrupt {
        /// What is corrupt, and its path.
        what: String,
        /// How that shows.
        reason: String,
        /// The store.
        url: String,
    },
    /// Something that was stored rightly, but that this version can't read or write.
    #[error("can't read {what}: {reason}")]
    Unreadable {
        /// What can't be read.
        what: String,
        /// Why not.
        reason: String,
    },
    /// The store forbids it.
    #[error("the store {url} does not let us {action} {path}: {reason}")]
    Denied {
        /// `read`, `write`, `list` or `remove`.
        action: &'static str,
        /// Where in the store.
        path: String,
        /// What the store said.
        reason: String,
        /// The store.
        url: String,
    },
    /// There is no room left.
    #[error("the store {url} is full: can't write {path}")]
    Full {
        /// Where in the store.
        path: String,
        /// The store.
        url: String,
    },
    /// The store can't create an object only if it does not exist, so it can't keep results from being overwritten.
    #[error("the store {url} lacks put-if-absent: {reason}")]
    NoCreate {
        /// How that shows.
        reason: String,
        /// The store.
        url: String,
    },
    /// The store can't be reached, or fails.
    #[error("can't {action} {path} in the store {url}: {reason}")]
    Unavailable {
        /// `read`, `write`, `list` or `remove`.
        action: &'static str,
        /// Where in the store.
        path: String,
        /// What the store said.
        reason: String,
        /// The store.
        url: String,
    },
    /// An address that names no store.
    #[error("{message}")]
    Address {
        /// What is wrong with it.
        message: String,
        /// What to write instead.
        help: String,
    },
}

impl StoreError {
    /// The store's error behind an error, if it is one.
    pub fn of(error: &Error) -> Option<&StoreError> {
        error.source().and_then(|source| source.downcast_ref())
    }

    /// Whether the thing is missing or corrupt, so that computing it anew mends it.
    pub fn is_lost(&self) -> bool {
        matches!(self, StoreError::Missing { .. } | StoreError::Corrupt { .. })
    }

    /// The error for people. (`?` would convert as well, but lose whose fault it is.)
    pub(crate) fn report(self) -> Error {
        let (fault, help) = match &self {
            StoreError::Missing { .. } | StoreError::Corrupt { .. } => {
                (Fault::Unavailable, "run the pipeline again: what is lost is computed anew".to_owned())
            }
            StoreError::Unreadable { .. } => (Fault::Unavailable, "a newer version may have written it".to_owned()),
            StoreError::Denied { .. } => {
                (Fault::Unavailable, "check the permissions, or choose another store with --store".to_owned())
            }
            StoreError::Full { .. } => {
                (Fault::Unavailable, "make room (`ropeway gc` removes what no result needs) and run again".to_owned())
            }
            StoreError::NoCreate { .. } => {
                (Fault::Unavailable, "results could be overwritten there; choose another store with --store".to_owned())
            }
            StoreError::Unavailable { .. } => {
                (Fault::Unavailable, "check the address, the network and the credentials, and run again".to_owned())
            }
            StoreError::Address { help, .. } => (Fault::Usage, help.clone()),
        };
        Error::from(self).fault(fault).help(help)
    }

    /// The error of an operation on a file.
    pub(super) fn of_io(url: &str, action: &'static str, path: &str, error: &io::Error) -> Self {
        let (url, path, reason) = (url.to_owned(), path.to_owned(), error.to_string());
        match error.kind() {
            io::ErrorKind::NotFound => StoreError::Missing { what: path, url },
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                StoreError::Denied { action, path, reason, url }
            }
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreError::Full { path, url },
            _ => StoreError::Unavailable { action, path, reason, url },
        }
    }

    /// The error of an operation on an object store.
    pub(super) fn of_object(url: &str, action: &'static str, path: &str, error: &object_store::Error) -> Self {
        use object_store::Error as E;
        if let Some(io) = find_io(error)
            && !matches!(error, E::NotFound { .. })
        {
            return Self::of_io(url, action, path, io);
        }
        let (url, path, reason) = (url.to_owned(), path.to_owned(), flat(error));
        match error {
            E::NotFound { .. } => StoreError::Missing { what: path, url },
            E::PermissionDenied { .. } | E::Unauthenticated { .. } => StoreError::Denied { action, path, reason, url },
            E::NotImplemented { .. } | E::NotSupported { .. } if action == "write" => {
                StoreError::NoCreate { reason, url }
            }
            _ => StoreError::Unavailable { action, path, reason, url },
        }
    }
}

/// The I/O error at the root of an error.
fn find_io(error: &object_store::Error) -> Option<&io::Error> {
    let mut cause: Option<&(dyn StdError + 'static)> = error.source();
    while let Some(inner) = cause {
        if let Some(io) = inner.downcast_ref() {
            return Some(io);
        }
        cause = inner.source();
    }
    None
}

/// An error and its causes in one line, without what they repeat.
fn flat(error: &object_store::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generic(kind: io::ErrorKind) -> object_store::Error {
        object_store::Error::Generic { store: "test", source: Box::new(io::Error::from(kind)) }
    }

    #[test]
    fn causes_are_told_apart() {
        let of = |error| StoreError::of_object("s3://b", "write", "blobs/ab/x", &error);
        assert!(matches!(of(generic(io::ErrorKind::StorageFull)), StoreError::Full { .. }));
        assert!(matches!(of(generic(io::ErrorKind::ReadOnlyFilesystem)), StoreError::Denied { .. }));
        assert!(matches!(of(generic(io::ErrorKind::ConnectionReset)), StoreError::Unavailable { .. }));
        let lacking = object_store::Error::NotImplemented { operation: "create".into(), implementer: "http".into() };
        assert!(matches!(of(lacking), StoreError::NoCreate { .. }));
    }

    #[test]
    fn the_fault_and_the_cause_survive() {
        let error = StoreError::of_io("file://x", "write", "memo/ab/y", &io::ErrorKind::StorageFull.into()).report();
        assert_eq!(error.whose(), Fault::Unavailable);
        assert_eq!(error.to_string(), "the store file://x is full: can't write memo/ab/y");
        assert!(error.advice().unwrap().contains("ropeway gc"));
        let error = error.context("stage \"fit\"");
        assert!(matches!(StoreError::of(&error), Some(StoreError::Full { .. })));
    }
}
