//! Room for one message, reserved in the ring or, for a large one, in memory of its own.
//!
//! It is filled in place and committed; dropped without that, it never was. The one invariant that matters: **nobody sees
//! any of it before it is committed.**

use std::io;
use std::sync::Arc;

use unisono_protocol::ring::Record;

use super::error::Error;
use super::pool::Housing;
use super::writer::Writer;
use crate::memory::{Source, Target, copy};

/// Reserved room for one message. See [`Writer::reserve`].
///
/// What was not written before [`commit`](Slot::commit) is whatever stood there: earlier messages.
#[derive(Debug)]
pub struct Slot<'w> {
    writer: &'w mut Writer,
    record: Record,
    /// Where a large message is to lie, and its length.
    housing: Option<(Arc<Housing>, u64)>,
    written: usize,
}

impl<'w> Slot<'w> {
    pub(super) fn new(writer: &'w mut Writer, record: Record) -> Self {
        Slot { writer, record, housing: None, written: 0 }
    }

    pub(super) fn elsewhere(
        writer: &'w mut Writer,
        record: Record,
        housing: Arc<Housing>,
        bytes: u64,
    ) -> Self {
        Slot { writer, record, housing: Some((housing, bytes)), written: 0 }
    }

    #[inline]
    fn room(&self) -> Target<'_> {
        match &self.housing {
            None => {
                self.writer.hall.memory.data(self.writer.head() + self.record.contents(), self.record.bytes)
            }
            Some((housing, bytes)) => housing.home.data(*bytes),
        }
    }

    /// Its length in bytes, which is the message's.
    pub fn len(&self) -> usize {
        self.room().len()
    }

    /// Whether the message has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where it begins: [`len`](Slot::len) bytes to be written by this process alone, until it is committed.
    pub fn as_mut_ptr(&mut self) -> *mut u8 {
        self.room().pointer()
    }

    /// Copy `bytes` to `offset`; says whether they fit, and writes nothing if not. In a forked child nothing fits.
    #[must_use = "bytes that do not fit are not written"]
    pub fn write_at(&mut self, offset: usize, bytes: &[u8]) -> bool {
        let fits = offset.checked_add(bytes.len()).is_some_and(|end| end <= self.len())
            && !self.writer.crossed_fork();
        if fits {
            copy(self.room().part(offset, bytes.len()), Source::of(bytes));
        }
        fits
    }

    #[inline]
    pub(super) fn fill(&mut self, bytes: &[u8]) {
        copy(self.room(), Source::of(bytes));
    }

    /// Send it; in a forked child, do nothing.
    #[inline]
    pub fn commit(mut self) {
        if self.writer.crossed_fork() {
            return;
        }
        let housing = self.housing.take();
        if let Some((housing, bytes)) = &housing {
            self.writer.write_address(housing.number, *bytes);
        }
        self.writer.publish(self.record);
        if let Some((housing, _)) = housing {
            self.writer.occupy(housing);
        }
    }
}

impl Drop for Slot<'_> {
    #[inline]
    fn drop(&mut self) {
        if let Some((housing, _)) = self.housing.take() {
            self.writer.pool.give_back(housing);
        }
    }
}

/// Writes one stretch after the other.
impl io::Write for Slot<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(self.len() - self.written);
        if !self.write_at(self.written, &bytes[..taken]) {
            // What is taken was cut to fit.
            return Err(io::Error::other(Error::Forked { operation: "write" }));
        }
        self.written += taken;
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
