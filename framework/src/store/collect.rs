//! Takes away what no kept result needs: mark from the memos, sweep the blobs.

use super::backend::{Backend, CORRUPT, Found};
use super::blobs::{BLOBS, blob_path, items};
use super::checkpoints::CHECKPOINTS;
use super::commit::{MEMO, memo_path};
use super::costs::COSTS;
use super::log::RUNS;
use super::once::{ONCE, task_of};
use super::{AT_ONCE, Key, Memo, Store, StoreError};
use crate::data::{Digest, Kind, Ref};
use futures::{StreamExt, TryStreamExt};
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, SystemTime};

/// What [`Store::collect`] keeps. By default every result and every run, and what they need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collect {
    /// Keep the newest so many runs and the results that their logs name (by key or by an output's digest), and what was
    /// written since the first of them began.
    pub runs: Option<usize>,
    /// Keep the runs and results that are younger than this. Given together with `runs`, either reason suffices.
    pub age: Option<Duration>,
    /// Whatever is younger stays: a run that is under way has written it and is about to need it. One hour by default.
    pub grace: Duration,
    /// A run whose log does not say that it finished may be under way, however long its last word is ago; up to this
    /// time it stays, with all that it names and all that was written since it began, and so do checkpoints of tasks
    /// without a result. Seven days by default.
    pub unfinished: Duration,
    /// Only count.
    pub dry_run: bool,
}

impl Default for Collect {
    fn default() -> Self {
        let (hour, week) = (Duration::from_secs(3600), Duration::from_secs(7 * 24 * 3600));
        Self { runs: None, age: None, grace: hour, unfinished: week, dry_run: false }
    }
}

/// What [`Store::collect`] took away, or would take away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Collected {
    /// Artifacts.
    pub blobs: u64,
    /// Results.
    pub memos: u64,
    /// Runs, with their logs.
    pub runs: u64,
    /// Checkpoints of tasks that are committed or too old.
    pub checkpoints: u64,
    /// Outcomes of effects, whose tasks' results go too or never came.
    pub outcomes: u64,
    /// Corrupt objects that were set aside, half-written files of dead processes, and outdated notes on what stages cost.
    pub leftovers: u64,
    /// The bytes of all these.
    pub bytes: u64,
    /// Artifacts that stay.
    pub kept_blobs: u64,
    /// Their bytes.
    pub kept_bytes: u64,
}

/// What is to be removed, in this order: a memo goes before its blobs, so that one that is there has its outputs.
#[derive(Default)]
struct Doomed {
    paths: Vec<String>,
    told: Collected,
}

impl Doomed {
    fn add(&mut self, found: &Found) {
        self.told.bytes += found.bytes;
        self.paths.push(found.path.clone());
    }
}

pub(super) async fn collect(store: &Store, options: Collect) -> Result<Collected, StoreError> {
    let backend = store.backend();
    let now = SystemTime::now();
    // An object from the future (clocks differ) is young.
    let age = |found: &Found| now.duration_since(found.modified).unwrap_or_default();
    let fresh = |found: &Found| age(found) < options.grace;
    let wanted = |found: &Found| {
        let everything = options.runs.is_none() && options.age.is_none();
        everything || fresh(found) || options.age.is_some_and(|limit| age(found) < limit)
    };
    let mut doomed = Doomed::default();

    // Listed before the memos are read: a blob that comes into being from here on is not even looked at.
    let blobs = backend.list(BLOBS).await?;

    let mut named = HashSet::new();
    // When the first of the runs began that are kept, and of those that may be under way. Logs name what stages gave, and
    // not what their tasks did, or what is put before a task that reads it.
    let (mut kept_since, mut under_way_since) = (None, None);
    for (newness, entries) in runs_newest_first(store).await?.iter().enumerate() {
        let kept = options.runs.is_some_and(|limit| newness < limit) || entries.iter().any(wanted);
        let young = entries.iter().any(|entry| age(entry) < options.unfinished);
        let under_way = young && !finished(backend, entries).await?;
        let begun = entries.iter().map(|entry| entry.modified).min();
        if under_way {
            under_way_since = earlier(under_way_since, begun);
        }
        if kept || under_way {
            kept_since = earlier(kept_since, begun);
            let texts = futures::stream::iter(entries).map(|entry| backend.read(&entry.path, entry.bytes));
            let mut texts = texts.buffered(AT_ONCE);
            while let Some(text) = texts.try_next().await? {
                named.extend(digests_in(text.as_deref().unwrap_or_default()));
            }
        } else {
            entries.iter().for_each(|entry| doomed.add(entry));
            doomed.told.runs += 1;
        }
    }

    let mut roots = Vec::new();
    // Whether the result of a task stays.
    let mut results = HashMap::new();
    for found in backend.list(MEMO).await? {
        let Ok(key) = found.name().parse::<Key>() else { continue };
        match store.read_memo(key).await {
            Ok(Some(memo)) if wanted(&found) || is_since(&found, kept_since) || is_named(key, &memo, &named) => {
                results.insert(key, true);
                roots.extend(memo.outputs.into_values())
            }
            Ok(None) => {}
            Ok(Some(_)) => {
                results.insert(key, false);
                doomed.add(&found);
                doomed.told.memos += 1;
            }
            Err(StoreError::Corrupt { .. }) => {
                doomed.add(&found);
                doomed.told.memos += 1;
            }
            Err(error) => return Err(error),
        }
    }

    let live = mark(store, roots, named).await?;
    for found in &blobs {
        match found.name().parse::<Digest>() {
            Ok(digest) if !live.contains(&digest) && !fresh(found) && !is_since(found, under_way_since) => {
                doomed.add(found);
                doomed.told.blobs += 1;
            }
            _ => {
                doomed.told.kept_blobs += 1;
                doomed.told.kept_bytes += found.bytes;
            }
        }
    }

    for found in backend.list(CHECKPOINTS).await? {
        let key = found.path.split('/').nth(1).and_then(|key| key.parse::<Key>().ok());
        let committed = match key {
            Some(key) => backend.size(&memo_path(key)).await?.is_some(),
            None => false,
        };
        // That of a task without a result is where a run that was killed goes on.
        if committed || (!wanted(&found) && age(&found) >= options.unfinished) {
            doomed.add(&found);
            doomed.told.checkpoints += 1;
        }
    }
    // After the memos: a result that is there has the outcomes of its effects, should its task have to run again.
    // A task without a result may be attempted again; only their age tells that nobody needs its outcomes.
    for found in backend.list(ONCE).await? {
        let key = task_of(&found.path);
        let old = options.age.is_some_and(|limit| age(&found) >= limit) && !fresh(&found);
        let goes = match key.and_then(|key| results.get(&key)) {
            Some(stays) => !stays,
            None => old,
        };
        if goes {
            doomed.add(&found);
            doomed.told.outcomes += 1;
        }
    }
    let mut costs = backend.list(COSTS).await?;
    costs.sort_by(|a, b| a.path.cmp(&b.path));
    // The newest holds all that is known.
    costs.pop();
    for found in costs.iter().filter(|found| !fresh(found)).chain(&backend.list(CORRUPT).await?) {
        doomed.add(found);
        doomed.told.leftovers += 1;
    }

    if !options.dry_run {
        let remove = |path: String| async move { backend.remove(&path).await };
        for kind in doomed.paths.chunk_by(|a, b| folder(a) == folder(b)) {
            // One kind after the other, for the order between memos and blobs.
            let removals = futures::stream::iter(kind.to_vec()).map(remove).buffer_unordered(AT_ONCE);
            removals.try_collect::<Vec<()>>().await?;
        }
    }
    let left = backend.sweep(options.dry_run).await?;
    doomed.told.leftovers += left.files;
    doomed.told.bytes += left.bytes;
    Ok(doomed.told)
}

fn folder(path: &str) -> &str {
    path.split('/').next().unwrap_or_default()
}

fn earlier(one: Option<SystemTime>, other: Option<SystemTime>) -> Option<SystemTime> {
    [one, other].into_iter().flatten().min()
}

/// Whether something was written since a time; where the store can tell, also whether it would have been.
fn is_since(found: &Found, time: Option<SystemTime>) -> bool {
    time.is_some_and(|time| found.modified >= time)
}

/// Whether a run says that it is over.
async fn finished(backend: &Backend, entries: &[Found]) -> Result<bool, StoreError> {
    const LAST: &[u8] = br#""event":"finished""#;
    let Some(last) = entries.last() else { return Ok(true) };
    let text = backend.read(&last.path, last.bytes).await?.unwrap_or_default();
    Ok(text.windows(LAST.len()).any(|part| part == LAST))
}

/// The entries of each run, the run that was last written to first.
async fn runs_newest_first(store: &Store) -> Result<Vec<Vec<Found>>, StoreError> {
    let mut runs: BTreeMap<String, Vec<Found>> = BTreeMap::new();
    for found in store.backend().list(RUNS).await? {
        if let Some(run) = found.path.split('/').nth(1) {
            runs.entry(run.to_owned()).or_default().push(found);
        }
    }
    let mut runs: Vec<(String, Vec<Found>)> = runs.into_iter().collect();
    // Of two that were written in one tick of the clock, `NAME-10` is newer than `NAME-9`.
    runs.sort_by_cached_key(|(run, entries)| {
        Reverse((entries.iter().map(|entry| entry.modified).max(), run.len(), run.clone()))
    });
    Ok(runs.into_iter().map(|(_, entries)| entries).collect())
}

/// The digests that a text names, whatever the shape of its events: every run of exactly 64 hexadecimal digits.
fn digests_in(text: &[u8]) -> impl Iterator<Item = Digest> {
    text.split(|byte| !byte.is_ascii_hexdigit())
        .filter(|word| word.len() == 64)
        .filter_map(|word| std::str::from_utf8(word).ok()?.parse().ok())
}

fn is_named(key: Key, memo: &Memo, named: &HashSet<Digest>) -> bool {
    named.contains(&key.0) || memo.outputs.values().any(|output| named.contains(&output.digest))
}

/// The digests that can be reached from the roots, through lists.
async fn mark(store: &Store, roots: Vec<Ref>, mut live: HashSet<Digest>) -> Result<HashSet<Digest>, StoreError> {
    let mut seen = HashSet::new();
    let mut open = roots;
    while let Some(reference) = open.pop() {
        live.insert(reference.digest);
        if reference.kind != Kind::List || !seen.insert(reference.digest) {
            continue;
        }
        match store.blob(reference).await {
            Ok(bytes) => open.extend(items(reference, &bytes)?),
            // Lost: the next run computes it anew, and puts its items anew as well.
            Err(error) if error.is_lost() => tracing::warn!("{error} ({})", blob_path(reference.digest)),
            Err(error) => return Err(error),
        }
    }
    Ok(live)
}
