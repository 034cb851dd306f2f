//! Who runs what: pure state machines. They do no I/O and read no clock; the same code decides for real runs and in
//! simulation.
//!
//! [`Scheduler::step`] takes what happened and says what to do. A [`Lane`] is what a worker runs and what waits there:
//! the scheduler keeps one of each worker as its books, and the worker keeps the same one.

mod event;
mod lane;
mod needs;
mod ready;
mod scheduler;

pub use event::{Action, Blob, End, Event, GroupId, StageId, Task, TaskId, Time, WorkerId};
pub use lane::Lane;
pub use needs::{Capacity, Needs, PoolId, Share, WHOLE};
pub use scheduler::Scheduler;
