//! From an address to the place that it names.

use super::StoreError;
use super::backend::Backend;
use super::files::Files;
use super::objects::Objects;
use super::ram::Ram;
use crate::nearest;
use object_store::ObjectStore;
use object_store::prefix::PrefixStore;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;
use url::Url;

/// The remote kinds: scheme, cargo feature, and whether this program has it.
const REMOTE: [(&str, &str, bool); 3] = [
    ("s3", "s3", cfg!(feature = "s3")),
    ("gs", "gcs", cfg!(feature = "gcs")),
    ("az", "azure", cfg!(feature = "azure")),
];

const KINDS: &str =
    "a store is memory://, file://PATH, s3://bucket/prefix, gs://bucket/prefix or az://container/prefix";

/// How long a remote store may take to answer at all. Its client alone would try for minutes, and in silence.
const REACH: Duration = Duration::from_secs(15);

/// What an address names.
#[derive(Debug, PartialEq)]
enum Place {
    Memory,
    Folder(PathBuf),
    Remote(Url),
}

/// Opens the place that an address names, and looks whether it can be one.
pub(super) async fn open(
    address: &str,
    options: impl IntoIterator<Item = (String, String)>,
) -> Result<Backend, StoreError> {
    let place = parse(address)?;
    // Whatever is opened, what killed runs left in this machine's memory goes.
    let ram = memory();
    match place {
        Place::Memory => Ok(Backend::Ram(ram)),
        Place::Folder(path) => folder(address, &path).map(Backend::Files),
        Place::Remote(url) => {
            let objects = remote(address, &url, options)?;
            timeout(REACH, objects.probe()).await.map_err(|_| StoreError::Unavailable {
                action: "read",
                path: "anything".to_owned(),
                reason: format!("there is no answer within {} s", REACH.as_secs()),
                url: address.to_owned(),
            })??;
            Ok(Backend::Objects(objects))
        }
    }
}

fn memory() -> Ram {
    let ram = Ram::new();
    // Usually one look at the system's temporary files.
    if let Err(error) = ram.sweep(false) {
        tracing::debug!("can't remove what dead processes left behind: {error}");
    }
    ram
}

fn folder(address: &str, path: &Path) -> Result<Files, StoreError> {
    let root = std::path::absolute(path).map_err(|error| StoreError::of_io(address, "read", "", &error))?;
    if root.exists() && !root.is_dir() {
        return Err(wrong(
            format!("the store {address} is a file, not a folder"),
            "name a folder; it is made if need be",
        ));
    }
    let files = Files::new(address.to_owned(), root);
    // Usually one look into an empty folder. Who may not remove the files can still use the store.
    if let Err(error) = files.sweep(false) {
        tracing::debug!("can't remove what dead processes left behind: {error}");
    }
    Ok(files)
}

fn remote(
    address: &str,
    url: &Url,
    options: impl IntoIterator<Item = (String, String)>,
) -> Result<Objects, StoreError> {
    let (store, prefix) = object_store::parse_url_opts(url, options).map_err(|error| {
        wrong(format!("the store {address} can't be opened: {error}"), "check the address and the credentials")
    })?;
    let store: Arc<dyn ObjectStore> = store.into();
    let store = match prefix.as_ref().is_empty() {
        true => store,
        false => Arc::new(PrefixStore::new(store, prefix)),
    };
    Ok(Objects::cloud(address.to_owned(), store))
}

fn parse(address: &str) -> Result<Place, StoreError> {
    let Some((scheme, rest)) = address.split_once("://") else { return bare(address) };
    if let Some((_, feature, there)) = REMOTE.iter().find(|(name, ..)| *name == scheme) {
        if !there {
            return Err(wrong(
                format!("this ropeway can't open {address}: it was built without the feature `{feature}`"),
                format!("install it with `cargo install ropeway --features {feature}`, or use file://PATH"),
            ));
        }
        return match Url::parse(address) {
            Ok(url) if url.host_str().is_some_and(|host| !host.is_empty()) => Ok(Place::Remote(url)),
            _ => {
                Err(wrong(format!("the store {address:?} names no bucket"), format!("write {scheme}://bucket/prefix")))
            }
        };
    }
    match scheme {
        "memory" if matches!(rest, "" | "/") => Ok(Place::Memory),
        "memory" => Err(wrong(format!("the store {address:?} has a path"), "a store in memory is just memory://")),
        "file" => path(address, rest),
        "http" | "https" => {
            Err(wrong(format!("the store {address:?} can't be a web server: those lack put-if-absent"), KINDS))
        }
        _ => Err(wrong(
            format!("the store {address:?} is of an unknown kind"),
            match nearest(scheme, ["memory", "file", "s3", "gs", "az"]) {
                Some(near) => format!("did you mean {near}://{rest}?"),
                None => KINDS.to_owned(),
            },
        )),
    }
}

/// An address without `://` is a path, unless it looks like a kind with a slash forgotten.
fn bare(address: &str) -> Result<Place, StoreError> {
    let kinds = ["memory", "file", "s3", "gs", "az"];
    match address.split_once(':') {
        Some((kind, rest)) if kinds.contains(&kind) => Err(wrong(
            format!("the store {address:?} is no address"),
            format!("did you mean {kind}://{}?", rest.trim_start_matches('/')),
        )),
        _ => path(address, address),
    }
}

/// The rest of a `file://` address is taken as it is: relative paths and blanks are fine.
fn path(address: &str, path: &str) -> Result<Place, StoreError> {
    match path {
        "" => Err(wrong(format!("the store {address:?} names no folder"), "write file://PATH, as in file://.ropeway")),
        _ if path == "~" || path.starts_with("~/") => Err(wrong(
            format!("the store {address:?} begins with ~, which only a shell understands"),
            "write the whole path of the folder",
        )),
        _ => Ok(Place::Folder(path.into())),
    }
}

fn wrong(message: impl Into<String>, help: impl Into<String>) -> StoreError {
    StoreError::Address { message: message.into(), help: help.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Fault;

    fn message(address: &str) -> String {
        let error = parse(address).unwrap_err().report();
        assert_eq!(error.whose(), Fault::Usage);
        format!("{error:?}")
    }

    #[test]
    fn addresses_name_places() {
        assert_eq!(parse("memory://").unwrap(), Place::Memory);
        for (address, path) in [
            ("file://.ropeway", ".ropeway"),
            ("file://a/b c", "a/b c"),
            ("file:///abs/olute", "/abs/olute"),
            (".ropeway", ".ropeway"),
            ("/abs", "/abs"),
            ("odd:name", "odd:name"),
        ] {
            assert_eq!(parse(address).unwrap(), Place::Folder(path.into()));
        }
    }

    #[test]
    fn wrong_addresses_are_explained() {
        assert_eq!(message("fil://x"), r#"the store "fil://x" is of an unknown kind (help: did you mean file://x?)"#);
        assert!(message("zebra://x").ends_with(&format!("(help: {KINDS})")));
        assert!(message("file://").contains("names no folder"));
        assert!(message("").contains("names no folder"));
        assert!(message("memory:").contains("did you mean memory://?"));
        assert!(message("s3:/bucket").contains("did you mean s3://bucket?"));
        assert!(message("memory://x").contains("just memory://"));
        assert!(message("https://host/x").contains("lack put-if-absent"));
        assert!(message("file://~/x").contains("only a shell"));
    }

    #[cfg(not(feature = "s3"))]
    #[test]
    fn a_missing_feature_is_named() {
        assert_eq!(
            message("s3://bucket/x"),
            "this ropeway can't open s3://bucket/x: it was built without the feature `s3` \
             (help: install it with `cargo install ropeway --features s3`, or use file://PATH)"
        );
    }

    #[cfg(feature = "s3")]
    #[test]
    fn a_bucket_is_needed() {
        assert!(matches!(parse("s3://bucket/x").unwrap(), Place::Remote(_)));
        assert!(message("s3://").contains("names no bucket"));
    }

    #[test]
    fn a_file_is_no_store() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let address = format!("file://{}", file.path().display());
        let error = folder(&address, file.path()).err().unwrap();
        assert!(error.to_string().ends_with("is a file, not a folder"));
    }
}
