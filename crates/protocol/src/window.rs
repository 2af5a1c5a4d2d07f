//! The cursors of a byte window from one sender to one receiver.
//!
//! The window is a ring of 64-byte lines. `head` counts the lines that the sender has filled, `tail` those that
//! the receiver has emptied; each has one writer and a cache line of its own. The sender may fill
//! `window - (head - tail)` lines, the receiver may empty `head - tail`; what a peer wrote into its cursor is
//! bounded by the window before anything is done with it.

use crate::word::{Look, Word};

/// One cursor, on a pair of cache lines of its own.
#[derive(Debug)]
#[repr(C, align(128))]
pub struct Cursor {
    word: Word,
}

impl Default for Cursor {
    fn default() -> Self {
        Cursor { word: Word::new(0) }
    }
}

impl Cursor {
    /// The word, for publishing, waiting and aborting.
    #[inline]
    pub fn word(&self) -> &Word {
        &self.word
    }
}

/// How many lines are filled, given what the sender's cursor showed and how many the receiver has emptied.
/// At most `window`, whatever the cursor showed.
#[inline]
pub fn filled(head: Look, emptied: u64, window: u64) -> u64 {
    head.sequence().near(emptied).saturating_sub(emptied).min(window)
}

/// How many lines are free, given what the receiver's cursor showed and how many the sender has filled.
/// At most `window`, whatever the cursor showed.
#[inline]
pub fn free(tail: Look, filled: u64, window: u64) -> u64 {
    let unread = filled.saturating_sub(tail.sequence().near(filled).min(filled));
    window.saturating_sub(unread)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn filled_and_free_add_up_to_the_window() {
        for (sent, received) in
            [(0u64, 0u64), (5, 3), (8, 0), (1 << 30, (1 << 30) - 8), ((1 << 30) + 3, 1 << 30)]
        {
            let (head, tail) = (Word::new(sent), Word::new(received));
            let full = filled(head.look(), received, 8);
            assert_eq!(full, sent - received);
            assert_eq!(free(tail.look(), sent, 8), 8 - full);
        }
    }

    #[test]
    fn a_hostile_cursor_is_bounded_by_the_window() {
        for garbage in [1u64, 9, 1 << 20, (1 << 29) - 1, 1 << 29, (1 << 30) - 1] {
            let word = Word::new(garbage);
            for own in [0u64, 3, 100, 1 << 33] {
                assert!(filled(word.look(), own, 8) <= 8);
                assert!(free(word.look(), own, 8) <= 8);
            }
        }
    }
}
