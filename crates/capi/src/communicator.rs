//! The life of a communicator: what it says of itself, time-outs, threads, sub-groups, and its ends.

#![allow(unsafe_code)]

use std::ffi::{CString, c_char};
use std::time::Duration;

use unisono::Communicator;

use crate::boundary::{Result, c_string, free, guard, guard_or, index, object, place, refused, seconds};
use crate::error::unisono_peer;
use crate::status::unisono_status;
use crate::versioned;

/// A rank's handle on its group.
pub struct unisono_comm {
    inner: Communicator,
    name: CString,
}

impl unisono_comm {
    pub(crate) fn new(inner: Communicator) -> Self {
        let name = c_string(inner.name());
        unisono_comm { inner, name }
    }
}

/// The communicator behind a handle.
///
/// # Safety
/// The handle is null, or one that was given out and that nobody frees meanwhile.
#[inline]
pub(crate) unsafe fn communicator<'a>(
    operation: &'static str,
    comm: *const unisono_comm,
) -> Result<&'a Communicator> {
    // SAFETY: the caller's word.
    Ok(&unsafe { object(operation, "the communicator", comm) }?.inner)
}

/// What a communicator says of itself, or what stands for none.
unsafe fn ask<T>(comm: *const unisono_comm, otherwise: T, question: impl FnOnce(&Communicator) -> T) -> T {
    // SAFETY: the header's: a handle that was given out, or null.
    match unsafe { communicator("ask", comm) } {
        Ok(comm) => guard_or(otherwise, || question(comm)),
        Err(_) => otherwise,
    }
}

/// This rank; -1 for null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn unisono_comm_rank(comm: *const unisono_comm) -> i32 {
    // SAFETY: as in `ask`.
    unsafe { ask(comm, -1, |comm| comm.rank() as i32) }
}

/// How many ranks there are; -1 for null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn unisono_comm_world_size(comm: *const unisono_comm) -> i32 {
    // SAFETY: as in `ask`.
    unsafe { ask(comm, -1, |comm| comm.world_size() as i32) }
}

/// What the group is called in messages; lives as long as the handle. Null for null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn unisono_comm_name(comm: *const unisono_comm) -> *const c_char {
    // SAFETY: the header's: a handle that was given out, or null.
    unsafe { object("comm_name", "the communicator", comm) }
        .map_or(std::ptr::null(), |comm| comm.name.as_ptr())
}

/// Shared memory that this rank brought along, in bytes; 0 for null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn unisono_comm_memory_bytes(comm: *const unisono_comm) -> usize {
    // SAFETY: as in `ask`.
    unsafe { ask(comm, 0, Communicator::memory_bytes) }
}

/// A send of up to so many bytes returns without waiting for its receiver; 0 for null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn unisono_comm_window_bytes(comm: *const unisono_comm) -> usize {
    // SAFETY: as in `ask`.
    unsafe { ask(comm, 0, |comm| comm.parameters().window_bytes) }
}

/// How long an operation on this handle may wait, in seconds; negative: without end.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn unisono_comm_timeout(comm: *const unisono_comm) -> f64 {
    let timeout =
        |comm: &Communicator| comm.timeout().map_or(crate::UNISONO_FOREVER, |timeout| timeout.as_secs_f64());
    // SAFETY: as in `ask`.
    unsafe { ask(comm, crate::UNISONO_FOREVER, timeout) }
}

/// Another handle on the same group whose operations may wait this long. The time counts from the first wait of an operation to
/// its end.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn unisono_comm_with_timeout(
    comm: *const unisono_comm,
    timeout: f64,
    other: *mut *mut unisono_comm,
) -> unisono_status {
    const OPERATION: &str = "comm_with_timeout";
    guard(OPERATION, || {
        // SAFETY: the header's: a handle that was given out, and a place for one.
        let (comm, place) = unsafe { (communicator(OPERATION, comm)?, place(OPERATION, other)?) };
        place.put(unisono_comm::new(comm.with_timeout(seconds(OPERATION, timeout)?)));
        Ok(())
    })
}

/// Let so many threads share the copying and reducing of this rank's collectives from now on: the calling one and the library's
/// own, which sleep in between; 1 to 32. Give the rank as many processors.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn unisono_comm_set_threads(comm: *const unisono_comm, threads: i32) -> unisono_status {
    const OPERATION: &str = "comm_set_threads";
    guard(OPERATION, || {
        // SAFETY: the header's: a handle that was given out.
        let comm = unsafe { communicator(OPERATION, comm) }?;
        Ok(comm.set_threads(index(OPERATION, "the number of threads", threads)?)?)
    })
}

/// Fill `peer` with what `rank` is and last did, as far as this rank can see.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn unisono_comm_peer(
    comm: *const unisono_comm,
    rank: i32,
    peer: *mut unisono_peer,
) -> unisono_status {
    const OPERATION: &str = "comm_peer";
    guard(OPERATION, || {
        // SAFETY: the header's: a handle that was given out.
        let comm = unsafe { communicator(OPERATION, comm) }?;
        let rank = index(OPERATION, "the rank", rank)?;
        let peers = comm.peers();
        let found = peers.iter().find(|peer| peer.rank == rank);
        let found = found.ok_or_else(|| {
            refused(
                OPERATION,
                format!("rank {rank} does not exist: the ranks are 0 to {}", comm.world_size() - 1),
            )
        })?;
        // SAFETY: the header's: a structure of the size that it says.
        unsafe { versioned::write(OPERATION, peer, unisono_peer::of(found)) }
    })
}

/// Form sub-groups: ranks that pass the same color come together, in the order of `key` and, where keys are equal, of their rank
/// here. A rank with a negative color takes part in the call and is in none: its `part` becomes null. A sub-group outlives its parent.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn unisono_split(
    comm: *const unisono_comm,
    color: i64,
    key: i64,
    part: *mut *mut unisono_comm,
) -> unisono_status {
    guard("split", || {
        // SAFETY: the header's: a handle that was given out, and a place for one.
        let (comm, place) = unsafe { (communicator("split", comm)?, place("split", part)?) };
        if let Some(part) = comm.split(u64::try_from(color).ok(), key)? {
            place.put(unisono_comm::new(part));
        }
        Ok(())
    })
}

/// Stop the group, from any thread: every operation under way or to come, on every rank, ends with UNISONO_STATUS_ABORTED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn unisono_abort(comm: *const unisono_comm) -> unisono_status {
    guard("abort", || {
        // SAFETY: the header's: a handle that was given out.
        unsafe { communicator("abort", comm) }?.abort();
        Ok(())
    })
}

/// Leave together: wait for all ranks to call this, for at most `timeout` seconds, then leave. The handle is still to be freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn unisono_close(comm: *const unisono_comm, timeout: f64) -> unisono_status {
    guard("close", || {
        // SAFETY: the header's: a handle that was given out.
        let comm = unsafe { communicator("close", comm) }?;
        Ok(comm.close(seconds("close", timeout)?.unwrap_or(Duration::MAX))?)
    })
}

/// Leave at once, and alone. A rank that still needs this one gets UNISONO_STATUS_PEER_LEFT. The handle is still to be freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn unisono_leave(comm: *const unisono_comm) -> unisono_status {
    guard("leave", || {
        // SAFETY: the header's: a handle that was given out.
        unsafe { communicator("leave", comm) }?.leave();
        Ok(())
    })
}

/// Free a handle. With the last on a communicator this rank leaves, after what was started on it is over. Null is left alone.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn unisono_comm_free(comm: *mut unisono_comm) {
    // SAFETY: the header's: null, or a handle that was given out and that nobody uses any more.
    unsafe { free(comm) }
}
