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
    place: Place,
    written: usize,
}

/// Where a message is written.
#[derive(Debug)]
enum Place {
    /// Into this record of the ring, at the head.
    Ring(Record),
    /// Into memory of its own, of which the record says where it is; with its length.
    Home(Record, Arc<Housing>, u64),
    /// Into memory that no other process has: all readers are elsewhere.
    Own(Vec<u8>),
    /// It was committed.
    Gone,
}

impl<'w> Slot<'w> {
    pub(super) fn new(writer: &'w mut Writer, record: Record) -> Self {
        Slot { writer, place: Place::Ring(record), written: 0 }
    }

    pub(super) fn at_home(writer: &'w mut Writer, record: Record, housing: Arc<Housing>, bytes: u64) -> Self {
        Slot { writer, place: Place::Home(record, housing, bytes), written: 0 }
    }

    pub(super) fn own(writer: &'w mut Writer, bytes: Vec<u8>) -> Self {
        Slot { writer, place: Place::Own(bytes), written: 0 }
    }

    #[inline]
    fn room(&mut self) -> Target<'_> {
        match &mut self.place {
            Place::Ring(record) => {
                self.writer.hall.memory.data(self.writer.head() + record.contents(), record.bytes)
            }
            Place::Home(_, housing, bytes) => housing.home.data(*bytes),
            Place::Own(bytes) => Target::of(bytes),
            Place::Gone => Target::of::<u8>(&mut []),
        }
    }

    /// Its length in bytes, which is the message's.
    pub fn len(&self) -> usize {
        match &self.place {
            Place::Ring(record) => record.bytes as usize,
            Place::Home(_, _, bytes) => *bytes as usize,
            Place::Own(bytes) => bytes.len(),
            Place::Gone => 0,
        }
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
        match std::mem::replace(&mut self.place, Place::Gone) {
            Place::Ring(record) => {
                let at = self.writer.head() + record.contents();
                self.writer.publish(record);
                // What was published stays there at least until something else is reserved.
                let hall = &self.writer.hall;
                self.writer.send_elsewhere(|| copy_of(hall.memory.data(at, record.bytes)));
            }
            Place::Home(record, housing, bytes) => {
                self.writer.write_address(housing.number, bytes);
                self.writer.publish(record);
                self.writer.send_elsewhere(|| copy_of(housing.home.data(bytes)));
                self.writer.occupy(housing);
            }
            Place::Own(bytes) => self.writer.publish_elsewhere(bytes),
            Place::Gone => {}
        }
    }
}

fn copy_of(from: Target<'_>) -> Vec<u8> {
    let mut bytes = vec![0; from.len()];
    copy(Target::of(&mut bytes), from.as_source());
    bytes
}

impl Drop for Slot<'_> {
    #[inline]
    fn drop(&mut self) {
        if let Place::Home(_, housing, _) = std::mem::replace(&mut self.place, Place::Gone) {
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
