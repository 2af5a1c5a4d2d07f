//! A rank's buffers, and one call on them.
//!
//! The one invariant that matters: a buffer holds the elements that the call is told.

#![allow(unsafe_code)]

use std::hint::black_box;

use unisono::{Communicator, ReduceOp, RegisteredMemory};
use unisono_measure::Operation;

use crate::wire::Work;

/// A page: buffers begin on one, as large tensors do.
#[derive(Clone, Copy)]
#[repr(align(4096))]
pub(super) struct Page([u8; 4096]);

/// The input and the output of a rank; one and the same for an all-reduce.
pub(super) enum Buffers {
    /// Memory of this rank's own.
    Private { input: Vec<Page>, output: Option<Vec<Page>>, input_bytes: usize, output_bytes: usize },
    /// Memory that all ranks see, worked on in place; where in it the input lies.
    Registered { memory: RegisteredMemory, input: std::ops::Range<usize> },
}

impl Buffers {
    /// Buffers for a call among so many ranks: zero, with their memory present.
    pub(super) fn private(work: &Work, ranks: usize) -> Buffers {
        let input_bytes = work.bytes();
        let (output, output_bytes) = match work.operation {
            Operation::AllGather => (Some(zeroed(input_bytes * ranks)), input_bytes * ranks),
            _ => (None, input_bytes),
        };
        Buffers::Private { input: zeroed(input_bytes), output, input_bytes, output_bytes }
    }

    /// A registered buffer for a call; all ranks ask for it at once.
    ///
    /// # Errors
    /// Those of the library.
    pub(super) fn registered(work: &Work, communicator: &Communicator) -> anyhow::Result<Buffers> {
        let (blocks, own) = match work.operation {
            Operation::AllGather => (communicator.world_size(), communicator.rank()),
            _ => (1, 0),
        };
        let memory = communicator.raw().alloc(work.count * blocks, work.dtype)?;
        let input = own * work.bytes()..(own + 1) * work.bytes();
        let mut buffers = Buffers::Registered { memory, input };
        black_box(buffers.input()).fill(0);
        Ok(buffers)
    }

    /// The bytes of the input.
    pub(super) fn input(&mut self) -> &mut [u8] {
        let (start, bytes) = match self {
            Buffers::Private { input, input_bytes, .. } => (input.as_mut_ptr().cast(), *input_bytes),
            // SAFETY: the input lies inside the memory, which was made for it.
            Buffers::Registered { memory, input } => unsafe {
                (memory.as_mut_ptr().add(input.start), input.len())
            },
        };
        // SAFETY: `zeroed` has made at least that many bytes, and registered memory was made for all blocks; all are
        // initialised. `self` is borrowed mutably for as long as the slice lives, and so is no argument of a call:
        // other ranks write registered memory only between this rank's arrival at a call and its return.
        unsafe { std::slice::from_raw_parts_mut(start, bytes) }
    }

    /// The bytes of the output.
    pub(super) fn output(&self) -> &[u8] {
        let (start, bytes) = match self {
            Buffers::Private { input, output, output_bytes, .. } => {
                (output.as_ref().unwrap_or(input).as_ptr().cast(), *output_bytes)
            }
            Buffers::Registered { memory, .. } => (memory.as_mut_ptr().cast_const(), memory.size_bytes()),
        };
        // SAFETY: as in `input` (in place the output is the input, or all blocks), with `self` borrowed for as long as the
        // slice lives.
        unsafe { std::slice::from_raw_parts(start, bytes) }
    }

    /// Call the operation once.
    ///
    /// # Errors
    /// Those of the library.
    pub(super) fn operate(&mut self, communicator: &Communicator, work: &Work) -> anyhow::Result<()> {
        let raw = communicator.raw();
        let Work { operation, dtype, count } = *work;
        // SAFETY: the buffers were made for this call, and nobody else in this process uses them until it returns.
        unsafe {
            match (operation, self) {
                (Operation::AllReduce, Buffers::Private { input, output: None, .. }) => {
                    let start: *mut u8 = input.as_mut_ptr().cast();
                    raw.all_reduce(start, start, count, dtype, ReduceOp::Sum)?
                }
                (Operation::AllGather, Buffers::Private { input, output: Some(output), .. }) => {
                    raw.all_gather(input.as_ptr().cast(), output.as_mut_ptr().cast(), count, dtype)?
                }
                (Operation::AllGather, Buffers::Registered { memory, .. }) => {
                    raw.all_gather_registered(memory, 0, count, dtype)?
                }
                (Operation::AllReduce, Buffers::Registered { memory, .. }) => {
                    raw.all_reduce_registered(memory, 0, count, dtype, ReduceOp::Sum)?
                }
                (operation, _) => anyhow::bail!("{operation} is not compared on such buffers"),
            }
        }
        Ok(())
    }
}

/// Pages that are written, not merely promised: untouched memory is one page of zeros that all reads share.
fn zeroed(bytes: usize) -> Vec<Page> {
    let mut pages = vec![Page([1; 4096]); bytes.div_ceil(4096)];
    for page in black_box(&mut pages) {
        page.0.fill(0);
    }
    pages
}
