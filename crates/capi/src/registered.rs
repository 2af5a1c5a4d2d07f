//! Memory that all ranks have mapped, and the collectives in place on it.

#![allow(unsafe_code)]

use std::ffi::c_void;
use std::mem::MaybeUninit;

use unisono::RegisteredMemory;

use crate::boundary::{free, guard, object, place, refused};
use crate::call::unisono_call;
use crate::collectives::make;
use crate::communicator::{communicator, unisono_comm};
use crate::status::unisono_status;
use crate::types::{meaning_of, unisono_dtype, unisono_op, unisono_operation};

/// Registered (symmetric) memory: a piece on every rank, which all have mapped, so that large collectives need no staging.
pub struct unisono_memory {
    inner: RegisteredMemory,
}

impl unisono_memory {
    pub(crate) fn library(&self) -> &RegisteredMemory {
        &self.inner
    }
}

/// Allocate registered memory for `count` elements on every rank, zeroed. A collective call: all ranks ask for the same. It may
/// outlive the communicator.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn unisono_memory_alloc(
    comm: *const unisono_comm,
    count: usize,
    dtype: MaybeUninit<unisono_dtype>,
    memory: *mut *mut unisono_memory,
) -> unisono_status {
    const OPERATION: &str = "alloc";
    guard(OPERATION, || {
        // SAFETY: the header's: a handle that was given out, and a place for one.
        let (comm, place) = unsafe { (communicator(OPERATION, comm)?, place(OPERATION, memory)?) };
        place.put(unisono_memory { inner: comm.raw().alloc(count, meaning_of(OPERATION, dtype)?)? });
        Ok(())
    })
}

/// Where this rank's memory begins: at a page. Other ranks write it while an operation on it is under way. Null for null, and in a
/// forked child the memory is not there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn unisono_memory_data(memory: *const unisono_memory) -> *mut c_void {
    // SAFETY: the header's: a handle that was given out, or null.
    let memory = unsafe { object("memory_data", "the memory", memory) };
    memory.map_or(std::ptr::null_mut(), |memory| memory.inner.as_mut_ptr().cast())
}

/// Its size in bytes; 0 for null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn unisono_memory_bytes(memory: *const unisono_memory) -> usize {
    // SAFETY: the header's: a handle that was given out, or null.
    unsafe { object("memory_bytes", "the memory", memory) }.map_or(0, |memory| memory.inner.size_bytes())
}

/// Free registered memory. Ranks that still use theirs keep it, and what was started on it is carried out. Null is left alone.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn unisono_memory_free(memory: *mut unisono_memory) {
    // SAFETY: the header's: null, or a handle that was given out and that nobody uses any more.
    unsafe { free(memory) }
}

/// Make a call on registered memory, which must be there.
///
/// # Safety
/// As the header says.
unsafe fn on_memory(comm: *const unisono_comm, name: &'static str, call: unisono_call) -> unisono_status {
    if call.memory.is_null() {
        return guard(name, || Err(refused(name, "the registered memory is null")));
    }
    // SAFETY: the caller's word.
    unsafe { make(comm, name, call) }
}

/// unisono_all_reduce() in place on `count` elements of registered memory from element `offset` on, the same on all ranks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn unisono_all_reduce_registered(
    comm: *const unisono_comm,
    memory: *const unisono_memory,
    offset: usize,
    count: usize,
    dtype: MaybeUninit<unisono_dtype>,
    op: MaybeUninit<unisono_op>,
) -> unisono_status {
    let call =
        unisono_call { memory, offset, count, dtype, op, ..unisono_call::new(unisono_operation::AllReduce) };
    // SAFETY: the header's.
    unsafe { on_memory(comm, "all_reduce", call) }
}

/// unisono_reduce() in place on registered memory: the root's elements become the reduction, the others' stay.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn unisono_reduce_registered(
    comm: *const unisono_comm,
    memory: *const unisono_memory,
    offset: usize,
    count: usize,
    dtype: MaybeUninit<unisono_dtype>,
    op: MaybeUninit<unisono_op>,
    root: i32,
) -> unisono_status {
    let call = unisono_call {
        memory,
        offset,
        count,
        dtype,
        op,
        root,
        ..unisono_call::new(unisono_operation::Reduce)
    };
    // SAFETY: the header's.
    unsafe { on_memory(comm, "reduce", call) }
}

/// unisono_reduce_scatter() in place on registered memory. `count` is one rank's block, world_size * count elements are used; this
/// rank's block becomes that of the reduction, the others stay.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn unisono_reduce_scatter_registered(
    comm: *const unisono_comm,
    memory: *const unisono_memory,
    offset: usize,
    count: usize,
    dtype: MaybeUninit<unisono_dtype>,
    op: MaybeUninit<unisono_op>,
) -> unisono_status {
    let call = unisono_call {
        memory,
        offset,
        count,
        dtype,
        op,
        ..unisono_call::new(unisono_operation::ReduceScatter)
    };
    // SAFETY: the header's.
    unsafe { on_memory(comm, "reduce_scatter", call) }
}

/// unisono_all_gather() in place on registered memory. `count` is one rank's block, world_size * count elements are used; this
/// rank's input is its block.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn unisono_all_gather_registered(
    comm: *const unisono_comm,
    memory: *const unisono_memory,
    offset: usize,
    count: usize,
    dtype: MaybeUninit<unisono_dtype>,
) -> unisono_status {
    let call =
        unisono_call { memory, offset, count, dtype, ..unisono_call::new(unisono_operation::AllGather) };
    // SAFETY: the header's.
    unsafe { on_memory(comm, "all_gather", call) }
}

/// unisono_broadcast() of the root's elements of registered memory.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn unisono_broadcast_registered(
    comm: *const unisono_comm,
    memory: *const unisono_memory,
    offset: usize,
    count: usize,
    dtype: MaybeUninit<unisono_dtype>,
    root: i32,
) -> unisono_status {
    let call = unisono_call {
        memory,
        offset,
        count,
        dtype,
        root,
        ..unisono_call::new(unisono_operation::Broadcast)
    };
    // SAFETY: the header's.
    unsafe { on_memory(comm, "broadcast", call) }
}
