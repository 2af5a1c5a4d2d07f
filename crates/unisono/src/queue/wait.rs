//! How a side of a queue passes its time while it waits: it looks a while, yields, then sleeps until its bell rings.
//!
//! How long is *a while* follows the cadence of what it waits for: where messages come every few microseconds it pays to keep
//! looking, where they come every few milliseconds it does not. The one invariant that matters: **a wait never goes on
//! beyond its time, and one that was told to end looks at that before it sleeps.**

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use unisono_os::{futex, thread};
use unisono_protocol::{Futex, Turn, Wait};

use super::error::{Error, Result};

/// Looks before the clock is read for the first time; a few microseconds.
const EAGER_LOOKS: u32 = 100;
/// The same where processes outnumber cores: whoever is waited for may need this one.
const CROWDED_LOOKS: u32 = 10;
/// From here on a waiter offers its core to others between looks.
const YIELD_AFTER: Duration = Duration::from_micros(20);
/// A waiter looks at least and at most this long before it sleeps.
const SHORTEST_LOOK: Duration = Duration::from_micros(20);
const LONGEST_LOOK: Duration = Duration::from_micros(100);

/// How long waits have taken lately.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cadence {
    typical: Duration,
}

impl Cadence {
    fn note(&mut self, waited: Duration) {
        self.typical = (self.typical * 7 + waited.min(2 * LONGEST_LOOK)) / 8;
    }

    /// How long to look for something before going to sleep: a bit longer than it usually takes, if that is not long.
    fn look_for(self) -> Duration {
        let enough = self.typical * 2 + SHORTEST_LOOK;
        if enough <= LONGEST_LOOK { enough } else { SHORTEST_LOOK }
    }
}

/// One wait: for whom, and for how long at most.
pub(super) struct Waiting<'c> {
    cadence: &'c mut Cadence,
    crowded: bool,
    timeout: Option<Duration>,
    looks: u32,
    since: Option<Instant>,
    has_slept: bool,
}

impl<'c> Waiting<'c> {
    pub(super) fn new(cadence: &'c mut Cadence, crowded: bool, timeout: Option<Duration>) -> Self {
        Waiting { cadence, crowded, timeout, looks: 0, since: None, has_slept: false }
    }

    /// How long it has taken so far, as far as the clock was asked.
    pub(super) fn waited(&self) -> Duration {
        self.since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    fn remaining(&mut self, now: Instant) -> Option<Duration> {
        let since = *self.since.get_or_insert(now);
        self.timeout.map(|timeout| timeout.saturating_sub(now.saturating_duration_since(since)))
    }

    #[cold]
    fn long_wait(&mut self) -> Turn {
        let now = Instant::now();
        if self.remaining(now) == Some(Duration::ZERO) {
            return Turn::GiveUp;
        }
        let waited = self.since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        if waited > self.cadence.look_for() || self.has_slept {
            return Turn::Sleep;
        }
        if self.crowded || waited > YIELD_AFTER {
            thread::yield_now();
        }
        Turn::LookAgain
    }
}

impl Futex for Waiting<'_> {
    fn sleep_while(&mut self, word: &unisono_protocol::atomics::AtomicU32, expected: u32) {
        crate::fault::reach("asleep");
        self.has_slept = true;
        let remaining = self.remaining(Instant::now());
        // Whatever woke us (the bell, the time, a signal): the caller looks again.
        futex::wait(word, expected, remaining);
    }

    fn wake_all(&self, word: &AtomicU32) {
        futex::wake_all(word);
    }
}

impl Wait for Waiting<'_> {
    #[inline]
    fn turn(&mut self, _peer: usize) -> Turn {
        if self.timeout == Some(Duration::ZERO) {
            return Turn::GiveUp;
        }
        self.looks = self.looks.saturating_add(1);
        std::hint::spin_loop();
        let eager = if self.crowded { CROWDED_LOOKS } else { EAGER_LOOKS };
        if self.looks <= eager { Turn::LookAgain } else { self.long_wait() }
    }
}

impl Drop for Waiting<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.looks > 0 {
            let waited = self.waited();
            self.cadence.note(waited);
        }
    }
}

/// What ends a wait from another thread of the same process.
#[derive(Debug, Default)]
pub(super) struct Ends {
    shut_down: AtomicBool,
    cancelled: AtomicU64,
}

/// How things stood when a wait began, so that only a later cancellation ends it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Begun(u64);

impl Ends {
    pub(super) fn begin(&self) -> Begun {
        Begun(self.cancelled.load(Ordering::Acquire))
    }

    /// Whether a wait that began so is to end, and why.
    #[inline]
    pub(super) fn check(&self, begun: Begun, operation: &'static str) -> Result<()> {
        if self.shut_down.load(Ordering::Acquire) {
            return Err(Error::ShutDown { operation });
        }
        if self.cancelled.load(Ordering::Acquire) != begun.0 {
            return Err(Error::Cancelled { operation });
        }
        Ok(())
    }

    #[inline]
    pub(super) fn is_shut_down(&self) -> bool {
        self.shut_down.load(Ordering::Acquire)
    }

    /// To be followed by ringing the bells.
    pub(super) fn shut_down(&self) {
        self.shut_down.store(true, Ordering::Release);
    }

    /// To be followed by ringing the bells.
    pub(super) fn cancel(&self) {
        self.cancelled.fetch_add(1, Ordering::Release);
    }
}
