//! Objects by name. Most names are digests, of which there may be millions: those take no more room than they must.

use super::blobs::{BLOBS, blob_path};
use super::commit::{MEMO, memo_path};
use crate::data::Digest;
use crate::store::Key;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Bound;

/// The name of an object, read from its path.
#[derive(Clone, Copy)]
pub(super) enum Name<'a> {
    /// `blobs/ab/<digest>`
    Blob(Digest),
    /// `memo/12/<key>`
    Memo(Key),
    /// Any other path.
    Other(&'a str),
}

impl<'a> Name<'a> {
    pub(super) fn of(path: &'a str) -> Self {
        let digest = |folder| digest_in(path.strip_prefix(folder)?.strip_prefix('/')?);
        let blob = || digest(BLOBS).map(Name::Blob);
        let memo = || digest(MEMO).map(|digest| Name::Memo(Key(digest)));
        blob().or_else(memo).unwrap_or(Name::Other(path))
    }
}

/// The digest of `ab/<digest>`, as this program writes it.
fn digest_in(rest: &str) -> Option<Digest> {
    let (folder, name) = rest.split_once('/')?;
    let ours = folder.len() == 2 && name.starts_with(folder) && !name.bytes().any(|byte| byte.is_ascii_uppercase());
    if ours { name.parse().ok() } else { None }
}

/// What is there under which name.
pub(super) struct Named<T> {
    blobs: BTreeMap<Digest, T>,
    memos: BTreeMap<Key, T>,
    others: BTreeMap<String, T>,
}

impl<T> Default for Named<T> {
    fn default() -> Self {
        Self { blobs: BTreeMap::new(), memos: BTreeMap::new(), others: BTreeMap::new() }
    }
}

impl<T> Named<T> {
    /// Whether nothing is in a folder of neither blobs nor memos.
    pub(super) fn has_none(&self, folder: &str) -> bool {
        let mut rests = self
            .others
            .range::<str, _>((Bound::Included(folder), Bound::Unbounded))
            .map_while(|(path, _)| path.strip_prefix(folder));
        !rests.any(|rest| rest.starts_with('/'))
    }

    pub(super) fn get(&self, name: Name<'_>) -> Option<&T> {
        match name {
            Name::Blob(digest) => self.blobs.get(&digest),
            Name::Memo(key) => self.memos.get(&key),
            Name::Other(path) => self.others.get(path),
        }
    }

    pub(super) fn get_mut(&mut self, name: Name<'_>) -> Option<&mut T> {
        match name {
            Name::Blob(digest) => self.blobs.get_mut(&digest),
            Name::Memo(key) => self.memos.get_mut(&key),
            Name::Other(path) => self.others.get_mut(path),
        }
    }

    /// Puts what `make` gives under a name that has nothing yet, and gives nothing; else gives what is there.
    pub(super) fn insert_if_none(&mut self, name: Name<'_>, make: impl FnOnce() -> T) -> Option<&mut T> {
        match name {
            Name::Blob(digest) => insert_if_none(self.blobs.entry(digest), make),
            Name::Memo(key) => insert_if_none(self.memos.entry(key), make),
            Name::Other(path) => insert_if_none(self.others.entry(path.to_owned()), make),
        }
    }

    /// Puts something under a name; gives what was there.
    pub(super) fn insert(&mut self, name: Name<'_>, object: T) -> Option<T> {
        match name {
            Name::Blob(digest) => self.blobs.insert(digest, object),
            Name::Memo(key) => self.memos.insert(key, object),
            Name::Other(path) => self.others.insert(path.to_owned(), object),
        }
    }

    pub(super) fn remove(&mut self, name: Name<'_>) -> Option<T> {
        match name {
            Name::Blob(digest) => self.blobs.remove(&digest),
            Name::Memo(key) => self.memos.remove(&key),
            Name::Other(path) => self.others.remove(path),
        }
    }

    /// What is in a folder, however deep, with its path.
    pub(super) fn inside(&self, folder: &str) -> impl Iterator<Item = (String, &T)> {
        let first = folder.split('/').next().unwrap_or(folder);
        // Of what is elsewhere nothing is looked at, which may be millions.
        let blobs = (first == BLOBS).then_some(&self.blobs).into_iter().flatten();
        let memos = (first == MEMO).then_some(&self.memos).into_iter().flatten();
        let digests = blobs.map(|(digest, object)| (blob_path(*digest), object));
        let digests = digests.chain(memos.map(|(key, object)| (memo_path(*key), object)));
        let others = self.others.range(format!("{folder}/")..).take_while(move |(path, _)| is_in(path, folder));
        let others = others.map(|(path, object)| (path.clone(), object));
        digests.filter(move |(path, _)| is_in(path, folder)).chain(others)
    }
}

fn insert_if_none<K: Ord, T>(entry: Entry<'_, K, T>, make: impl FnOnce() -> T) -> Option<&mut T> {
    match entry {
        Entry::Occupied(there) => Some(there.into_mut()),
        Entry::Vacant(place) => {
            place.insert(make());
            None
        }
    }
}

fn is_in(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_is_one_name_and_comes_back() {
        let (digest, key) = (Digest::of(b"x"), Key(Digest::of(b"y")));
        let shouted = format!("{BLOBS}/{}", blob_path(digest)[BLOBS.len() + 1..].to_uppercase());
        let elsewhere = format!("{BLOBS}/zz/{digest}");
        let paths = [&blob_path(digest), &memo_path(key), "runs/a/1", "blobs/ab/x", &shouted, &elsewhere, "memo"];
        let mut named = Named::default();
        for (number, path) in paths.iter().enumerate() {
            assert!(named.insert(Name::of(path), number).is_none(), "{path}");
        }
        for (number, path) in paths.iter().enumerate() {
            assert_eq!(named.get(Name::of(path)), Some(&number), "{path}");
        }
        let inside = |folder: &str| named.inside(folder).map(|(path, _)| path).collect::<Vec<_>>();
        assert_eq!(inside(BLOBS).len(), 4);
        assert_eq!(inside(MEMO), [memo_path(key)]);
        assert_eq!(inside(&blob_path(digest)[..8]), [blob_path(digest)]);
        assert!(inside("blob").is_empty());
        assert!(matches!((Name::of(&blob_path(digest)), Name::of(&memo_path(key))), (Name::Blob(_), Name::Memo(_))));
        assert_eq!(named.remove(Name::of(&shouted)), Some(4));
        assert_eq!(named.get_mut(Name::of(&shouted)), None);
    }
}
