//! Long work leaves the I/O threads alone.

use crate::data::Artifact;
use arrow::array::{Array, ArrayRef, RecordBatch};

/// From this many bytes on, hashing, encoding and file access go to a thread that may block. Below, the hand-over
/// (some ten microseconds) would cost more than the work.
pub(super) const LONG: u64 = 256 << 10;

/// Runs work on `bytes` bytes: at once if it is short, else on a thread for blocking work.
pub(crate) async fn offload<T: Send + 'static>(bytes: u64, work: impl FnOnce() -> T + Send + 'static) -> T {
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

/// About how many canonical bytes an artifact has, without the items of a list.
pub(crate) fn size_hint(artifact: &Artifact) -> u64 {
    let tensors = |tensors: &crate::data::Tensors| tensors.iter().map(|(_, tensor)| tensor.data().len() as u64).sum();
    match artifact {
        Artifact::Frame(frame) => frame.batches().iter().map(batch_bytes).sum(),
        Artifact::Tensors(inner) => tensors(inner),
        Artifact::Model(model) => tensors(model.tensors()),
        Artifact::Metrics(metrics) => 32 * metrics.len() as u64,
        Artifact::List(list) => 128 * list.len() as u64,
        Artifact::Bytes(bytes) => bytes.len() as u64,
    }
}

/// The bytes of a batch's own rows; its buffers may be parts of larger ones.
fn batch_bytes(batch: &RecordBatch) -> u64 {
    let bytes = |column: &ArrayRef| match column.to_data().get_slice_memory_size() {
        Ok(bytes) => bytes as u64,
        Err(_) => column.get_array_memory_size() as u64,
    };
    batch.columns().iter().map(bytes).sum()
}
