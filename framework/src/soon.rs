//! Waiting for what is about to happen: to sleep and to be woken takes longer than most of it.

use std::time::{Duration, Instant};

/// How long somebody looks again and again before it sleeps.
const SOON: Duration = Duration::from_micros(150);
/// How often in a row that may be in vain.
const VAIN: u32 = 3;
/// Then only one wait in so many begins so.
const SELDOM: u32 = 64;

/// Whether what somebody waits for tends to come soon. Only then does it stay awake for it, and lets others run
/// meanwhile: who waits for long sleeps.
#[derive(Debug, Default)]
pub(crate) struct Soon {
    vain: u32,
}

impl Soon {
    /// Looks for something until it is there or does not come soon.
    pub(crate) fn look<T>(&mut self, mut look: impl FnMut() -> Option<T>) -> Option<T> {
        if let Some(found) = look() {
            return Some(found);
        }
        if self.vain >= VAIN {
            self.vain = if self.vain < SELDOM { self.vain + 1 } else { VAIN - 1 };
            return None;
        }
        let begun = Instant::now();
        while begun.elapsed() < SOON {
            std::thread::yield_now();
            if let Some(found) = look() {
                self.vain = 0;
                return Some(found);
            }
        }
        self.vain += 1;
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_in_vain_hardly_looks_any_more() {
        let mut soon = Soon::default();
        let looks = |soon: &mut Soon| {
            let mut looks = 0;
            let found: Option<()> = soon.look(|| {
                looks += 1;
                None
            });
            assert!(found.is_none());
            looks
        };
        for _ in 0..VAIN {
            looks(&mut soon);
        }
        let slept = (0..1000).filter(|_| looks(&mut soon) == 1).count();
        assert!(slept > 950, "{slept}");
        assert_eq!(soon.look(|| Some(7)), Some(7));
    }
}
