//! How threads of a team pass their time: they look for a moment, then sleep.
//!
//! A leader that waits waits for the end of a share, which is being worked on; a member waits for a task, which may not come
//! for hours. Both look, yield, and sleep on a futex; with more threads than processors they sleep at once, because whoever
//! is waited for may need this one's.

use std::sync::atomic::AtomicU32;
use std::time::{Duration, Instant};

use unisono_os::{futex, thread};
use unisono_protocol::{Futex, Turn, Wait};

/// Looks between two looks at the clock.
const LOOKS_PER_GLANCE: u32 = 64;
/// Looks of a thread that has its processor from somebody else.
const CROWDED_LOOKS: u32 = 20;
/// From here on a thread offers its processor to others between looks.
const YIELD_AFTER: Duration = Duration::from_micros(20);
/// From here on it sleeps.
const SLEEP_AFTER: Duration = Duration::from_micros(50);

/// One thread's waiting.
#[derive(Clone, Debug)]
pub(super) struct Patience {
    /// Whether threads outnumber processors.
    crowded: bool,
    deadline: Option<Instant>,
    looks: u32,
    since: Option<Instant>,
}

impl Patience {
    /// Patience without end.
    pub(super) fn new(crowded: bool) -> Self {
        Patience { crowded, deadline: None, looks: 0, since: None }
    }

    /// The same, up to a deadline.
    pub(super) fn until(&self, deadline: Option<Instant>) -> Self {
        Patience { deadline, ..self.clone() }
    }
}

impl Futex for Patience {
    fn sleep_while(&mut self, word: &AtomicU32, expected: u32) {
        let left = self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        // Whatever woke us: the caller looks again.
        futex::wait(word, expected, left);
    }

    fn wake_all(&self, word: &AtomicU32) {
        futex::wake_all(word);
    }
}

impl Wait for Patience {
    fn begin(&mut self) {
        self.looks = 0;
        self.since = None;
    }

    fn turn(&mut self, _missing: u64) -> Turn {
        self.looks = self.looks.saturating_add(1);
        if self.crowded && self.looks <= CROWDED_LOOKS {
            thread::yield_now();
            return Turn::LookAgain;
        }
        std::hint::spin_loop();
        if !self.crowded && !self.looks.is_multiple_of(LOOKS_PER_GLANCE) {
            return Turn::LookAgain;
        }
        self.glance_at_the_clock()
    }
}

impl Patience {
    #[cold]
    fn glance_at_the_clock(&mut self) -> Turn {
        let now = Instant::now();
        if self.deadline.is_some_and(|deadline| now >= deadline) {
            return Turn::GiveUp;
        }
        let waited = now.saturating_duration_since(*self.since.get_or_insert(now));
        if self.crowded || waited > SLEEP_AFTER {
            return Turn::Sleep;
        }
        if waited > YIELD_AFTER {
            thread::yield_now();
        }
        Turn::LookAgain
    }
}
