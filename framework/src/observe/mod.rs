//! What is seen: a run's story, read from its events. Who ran what and when, what it cost, and a trace for Perfetto.
//!
//! All of it is computed from the log, so that it is the same while a run is under way, after it, and on any machine.

mod cost;
#[cfg(test)]
mod tests;
mod timeline;
mod trace;

pub use cost::{Bill, Cost};
pub use timeline::{Span, StageLife, Timeline, WorkerLife};
pub use trace::chrome_trace;
