//! A tag: the first line of a message, which says by itself that the message has come.
//!
//! A rank that hands data to one peer writes the data, then the tag: one number made of the step and of the
//! fingerprint of the call. The peer that reads the tag it expects has the data, knows that the step has been
//! reached and that both mean the same call, after one look at one line that nobody else reads. A tag never wakes
//! anybody and says nothing of an abort: that is what the arrival line is for, which is published right after, while
//! the tag is on its way. So whoever does not find the tag soon falls back on the arrival line and loses nothing.
//!
//! The one invariant that matters: **a tag stands only for what its line has carried since it was last written.** Its line
//! is written anew for every use, in turn by the two ranks that share it, and no two steps have the same tag.

use crate::atomics::{AtomicU64, Ordering};

/// The tag word of a message. Zero-filled memory is a tag of no step.
#[derive(Debug, Default)]
#[repr(transparent)]
pub struct Tag(AtomicU64);

impl Tag {
    /// Say that the message of `step` stands here. Release: pairs with the look of [`Tag::announces`].
    #[inline]
    pub fn announce(&self, step: u64, fingerprint: u64) {
        self.0.store(number_of(step, fingerprint), Ordering::Release);
    }

    /// Whether the message of `step` stands here; if it does, so does all that its writer did before (acquire).
    #[inline]
    pub fn announces(&self, step: u64, fingerprint: u64) -> bool {
        self.0.load(Ordering::Acquire) == number_of(step, fingerprint)
    }
}

/// 32 bits of the step, so that what an earlier step left behind differs, and 32 of the fingerprint, so that another
/// call does. Steps count from 1: never 0 before the count wraps.
#[inline]
fn number_of(step: u64, fingerprint: u64) -> u64 {
    step << 32 | (fingerprint & 0xffff_ffff)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn only_this_step_of_this_call_is_announced() {
        let tag = Tag::default();
        assert!(!tag.announces(1, 0));
        tag.announce(7, 0x1234_5678_9abc_def0);
        assert!(tag.announces(7, 0x1234_5678_9abc_def0));
        assert!(!tag.announces(8, 0x1234_5678_9abc_def0));
        assert!(!tag.announces(7, 0x1234_5678_9abc_def1));
    }
}
