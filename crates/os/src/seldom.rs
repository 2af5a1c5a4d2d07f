//! What may happen very often, and is to be told now and then.
//!
//! Whoever can make something happen can make it happen all the time: a log must not follow. The one invariant that matters:
//! **nothing is told more often than it was meant to be, and nothing is left out of the count.**

use std::time::{Duration, Instant};

/// One kind of thing that happens, told every so often with the number of times since.
///
/// ```
/// use std::time::{Duration, Instant};
/// use unisono_os::seldom::Seldom;
///
/// let (mut knocks, now) = (Seldom::every(Duration::from_secs(10)), Instant::now());
/// assert_eq!(knocks.note(now), Some(1));
/// assert_eq!(knocks.note(now + Duration::from_secs(9)), None);
/// assert_eq!(knocks.note(now + Duration::from_secs(10)), Some(2));
/// ```
#[derive(Debug)]
pub struct Seldom {
    every: Duration,
    told: Option<Instant>,
    untold: u64,
}

impl Seldom {
    /// Told once in this time.
    pub fn every(every: Duration) -> Seldom {
        Seldom { every, told: None, untold: 0 }
    }

    /// It has happened: how often since it was last told, if it is to be told now.
    pub fn note(&mut self, now: Instant) -> Option<u64> {
        self.untold += 1;
        if self.told.is_some_and(|told| now < told + self.every) {
            return None;
        }
        self.told = Some(now);
        Some(std::mem::take(&mut self.untold))
    }
}
