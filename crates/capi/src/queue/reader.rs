//! The side of a queue that reads.

#![allow(unsafe_code)]

use std::ffi::c_void;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use unisono::queue::{Handle, Message, Reader, ReaderControl};

use super::lender::Lender;
use crate::boundary::{Result, array, free, guard, index, object, place, put, refused, seconds};
use crate::problem::Problem;
use crate::status::unisono_status;

const LENT: &str = "a message is in place: release or keep it first";

/// The side of a queue that reads.
pub struct unisono_reader {
    control: ReaderControl,
    rank: i32,
    state: Mutex<State>,
}

type State = Lender<Reader, Message<'static>>;

/// A message in place.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct unisono_message {
    /// Where it begins. The writer's process could change it.
    pub data: *const c_void,
    /// Its length.
    pub bytes: usize,
    /// Its number, the same for every reader: the queue's first message is 0.
    pub number: u64,
}

/// The reader behind a handle, if no other thread is in a call on it.
///
/// # Safety
/// The handle is null, or one that was given out and that nobody frees meanwhile.
unsafe fn enter<'a>(operation: &'static str, reader: *const unisono_reader) -> Result<MutexGuard<'a, State>> {
    // SAFETY: the caller's word.
    let reader = unsafe { object(operation, "the reader", reader) }?;
    reader.state.try_lock().ok_or(Problem::InUse { operation })
}

/// Open the queue whose writer gave these bytes as its handle, as its reader `rank`. The writer has `timeout` seconds to answer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn unisono_reader_open(
    handle: *const c_void,
    bytes: usize,
    rank: i32,
    timeout: f64,
    reader: *mut *mut unisono_reader,
) -> unisono_status {
    const OPERATION: &str = "reader_open";
    guard(OPERATION, || {
        // SAFETY: the header's: that many bytes, and a place for a handle.
        let (place, handle) = unsafe {
            (place(OPERATION, reader)?, array(OPERATION, "the handle", handle.cast::<u8>(), bytes)?)
        };
        let handle = Handle::from_bytes(handle)?;
        let patience = seconds(OPERATION, timeout)?.unwrap_or(Duration::MAX);
        let opened = Reader::open_within(&handle, index(OPERATION, "the rank", rank)?, patience)?;
        place.put(unisono_reader { control: opened.control(), rank, state: Mutex::new(Lender::new(opened)) });
        Ok(())
    })
}

/// This reader's rank; -1 for null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn unisono_reader_rank(reader: *const unisono_reader) -> i32 {
    // SAFETY: the header's: a handle that was given out, or null.
    unsafe { object("reader_rank", "the reader", reader) }.map_or(-1, |reader| reader.rank)
}

/// Wait until every reader of the queue is ready, for at most `timeout` seconds.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn unisono_reader_wait_until_ready(
    reader: *const unisono_reader,
    timeout: f64,
) -> unisono_status {
    const OPERATION: &str = "reader_wait_until_ready";
    guard(OPERATION, || {
        // SAFETY: the header's: a handle that was given out.
        let mut state = unsafe { enter(OPERATION, reader) }?;
        Ok(state.side(OPERATION, LENT)?.wait_until_ready(seconds(OPERATION, timeout)?)?)
    })
}

/// Wait for the next message, for at most `timeout` seconds, and read it in place: it stays where `message` says until it is
/// released, which gives its room back, or kept.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn unisono_reader_recv(
    reader: *const unisono_reader,
    timeout: f64,
    message: *mut unisono_message,
) -> unisono_status {
    const OPERATION: &str = "reader_recv";
    const NONE: unisono_message = unisono_message { data: std::ptr::null(), bytes: 0, number: 0 };
    guard(OPERATION, || {
        // SAFETY: the header's: a handle that was given out, and a place for a message.
        let mut state = unsafe {
            put(OPERATION, "the place for the message", message, NONE)?;
            enter(OPERATION, reader)?
        };
        let timeout = seconds(OPERATION, timeout)?;
        // SAFETY: the message is all that is given.
        let lent = unsafe { state.lend(OPERATION, LENT, |reader| Ok(reader.recv_within(timeout)?)) }?;
        let found = unisono_message { data: lent.as_ptr().cast(), bytes: lent.len(), number: lent.number() };
        // SAFETY: as above.
        unsafe { put(OPERATION, "the place for the message", message, found) }
    })
}

/// The message in place is read: its room goes back to the writer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn unisono_reader_release(reader: *const unisono_reader) -> unisono_status {
    const OPERATION: &str = "reader_release";
    guard(OPERATION, || {
        // SAFETY: the header's: a handle that was given out.
        let mut state = unsafe { enter(OPERATION, reader) }?;
        state.take_back(OPERATION, "no message is in place", drop)
    })
}

/// The message in place is not read: it stays the next.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn unisono_reader_keep(reader: *const unisono_reader) -> unisono_status {
    const OPERATION: &str = "reader_keep";
    guard(OPERATION, || {
        // SAFETY: the header's: a handle that was given out.
        let mut state = unsafe { enter(OPERATION, reader) }?;
        state.take_back(OPERATION, "no message is in place", Message::keep)
    })
}

/// Copy the next message to `data`, which has room for `capacity` bytes, and its length to `bytes`. If there is too little room,
/// UNISONO_STATUS_TOO_SMALL and the length: it stays the next message.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn unisono_reader_recv_into(
    reader: *const unisono_reader,
    data: *mut c_void,
    capacity: usize,
    timeout: f64,
    bytes: *mut usize,
) -> unisono_status {
    const OPERATION: &str = "reader_recv_into";
    guard(OPERATION, || {
        // SAFETY: the header's: a handle that was given out, and a place for a number.
        let mut state = unsafe {
            put(OPERATION, "the place for the length", bytes, 0)?;
            enter(OPERATION, reader)?
        };
        let message = state.side(OPERATION, LENT)?.recv_within(seconds(OPERATION, timeout)?)?;
        let needed = message.len();
        // SAFETY: as above.
        unsafe { put(OPERATION, "the place for the length", bytes, needed) }?;
        if needed > capacity || (needed > 0 && data.is_null()) {
            message.keep();
            return Err(match data.is_null() {
                true => refused(OPERATION, "the place for the message is null"),
                false => Problem::TooSmall { operation: OPERATION, needed, found: capacity },
            });
        }
        if needed > 0 {
            // SAFETY: the header's: `capacity` bytes may be written there by this thread alone, and these are no more. They are
            // bytes, whatever stood there before.
            let into = unsafe {
                data.cast::<u8>().write_bytes(0, needed);
                std::slice::from_raw_parts_mut(data.cast::<u8>(), needed)
            };
            message.copy_to(into);
        }
        Ok(())
    })
}

/// From any thread: end the wait that is under way, if there is one, with UNISONO_STATUS_CANCELLED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn unisono_reader_cancel(reader: *const unisono_reader) -> unisono_status {
    guard("reader_cancel", || {
        // SAFETY: the header's: a handle that was given out.
        unsafe { object("reader_cancel", "the reader", reader) }?.control.cancel();
        Ok(())
    })
}

/// From any thread: every call of this reader ends with UNISONO_STATUS_SHUT_DOWN, now and from now on.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn unisono_reader_shut_down(reader: *const unisono_reader) -> unisono_status {
    guard("reader_shut_down", || {
        // SAFETY: the header's: a handle that was given out.
        unsafe { object("reader_shut_down", "the reader", reader) }?.control.shut_down();
        Ok(())
    })
}

/// Say goodbye and free the reader; a message in place is released. Null is left alone.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn unisono_reader_free(reader: *mut unisono_reader) {
    // SAFETY: the header's: null, or a handle that was given out and that nobody uses any more.
    unsafe { free(reader) }
}
