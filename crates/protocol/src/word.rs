//! One shared word: 30 bits of sequence, a SLEEPING bit and an ABORT bit.
//!
//! ```text
//!   31       30         29 ........................ 0
//!  +--------+----------+-----------------------------+
//!  | ABORT  | SLEEPING |  sequence (wraps)           |
//!  +--------+----------+-----------------------------+
//! ```
//!
//! One writer publishes, with a single atomic swap. A waiter that wants to sleep sets SLEEPING by
//! compare-and-swap and sleeps on exactly the value that it left there; a publisher that swaps the bit out
//! wakes. So no wake-up is lost, and publishing to peers that are awake makes no system call.
//! ABORT says that nothing more will come; it may be set by anybody, at any time, and stays: a publisher
//! whose swap took it out puts it back and wakes, because somebody may have gone to sleep in between.

use crate::atomics::{AtomicU32, Ordering};
use crate::sequence::Sequence;

const SLEEPING: u32 = 1 << 30;
const ABORT: u32 = 1 << 31;

/// How a sleeper is put to sleep and woken: the kernel's futex, or a model of it.
pub trait Futex {
    /// Sleep while `word` holds `expected`. May return early for any reason.
    fn sleep_while(&mut self, word: &AtomicU32, expected: u32);
    /// Wake everybody who sleeps on `word`.
    fn wake_all(&self, word: &AtomicU32);
}

/// What a look at a word showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    raw: u32,
}

impl Look {
    /// How far the writer has come.
    #[inline]
    pub fn sequence(self) -> Sequence {
        Sequence::in_word(self.raw)
    }

    /// Whether somebody sleeps on the word, or was about to: a hint, which tells what publishing would cost.
    #[inline]
    pub fn has_sleepers(self) -> bool {
        self.raw & SLEEPING != 0
    }

    /// Whether nothing more will come.
    #[inline]
    pub fn is_aborted(self) -> bool {
        self.raw & ABORT != 0
    }
}

/// One word of the protocol. Zero-filled memory is a valid word at sequence 0.
#[derive(Debug)]
#[repr(transparent)]
pub struct Word(AtomicU32);

impl Word {
    /// A word at the sequence number of `count`.
    pub fn new(count: u64) -> Self {
        Word(AtomicU32::new(Sequence::of(count).bits()))
    }

    /// See where the word stands, and with it everything its writer did before (acquire; pairs with the
    /// swap in [`Word::publish`] and with [`Word::abort`]).
    #[inline]
    pub fn look(&self) -> Look {
        Look { raw: self.0.load(Ordering::Acquire) }
    }

    /// Move the word to the sequence number of `count`, and wake whoever sleeps on it. Only the word's writer
    /// calls this. Returns whether the word was aborted.
    ///
    /// The swap is release, so that a [`Word::look`] that sees it sees all that the writer did before, and
    /// acquire, so that what an aborter wrote down before it set ABORT is seen here.
    #[inline]
    pub fn publish(&self, count: u64, futex: &impl Futex) -> bool {
        let old = self.0.swap(Sequence::of(count).bits(), Ordering::AcqRel);
        if old & (SLEEPING | ABORT) == 0 {
            return false;
        }
        self.finish_publishing(old, futex)
    }

    #[cold]
    fn finish_publishing(&self, old: u32, futex: &impl Futex) -> bool {
        let aborted = old & ABORT != 0;
        if aborted {
            self.0.fetch_or(ABORT, Ordering::AcqRel);
        }
        // After the ABORT is back: a waiter may have slept on the value without it.
        futex.wake_all(&self.0);
        aborted
    }

    /// Say that nothing more will come, and wake whoever waits for more. Anybody may call this; what
    /// they wrote down before is seen by whoever sees the bit.
    pub fn abort(&self, futex: &impl Futex) {
        self.0.fetch_or(ABORT, Ordering::AcqRel);
        futex.wake_all(&self.0);
    }

    /// Sleep until the word differs from what `seen` showed, by announcing it and sleeping on exactly the
    /// announced value. Returns at once if the word has moved on since.
    pub fn sleep(&self, seen: Look, futex: &mut impl Futex) {
        self.sleep_unless(seen, futex, || false);
    }

    /// The same, unless there is `news`, for which is looked after the sleep has been announced: whoever makes news
    /// elsewhere and then calls [`Word::rouse`] here is either seen to have made them, or wakes the sleeper.
    pub fn sleep_unless(&self, seen: Look, futex: &mut impl Futex, news: impl FnOnce() -> bool) {
        let announced = seen.raw | SLEEPING;
        // Acquire, also on failure: pairs with the release of `rouse`.
        let stands =
            self.0.compare_exchange(seen.raw, announced, Ordering::AcqRel, Ordering::Acquire).is_ok();
        if stands && !news() {
            futex.sleep_while(&self.0, announced);
        }
    }

    /// Wake whoever sleeps on the word although it does not move: there are news elsewhere. Anybody may call this.
    pub fn rouse(&self, futex: &impl Futex) {
        // A sleeper that announced itself before this is woken, or finds the bit gone; one that does so after it sees
        // what was done before (release; pairs with the compare-and-swap of `sleep_unless`).
        self.0.fetch_and(!SLEEPING, Ordering::AcqRel);
        futex.wake_all(&self.0);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use core::cell::Cell;

    #[derive(Default)]
    struct Counting {
        wakes: Cell<usize>,
        slept_on: Option<u32>,
    }

    impl Futex for Counting {
        fn sleep_while(&mut self, _word: &AtomicU32, expected: u32) {
            self.slept_on = Some(expected);
        }
        fn wake_all(&self, _word: &AtomicU32) {
            self.wakes.set(self.wakes.get() + 1);
        }
    }

    #[test]
    fn publishing_wakes_only_when_somebody_sleeps() {
        let (word, mut futex) = (Word::new(0), Counting::default());
        word.publish(1, &futex);
        assert_eq!(futex.wakes.get(), 0);
        word.sleep(word.look(), &mut futex);
        assert!(futex.slept_on.is_some() && word.look().has_sleepers());
        word.publish(2, &futex);
        assert_eq!(futex.wakes.get(), 1);
        assert!(!word.look().has_sleepers());
        word.publish(3, &futex);
        assert_eq!(futex.wakes.get(), 1, "the bit was taken out with the first publish");
    }

    #[test]
    fn an_abort_survives_every_publish() {
        let (word, futex) = (Word::new(5), Counting::default());
        word.abort(&futex);
        assert!(word.look().is_aborted());
        assert!(word.publish(6, &futex), "the publisher is told");
        assert!(word.look().is_aborted());
        assert!(word.look().sequence().has_reached(Sequence::of(6)), "what was published is still seen");
    }

    #[test]
    fn nobody_sleeps_on_a_word_that_has_moved() {
        let (word, mut futex) = (Word::new(0), Counting::default());
        let seen = word.look();
        word.publish(1, &futex);
        word.sleep(seen, &mut futex);
        assert_eq!(futex.slept_on, None);
    }
}
