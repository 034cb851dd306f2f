//! An object store that fails, for tests.

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// How a store fails.
#[derive(Debug)]
pub(super) enum Plan {
    /// By chance, from a seed: two of ten operations fail before they do anything, two after they have done it.
    Sometimes(u64),
    /// Every write fails with this error.
    NoWrites(fn() -> Error),
    /// Everything fails with this error.
    Nothing(fn() -> Error),
    /// It creates what is there already.
    Overwrites,
    /// Writes among so many first operations are refused as S3 refuses one of two that race: nothing need be there.
    Conflicts(u64),
}

/// A store in memory that fails by a plan. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Faulty(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    memory: InMemory,
    plan: Plan,
    operations: AtomicU64,
}

enum Chance {
    Before,
    After,
    Never,
}

impl Faulty {
    pub(super) fn new(plan: Plan) -> Self {
        Self(Arc::new(Inner { memory: InMemory::new(), plan, operations: AtomicU64::new(0) }))
    }

    /// How many operations there were.
    pub(super) fn operations(&self) -> u64 {
        self.0.operations.load(Ordering::SeqCst)
    }

    fn chance(&self) -> Chance {
        let operation = self.0.operations.fetch_add(1, Ordering::SeqCst);
        let Plan::Sometimes(seed) = self.0.plan else { return Chance::Never };
        match mix(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(operation)) % 10 {
            0 | 1 => Chance::Before,
            2 | 3 => Chance::After,
            _ => Chance::Never,
        }
    }

    /// Does an operation, or not, and says so, or not.
    async fn perhaps<T>(&self, write: bool, operation: impl Future<Output = Result<T>>) -> Result<T> {
        let chance = self.chance();
        match self.0.plan {
            Plan::Nothing(error) => return Err(error()),
            Plan::NoWrites(error) if write => return Err(error()),
            Plan::Conflicts(first) if write && self.operations() <= first => {
                return Err(Error::AlreadyExists { path: "conflict".into(), source: "another is under way".into() });
            }
            _ => {}
        }
        match chance {
            Chance::Before => Err(reset("before")),
            Chance::After => operation.await.and(Err(reset("after"))),
            Chance::Never => operation.await,
        }
    }
}

fn reset(when: &str) -> Error {
    Error::Generic { store: "faulty", source: format!("the connection was reset {when} the operation").into() }
}

/// The finaliser of splitmix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
pub(super) fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "faulty://{:?}", self.0.plan)
    }
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(&self, location: &Path, payload: PutPayload, mut options: PutOptions) -> Result<PutResult> {
        if matches!(self.0.plan, Plan::Overwrites) {
            options.mode = PutMode::Overwrite;
        }
        self.perhaps(true, self.0.memory.put_opts(location, payload, options)).await
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        Err(Error::NotImplemented { operation: "multipart".into(), implementer: self.to_string() })
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.perhaps(false, self.0.memory.get_opts(location, options)).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let this = self.clone();
        let delete = move |location: Result<Path>| {
            let this = this.clone();
            async move {
                let one = futures::stream::iter([location]).boxed();
                let mut deleted = this.0.memory.delete_stream(one);
                let next = async { deleted.next().await.unwrap_or_else(|| Err(reset("in"))) };
                this.perhaps(true, next).await
            }
        };
        locations.then(delete).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (this, prefix) = (self.clone(), prefix.cloned());
        let list = async move {
            let found = this.perhaps(false, async { Ok(this.0.memory.list(prefix.as_ref())) }).await;
            found.unwrap_or_else(|error| futures::stream::iter([Err(error)]).boxed())
        };
        futures::stream::once(list).flatten().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.perhaps(false, self.0.memory.list_with_delimiter(prefix)).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.perhaps(true, self.0.memory.copy_opts(from, to, options)).await
    }
}
