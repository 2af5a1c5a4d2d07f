//! One call of a measured operation, on buffers whose element type is known only at run time.
//!
//! The one invariant that matters: the buffers are as long as [`Shape`] says for the operation, which is what the
//! library is told.

#![allow(unsafe_code)]

use std::hint::black_box;

use unisono::{Communicator, DType, Error};
use unisono_measure::{Operation, Shape};

use super::protocol::Subject;

/// A page: buffers begin on one, as large tensors do.
#[derive(Clone, Copy)]
#[repr(align(4096))]
struct Page([u8; 4096]);

/// The input and the output of a rank; one and the same where the operation works in place.
pub(crate) struct Buffers {
    input: Vec<Page>,
    output: Option<Vec<Page>>,
    input_bytes: usize,
    output_bytes: usize,
}

impl Buffers {
    /// Buffers for a shape, all zero, with their memory present.
    pub(crate) fn new(shape: &Shape, dtype: DType, in_place: bool) -> Buffers {
        let input_bytes = shape.input * dtype.size_bytes();
        let output_bytes = shape.output * dtype.size_bytes();
        let input_bytes = if in_place { input_bytes.max(output_bytes) } else { input_bytes };
        let output = (!in_place).then(|| zeroed(output_bytes));
        Buffers { input: zeroed(input_bytes), output, input_bytes, output_bytes }
    }

    /// The bytes of the input.
    pub(crate) fn input(&mut self) -> &mut [u8] {
        let start = self.input.as_mut_ptr().cast();
        // SAFETY: `zeroed` has reserved at least that many bytes, all initialised, and `self` is borrowed mutably
        // for as long as the slice lives.
        unsafe { std::slice::from_raw_parts_mut(start, self.input_bytes) }
    }

    /// The bytes of the output, which are the input's where the operation works in place.
    pub(crate) fn output(&self) -> &[u8] {
        let pages = self.output.as_ref().unwrap_or(&self.input);
        // SAFETY: `zeroed` has reserved at least that many bytes (in place the larger of both), all initialised,
        // and `self` is borrowed for as long as the slice lives.
        unsafe { std::slice::from_raw_parts(pages.as_ptr().cast(), self.output_bytes) }
    }

    /// The bytes of the output, to pretend a result.
    #[cfg(test)]
    pub(crate) fn output_mut(&mut self) -> &mut [u8] {
        let bytes = self.output_bytes;
        let start = self.output.as_mut().unwrap_or(&mut self.input).as_mut_ptr().cast();
        // SAFETY: as in `output`, with `self` borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(start, bytes) }
    }

    fn pointers(&mut self) -> (*const u8, *mut u8) {
        match &mut self.output {
            Some(output) => (self.input.as_ptr().cast(), output.as_mut_ptr().cast()),
            None => {
                let both: *mut u8 = self.input.as_mut_ptr().cast();
                (both.cast_const(), both)
            }
        }
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

/// Call the operation once.
pub(crate) fn operate(
    communicator: &Communicator,
    subject: &Subject,
    buffers: &mut Buffers,
) -> Result<(), Error> {
    let Subject { dtype, reduce_op, root, .. } = *subject;
    let ranks = communicator.world_size();
    let count = subject.shape(ranks).count;
    let raw = communicator.raw();
    let (input, output) = buffers.pointers();
    // SAFETY: for every operation, `Operation::shape` gives how many elements its buffers hold on a rank for this
    // count, and `Buffers::new` has made them that long; nobody else uses them until the call returns.
    unsafe {
        match subject.operation {
            Operation::AllReduce => raw.all_reduce(input, output, count, dtype, reduce_op),
            Operation::AllGather => raw.all_gather(input, output, count, dtype),
            Operation::ReduceScatter => raw.reduce_scatter(input, output, count, dtype, reduce_op),
            Operation::Broadcast => raw.broadcast(output, count, dtype, root),
            Operation::Reduce => raw.reduce(input, output, count, dtype, reduce_op, root),
            Operation::Gather => raw.gather(input, output, count, dtype, root),
            Operation::Scatter => raw.scatter(input, output, count, dtype, root),
            Operation::AllToAll => raw.all_to_all(input, output, count, dtype),
            Operation::Barrier => communicator.barrier(),
            Operation::SendRecv => {
                let rank = communicator.rank();
                let (next, previous) = ((rank + 1) % ranks, (rank + ranks - 1) % ranks);
                // In a ring in which everybody sends first, nobody would receive what is too large to be buffered.
                if rank.is_multiple_of(2) {
                    raw.send(input, count, dtype, next)?;
                    raw.recv(output, count, dtype, previous)
                } else {
                    raw.recv(output, count, dtype, previous)?;
                    raw.send(input, count, dtype, next)
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_as_long_as_the_shape_says() {
        let shape = Operation::AllGather.shape(64, 4, 4);
        let mut buffers = Buffers::new(&shape, DType::F32, false);
        assert_eq!((buffers.input().len(), buffers.output().len()), (16, 64));
        buffers.input().fill(7);
        assert!(buffers.output().iter().all(|byte| *byte == 0));
    }

    #[test]
    fn in_place_input_and_output_are_the_same() {
        let shape = Operation::AllReduce.shape(8192, 2, 4);
        let mut buffers = Buffers::new(&shape, DType::F32, true);
        buffers.input().fill(7);
        assert!(buffers.output().iter().all(|byte| *byte == 7));
        let (input, output) = buffers.pointers();
        assert!(std::ptr::eq(input, output));
    }
}
