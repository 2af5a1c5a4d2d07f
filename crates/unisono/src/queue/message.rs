//! A message, borrowed where it lies.

#![allow(unsafe_code)]

use std::io;
use std::sync::Arc;

use unisono_protocol::ring::Record;

use super::error::Error;
use super::memory::Home;
use super::reader::Reader;
use crate::memory::{Source, Target, copy};

/// A message in place. Dropped, it is read, and its room goes back to the writer.
///
/// No reference to its bytes is made, since its writer, another process, could change them: they are copied out, or
/// read through [`io::Read`]; who can trust the writer may ask for a slice.
#[derive(Debug)]
pub struct Message<'r> {
    reader: &'r mut Reader,
    record: Record,
    /// Where a large message lies, and its length.
    home: Option<(Arc<Home>, u64)>,
    taken: usize,
    is_kept: bool,
}

impl<'r> Message<'r> {
    #[inline]
    pub(super) fn new(reader: &'r mut Reader, record: Record, home: Option<(Arc<Home>, u64)>) -> Self {
        Message { reader, record, home, taken: 0, is_kept: false }
    }

    #[inline]
    fn contents(&self) -> Source<'_> {
        match &self.home {
            None => {
                let at = self.reader.position() + self.record.contents();
                self.reader.line.writer.data(at, self.record.bytes).as_source()
            }
            Some((home, bytes)) => home.data(*bytes).as_source(),
        }
    }

    /// Its length in bytes.
    #[inline]
    pub fn len(&self) -> usize {
        self.contents().len()
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where it begins: [`len`](Message::len) bytes that may be read as long as this lives, and that the writer's process could
    /// change.
    pub fn as_ptr(&self) -> *const u8 {
        self.contents().start()
    }

    /// Copy its beginning, as much as fits; gives how much that was. In a forked child that is nothing.
    #[inline]
    pub fn copy_to(&self, into: &mut [u8]) -> usize {
        if self.reader.crossed_fork() {
            return 0;
        }
        let contents = self.contents();
        let bytes = contents.len().min(into.len());
        copy(Target::of(into), contents);
        bytes
    }

    /// A copy of it; empty in a forked child.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.len()];
        let copied = self.copy_to(&mut bytes);
        bytes.truncate(copied);
        bytes
    }

    /// Its bytes, without copying.
    ///
    /// # Safety
    /// This is no forked child. The writer's process does not write to the message as long as the slice lives. A writer of this library does not; one of
    /// which the process is taken over could.
    pub unsafe fn as_slice(&self) -> &[u8] {
        // SAFETY: the range lies inside the mapping, which lives as long as the reader in the process that opened it; the
        // caller promises that this is that process and that nobody writes there.
        unsafe { std::slice::from_raw_parts(self.as_ptr(), self.len()) }
    }

    /// Do not take it: it stays the next message.
    pub fn keep(mut self) {
        self.is_kept = true;
    }
}

/// Reads one stretch after the other.
impl io::Read for Message<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.reader.crossed_fork() {
            return Err(io::Error::other(Error::Forked { operation: "read" }));
        }
        let rest = self.contents().part(self.taken, into.len());
        let bytes = rest.len();
        copy(Target::of(into), rest);
        self.taken += bytes;
        Ok(bytes)
    }
}

impl Drop for Message<'_> {
    #[inline]
    fn drop(&mut self) {
        // A forked child takes nothing from its parent.
        if !self.is_kept && !self.reader.crossed_fork() {
            self.reader.pass(self.record);
        }
    }
}
