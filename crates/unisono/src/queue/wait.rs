//! How a side of a queue passes its time while it waits: it looks a while, yields, then sleeps until its bell rings.
//!
//! How long is *a while* follows the cadence of what it waits for: where messages come every few microseconds it pays to keep
//! looking, where they come every few milliseconds it does not. The one invariant that matters: **a wait never goes on
//! beyond its time, and one that was told to end looks at that before it sleeps.**

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use unisono_os::{futex, thread};
use unisono_protocol::{Futex, Position, Turn, Wait};

use super::error::{Error, Result};
use crate::cadence::{Bounds, Cadence};

/// Looks before the clock is read for the first time; a few microseconds.
const EAGER_LOOKS: u32 = 100;
/// The same where processes outnumber cores: whoever is waited for may need this one.
const CROWDED_LOOKS: u32 = 10;
/// From here on a waiter offers its core to others between looks.
const YIELD_AFTER: Duration = Duration::from_micros(20);
/// How long a waiter looks before it sleeps. The most is for messages of a MiB, there and back: being woken would double the time of
/// those, too, and more than that of shorter ones.
pub(super) static LOOKS: Bounds =
    Bounds { shortest: Duration::from_micros(20), longest: Duration::from_micros(500) };

/// How close a reader follows its writer.
///
/// A reader on the writer's heels takes each cache line from it before it is full, and the next look at the position takes
/// that, too: a stream then goes at a fraction of its speed. So a reader that again and again finds a few bytes at its
/// first look lets the writer get ahead: for a microsecond or two, and no longer than the writer really goes on.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// How often in a row a first look found little.
    little: u32,
}

impl Pace {
    /// Where it is found at once it is a stream, after so many times.
    const STREAM: u32 = 4;
    /// Less than this at once is little.
    const LITTLE: u64 = 4096;
    /// The writer is left alone for so many pauses at a time, and so many times at most.
    const PAUSES: u32 = 16;
    const TIMES: u32 = 8;

    /// There was nothing at the first look: this is no stream.
    #[inline]
    pub(super) fn has_waited(&mut self) {
        self.little = 0;
    }

    /// The writer is ahead of the reader's `position`. Gives where it is by the time that the reader goes on.
    #[inline]
    pub(super) fn fall_behind(&mut self, writer: &Position, position: u64) -> u64 {
        let head = writer.look();
        if head.wrapping_sub(position) >= Self::LITTLE {
            return head;
        }
        self.little += 1;
        if self.little <= Self::STREAM { head } else { self.let_it_get_ahead(writer, position, head) }
    }

    #[cold]
    fn let_it_get_ahead(&mut self, writer: &Position, position: u64, mut head: u64) -> u64 {
        for _ in 0..Self::TIMES {
            (0..Self::PAUSES).for_each(|_| std::hint::spin_loop());
            let before = std::mem::replace(&mut head, writer.look());
            if head == before {
                self.little = 0; // It has stopped: whoever writes next may be in a hurry.
                break;
            }
            if head.wrapping_sub(position) >= Self::LITTLE {
                break;
            }
        }
        head
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
    /// Its time passed and nothing came.
    is_in_vain: bool,
}

impl<'c> Waiting<'c> {
    pub(super) fn new(cadence: &'c mut Cadence, crowded: bool, timeout: Option<Duration>) -> Self {
        Waiting { cadence, crowded, timeout, looks: 0, since: None, has_slept: false, is_in_vain: false }
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
            self.is_in_vain = true;
            return Turn::GiveUp;
        }
        let waited = self.since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        // Where processes outnumber cores, or have a quota of their time, a look is somebody else's work.
        let look_for = if self.crowded { LOOKS.shortest } else { self.cadence.look_for() };
        if waited > look_for || self.has_slept {
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
    fn turn(&mut self, _missing: u64) -> Turn {
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
            // What did not come in time would not have come soon: whoever asks again and again with little time is to sleep.
            let waited = if self.is_in_vain { Duration::MAX } else { self.waited() };
            self.cadence.note(waited);
        }
    }
}

/// How long a wait may take, and when the log is to say that it does.
pub(super) struct Patience {
    since: Instant,
    timeout: Option<Duration>,
    warn_interval: Duration,
    warned: u32,
}

/// What is to be done about a wait that has not ended.
pub(super) enum Due {
    Nothing,
    /// It has taken so long that somebody is to be told.
    Warning(Duration),
    /// It has taken all its time, which was this.
    Error(Duration),
}

impl Patience {
    pub(super) fn new(timeout: Option<Duration>, warn_interval: Duration) -> Patience {
        Patience { since: Instant::now(), timeout, warn_interval, warned: 0 }
    }

    pub(super) fn waited(&self) -> Duration {
        self.since.elapsed()
    }

    /// How long until something is due.
    pub(super) fn limit(&self) -> Duration {
        let next_warning = self.next_warning();
        let next = self.timeout.map_or(next_warning, |timeout| timeout.min(next_warning));
        next.saturating_sub(self.waited())
    }

    pub(super) fn due(&mut self) -> Due {
        let waited = self.waited();
        if self.timeout.is_some_and(|timeout| waited >= timeout) {
            return Due::Error(waited);
        }
        if waited < self.next_warning() {
            return Due::Nothing;
        }
        self.warned += 1;
        Due::Warning(waited)
    }

    fn next_warning(&self) -> Duration {
        self.warn_interval.saturating_mul(self.warned + 1)
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
