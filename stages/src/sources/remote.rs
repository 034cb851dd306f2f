//! Files in object stores.

use super::files::{Source, is_glob, nothing_matches, shorten};
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{GetResult, ObjectMeta, ObjectStore, ObjectStoreExt};
use ropeway_framework::{Error, Result, nearest, runtime};
use std::fmt::Display;
use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};
use url::Url;

/// The objects that a URL names; its path may be a glob.
pub(super) fn find(scheme: &str, url: &str) -> Result<Vec<Source>> {
    // The part before the first glob is a plain URL: the rest must not be parsed as one, for `?` begins a query there.
    let plain = if is_glob(url) {
        let glob = url.find(['*', '?', '[']).unwrap_or(url.len());
        url.get(..glob).and_then(|before| before.rfind('/')).map_or("", |slash| url.get(..=slash).unwrap_or_default())
    } else {
        url
    };
    let parsed = Url::parse(plain).map_err(|error| Error::usage(format!("{url:?} is no URL: {error}")))?;
    let (store, path) = connect(scheme, &parsed)?;
    let root = parsed.path();
    let before = plain.strip_suffix(root).unwrap_or(plain);
    let pattern = is_glob(url).then(|| url.strip_prefix(plain).unwrap_or_default());
    list(&store, before, &path, pattern)
}

fn connect(scheme: &str, url: &Url) -> Result<(Arc<dyn ObjectStore>, Path)> {
    // Credentials and endpoints come from the variables that every tool of that cloud reads.
    let settings =
        std::env::vars_os().filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)));
    let feature = match scheme {
        "s3" | "s3a" => "s3",
        "gs" => "gcs",
        "az" | "adl" | "azure" | "abfs" | "abfss" => "azure",
        _ => {
            return Err(Error::usage(format!("{scheme}:// can't be read"))
                .help("paths, file://, s3://, gs:// and az:// can; download the file first"));
        }
    };
    match object_store::parse_url_opts(url, settings) {
        Ok((store, path)) => Ok((Arc::from(store), path)),
        Err(error) if error.to_string().contains("not enabled") => {
            Err(Error::usage(format!("this build can't read {scheme}:// URLs"))
                .help(format!("build it with `cargo build --release --features {feature}`")))
        }
        Err(error) => Err(unreached(error, url)),
    }
}

/// An object store that can't be asked.
fn unreached(error: object_store::Error, what: impl Display) -> Error {
    Error::from(error).context(what).help("check the address, the network and the credentials, and run again")
}

/// The objects at a path, or below it those that match a pattern; in the order of their names.
fn list(store: &Arc<dyn ObjectStore>, before: &str, path: &Path, pattern: Option<&str>) -> Result<Vec<Source>> {
    let source = |meta: ObjectMeta| Source::remote(format!("{before}/{}", meta.location), store.clone(), meta);
    let Some(pattern) = pattern else {
        return match runtime()?.block_on(store.head(path)) {
            Ok(meta) => Ok(vec![source(meta)]),
            Err(object_store::Error::NotFound { .. }) => Err(absent(store, before, path)),
            Err(error) => Err(unreached(error, format!("{before}/{path}"))),
        };
    };
    let whole = if path.as_ref().is_empty() { pattern.to_owned() } else { format!("{path}/{pattern}") };
    let shown = format!("{before}/{whole}");
    let matcher =
        glob::Pattern::new(&whole).map_err(|error| Error::usage(format!("{shown:?} is no pattern: {}", error.msg)))?;
    let options = glob::MatchOptions { require_literal_separator: true, ..glob::MatchOptions::new() };
    let listed: Vec<ObjectMeta> =
        runtime()?.block_on(store.list(Some(path)).try_collect()).map_err(|error| unreached(error, &shown))?;
    let mut found: Vec<ObjectMeta> =
        listed.into_iter().filter(|meta| matcher.matches_with(meta.location.as_ref(), options)).collect();
    found.sort_by(|a, b| a.location.cmp(&b.location));
    match found.is_empty() {
        true => Err(nothing_matches(&shown)),
        false => Ok(found.into_iter().map(source).collect()),
    }
}

fn absent(store: &Arc<dyn ObjectStore>, before: &str, path: &Path) -> Error {
    let error = Error::usage(format!("there is no file \"{before}/{path}\""));
    let (folder, wanted) = path.as_ref().rsplit_once('/').unwrap_or(("", path.as_ref()));
    let beside = Path::from(folder);
    let Some(listed) =
        runtime().ok().and_then(|runtime| runtime.block_on(store.list_with_delimiter(Some(&beside))).ok())
    else {
        return error;
    };
    let mut names: Vec<String> =
        listed.objects.iter().filter_map(|meta| meta.location.filename().map(str::to_owned)).collect();
    names.sort_unstable();
    match nearest(wanted, names.iter().map(String::as_str)) {
        Some(near) => error.help(format!("did you mean {near:?}?")),
        None if names.is_empty() => error,
        None => error.help(format!("beside it are {}", shorten(&names))),
    }
}

fn unavailable(error: Error) -> io::Error {
    io::Error::other(error.to_string())
}

/// An object, read from its first byte on as it arrives.
pub(super) struct Download {
    stream: BoxStream<'static, object_store::Result<Bytes>>,
    chunk: Bytes,
}

impl Download {
    pub(super) fn new(got: GetResult) -> Self {
        Self { stream: got.into_stream(), chunk: Bytes::new() }
    }
}

impl Read for Download {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.chunk.is_empty() {
            let next = runtime().map_err(unavailable)?.block_on(self.stream.next());
            match next {
                Some(chunk) => self.chunk = chunk?,
                None => return Ok(0),
            }
        }
        let taken = self.chunk.split_to(self.chunk.len().min(buffer.len()));
        buffer.iter_mut().zip(&taken).for_each(|(to, from)| *to = *from);
        Ok(taken.len())
    }
}

/// Bytes fetched at once.
const WINDOW: u64 = 4 << 20;

/// An object, read anywhere; it keeps the last window, since readers of columnar files go on where they were.
pub(crate) struct Window {
    store: Arc<dyn ObjectStore>,
    location: Path,
    size: u64,
    held: Mutex<(u64, Bytes)>,
}

impl Window {
    pub(super) fn new(store: Arc<dyn ObjectStore>, meta: &ObjectMeta) -> Self {
        Self { store, location: meta.location.clone(), size: meta.size, held: Mutex::default() }
    }

    pub(super) fn size(&self) -> u64 {
        self.size
    }

    pub(super) fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let within = offset >= held.0 && offset < held.0 + held.1.len() as u64;
        if !within {
            let end = (offset + WINDOW.max(buffer.len() as u64)).min(self.size);
            if offset >= end {
                return Ok(0);
            }
            let fetch = self.store.get_range(&self.location, offset..end);
            *held = (offset, runtime().map_err(unavailable)?.block_on(fetch)?);
        }
        let start = usize::try_from(offset - held.0).map_err(io::Error::other)?;
        let bytes = held.1.get(start..).unwrap_or_default();
        let read = bytes.len().min(buffer.len());
        buffer.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::files::fingerprint;
    use object_store::PutPayload;
    use object_store::memory::InMemory;

    fn store(files: &[(&str, &str)]) -> Arc<dyn ObjectStore> {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        for (name, text) in files {
            let path = Path::from(*name);
            let put = store.put(&path, PutPayload::from(text.as_bytes().to_vec()));
            runtime().unwrap().block_on(put).unwrap();
        }
        store
    }

    #[test]
    fn objects_are_found_and_read() {
        let store = store(&[("d/b.csv", "bb"), ("d/a.csv", "aaaa"), ("d/deep/c.csv", "c"), ("d/x.txt", "x")]);
        let find = |path: &str, pattern: Option<&str>| list(&store, "s3://bucket", &Path::from(path), pattern);
        let names = |found: Vec<Source>| -> Vec<String> { found.iter().map(|one| one.name().to_owned()).collect() };
        assert_eq!(names(find("d", Some("*.csv")).unwrap()), ["s3://bucket/d/a.csv", "s3://bucket/d/b.csv"]);
        assert_eq!(names(find("", Some("**/c.csv")).unwrap()), ["s3://bucket/d/deep/c.csv"]);
        let one = find("d/a.csv", None).unwrap();
        let mut text = String::new();
        one[0].open().unwrap().read_to_string(&mut text).unwrap();
        assert_eq!((text.as_str(), one[0].size()), ("aaaa", 4));
        let mut part = [0; 8];
        assert_eq!(one[0].ranges().unwrap().read_at(&mut part, 1).unwrap(), 3);
        assert_eq!(fingerprint(&one).unwrap(), fingerprint(&find("d/a.csv", None).unwrap()).unwrap());
        let error = find("d/aa.csv", None).unwrap_err();
        assert!(error.to_string().contains("there is no file \"s3://bucket/d/aa.csv\""), "{error}");
        assert_eq!(error.advice(), Some("did you mean \"a.csv\"?"));
        assert!(find("d", Some("*.json")).unwrap_err().to_string().contains("no file matches"));
    }

    #[test]
    fn a_scheme_that_is_not_built_in_is_named() {
        let fail = |url: &str| super::super::files::Paths::from_iter([url]).find().unwrap_err();
        let others = "paths, file://, s3://, gs:// and az:// can; download the file first";
        for (scheme, url) in [("ftp", "ftp://host/x.csv"), ("https", "https://host/x.csv")] {
            let error = fail(url);
            assert_eq!(error.to_string(), format!("{scheme}:// can't be read"));
            assert_eq!(error.advice(), Some(others));
        }
        for (scheme, feature) in [("s3", "s3"), ("gs", "gcs"), ("az", "azure"), ("abfss", "azure")] {
            // The crate that has the features is another one: a build with them may reach these.
            if reads(scheme) {
                continue;
            }
            let error = fail(&format!("{scheme}://bucket/*.csv"));
            assert_eq!(error.to_string(), format!("this build can't read {scheme}:// URLs"));
            let help = format!("build it with `cargo build --release --features {feature}`");
            assert_eq!(error.advice(), Some(help.as_str()));
        }
        let error = fail("gs://bucket:port/x.csv");
        assert_eq!(error.to_string(), "\"gs://bucket:port/x.csv\" is no URL: invalid port number");
    }

    /// Whether this build has the client of a cloud.
    fn reads(scheme: &str) -> bool {
        let url = Url::parse(&format!("{scheme}://bucket/x")).unwrap();
        !object_store::parse_url(&url).is_err_and(|error| error.to_string().contains("not enabled"))
    }

    #[test]
    fn a_store_that_cannot_be_asked_is_named_with_what_to_check() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("file"), "no folder").unwrap();
        let store: Arc<dyn ObjectStore> =
            Arc::new(object_store::local::LocalFileSystem::new_with_prefix(folder.path()).unwrap());
        for (path, pattern, named) in [
            ("file/x.csv", None, "s3://bucket/file/x.csv: "),
            ("file/deep", Some("*.csv"), "s3://bucket/file/deep/*.csv: "),
        ] {
            let error = list(&store, "s3://bucket", &Path::from(path), pattern).unwrap_err();
            assert!(error.to_string().starts_with(named), "{error}");
            assert!(error.to_string().contains("Not a directory"), "{error}");
            assert_eq!(error.advice(), Some("check the address, the network and the credentials, and run again"));
        }
    }
}
