//! Who runs what: pure state machines. They do no I/O and read no clock; the same code decides for real runs and in
//! simulation.
//!
//! [`Scheduler::step`] takes what happened and says what to do. A [`Lane`] is what a worker runs and what waits there:
//! the scheduler keeps one of each worker as its books, and the worker keeps the same one. [`Costs`] learns how long
//! the tasks of a stage take.

mod attempts;
mod autoscaler;
mod avoid;
#[cfg(test)]
mod check;
mod cost;
mod devices;
mod event;
mod hash;
mod heirs;
mod holders;
mod index;
mod lane;
mod lines;
mod needs;
mod offers;
mod place;
mod refuse;
mod reserve;
mod scheduler;
mod shares;
#[cfg(test)]
mod simulation;
mod task;
#[cfg(test)]
mod tests;
mod timers;
mod view;
mod workers;

pub use autoscaler::{Autoscaler, Demand, OrderId, Pool, Present, Scale, View};
pub use cost::{Costs, Device, Estimate, Offer};
pub use event::{Action, Blob, End, Event, GroupId, RunId, StageId, Standing, Task, TaskId, Time, WorkerId};
pub(crate) use holders::MOST_HELD;
pub use lane::Lane;
pub use needs::{Capacity, Needs, PoolId, Share, WHOLE};
pub use offers::{Site, offers};
pub use scheduler::Scheduler;
pub(crate) use scheduler::backoff;
