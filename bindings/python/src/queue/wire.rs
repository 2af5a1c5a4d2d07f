//! Messages of several parts, as they lie in the ring.
//!
//! ```text
//!   byte 0      flags: 1, the message is longer than a chunk; 2, it is wide
//!   2 bytes     how many parts                     (wide: 8 bytes)
//!   each part:  4 bytes its length, its bytes      (wide: 8 bytes)
//! ```
//!
//! Numbers are big-endian. This is the form that inference engines' queues have, apart from the wide one, for parts of 4 GiB
//! and more. The one invariant that matters: **a length that was read is bounded by the message before it is used**.

#![allow(unsafe_code)]

use std::ops::Range;
use std::ptr::with_exposed_provenance as at;

use pyo3::buffer::PyUntypedBuffer;
use pyo3::exceptions::{PyBufferError, PyOverflowError};
use pyo3::prelude::*;
use unisono::queue::{Message, Slot};

use super::copying::{Ways, copy};

const OVERFLOW: u8 = 1;
const WIDE: u8 = 2;
/// Up to this length the only part of a message is copied out and the message taken at once.
const SHORT: usize = 64 << 10;

/// Bytes in this process's memory that somebody keeps in place: an address, so that they can be copied without the interpreter.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bytes {
    start: usize,
    bytes: usize,
}

impl Bytes {
    /// The contents of a buffer, in the order in which they lie in memory, to be used as long as it is held.
    pub(super) fn of(buffer: &PyUntypedBuffer) -> PyResult<Self> {
        if !buffer.is_c_contiguous() && !buffer.is_fortran_contiguous() {
            return Err(PyBufferError::new_err("the buffer is not contiguous: pass a copy that is"));
        }
        Ok(Bytes { start: buffer.buf_ptr().expose_provenance(), bytes: buffer.len_bytes() })
    }

    /// A slice, to be used as long as it lives.
    pub(super) fn of_slice(slice: &[u8]) -> Self {
        Bytes { start: slice.as_ptr().expose_provenance(), bytes: slice.len() }
    }

    /// A message's contents, to be used as long as it is not taken, in the process that received it.
    pub(super) fn of_message(message: &Message<'_>) -> Self {
        Bytes { start: message.as_ptr().expose_provenance(), bytes: message.len() }
    }

    pub(super) fn len(self) -> usize {
        self.bytes
    }

    /// Copy what lies from `offset` on to `into`, as much as there is. Who wrote a message could change it meanwhile: no reference to
    /// it is made.
    pub(super) fn copy_at(self, offset: usize, into: &mut [u8]) {
        let offset = offset.min(self.bytes);
        let bytes = into.len().min(self.bytes - offset);
        // SAFETY: `bytes` bytes from `offset` on lie inside what is kept in place there (`of_message`), and `into` is nobody else's.
        unsafe { copy(into.as_mut_ptr(), at::<u8>(self.start).add(offset), bytes) };
    }

    /// Copy them into the slot. Python's other threads may write the memory meanwhile: no reference to it is made.
    #[inline]
    pub(super) fn write_to(self, slot: &mut Slot<'_>, offset: usize, ways: &Ways) {
        if offset.checked_add(self.bytes).is_none_or(|end| end > slot.len()) {
            return;
        }
        // SAFETY: `self.bytes` bytes are kept in place there (`of`, `of_slice`), and as many from `offset` on lie inside the slot
        // (just checked), which was reserved in this process.
        unsafe {
            let into = slot.as_mut_ptr().add(offset);
            ways.copy(into, at::<u8>(self.start), self.bytes);
        }
    }
}

/// A message before it is written: its first part, in pieces, and the others.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) main: Vec<Bytes>,
    pub(super) others: Vec<Bytes>,
}

impl Parts {
    fn main_bytes(&self) -> usize {
        self.main.iter().map(|piece| piece.bytes).sum()
    }
}

/// How the message's lengths are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Form {
    count: usize,
    length: usize,
}

impl Form {
    fn of(flags: u8) -> Form {
        if flags & WIDE == 0 { Form { count: 2, length: 4 } } else { Form { count: 8, length: 8 } }
    }
}

/// The message's length, and its flags; it overflows if it does not fit a chunk of `chunk_bytes`.
pub(super) fn plan(parts: &Parts, chunk_bytes: usize) -> PyResult<(usize, u8)> {
    let lengths = || parts.others.iter().map(|part| part.bytes).chain([parts.main_bytes()]);
    let is_wide =
        parts.others.len() >= usize::from(u16::MAX) || lengths().any(|length| u32::try_from(length).is_err());
    let flags = if is_wide { WIDE } else { 0 };
    let form = Form::of(flags);
    // Without the flags: the chunk is full when the rest fills it.
    let rest = lengths().try_fold(form.count, |sum, length| sum.checked_add(form.length + length));
    let total = rest.and_then(|rest| rest.checked_add(1));
    let (Some(rest), Some(total)) = (rest, total) else {
        return Err(PyOverflowError::new_err("the message is longer than an address space"));
    };
    Ok((total, if rest >= chunk_bytes { flags | OVERFLOW } else { flags }))
}

/// Write the message.
#[inline]
pub(super) fn write(slot: &mut Slot<'_>, flags: u8, parts: &Parts, ways: &Ways) {
    let form = Form::of(flags);
    // Flags, the number of parts and the first one's length at once.
    let mut head = [0; 17];
    let length_at = 1 + form.count;
    head[0] = flags;
    put(&mut head[1..length_at], 1 + parts.others.len());
    put(&mut head[length_at..length_at + form.length], parts.main_bytes());
    let mut offset = length_at + form.length;
    Bytes::of_slice(&head[..offset]).write_to(slot, 0, ways);
    for piece in &parts.main {
        piece.write_to(slot, offset, ways);
        offset += piece.bytes;
    }
    for part in &parts.others {
        let mut length = [0; 8];
        put(&mut length[..form.length], part.bytes);
        Bytes::of_slice(&length[..form.length]).write_to(slot, offset, ways);
        offset += form.length;
        part.write_to(slot, offset, ways);
        offset += part.bytes;
    }
}

/// `value` as the last bytes of a big-endian number fill `into`, at most eight.
#[inline]
fn put(into: &mut [u8], value: usize) {
    let value = (value as u64).to_be_bytes();
    into.copy_from_slice(&value[value.len() - into.len()..]);
}

/// Where the parts of a message lie in it.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) is_overflow: bool,
    pub(super) main: Range<usize>,
    pub(super) others: Vec<Range<usize>>,
}

/// Copy `into.len()` bytes from `offset` on; what the message does not have is left as it is.
#[inline]
pub(super) fn copy_from(message: &Message<'_>, offset: usize, into: &mut [u8]) {
    message.copy_at(offset, into);
}

/// A number of `bytes` bytes at `offset`, if the message has it.
#[inline]
fn number_at(message: &Message<'_>, offset: usize, bytes: usize) -> Option<u64> {
    let mut value = [0; 8];
    let into = value.split_at_mut(8 - bytes).1;
    (message.copy_at(offset, into) == bytes).then(|| u64::from_be_bytes(value))
}

/// The part whose length stands at `offset`.
#[inline]
fn part_at(message: &Message<'_>, offset: usize, form: Form) -> Option<Range<usize>> {
    let length = usize::try_from(number_at(message, offset, form.length)?).ok()?;
    let start = offset + form.length;
    let end = start.checked_add(length)?;
    (end <= message.len()).then_some(start..end)
}

/// The first part, if it is the only one and short, and the message is no overflow.
#[inline]
pub(super) fn short_main(message: &Message<'_>) -> Option<Range<usize>> {
    let mut head = [0; 7];
    if message.copy_at(0, &mut head) < head.len() || head[..3] != [0, 0, 1] {
        return None;
    }
    let [_, _, _, length @ ..] = head;
    let length = u32::from_be_bytes(length) as usize;
    (length <= SHORT && head.len() + length <= message.len()).then(|| head.len()..head.len() + length)
}

/// Where the parts lie, or what is wrong.
pub(super) fn find(message: &Message<'_>) -> Result<Found, &'static str> {
    let flags = number_at(message, 0, 1).ok_or("it is empty")? as u8;
    if flags & !(OVERFLOW | WIDE) != 0 {
        return Err("its flags are none");
    }
    let form = Form::of(flags);
    let count = number_at(message, 1, form.count).ok_or("it ends in the number of its parts")?;
    let mut offset = 1 + form.count;
    let mut parts = (0..count).map(|_| {
        let part = part_at(message, offset, form).ok_or("a part is longer than what is left of it")?;
        offset = part.end;
        Ok(part)
    });
    let main = parts.next().ok_or("it has no parts")??;
    let others = parts.collect::<Result<_, _>>()?;
    Ok(Found { is_overflow: flags & OVERFLOW != 0, main, others })
}
