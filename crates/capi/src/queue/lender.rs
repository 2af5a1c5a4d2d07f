//! A side of a queue, and the message in place that it has lent to the caller.
//!
//! In Rust a slot or message borrows its side for a scope; in C the scope is two calls. The one invariant that matters: **while
//! something is lent, nothing else touches the side**: every way to it goes through [`Lender::side`], which refuses then.

#![allow(unsafe_code)]

use std::ptr::NonNull;

use crate::boundary::{Result, refused};

/// A side `S`, and what it lends, `L`, which borrows it.
pub(super) struct Lender<S, L> {
    /// Before the side goes.
    lent: Option<L>,
    side: NonNull<S>,
}

// SAFETY: it owns both, as a box and an option would.
unsafe impl<S: Send, L: Send> Send for Lender<S, L> {}

impl<S: 'static, L> Lender<S, L> {
    pub(super) fn new(side: S) -> Self {
        Lender { lent: None, side: NonNull::from(Box::leak(Box::new(side))) }
    }

    /// The side, if nothing is lent; otherwise an error that says what to do.
    #[inline]
    pub(super) fn side(&mut self, operation: &'static str, what_to_do: &str) -> Result<&mut S> {
        if self.lent.is_some() {
            return Err(refused(operation, what_to_do));
        }
        // SAFETY: the side lives as long as this, and nothing borrows it: nothing is lent, and `self` is borrowed exclusively.
        Ok(unsafe { self.side.as_mut() })
    }

    /// Lend something of the side until it is [taken back](Self::take_back).
    ///
    /// # Safety
    /// `lend` gives nothing that lives longer than the side but what is kept here.
    #[inline]
    pub(super) unsafe fn lend(
        &mut self,
        operation: &'static str,
        what_to_do: &str,
        lend: impl FnOnce(&'static mut S) -> Result<L>,
    ) -> Result<&mut L> {
        if self.lent.is_some() {
            return Err(refused(operation, what_to_do));
        }
        // SAFETY: as in `side`; the borrow goes into `lent`, which keeps everybody else away and is dropped before the side.
        let lent = lend(unsafe { self.side.as_mut() })?;
        Ok(self.lent.insert(lent))
    }

    /// End what is lent, which still borrows the side: nobody else comes to it meanwhile. Otherwise the error for nothing lent.
    pub(super) fn take_back(
        &mut self,
        operation: &'static str,
        nothing: &str,
        end: impl FnOnce(L),
    ) -> Result<()> {
        self.lent.take().map(end).ok_or_else(|| refused(operation, nothing))
    }
}

impl<S, L> Drop for Lender<S, L> {
    fn drop(&mut self) {
        drop(self.lent.take());
        // SAFETY: it came from a box in `new`, and what borrowed it is gone.
        drop(unsafe { Box::from_raw(self.side.as_ptr()) });
    }
}
