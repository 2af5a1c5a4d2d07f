//! A rank's arrival line: how many steps it has published, and the fingerprints of the calls they belong to.
//!
//! Every collective is a fixed number of steps, the same on all ranks, counted from 1 and never reset.
//! A rank that publishes step `s` says two things at once: *what I had to write for step `s` is written*, and
//! *what I had to read for all steps before `s` is read*. The first lets readers in, the second frees
//! staging. There is one such line per rank, written by that rank alone (ABORT and SLEEPING aside), read by
//! all the others.
//!
//! Beside the word, in the same cache line, so that looking at it costs no further transfer, stand the
//! fingerprints of the calls of the last [`FINGERPRINTS`] steps. Slot `s % 4` may be overwritten once every
//! peer has published a step later than the one it holds: a rank is never more than three steps ahead.

use crate::atomics::{AtomicU32, AtomicU64, Ordering};
use crate::word::{Futex, Look, Word};

/// How many steps a rank may be ahead of the slowest, plus one.
pub const FINGERPRINTS: u64 = 4;

/// The arrival line of one rank. Zero-filled memory is a valid line at step 0.
///
/// 128 bytes: processors that fetch lines in pairs would otherwise drag the neighbour along.
#[derive(Debug)]
#[repr(C, align(128))]
pub struct ArrivalLine {
    word: Word,
    /// The processor its rank runs on, plus one; 0 says unknown. A hint for waiters, never trusted.
    processor: AtomicU32,
    fingerprints: [AtomicU64; FINGERPRINTS as usize],
}

impl Default for ArrivalLine {
    fn default() -> Self {
        ArrivalLine {
            word: Word::new(0),
            processor: AtomicU32::new(0),
            fingerprints: [AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0)],
        }
    }
}

impl ArrivalLine {
    /// Publish `step` of the call with this fingerprint. Returns whether the line was aborted.
    ///
    /// The caller has made sure that all peers have published a step later than `step - FINGERPRINTS`.
    #[inline(always)]
    pub fn publish(&self, step: u64, fingerprint: u64, futex: &impl Futex) -> bool {
        // Relaxed: the swap of the word, a release, orders it before the step becomes visible; and the look that
        // showed the caller its peers' later steps, an acquire, orders their reading of what stood here before it.
        self.fingerprints[(step % FINGERPRINTS) as usize].store(fingerprint, Ordering::Relaxed);
        self.word.publish(step, futex)
    }

    /// The fingerprint of the call that `step` belongs to; meaningful once a look has shown that step.
    #[inline]
    pub fn fingerprint(&self, step: u64) -> u64 {
        // Relaxed: the acquire of the look that showed the step orders it.
        self.fingerprints[(step % FINGERPRINTS) as usize].load(Ordering::Relaxed)
    }

    /// Leave word where this rank runs.
    #[inline]
    pub fn set_processor(&self, processor: usize) {
        self.processor.store((processor as u32).wrapping_add(1), Ordering::Relaxed);
    }

    /// Where the rank said it runs, if it did.
    #[inline]
    pub fn processor(&self) -> Option<usize> {
        (self.processor.load(Ordering::Relaxed) as usize).checked_sub(1)
    }

    /// See where the rank stands.
    #[inline]
    pub fn look(&self) -> Look {
        self.word.look()
    }

    /// The word, for waiting on it and for aborting it.
    #[inline]
    pub fn word(&self) -> &Word {
        &self.word
    }
}
