//! The functions of SGLang's shared-memory operations for CPUs, over pointer, type and shape instead of tensors.
//!
//! Those have one group per process, made once, and so have these: a communicator that all of them use. `unisono_shm.h` gives them
//! the names that they have there. What goes wrong there in silence is an error here: sizes that do not agree, a second group, a
//! rank that is gone.

#![allow(unsafe_code)]

use std::ffi::{c_char, c_void};
use std::mem::MaybeUninit;
use std::sync::Mutex;

use unisono::{Communicator, ReduceOp};

use crate::boundary::{Result, array, guard, index, refused, text};
use crate::status::unisono_status;
use crate::types::{meaning_of, unisono_dtype};

/// The group of this process.
static GROUP: Mutex<Option<Communicator>> = Mutex::new(None);

fn group(operation: &'static str) -> Result<Communicator> {
    let group = GROUP.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
    group.ok_or_else(|| refused(operation, "call shm_initialize first"))
}

/// A count and a size that come separately must mean the same.
fn check_size(operation: &'static str, numel: usize, element: usize, data_size: usize) -> Result<()> {
    if numel.checked_mul(element) == Some(data_size) {
        return Ok(());
    }
    Err(refused(
        operation,
        format!("{numel} elements of {element} bytes are not the {data_size} bytes of data_size"),
    ))
}

/// Meet the other ranks of this process's group, once: `size` ranks, of which this is `rank`, at an address and a port on which they
/// agree. Nothing is sent or opened there. Again with the same size and rank, this does nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn unisono_shm_initialize(
    size: i32,
    rank: i32,
    addr_string: *const c_char,
    port_string: *const c_char,
) -> unisono_status {
    const OPERATION: &str = "shm_initialize";
    guard(OPERATION, || {
        let (size, rank) = (index(OPERATION, "size", size)?, index(OPERATION, "rank", rank)?);
        // SAFETY: the header's: texts, or null.
        let (address, port) = unsafe {
            (text(OPERATION, "addr_string", addr_string)?, text(OPERATION, "port_string", port_string)?)
        };
        let mut group = GROUP.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(comm) = &*group {
            if (comm.world_size(), comm.rank()) == (size, rank) {
                return Ok(());
            }
            let (had, was) = (comm.world_size(), comm.rank());
            let problem = format!(
                "asked for rank {rank} of {size}, but this process is rank {was} of {had} already: use unisono_init for further groups"
            );
            return Err(refused(OPERATION, problem));
        }
        let mut builder = Communicator::builder().world_size(size).rank(rank);
        builder = address.into_iter().fold(builder, unisono::Builder::address);
        if let Some(port) = port {
            let problem = || refused(OPERATION, format!("port_string is {port:?}: expected 1 to 65535"));
            builder = builder.port(port.trim().parse().map_err(|_| problem())?);
        }
        *group = Some(builder.connect()?);
        Ok(())
    })
}

/// All ranks' `data` becomes their sum, in place: `numel` elements, which are `data_size` bytes, of any size and none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn unisono_shm_all_reduce_outer_loop(
    data: *mut c_void,
    dtype: MaybeUninit<unisono_dtype>,
    numel: usize,
    data_size: usize,
) -> unisono_status {
    const OPERATION: &str = "all_reduce_outer_loop";
    guard(OPERATION, || {
        let dtype = meaning_of(OPERATION, dtype)?;
        check_size(OPERATION, numel, dtype.size_bytes(), data_size)?;
        let comm = group(OPERATION)?;
        // SAFETY: the header's: that many elements, which nobody else touches meanwhile.
        Ok(unsafe { comm.raw().all_reduce(data.cast(), data.cast(), numel, dtype, ReduceOp::Sum) }?)
    })
}

/// `result` becomes all ranks' `data`, one after the other along dimension `dim` (negative ones count from the last). `data` is
/// contiguous, of this shape, of `numel` elements, which are `data_size` bytes; `result` has size times as many in that dimension.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn unisono_shm_all_gather(
    result: *mut c_void,
    data: *const c_void,
    dtype: MaybeUninit<unisono_dtype>,
    shape: *const usize,
    dimensions: usize,
    dim: i32,
    numel: usize,
    data_size: usize,
) -> unisono_status {
    const OPERATION: &str = "all_gather";
    guard(OPERATION, || {
        let dtype = meaning_of(OPERATION, dtype)?;
        check_size(OPERATION, numel, dtype.size_bytes(), data_size)?;
        // SAFETY: the header's: a shape of that many dimensions.
        let shape = unsafe { array(OPERATION, "the shape", shape, dimensions) }?;
        let count = shape.iter().try_fold(1usize, |count, extent| count.checked_mul(*extent));
        if count != Some(numel) {
            return Err(refused(OPERATION, format!("numel is {numel}, but the shape is {shape:?}")));
        }
        let comm = group(OPERATION)?;
        // SAFETY: the header's: memory of that shape, and of its gathered form, which nobody else touches meanwhile.
        Ok(unsafe { comm.raw().all_gather_dim(data.cast(), result.cast(), shape, dim as isize, dtype) }?)
    })
}

/// Leave this process's group. SGLang's functions have no such thing; without it the rank leaves when its process ends.
#[unsafe(no_mangle)]
pub extern "C" fn unisono_shm_finalize() -> unisono_status {
    guard("shm_finalize", || {
        let comm = GROUP.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        if let Some(comm) = comm {
            comm.leave();
        }
        Ok(())
    })
}
