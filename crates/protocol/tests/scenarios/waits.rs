//! How the ranks of a scenario pass their time: by looking again, or asleep on a model of the kernel's futex.
//!
//! The two are kept apart on purpose. The model of a futex is built on a mutex, and a mutex orders what
//! its holders did before; a missing release in the protocol would hide behind it. So scenarios that spin judge the
//! order of data, and scenarios that sleep judge that every sleeper is woken.

use unisono_protocol::atomics::{AtomicU32, Ordering};
use unisono_protocol::{Futex, Turn, Wait, Word};

use super::platform::{Mutex, Thread, current, park, yield_now};

/// Looks again until it is there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spinning;

impl Futex for Spinning {
    fn sleep_while(&mut self, _word: &AtomicU32, _expected: u32) {
        unreachable!("who spins never sleeps");
    }

    fn wake_all(&self, _word: &AtomicU32) {}
}

impl Wait for Spinning {
    fn turn(&mut self, _missing: u64) -> Turn {
        yield_now();
        Turn::LookAgain
    }
}

/// Looks again a few times, then gives up, and the run of the model with it: three ranks that look again for ever have
/// more orders of events than can be tried.
#[cfg(loom)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Hurried {
    looks: u32,
}

#[cfg(loom)]
impl Hurried {
    /// In all waits of a rank together.
    const PATIENCE: u32 = 2;
}

#[cfg(loom)]
impl Futex for Hurried {
    fn sleep_while(&mut self, word: &AtomicU32, expected: u32) {
        Spinning.sleep_while(word, expected);
    }

    fn wake_all(&self, _word: &AtomicU32) {}
}

#[cfg(loom)]
impl Wait for Hurried {
    fn turn(&mut self, _missing: u64) -> Turn {
        self.looks += 1;
        if self.looks > Self::PATIENCE {
            return Turn::GiveUp;
        }
        yield_now();
        Turn::LookAgain
    }
}

/// A model of the kernel's futex for a fixed set of words: it compares and falls asleep in one act, and
/// whoever fell asleep returns only when woken (on the machine's threads also for no reason, as from the kernel's). A wake-up that gets lost is a thread that never ends.
#[derive(Debug)]
pub(crate) struct Beds(Vec<Bed>);

#[derive(Debug)]
struct Bed {
    word: *const AtomicU32,
    sleepers: Mutex<Vec<Thread>>,
}

// SAFETY: the address of the word is only compared, never followed; the list of sleepers is behind a mutex.
unsafe impl Send for Beds {}
// SAFETY: as above.
unsafe impl Sync for Beds {}

impl Beds {
    /// A place to sleep for each of `words`, which must stay where they are.
    pub(crate) fn of<'w>(words: impl IntoIterator<Item = &'w Word>) -> Self {
        // A word is its atomic and nothing else, so both have one address.
        Beds::at(words.into_iter().map(|word| core::ptr::from_ref(word).cast()))
    }

    /// A place to sleep for each of the words at these addresses.
    pub(crate) fn at(words: impl IntoIterator<Item = *const AtomicU32>) -> Self {
        let bed = |word| Bed { word, sleepers: Mutex::new(Vec::new()) };
        Beds(words.into_iter().map(bed).collect())
    }

    fn bed(&self, word: &AtomicU32) -> &Bed {
        self.0.iter().find(|bed| core::ptr::eq(bed.word, word)).expect("every word of the scenario has a bed")
    }
}

/// Sleeps whenever a look brought nothing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sleeping<'b>(pub(crate) &'b Beds);

impl Futex for Sleeping<'_> {
    fn sleep_while(&mut self, word: &AtomicU32, expected: u32) {
        let mut sleepers = self.0.bed(word).sleepers.lock().expect("nobody panics with the lock");
        // Relaxed: the kernel promises no order beyond that of its own lock, so neither does the model.
        let stands = word.load(Ordering::Relaxed) == expected;
        if stands {
            sleepers.push(current());
        }
        drop(sleepers);
        if stands {
            park();
        }
    }

    fn wake_all(&self, word: &AtomicU32) {
        let mut sleepers = self.0.bed(word).sleepers.lock().expect("nobody panics with the lock");
        for sleeper in sleepers.drain(..) {
            sleeper.unpark();
        }
    }
}

impl Wait for Sleeping<'_> {
    fn turn(&mut self, _missing: u64) -> Turn {
        Turn::Sleep
    }
}

/// Either of the two, for scenarios that are run both ways.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Either<'b> {
    Spins,
    Sleeps(Sleeping<'b>),
}

impl Futex for Either<'_> {
    fn sleep_while(&mut self, word: &AtomicU32, expected: u32) {
        match self {
            Either::Spins => Spinning.sleep_while(word, expected),
            Either::Sleeps(sleeping) => sleeping.sleep_while(word, expected),
        }
    }

    fn wake_all(&self, word: &AtomicU32) {
        match self {
            Either::Spins => Spinning.wake_all(word),
            Either::Sleeps(sleeping) => sleeping.wake_all(word),
        }
    }
}

impl Wait for Either<'_> {
    fn turn(&mut self, missing: u64) -> Turn {
        match self {
            Either::Spins => Spinning.turn(missing),
            Either::Sleeps(sleeping) => sleeping.turn(missing),
        }
    }
}
