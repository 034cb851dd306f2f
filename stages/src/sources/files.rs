//! Where the bytes are: paths, globs and object-store URLs.

use super::remote;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};
use ropeway_framework::data::Digest;
use ropeway_framework::{Error, Result, nearest};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// One path or a list of them: local paths, globs (`data/*.csv`, `logs/**/*.json`) or URLs (`s3://bucket/day=*/x.parquet`).
///
/// A list keeps its order; what a glob matches comes in the order of the names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(from = "PathsForm", into = "Vec<String>")]
#[schemars(with = "PathsForm")]
pub struct Paths(Vec<String>);

#[derive(Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected a path or a list of paths")]
enum PathsForm {
    /// One path, glob or URL.
    One(String),
    /// Several, in this order.
    Many(Vec<String>),
}

impl From<PathsForm> for Paths {
    fn from(form: PathsForm) -> Self {
        Self(match form {
            PathsForm::One(path) => vec![path],
            PathsForm::Many(paths) => paths,
        })
    }
}

impl From<Paths> for Vec<String> {
    fn from(paths: Paths) -> Self {
        paths.0
    }
}

impl<S: Into<String>> FromIterator<S> for Paths {
    fn from_iter<I: IntoIterator<Item = S>>(paths: I) -> Self {
        Self(paths.into_iter().map(Into::into).collect())
    }
}

impl Paths {
    /// Whether all of them lie in remote stores, so that they mean the same everywhere.
    pub(crate) fn are_remote(&self) -> bool {
        self.0.iter().all(|path| path.split_once("://").is_some_and(|(scheme, _)| scheme != "file"))
    }

    /// The files that the paths name, in reading order.
    ///
    /// # Errors
    /// A path that names nothing, a glob that matches nothing, a file that is named twice or is empty, a store that
    /// can't be reached.
    pub(crate) fn find(&self) -> Result<Vec<Source>> {
        let mut found: Vec<Source> = Vec::new();
        for path in &self.0 {
            found.extend(match path.split_once("://") {
                Some(("file", _)) => local(&file_url(path)?)?,
                Some((scheme, _)) => remote::find(scheme, path)?,
                None => local(path)?,
            });
        }
        if found.is_empty() {
            return Err(Error::usage("no path is given").help("path = \"data/*.csv\", for example"));
        }
        let mut names: Vec<&str> = found.iter().map(Source::name).collect();
        names.sort_unstable();
        if let Some([twice, _]) = names.array_windows::<2>().find(|[a, b]| a == b) {
            return Err(
                Error::usage(format!("{twice} is named twice")).help("each file is read once; drop one mention")
            );
        }
        if let Some(empty) = found.iter().find(|source| source.size == 0) {
            return Err(Error::new(format!("{} is empty (0 bytes)", empty.name)));
        }
        Ok(found)
    }
}

/// One file, here or in an object store.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    name: String,
    size: u64,
    place: Place,
}

#[derive(Clone, Debug)]
enum Place {
    Local(PathBuf),
    Remote(Arc<dyn ObjectStore>, Box<ObjectMeta>),
}

impl Source {
    pub(super) fn local(path: &Path) -> Result<Self> {
        let name = path.display().to_string();
        let size = path.metadata().map_err(|error| broken(&name, error))?.len();
        Ok(Self { name, size, place: Place::Local(path.to_owned()) })
    }

    /// An object of a store; `name` is what people call it.
    pub(super) fn remote(name: String, store: Arc<dyn ObjectStore>, meta: ObjectMeta) -> Self {
        Self { name, size: meta.size, place: Place::Remote(store, Box::new(meta)) }
    }

    /// What people call it: the path or the URL.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Its bytes, as a number.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Its bytes from the first on.
    pub(crate) fn open(&self) -> Result<Box<dyn Read + Send>> {
        match &self.place {
            Place::Local(path) => Ok(Box::new(File::open(path).map_err(|error| broken(&self.name, error))?)),
            Place::Remote(store, meta) => {
                let got = ropeway_framework::runtime()?.block_on(store.get(&meta.location));
                let got = got.map_err(|error| Error::from(error).context(&self.name))?;
                Ok(Box::new(remote::Download::new(got)))
            }
        }
    }

    /// A way to read anywhere in it, from several threads at once.
    pub(crate) fn ranges(&self) -> Result<Ranges> {
        Ok(match &self.place {
            Place::Local(path) => {
                Ranges::Local(Arc::new(File::open(path).map_err(|error| broken(&self.name, error))?), self.size)
            }
            Place::Remote(store, meta) => Ranges::Remote(Arc::new(remote::Window::new(store.clone(), meta))),
        })
    }
}

/// Reads anywhere in one file.
#[derive(Clone)]
pub(crate) enum Ranges {
    Local(Arc<File>, u64),
    Remote(Arc<remote::Window>),
}

impl Ranges {
    /// How many bytes the file has.
    pub(crate) fn size(&self) -> u64 {
        match self {
            Ranges::Local(_, size) => *size,
            Ranges::Remote(window) => window.size(),
        }
    }

    /// Reads up to `buffer.len()` bytes at an offset; 0 at the end.
    pub(crate) fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        match self {
            Ranges::Local(file, _) => file.read_at(buffer, offset),
            Ranges::Remote(window) => window.read_at(buffer, offset),
        }
    }

    /// A reader from an offset on.
    pub(crate) fn reader(&self, offset: u64) -> RangeReader {
        RangeReader { ranges: self.clone(), offset }
    }
}

/// Reads on from an offset, and seeks.
pub(crate) struct RangeReader {
    ranges: Ranges,
    offset: u64,
}

impl Read for RangeReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.ranges.read_at(buffer, self.offset)?;
        self.offset += read as u64;
        Ok(read)
    }
}

impl io::Seek for RangeReader {
    fn seek(&mut self, to: io::SeekFrom) -> io::Result<u64> {
        let target = match to {
            io::SeekFrom::Start(offset) => Some(offset),
            io::SeekFrom::End(offset) => self.ranges.size().checked_add_signed(offset),
            io::SeekFrom::Current(offset) => self.offset.checked_add_signed(offset),
        };
        self.offset = target.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "before the file's start"))?;
        Ok(self.offset)
    }
}

/// What the content of files is, for keys: the BLAKE3 digest of local ones in order; version, tag and size of remote ones.
///
/// # Errors
/// A file can't be read.
pub(crate) fn fingerprint(sources: &[Source]) -> Result<String> {
    let mut whole = blake3::Hasher::new();
    for source in sources {
        let one = match &source.place {
            Place::Local(path) => {
                let digest = File::open(path).and_then(|file| Digest::of_file(&file, file.metadata()?.len()));
                digest.map_err(|error| broken(&source.name, error))?
            }
            Place::Remote(_, meta) => {
                let tag = match (&meta.version, &meta.e_tag) {
                    (Some(version), _) => format!("version {version}"),
                    (None, Some(tag)) => format!("tag {tag}"),
                    (None, None) => format!("modified {}", meta.last_modified.to_rfc3339()),
                };
                Digest::of(format!("{} {tag} {}", source.name, meta.size).as_bytes())
            }
        };
        whole.update(one.as_bytes());
    }
    Ok(whole.finalize().to_hex().to_string())
}

/// An I/O error of a file, in words.
pub(crate) fn broken(name: &str, error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => {
            Error::new(format!("{name} ends in the middle")).help("the file is truncated: copy or download it again")
        }
        io::ErrorKind::PermissionDenied => {
            Error::new(format!("{name} may not be read")).help("give this user the right to read it")
        }
        _ => Error::from(error).context(name),
    }
}

/// Whether a path is a pattern.
pub(super) fn is_glob(path: &str) -> bool {
    path.contains(['*', '?', '['])
}

fn file_url(path: &str) -> Result<String> {
    // A URL parser would take the `?` of a glob for a query.
    let rest = path.strip_prefix("file://").unwrap_or(path);
    match rest.starts_with('/') || !rest.contains("://") {
        true => Ok(rest.to_owned()),
        false => Err(Error::usage(format!("{path:?} is no file URL")).help("write file:///the/whole/path")),
    }
}

fn local(path: &str) -> Result<Vec<Source>> {
    let place = Path::new(path);
    if place.is_file() {
        return Ok(vec![Source::local(place)?]);
    }
    if place.is_dir() {
        return Err(Error::usage(format!("{path} is a folder"))
            .help(format!("name its files: {}/*.csv", path.trim_end_matches('/'))));
    }
    if place.exists() {
        // A pipe or a device: its content can be read only once, and a key needs it as well.
        return Err(Error::usage(format!("{path} is no regular file")));
    }
    if !is_glob(path) {
        return Err(absent(path));
    }
    let options = glob::MatchOptions { require_literal_separator: true, ..glob::MatchOptions::new() };
    let matches = glob::glob_with(path, options)
        .map_err(|error| Error::usage(format!("{path:?} is no pattern: {}", error.msg)))?;
    let mut found = Vec::new();
    for entry in matches {
        let entry = entry.map_err(|error| broken(&error.path().display().to_string(), error.into()))?;
        if entry.is_file() {
            found.push(Source::local(&entry)?);
        }
    }
    match found.is_empty() {
        true => Err(nothing_matches(path)),
        false => Ok(found),
    }
}

/// The error for a glob without a match.
pub(super) fn nothing_matches(pattern: &str) -> Error {
    Error::usage(format!("no file matches {pattern:?}"))
        .help("`*` stands for part of one name, `**` for any folders between")
}

/// The error for a path that names nothing, with what was probably meant.
fn absent(path: &str) -> Error {
    let error = Error::usage(format!("there is no file {path:?}"));
    if path.starts_with('~') {
        return error.help("`~` is the shell's; write the whole path");
    }
    let place = Path::new(path);
    let folder = match place.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let Ok(entries) = folder.read_dir() else {
        let here = std::env::current_dir().map(|here| format!(" (looked from {})", here.display()));
        return error.help(format!("there is no folder {} either{}", folder.display(), here.unwrap_or_default()));
    };
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| !name.starts_with('.'))
        .collect();
    names.sort_unstable();
    let wanted = place.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    match nearest(wanted, names.iter().map(String::as_str)) {
        Some(near) if folder == Path::new(".") => error.help(format!("did you mean {near:?}?")),
        Some(near) => error.help(format!("did you mean {:?}?", folder.join(near).display().to_string())),
        None if names.is_empty() => error.help(format!("the folder {} is empty", folder.display())),
        None => error.help(format!("the folder has {}", shorten(&names))),
    }
}

/// The first few of many names.
pub(super) fn shorten(names: &[String]) -> String {
    match names.get(..8) {
        Some(few) if names.len() > 8 => format!("{} and {} more", few.join(", "), names.len() - 8),
        _ => names.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn text(folder: &Path, name: &str) -> String {
        folder.join(name).display().to_string()
    }

    #[test]
    fn globs_come_in_name_order_and_lists_in_theirs() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("deep")).unwrap();
        for name in ["b.csv", "a.csv", "c.txt", "deep/d.csv"] {
            fs::write(folder.path().join(name), name).unwrap();
        }
        let find = |patterns: &[&str]| -> Vec<String> {
            let paths: Paths = patterns.iter().map(|pattern| text(folder.path(), pattern)).collect();
            let strip = text(folder.path(), "");
            paths.find().unwrap().iter().map(|source| source.name().replace(&strip, "")).collect()
        };
        assert_eq!(find(&["*.csv"]), ["a.csv", "b.csv"]);
        assert_eq!(find(&["**/*.csv"]), ["a.csv", "b.csv", "deep/d.csv"]);
        assert_eq!(find(&["c.txt", "a.csv"]), ["c.txt", "a.csv"]);
        let url: Paths = [format!("file://{}", text(folder.path(), "*.csv"))].into_iter().collect();
        assert_eq!(url.find().unwrap().len(), 2);
    }

    #[test]
    fn what_is_not_there_is_said_with_what_is() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("flights.csv"), "a").unwrap();
        fs::write(folder.path().join("void.csv"), "").unwrap();
        let fail = |path: String| Paths::from_iter([path]).find().unwrap_err();
        let error = fail(text(folder.path(), "flihgts.csv"));
        assert!(error.to_string().contains("there is no file"), "{error}");
        assert!(error.advice().unwrap().contains("did you mean"), "{error:?}");
        assert!(error.advice().unwrap().contains("flights.csv"), "{error:?}");
        assert!(fail(text(folder.path(), "zebra")).advice().unwrap().contains("the folder has flights.csv, void.csv"));
        assert!(fail(text(folder.path(), "no/such/x.csv")).advice().unwrap().contains("there is no folder"));
        assert!(fail(text(folder.path(), "*.parquet")).to_string().contains("no file matches"));
        assert!(fail(text(folder.path(), "void.csv")).to_string().contains("is empty (0 bytes)"));
        assert!(fail(text(folder.path(), "")).to_string().contains("is a folder"));
        assert!(fail("~/x.csv".into()).advice().unwrap().contains("whole path"));
        let twice: Paths = ["flights.csv", "f*.csv"].iter().map(|path| text(folder.path(), path)).collect();
        assert!(twice.find().unwrap_err().to_string().contains("named twice"));
    }

    #[test]
    fn one_path_and_a_list_of_one_are_equal() {
        let one: Paths = serde_json::from_str("\"a\"").unwrap();
        let list: Paths = serde_json::from_str("[\"a\"]").unwrap();
        assert_eq!(one, list);
        assert_eq!(serde_json::to_string(&one).unwrap(), "[\"a\"]");
        let error = serde_json::from_str::<Paths>("3").unwrap_err();
        assert!(error.to_string().contains("expected a path or a list of paths"), "{error}");
    }

    #[test]
    fn the_fingerprint_follows_the_content() {
        let folder = tempfile::tempdir().unwrap();
        let paths: Paths = [text(folder.path(), "*.csv")].into_iter().collect();
        fs::write(folder.path().join("a.csv"), "1").unwrap();
        let first = fingerprint(&paths.find().unwrap()).unwrap();
        assert_eq!(first, fingerprint(&paths.find().unwrap()).unwrap());
        fs::write(folder.path().join("a.csv"), "2").unwrap();
        let second = fingerprint(&paths.find().unwrap()).unwrap();
        fs::write(folder.path().join("b.csv"), "2").unwrap();
        let third = fingerprint(&paths.find().unwrap()).unwrap();
        assert!(first != second && second != third);
    }
}
