//! A copy of the word with one bug at a time: each must be caught, and the copy without a bug must pass.
//!
//! The copy repeats `src/word.rs`, but for the places that ask for a [`Flaw`]. Flaws of order are looked for by
//! waiters that spin, flaws of waking by waiters that sleep: a lost wake-up is a thread that never ends, which loom
//! reports as a deadlock.

use loom::sync::atomic::{AtomicU32, Ordering};
use unisono_protocol::Futex;

use crate::explore::explore;
use crate::scenarios::platform::{Arc, Region, join_all, spawn, yield_now};
use crate::scenarios::waits::{Beds, Sleeping};

const SLEEPING: u32 = 1 << 30;
const ABORT: u32 = 1 << 31;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    None,
    /// A step is published with a relaxed swap.
    PublishIsRelaxed,
    /// A look is relaxed.
    LookIsRelaxed,
    /// ABORT is set with a relaxed operation.
    AbortIsRelaxed,
    /// A publisher that swapped ABORT out puts it back with a relaxed operation, after a relaxed swap: what
    /// the aborter wrote is not passed on.
    PublisherPassesNothingOn,
    /// A publisher that swapped ABORT out does not put it back.
    AbortIsNotPutBack,
    /// A publisher that swapped ABORT out wakes first and puts it back then.
    WakesBeforePuttingBack,
    /// A publisher wakes only if it swapped SLEEPING out.
    WakesOnlyTheSleepersItSaw,
    /// A publisher never wakes.
    PublishIsSilent,
    /// An aborter never wakes.
    AbortIsSilent,
    /// A sleeper sets SLEEPING whatever the word has become, and sleeps on that.
    AnnouncesBlindly,
}

/// A word, a futex under it, and what the publisher and the aborter write down before they move it.
struct Flawed {
    word: Box<AtomicU32>,
    beds: Beds,
    flaw: Flaw,
    data: Region,
    cause: Region,
}

fn flawed(flaw: Flaw) -> Arc<Flawed> {
    let word = Box::new(AtomicU32::new(0));
    let beds = Beds::at([core::ptr::from_ref(&*word)]);
    Arc::new(Flawed { word, beds, flaw, data: Region::new(0), cause: Region::new(0) })
}

impl Flawed {
    fn has(&self, flaw: Flaw) -> bool {
        self.flaw == flaw
    }

    fn order(&self, sound: Ordering, relaxed_by: &[Flaw]) -> Ordering {
        if relaxed_by.contains(&self.flaw) { Ordering::Relaxed } else { sound }
    }

    fn look(&self) -> u32 {
        self.word.load(self.order(Ordering::Acquire, &[Flaw::LookIsRelaxed]))
    }

    fn publish(&self, sequence: u32) {
        let relaxed_by = [Flaw::PublishIsRelaxed, Flaw::PublisherPassesNothingOn];
        let old = self.word.swap(sequence, self.order(Ordering::AcqRel, &relaxed_by));
        if old & (SLEEPING | ABORT) == 0 || self.has(Flaw::PublishIsSilent) {
            return;
        }
        if self.has(Flaw::WakesBeforePuttingBack) {
            self.wake();
        }
        if old & ABORT != 0 && !self.has(Flaw::AbortIsNotPutBack) {
            // As a store rather than an addition, so that it does not carry on what the word was released with.
            match self.flaw {
                Flaw::PublisherPassesNothingOn => self.word.store(sequence | ABORT, Ordering::Relaxed),
                _ => {
                    self.word.fetch_or(ABORT, Ordering::AcqRel);
                }
            }
        }
        let saw_sleepers = old & SLEEPING != 0;
        match self.flaw {
            Flaw::WakesBeforePuttingBack => {}
            Flaw::WakesOnlyTheSleepersItSaw if !saw_sleepers => {}
            _ => self.wake(),
        }
    }

    fn abort(&self) {
        self.word.fetch_or(ABORT, self.order(Ordering::AcqRel, &[Flaw::AbortIsRelaxed]));
        if !self.has(Flaw::AbortIsSilent) {
            self.wake();
        }
    }

    fn sleep(&self, seen: u32) {
        if self.has(Flaw::AnnouncesBlindly) {
            let found = self.word.fetch_or(SLEEPING, Ordering::AcqRel);
            return Sleeping(&self.beds).sleep_while(&self.word, found | SLEEPING);
        }
        let announced = seen | SLEEPING;
        let announce =
            || self.word.compare_exchange(seen, announced, Ordering::AcqRel, Ordering::Acquire).is_ok();
        if seen == announced || announce() {
            Sleeping(&self.beds).sleep_while(&self.word, announced);
        }
    }

    fn wake(&self) {
        Sleeping(&self.beds).wake_all(&self.word);
    }

    /// Wait for a step or for ABORT, and return what was seen.
    fn wait(&self, step: u32, pass_time: impl Fn(&Self, u32)) -> u32 {
        loop {
            let seen = self.look();
            if seen & ABORT != 0 || (seen & !SLEEPING) >= step {
                return seen;
            }
            pass_time(self, seen);
        }
    }
}

/// One publishes, one spins: the data of the step is there.
fn data_travels(flaw: Flaw) {
    let flawed = flawed(flaw);
    let publisher = flawed.clone();
    let publisher = spawn(move || {
        publisher.data.write(1);
        publisher.publish(1);
    });
    flawed.wait(1, |_, _| yield_now());
    assert_eq!(flawed.data.read(), 1);
    join_all([publisher]);
}

/// One publishes, one aborts, one spins until ABORT: the cause is there.
fn the_cause_travels(flaw: Flaw) {
    let flawed = flawed(flaw);
    let (publisher, aborter) = (flawed.clone(), flawed.clone());
    let threads = [
        spawn(move || publisher.publish(1)),
        spawn(move || {
            aborter.cause.write(1);
            aborter.abort();
        }),
    ];
    flawed.wait(2, |_, _| yield_now());
    assert_eq!(flawed.cause.read(), 1);
    join_all(threads);
}

/// One publishes, one sleeps until that step: it wakes.
fn the_step_wakes(flaw: Flaw) {
    let flawed = flawed(flaw);
    let publisher = flawed.clone();
    let publisher = spawn(move || publisher.publish(1));
    flawed.wait(1, Flawed::sleep);
    join_all([publisher]);
}

/// One publishes, one aborts, one sleeps until ABORT: it wakes.
fn the_abort_wakes(flaw: Flaw) {
    let flawed = flawed(flaw);
    let (publisher, aborter) = (flawed.clone(), flawed.clone());
    let threads = [spawn(move || publisher.publish(1)), spawn(move || aborter.abort())];
    flawed.wait(2, Flawed::sleep);
    join_all(threads);
}

#[test]
fn the_copy_is_sound_without_a_flaw() {
    explore(3, || data_travels(Flaw::None));
    explore(3, || the_cause_travels(Flaw::None));
    explore(3, || the_step_wakes(Flaw::None));
    explore(3, || the_abort_wakes(Flaw::None));
}

#[test]
#[should_panic(expected = "Causality violation")]
fn a_relaxed_publish_is_caught() {
    explore(3, || data_travels(Flaw::PublishIsRelaxed));
}

#[test]
#[should_panic(expected = "Causality violation")]
fn a_relaxed_look_is_caught() {
    explore(3, || data_travels(Flaw::LookIsRelaxed));
}

#[test]
#[should_panic(expected = "Causality violation")]
fn a_relaxed_abort_is_caught() {
    explore(3, || the_cause_travels(Flaw::AbortIsRelaxed));
}

#[test]
#[should_panic(expected = "Causality violation")]
fn a_publisher_that_passes_the_cause_not_on_is_caught() {
    explore(3, || the_cause_travels(Flaw::PublisherPassesNothingOn));
}

#[test]
#[should_panic(expected = "deadlock")]
fn an_abort_that_is_not_put_back_is_caught() {
    explore(3, || the_abort_wakes(Flaw::AbortIsNotPutBack));
}

#[test]
#[should_panic(expected = "deadlock")]
fn waking_before_the_abort_is_back_is_caught() {
    explore(3, || the_abort_wakes(Flaw::WakesBeforePuttingBack));
}

#[test]
#[should_panic(expected = "deadlock")]
fn waking_only_the_sleepers_it_saw_is_caught() {
    explore(3, || the_abort_wakes(Flaw::WakesOnlyTheSleepersItSaw));
}

#[test]
#[should_panic(expected = "deadlock")]
fn a_silent_publish_is_caught() {
    explore(3, || the_step_wakes(Flaw::PublishIsSilent));
}

#[test]
#[should_panic(expected = "deadlock")]
fn a_silent_abort_is_caught() {
    explore(3, || the_abort_wakes(Flaw::AbortIsSilent));
}

#[test]
#[should_panic(expected = "deadlock")]
fn a_sleeper_that_announces_blindly_is_caught() {
    explore(3, || the_step_wakes(Flaw::AnnouncesBlindly));
}
