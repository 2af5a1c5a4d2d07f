//! A message, borrowed where it lies.

#![allow(unsafe_code)]

use std::io;

use unisono_os::fork_guard::ForkMark;
use unisono_protocol::ring::Record;

use super::elsewhere::Far;
use super::error::Error;
use super::near::{Housed, Near};
use crate::memory::{Source, Target, copy};

/// The next message. Dropped, it is read, and its room goes back to the writer.
///
/// On the writer's machine it is in place: no reference to its bytes is made, since its writer, another process, could change
/// them; they are copied out, or read through [`io::Read`]; who can trust the writer may ask for a slice.
#[derive(Debug)]
pub struct Message<'r> {
    body: Body<'r>,
    taken: usize,
    is_kept: bool,
    born: ForkMark,
}

#[derive(Debug)]
enum Body<'r> {
    /// In the ring, or at home elsewhere in memory.
    InPlace { near: &'r mut Near, record: Record, home: Option<Housed> },
    /// Its own.
    Arrived { far: &'r mut Far, bytes: Vec<u8> },
}

impl<'r> Message<'r> {
    #[inline]
    pub(super) fn in_place(near: &'r mut Near, record: Record, home: Option<Housed>, born: ForkMark) -> Self {
        Message { body: Body::InPlace { near, record, home }, taken: 0, is_kept: false, born }
    }

    pub(super) fn arrived(far: &'r mut Far, bytes: Vec<u8>, born: ForkMark) -> Self {
        Message { body: Body::Arrived { far, bytes }, taken: 0, is_kept: false, born }
    }

    #[inline]
    fn contents(&self) -> Source<'_> {
        match &self.body {
            Body::InPlace { near, record, home: None } => near.contents(*record),
            Body::InPlace { home: Some((home, bytes)), .. } => home.data(*bytes).as_source(),
            Body::Arrived { bytes, .. } => Source::of(bytes),
        }
    }

    /// Its number, the same for every reader, here and elsewhere: the queue's first message is 0.
    pub fn number(&self) -> u64 {
        match &self.body {
            // A forked child does not have the ring.
            Body::InPlace { .. } if self.born.crossed_fork() => 0,
            Body::InPlace { near, .. } => near.number(),
            Body::Arrived { far, .. } => far.number(),
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
    /// change, if it is on this machine.
    pub fn as_ptr(&self) -> *const u8 {
        self.contents().start()
    }

    /// Copy its beginning, as much as fits; gives how much that was. In a forked child that is nothing.
    #[inline]
    pub fn copy_to(&self, into: &mut [u8]) -> usize {
        self.copy_at(0, into)
    }

    /// Copy what begins at `offset`, as much as there is and fits; gives how much that was. In a forked child that is nothing.
    #[inline]
    pub fn copy_at(&self, offset: usize, into: &mut [u8]) -> usize {
        if self.born.crossed_fork() {
            return 0;
        }
        let contents = self.contents().part(offset, into.len());
        copy(Target::of(into), contents);
        contents.len()
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
        if self.born.crossed_fork() {
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
        if self.born.crossed_fork() {
            return;
        }
        match &mut self.body {
            Body::InPlace { .. } if self.is_kept => {}
            Body::InPlace { near, record, .. } => near.pass(*record),
            Body::Arrived { far, bytes } if self.is_kept => far.put_back(std::mem::take(bytes)),
            Body::Arrived { far, .. } => far.finish(),
        }
    }
}
