//! Long work leaves the I/O threads alone.

use crate::data::Artifact;

/// From this many bytes on, hashing, encoding and file access go to a thread that may block. Below, the hand-over
/// (some ten microseconds) would cost more than the work.
pub(super) const LONG: u64 = 256 << 10;

/// Runs work on `bytes` bytes: at once if it is short, else on a thread for blocking work.
pub(super) async fn offload<T: Send + 'static>(bytes: u64, work: impl FnOnce() -> T + Send + 'static) -> T {
    if bytes < LONG || tokio::runtime::Handle::try_current().is_err() {
        return work();
    }
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Only a runtime that shuts down cancels blocking work, and then nobody waits for this any more.
            Err(_) => std::future::pending().await,
        },
    }
}

/// About how many bytes an artifact has in memory.
pub(super) fn size_hint(artifact: &Artifact) -> u64 {
    let tensors = |tensors: &crate::data::Tensors| tensors.iter().map(|(_, tensor)| tensor.data().len() as u64).sum();
    match artifact {
        Artifact::Frame(frame) => frame.batches().iter().map(|batch| batch.get_array_memory_size() as u64).sum(),
        Artifact::Tensors(inner) => tensors(inner),
        Artifact::Model(model) => tensors(model.tensors()),
        Artifact::Metrics(metrics) => 32 * metrics.len() as u64,
        Artifact::List(list) => list.items().iter().map(size_hint).sum(),
        Artifact::Bytes(bytes) => bytes.len() as u64,
    }
}
