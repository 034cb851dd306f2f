//! The members of a gang: attempts of one task, on different workers, that compute its result together.

use super::Cancel;
use crate::Result;
use std::ops::Range;
use std::sync::Arc;

/// A way for a stage to compute its result together with others of its kind: `needs = { workers = N }` starts it N
/// times, with the same inputs, parameters and seed, and each may do a part of the work.
///
/// Members come and go while they work. So a stage works in steps, [meets](Gang::meet) the others before the first and
/// whenever an exchange says that the circle has changed, does the step that was under way again, and gives the same
/// result whoever took part. Every member gives that result; what is committed first counts.
///
/// ```
/// use ropeway_framework::Result;
/// use ropeway_framework::data::Metrics;
/// use ropeway_framework::stage::{Cancel, Gang};
///
/// /// Sums squares, each member its part of them.
/// fn squares(gang: Gang, cancel: Cancel) -> Result<Metrics> {
///     loop {
///         let mut circle = gang.meet(&cancel)?;
///         let (rank, size) = (circle.rank() as u64, circle.size());
///         let mine: u64 = (0..1000).filter(|n| n % size as u64 == rank).map(|n| n * n).sum();
///         circle.outgoing(8)?.copy_from_slice(&mine.to_le_bytes());
///         // Everyone gets all of it.
///         if circle.exchange(&vec![0..8; size])? {
///             let parts = (0..size).map(|rank| circle.incoming(rank).try_into().map_or(0, u64::from_le_bytes));
///             let sum = parts.sum::<u64>() as f64;
///             if circle.is_whole() {
///                 return Ok([("sum", sum)].into_iter().collect());
///             }
///         }
///     }
/// }
/// # assert_eq!(squares(Gang::default(), Cancel::default())?.get("sum"), Some(332833500.0));
/// # Ok::<_, ropeway_framework::Error>(())
/// ```
#[derive(Clone, Default)]
pub struct Gang(Option<Arc<dyn Meeting>>);

/// Where the members of a gang find each other.
pub trait Meeting: Send + Sync {
    /// Waits for the circle that comes after the one that this member was in last.
    ///
    /// # Errors
    /// The call is to stop, or the others can't be reached again and again.
    fn meet(&self, cancel: &Cancel) -> Result<Box<dyn Collective>>;
}

/// A circle of members that work together until one comes or goes.
///
/// All take part in the same exchanges, in the same order.
pub trait Collective: Send {
    /// Which member this is: `0..size`.
    fn rank(&self) -> usize;

    /// How many there are.
    fn size(&self) -> usize;

    /// Whether a member has come or gone, so that this circle is no more.
    fn is_over(&self) -> bool;

    /// Room for what this member gives in the next exchange, on a boundary of 8 bytes. It holds anything at first.
    ///
    /// # Errors
    /// There is no memory for it.
    fn outgoing(&mut self, bytes: usize) -> Result<&mut [u8]> {
        Ok(self.answer(bytes)?.0)
    }

    /// The same, beside what each member gave to this one in the last exchange, by rank as
    /// [`incoming`](Collective::incoming) has it: for an answer that is computed from that.
    ///
    /// # Errors
    /// There is no memory for it.
    fn answer(&mut self, bytes: usize) -> Result<(&mut [u8], Vec<&[u8]>)>;

    /// Gives each member its part of what was put into [`outgoing`](Collective::outgoing), by rank, and takes what they
    /// give to this one. `false`: the circle has changed, and there may be nothing to take; others may have got theirs.
    ///
    /// # Errors
    /// The call is to stop, or a part is not within what is given.
    fn exchange(&mut self, parts: &[Range<usize>]) -> Result<bool>;

    /// What a member gave to this one in the last exchange; of its own, the part for itself. It begins on a boundary of
    /// 8 bytes if the part does so in what was given.
    fn incoming(&self, rank: usize) -> &[u8];

    /// Whether what was taken in the last exchange is still what was given. To be asked once it was used, before
    /// anything follows from it: somebody who was cut off for a while may have read what others have overwritten since.
    /// `false` is as if the exchange had not been.
    fn is_whole(&self) -> bool;
}

impl Gang {
    /// Members that find each other by `meeting`.
    pub fn new(meeting: Arc<dyn Meeting>) -> Self {
        Self(Some(meeting))
    }

    /// Waits until the others are there: at first all that were placed together, later those who are left or have come.
    /// A stage that was placed alone is a circle of one.
    ///
    /// # Errors
    /// The call is to stop, or the others can't be reached again and again.
    pub fn meet(&self, cancel: &Cancel) -> Result<Box<dyn Collective>> {
        match &self.0 {
            Some(meeting) => meeting.meet(cancel),
            None => Ok(Box::new(Alone { cancel: cancel.clone(), given: Default::default(), turn: 0, part: 0..0 })),
        }
    }
}

/// A circle of one.
struct Alone {
    cancel: Cancel,
    /// By turns, so that what was given last can be read yet.
    given: [Vec<u64>; 2],
    turn: usize,
    part: Range<usize>,
}

impl Collective for Alone {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        1
    }

    fn is_over(&self) -> bool {
        false
    }

    fn answer(&mut self, bytes: usize) -> Result<(&mut [u8], Vec<&[u8]>)> {
        let [even, odd] = &mut self.given;
        let (last, next) = if self.turn.is_multiple_of(2) { (even, odd) } else { (odd, even) };
        next.resize(bytes.div_ceil(8), 0);
        let last = &bytemuck::cast_slice(last)[self.part.clone()];
        Ok((&mut bytemuck::cast_slice_mut(next)[..bytes], vec![last]))
    }

    fn exchange(&mut self, parts: &[Range<usize>]) -> Result<bool> {
        self.cancel.check()?;
        check_parts(parts, 1, self.given[(self.turn + 1) % 2].len() * 8)?;
        self.turn += 1;
        self.part = parts[0].clone();
        Ok(true)
    }

    fn incoming(&self, _: usize) -> &[u8] {
        &bytemuck::cast_slice(&self.given[self.turn % 2])[self.part.clone()]
    }

    fn is_whole(&self) -> bool {
        true
    }
}

/// Sees that there is a part for each member, and that all lie within what is given.
pub(crate) fn check_parts(parts: &[Range<usize>], size: usize, bytes: usize) -> Result<()> {
    let within = |part: &Range<usize>| part.start <= part.end && part.end <= bytes;
    match parts.len() == size && parts.iter().all(within) {
        true => Ok(()),
        false => Err(crate::Error::new(format!(
            "an exchange between {size} members needs {size} parts of the {bytes} bytes that are given, not {parts:?}"
        ))),
    }
}
