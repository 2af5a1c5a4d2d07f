//! The collectives, and send and recv: each fills in a call and makes it.
//!
//! Memory is the caller's, and needs no alignment. An input may be the same memory as the output where a function says so (in
//! place); any other overlap is an error. What only the root has may be null on the others.

#![allow(unsafe_code)]

use std::ffi::c_void;
use std::mem::MaybeUninit;

use crate::boundary::{guard, refused};
use crate::call::{Plan, unisono_call};
use crate::communicator::{communicator, unisono_comm};
use crate::status::unisono_status;
use crate::types::{unisono_dtype, unisono_op, unisono_operation};

/// Make a call now.
///
/// # Safety
/// The handle, the lists and the memory are what the header says.
#[inline]
pub(crate) unsafe fn make(
    comm: *const unisono_comm,
    name: &'static str,
    call: unisono_call,
) -> unisono_status {
    guard(name, || {
        // SAFETY: the caller's word.
        unsafe {
            let comm = communicator(name, comm)?;
            Plan::of(&call, comm.world_size(), comm.rank())?.carry_out(comm)
        }
    })
}

/// Every rank gets the reduction of all inputs: `count` elements in and out; in place if `input == output`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn unisono_all_reduce(
    comm: *const unisono_comm,
    input: *const c_void,
    output: *mut c_void,
    count: usize,
    dtype: MaybeUninit<unisono_dtype>,
    op: MaybeUninit<unisono_op>,
) -> unisono_status {
    let call =
        unisono_call { input, output, count, dtype, op, ..unisono_call::new(unisono_operation::AllReduce) };
    // SAFETY: the header's.
    unsafe { make(comm, "all_reduce", call) }
}

/// The root gets the reduction of all inputs: `count` elements in, and out at the root, where it is in place if `input == output`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn unisono_reduce(
    comm: *const unisono_comm,
    input: *const c_void,
    output: *mut c_void,
    count: usize,
    dtype: MaybeUninit<unisono_dtype>,
    op: MaybeUninit<unisono_op>,
    root: i32,
) -> unisono_status {
    let call = unisono_call {
        input,
        output,
        count,
        dtype,
        op,
        root,
        ..unisono_call::new(unisono_operation::Reduce)
    };
    // SAFETY: the header's.
    unsafe { make(comm, "reduce", call) }
}

/// Rank r gets block r of the reduction: world_size * count elements in, `count` out; in place if the output is this rank's block of
/// the input.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn unisono_reduce_scatter(
    comm: *const unisono_comm,
    input: *const c_void,
    output: *mut c_void,
    count: usize,
    dtype: MaybeUninit<unisono_dtype>,
    op: MaybeUninit<unisono_op>,
) -> unisono_status {
    let call = unisono_call {
        input,
        output,
        count,
        dtype,
        op,
        ..unisono_call::new(unisono_operation::ReduceScatter)
    };
    // SAFETY: the header's.
    unsafe { make(comm, "reduce_scatter", call) }
}

/// Every rank gets all inputs, in rank order: `count` elements in, world_size * count out; in place if the input is this rank's block
/// of the output.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn unisono_all_gather(
    comm: *const unisono_comm,
    input: *const c_void,
    output: *mut c_void,
    count: usize,
    dtype: MaybeUninit<unisono_dtype>,
) -> unisono_status {
    let call =
        unisono_call { input, output, count, dtype, ..unisono_call::new(unisono_operation::AllGather) };
    // SAFETY: the header's.
    unsafe { make(comm, "all_gather", call) }
}

/// Every rank gets all inputs, one after the other along dimension `dim` of `dimensions` (negative ones count from the last): the
/// elements of `shape` in, the same with shape[dim] * world_size out, both contiguous; out of place.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn unisono_all_gather_dim(
    comm: *const unisono_comm,
    input: *const c_void,
    output: *mut c_void,
    shape: *const usize,
    dimensions: usize,
    dim: i64,
    dtype: MaybeUninit<unisono_dtype>,
) -> unisono_status {
    if dimensions == 0 {
        return guard("all_gather_dim", || {
            Err(refused("all_gather_dim", "a shape without dimensions has none to gather along"))
        });
    }
    let call = unisono_call {
        input,
        output,
        shape,
        dimensions,
        dim,
        dtype,
        ..unisono_call::new(unisono_operation::AllGather)
    };
    // SAFETY: the header's.
    unsafe { make(comm, "all_gather_dim", call) }
}

/// Every rank gets the root's `count` elements.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn unisono_broadcast(
    comm: *const unisono_comm,
    data: *mut c_void,
    count: usize,
    dtype: MaybeUninit<unisono_dtype>,
    root: i32,
) -> unisono_status {
    let call =
        unisono_call { output: data, count, dtype, root, ..unisono_call::new(unisono_operation::Broadcast) };
    // SAFETY: the header's.
    unsafe { make(comm, "broadcast", call) }
}

/// The root gets all inputs, in rank order: `count` elements in, world_size * count out at the root; in place if the root's input is
/// its block of the output.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn unisono_gather(
    comm: *const unisono_comm,
    input: *const c_void,
    output: *mut c_void,
    count: usize,
    dtype: MaybeUninit<unisono_dtype>,
    root: i32,
) -> unisono_status {
    let call =
        unisono_call { input, output, count, dtype, root, ..unisono_call::new(unisono_operation::Gather) };
    // SAFETY: the header's.
    unsafe { make(comm, "gather", call) }
}

/// Rank r gets block r of the root's input: world_size * count elements in at the root, `count` out; in place if the root's output is
/// its block of the input.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn unisono_scatter(
    comm: *const unisono_comm,
    input: *const c_void,
    output: *mut c_void,
    count: usize,
    dtype: MaybeUninit<unisono_dtype>,
    root: i32,
) -> unisono_status {
    let call =
        unisono_call { input, output, count, dtype, root, ..unisono_call::new(unisono_operation::Scatter) };
    // SAFETY: the header's.
    unsafe { make(comm, "scatter", call) }
}

/// Rank r gets block r of every rank's input, in rank order: world_size * count elements in and out; in place if `input == output`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn unisono_all_to_all(
    comm: *const unisono_comm,
    input: *const c_void,
    output: *mut c_void,
    count: usize,
    dtype: MaybeUninit<unisono_dtype>,
) -> unisono_status {
    let call = unisono_call { input, output, count, dtype, ..unisono_call::new(unisono_operation::AllToAll) };
    // SAFETY: the header's.
    unsafe { make(comm, "all_to_all", call) }
}

/// Nobody leaves before all have come.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn unisono_barrier(comm: *const unisono_comm) -> unisono_status {
    let call = unisono_call { ..unisono_call::new(unisono_operation::Barrier) };
    // SAFETY: the header's.
    unsafe { make(comm, "barrier", call) }
}

/// unisono_all_gather() with a count per rank: counts[rank] elements in, their sum out. Every rank passes the same `counts`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn unisono_all_gather_v(
    comm: *const unisono_comm,
    input: *const c_void,
    output: *mut c_void,
    counts: *const usize,
    dtype: MaybeUninit<unisono_dtype>,
) -> unisono_status {
    let call =
        unisono_call { input, output, counts, dtype, ..unisono_call::new(unisono_operation::AllGatherV) };
    // SAFETY: the header's.
    unsafe { make(comm, "all_gather_v", call) }
}

/// unisono_reduce_scatter() with a count per rank: the sum of `counts` elements in, counts[rank] out. Every rank passes the same.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn unisono_reduce_scatter_v(
    comm: *const unisono_comm,
    input: *const c_void,
    output: *mut c_void,
    counts: *const usize,
    dtype: MaybeUninit<unisono_dtype>,
    op: MaybeUninit<unisono_op>,
) -> unisono_status {
    let call = unisono_call {
        input,
        output,
        counts,
        dtype,
        op,
        ..unisono_call::new(unisono_operation::ReduceScatterV)
    };
    // SAFETY: the header's.
    unsafe { make(comm, "reduce_scatter_v", call) }
}

/// unisono_all_to_all() with a count per pair: send_counts[r] elements go to rank r, recv_counts[r] come from it; blocks lie end to
/// end, in rank order. Out of place.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn unisono_all_to_all_v(
    comm: *const unisono_comm,
    input: *const c_void,
    send_counts: *const usize,
    output: *mut c_void,
    recv_counts: *const usize,
    dtype: MaybeUninit<unisono_dtype>,
) -> unisono_status {
    let call = unisono_call {
        input,
        counts: send_counts,
        output,
        recv_counts,
        dtype,
        ..unisono_call::new(unisono_operation::AllToAllV)
    };
    // SAFETY: the header's.
    unsafe { make(comm, "all_to_all_v", call) }
}

/// unisono_gather() with a count per rank: `count` elements in, the sum of `counts` out at the root, where alone `counts` matters.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn unisono_gather_v(
    comm: *const unisono_comm,
    input: *const c_void,
    count: usize,
    output: *mut c_void,
    counts: *const usize,
    dtype: MaybeUninit<unisono_dtype>,
    root: i32,
) -> unisono_status {
    let call = unisono_call {
        input,
        count,
        output,
        counts,
        dtype,
        root,
        ..unisono_call::new(unisono_operation::GatherV)
    };
    // SAFETY: the header's.
    unsafe { make(comm, "gather_v", call) }
}

/// unisono_scatter() with a count per rank: the sum of `counts` elements in at the root, where alone `counts` matters; `count` out.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn unisono_scatter_v(
    comm: *const unisono_comm,
    input: *const c_void,
    counts: *const usize,
    output: *mut c_void,
    count: usize,
    dtype: MaybeUninit<unisono_dtype>,
    root: i32,
) -> unisono_status {
    let call = unisono_call {
        input,
        counts,
        output,
        count,
        dtype,
        root,
        ..unisono_call::new(unisono_operation::ScatterV)
    };
    // SAFETY: the header's.
    unsafe { make(comm, "scatter_v", call) }
}

/// Send `count` elements to rank `to`, which must receive the same type and count. Returns as soon as the data fits the pair's window
/// (unisono_comm_window_bytes()); a longer message waits for its receiver.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn unisono_send(
    comm: *const unisono_comm,
    data: *const c_void,
    count: usize,
    dtype: MaybeUninit<unisono_dtype>,
    to: i32,
) -> unisono_status {
    let call =
        unisono_call { input: data, count, dtype, root: to, ..unisono_call::new(unisono_operation::Send) };
    // SAFETY: the header's.
    unsafe { make(comm, "send", call) }
}

/// Receive the next message from rank `from`, which must have this type and count.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn unisono_recv(
    comm: *const unisono_comm,
    data: *mut c_void,
    count: usize,
    dtype: MaybeUninit<unisono_dtype>,
    from: i32,
) -> unisono_status {
    let call =
        unisono_call { output: data, count, dtype, root: from, ..unisono_call::new(unisono_operation::Recv) };
    // SAFETY: the header's.
    unsafe { make(comm, "recv", call) }
}
