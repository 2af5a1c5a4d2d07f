//! A reader as its publisher tells of it: where it is, how far behind, and what becomes of what it leaves.
//!
//! Plain values, taken from the roster at one moment.

use std::time::Instant;

/// Why a reader is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It said goodbye.
    Left,
    /// Its connection ended, or nothing came over it any more.
    LinkLost,
    /// It said what cannot be.
    Broken,
}

/// What becomes of messages that a reader had not finished when it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leftovers {
    /// They are lost to its rank, and the sender is told so.
    Told,
    /// They are lost to its rank.
    Forgotten,
    /// They are kept for whoever takes its rank next. Of one that broke the rules they are lost, and the sender is told.
    Kept,
}

/// Where a reader is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Presence {
    /// Nobody has come under this rank.
    Awaited,
    /// It is connected; ready, once it has said that it is.
    Present {
        /// Whether it has said that it is ready.
        is_ready: bool,
    },
    /// It is not connected any more.
    Gone {
        /// Why.
        why: Why,
        /// Whether messages are kept for whoever takes the rank next.
        is_kept: bool,
    },
}

/// One reader, as its publisher sees it.
#[derive(Clone, Debug)]
pub struct ReaderState {
    /// Its rank.
    pub rank: u64,
    /// Whether it is there.
    pub presence: Presence,
    /// Its process, on its machine, and its machine's address.
    pub at: Option<(u32, String)>,
    /// Messages and bytes that it has not finished.
    pub lag_messages: u64,
    /// See `lag_messages`.
    pub lag_bytes: u64,
    /// When it last finished a message or came in.
    pub last_step: Option<Instant>,
}
