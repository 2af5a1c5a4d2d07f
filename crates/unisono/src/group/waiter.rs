//! How a rank passes its time while it waits: it looks a while, yields, then sleeps until it is woken.
//!
//! Nobody reads the clock while peers are on time: the deadline of an operation starts with the first wait that
//! takes longer than a few dozen looks, or that yields a few times: others may take the core for long. How long a waiter looks
//! before it sleeps follows from how long waits have taken lately ([`crate::cadence`]). It never sleeps past the deadline.

use std::sync::atomic::AtomicU32;
use std::time::{Duration, Instant};

use unisono_os::{cpu, futex, thread};
use unisono_protocol::{Futex, Turn, Wait};

use super::members::{Members, Situation};
use crate::cadence::{Bounds, Cadence};
use crate::call::Call;
use crate::interrupt;

/// Looks before the clock is read for the first time; about 2 to 10 µs.
const EAGER_LOOKS: u32 = 100;
/// The same where ranks outnumber cores: the peer needs this core.
const CROWDED_LOOKS: u32 = 50;
/// How many yields may go by without a look at the clock: a peer that is on time needs one or two.
const YIELDS_PER_LOOK_AT_THE_CLOCK: u32 = 4;
/// From here on a waiter offers its core to others between looks.
const YIELD_AFTER: Duration = Duration::from_micros(20);
/// How long a waiter looks before it sleeps. Ranks of an inference engine wait some 0.1 to 0.3 ms for one another at each
/// layer: to sleep then would cost a fifth of the time, and the one who comes last the waking of the others.
pub(crate) static LOOKS: Bounds =
    Bounds { shortest: Duration::from_micros(50), longest: Duration::from_millis(1) };

/// One operation's waiting: its deadline and the state of the wait at hand.
pub(crate) struct Waiter<'g> {
    members: &'g Members,
    crowded: bool,
    timeout: Option<Duration>,
    /// From here on a wait sleeps.
    sleep_after: Duration,
    /// The longest wait of this operation, if any was long.
    longest: Duration,
    /// When this operation first waited for long.
    waiting_since: Option<Instant>,
    /// When the wait at hand turned out to be long.
    this_wait_since: Option<Instant>,
    looks: u32,
    /// When this thread was last asked whether to go on; see [`interrupt`].
    asked: Option<Instant>,
    interrupted: bool,
}

impl<'g> Waiter<'g> {
    pub(crate) fn new(members: &'g Members, crowded: bool, timeout: Option<Duration>) -> Self {
        Waiter {
            members,
            crowded,
            timeout,
            sleep_after: LOOKS.shortest,
            longest: Duration::ZERO,
            waiting_since: None,
            this_wait_since: None,
            looks: 0,
            asked: None,
            interrupted: false,
        }
    }

    /// The same for an operation whose waits have had this cadence. Where ranks outnumber cores every look keeps somebody from
    /// working: none is longer than the shortest.
    #[inline(always)]
    pub(crate) fn with_cadence(self, cadence: &Cadence) -> Self {
        let sleep_after = if self.crowded { LOOKS.shortest } else { cadence.look_for() };
        Waiter { sleep_after, ..self }
    }

    /// The longest wait of this operation.
    pub(crate) fn longest_wait(&self) -> Duration {
        self.longest
    }

    /// Whether a wait of this operation was long enough to look at the clock.
    #[inline]
    pub(crate) fn has_waited_long(&self) -> bool {
        self.waiting_since.is_some()
    }

    /// How long this operation has waited, and whether it was interrupted: for the error of a wait that ended.
    pub(crate) fn situation(&self, call: Call, number: u64) -> Situation {
        let waited = self.waiting_since.map_or(Duration::ZERO, |since| since.elapsed());
        Situation { call, number, waited, interrupted: self.interrupted }
    }

    /// Whether the thread wants its wait to end. It is not asked before it has slept, or been here, for a while.
    fn is_interrupted(&mut self, now: Instant) -> bool {
        if !interrupt::is_possible() {
            return false;
        }
        let since = *self.asked.get_or_insert(self.waiting_since.unwrap_or(now));
        if now.saturating_duration_since(since) >= interrupt::ASK_EVERY {
            self.interrupted = interrupt::is_requested();
            self.asked = Some(Instant::now());
        }
        self.interrupted
    }

    /// Whether the deadline has passed; for loops whose length a peer decides.
    pub(crate) fn is_overdue(&mut self) -> bool {
        self.remaining(Instant::now()) == Some(Duration::ZERO)
    }

    /// What is left of the time-out, which starts now if it has not yet. `None` is for ever.
    fn remaining(&mut self, now: Instant) -> Option<Duration> {
        let since = *self.waiting_since.get_or_insert(now);
        self.timeout.map(|timeout| timeout.saturating_sub(now.saturating_duration_since(since)))
    }

    /// A look where ranks outnumber cores: yield at once if any that is missing needs this core, else after a few pauses.
    /// Says whether the deadline has passed: strangers who never yield keep the core for a slice of the scheduler's, at each
    /// yield.
    fn crowded_look(&mut self, missing: u64) -> bool {
        if self.looks <= CROWDED_LOOKS && !self.is_on_my_core(missing) {
            std::hint::spin_loop();
            return false;
        }
        let is_overdue = self.looks.is_multiple_of(YIELDS_PER_LOOK_AT_THE_CLOCK) && self.is_overdue();
        if !is_overdue {
            thread::yield_now();
        }
        is_overdue
    }

    /// Whether any of these ranks last ran on this core.
    fn is_on_my_core(&self, ranks: u64) -> bool {
        let here = Some(cpu::current_cpu());
        let mut ranks = (0..self.members.world).filter(|rank| ranks >> rank & 1 == 1);
        ranks.any(|rank| self.members.memory(rank).arrival().processor() == here)
    }
}

impl Futex for Waiter<'_> {
    fn sleep_while(&mut self, word: &AtomicU32, expected: u32) {
        crate::fault::reach("asleep");
        let remaining = interrupt::nap(self.remaining(Instant::now()));
        // Whatever woke us (the word, the time, a signal): the caller looks again.
        futex::wait(word, expected, remaining);
        self.note_wait(Instant::now());
    }

    fn wake_all(&self, word: &AtomicU32) {
        futex::wake_all(word);
    }
}

impl Wait for Waiter<'_> {
    #[inline]
    fn begin(&mut self) {
        crate::counts::about_to_wait();
        self.looks = 0;
        self.this_wait_since = None;
    }

    #[inline]
    fn turn(&mut self, missing: u64) -> Turn {
        self.looks = self.looks.saturating_add(1);
        if !self.crowded {
            std::hint::spin_loop();
        } else if self.crowded_look(missing) {
            return Turn::GiveUp;
        }
        if self.looks <= EAGER_LOOKS { Turn::LookAgain } else { self.long_wait() }
    }
}

impl Waiter<'_> {
    /// How long the wait at hand has taken by now.
    fn note_wait(&mut self, now: Instant) -> Duration {
        let this_wait = now.saturating_duration_since(*self.this_wait_since.get_or_insert(now));
        self.longest = self.longest.max(this_wait);
        this_wait
    }

    #[cold]
    fn long_wait(&mut self) -> Turn {
        let now = Instant::now();
        if self.this_wait_since.is_none() {
            self.members.own().header().note_step();
        }
        let this_wait = self.note_wait(now);
        if self.remaining(now) == Some(Duration::ZERO) || self.is_interrupted(now) {
            return Turn::GiveUp;
        }
        if this_wait > self.sleep_after {
            return Turn::Sleep;
        }
        if this_wait > YIELD_AFTER {
            thread::yield_now();
        }
        Turn::LookAgain
    }
}
