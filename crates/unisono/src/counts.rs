//! What a rank moves, for the test that holds every algorithm to its cost (docs/performance.md has the table).
//!
//! Only with the feature `counts`; without it every hook is nothing. A rank, one thread, makes a [`Counter`]; from then on the
//! few places through which all data pass (`memory.rs`, and the steps and tags of a collective) tell it what they do.
//!
//! The one invariant that matters: counting changes nothing that is counted. No data are looked at, only addresses.

#[cfg(feature = "counts")]
mod ledger;

#[cfg(feature = "counts")]
pub use ledger::{Counter, Counts, before_every_wait};
#[cfg(feature = "counts")]
pub(crate) use ledger::{about_to_wait, read, step_published, tag_announced, written};

#[cfg(not(feature = "counts"))]
mod nothing {
    /// A step was published: the arrival line was written.
    #[inline(always)]
    pub(crate) fn step_published() {}

    /// The tag line of a message was written.
    #[inline(always)]
    pub(crate) fn tag_announced() {}

    /// A wait begins.
    #[inline(always)]
    pub(crate) fn about_to_wait() {}

    /// This many bytes are about to be read.
    #[inline(always)]
    pub(crate) fn read(_start: *const u8, _bytes: usize) {}

    /// This many bytes are about to be written.
    #[inline(always)]
    pub(crate) fn written(_start: *const u8, _bytes: usize) {}
}

#[cfg(not(feature = "counts"))]
pub(crate) use nothing::{about_to_wait, read, step_published, tag_announced, written};
