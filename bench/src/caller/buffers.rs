//! A rank's buffers, and one call on them.
//!
//! The one invariant that matters: a buffer holds the elements that the call is told.

#![allow(unsafe_code)]

use std::hint::black_box;

use unisono::{Communicator, ReduceOp};
use unisono_measure::Operation;

use crate::wire::Work;

/// A page: buffers begin on one, as large tensors do.
#[derive(Clone, Copy)]
#[repr(align(4096))]
struct Page([u8; 4096]);

/// The input and the output of a rank; one and the same for an all-reduce.
pub(super) struct Buffers {
    input: Vec<Page>,
    input_bytes: usize,
    output: Option<Vec<Page>>,
    output_bytes: usize,
}

impl Buffers {
    /// Buffers for a call among so many ranks: zero, with their memory present.
    pub(super) fn new(work: &Work, ranks: usize) -> Buffers {
        let bytes = work.bytes();
        match work.operation {
            Operation::AllGather => Buffers {
                input: zeroed(bytes),
                input_bytes: bytes,
                output: Some(zeroed(bytes * ranks)),
                output_bytes: bytes * ranks,
            },
            _ => Buffers { input: zeroed(bytes), input_bytes: bytes, output: None, output_bytes: bytes },
        }
    }

    /// The bytes of the input.
    pub(super) fn input(&mut self) -> &mut [u8] {
        // SAFETY: `zeroed` has made at least that many bytes, all initialised, and `self` is borrowed mutably for as
        // long as the slice lives.
        unsafe { std::slice::from_raw_parts_mut(self.input.as_mut_ptr().cast(), self.input_bytes) }
    }

    /// The bytes of the output.
    pub(super) fn output(&self) -> &[u8] {
        let pages = self.output.as_ref().unwrap_or(&self.input);
        // SAFETY: `zeroed` has made at least that many bytes, all initialised (in place input and output are equally
        // long), and `self` is borrowed for as long as the slice lives.
        unsafe { std::slice::from_raw_parts(pages.as_ptr().cast(), self.output_bytes) }
    }

    /// Call the operation once.
    ///
    /// # Errors
    /// Those of the library.
    pub(super) fn operate(&mut self, communicator: &Communicator, work: &Work) -> anyhow::Result<()> {
        let raw = communicator.raw();
        let input: *mut u8 = self.input.as_mut_ptr().cast();
        // SAFETY: `new` has made buffers for this call, and nobody else uses them until it returns.
        unsafe {
            match (work.operation, &mut self.output) {
                (Operation::AllReduce, None) => {
                    raw.all_reduce(input, input, work.count, work.dtype, ReduceOp::Sum)?
                }
                (Operation::AllGather, Some(output)) => {
                    raw.all_gather(input, output.as_mut_ptr().cast(), work.count, work.dtype)?
                }
                (operation, _) => anyhow::bail!("{operation} is not compared"),
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
