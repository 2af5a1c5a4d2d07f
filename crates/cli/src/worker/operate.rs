//! One call of a measured operation, on buffers whose element type is known only at run time.
//!
//! The one invariant that matters: the buffers are as long as [`Shape`] says for the operation, which is what the
//! library is told.

#![allow(unsafe_code)]

use std::hint::black_box;
use std::ops::Range;

use unisono::{Communicator, DType, Error, RegisteredMemory};
use unisono_measure::{Operation, Shape};

use super::protocol::Subject;

/// A page: buffers begin on one, as large tensors do.
#[derive(Clone, Copy)]
#[repr(align(4096))]
struct Page([u8; 4096]);

/// Where a buffer lies.
enum Memory {
    Own(Vec<Page>),
    Registered(RegisteredMemory),
}

impl Memory {
    fn start(&self) -> *const u8 {
        match self {
            Memory::Own(pages) => pages.as_ptr().cast(),
            Memory::Registered(memory) => memory.as_mut_ptr().cast_const(),
        }
    }

    fn start_mut(&mut self) -> *mut u8 {
        match self {
            Memory::Own(pages) => pages.as_mut_ptr().cast(),
            Memory::Registered(memory) => memory.as_mut_ptr(),
        }
    }
}

/// The input and the output of a rank; in one memory where the operation works in place.
pub(crate) struct Buffers {
    memory: Memory,
    /// The output's, where it is another.
    output_memory: Option<Memory>,
    /// Where they lie in their memory, in bytes.
    input: Range<usize>,
    output: Range<usize>,
}

impl Buffers {
    /// Buffers for a shape, all zero, with their memory present.
    pub(crate) fn new(shape: &Shape, dtype: DType, in_place: bool) -> Buffers {
        let input = shape.input * dtype.size_bytes();
        let output = shape.output * dtype.size_bytes();
        let memory = Memory::Own(zeroed(if in_place { input.max(output) } else { input }));
        let output_memory = (!in_place).then(|| Memory::Own(zeroed(output)));
        let input = if in_place { input.max(output) } else { input };
        Buffers { memory, output_memory, input: 0..input, output: 0..output }
    }

    /// Buffers in registered memory: the smaller of the two is this rank's block of the larger.
    ///
    /// # Errors
    /// If the ranks cannot allocate it.
    pub(crate) fn registered(
        communicator: &Communicator,
        shape: &Shape,
        dtype: DType,
    ) -> Result<Buffers, Error> {
        let memory = communicator.raw().alloc(shape.input.max(shape.output), dtype)?;
        let place = |elements: usize, other: usize| {
            let bytes = elements * dtype.size_bytes();
            let start = if elements < other { communicator.rank() * bytes } else { 0 };
            start..start + bytes
        };
        Ok(Buffers {
            memory: Memory::Registered(memory),
            output_memory: None,
            input: place(shape.input, shape.output),
            output: place(shape.output, shape.input),
        })
    }

    /// The bytes of the input.
    pub(crate) fn input(&mut self) -> &mut [u8] {
        // SAFETY: the range lies inside the memory, whose bytes are all initialised, and `self` is borrowed mutably
        // for as long as the slice lives. Other ranks use registered memory only inside of an operation, all of
        // which begin and end in `operate`.
        unsafe {
            std::slice::from_raw_parts_mut(self.memory.start_mut().add(self.input.start), self.input.len())
        }
    }

    /// The bytes of the output, which may be some of the input's where the operation works in place.
    pub(crate) fn output(&self) -> &[u8] {
        let memory = self.output_memory.as_ref().unwrap_or(&self.memory);
        // SAFETY: as in `input`, with `self` borrowed for as long as the slice lives.
        unsafe { std::slice::from_raw_parts(memory.start().add(self.output.start), self.output.len()) }
    }

    /// The bytes of the output, to pretend a result.
    #[cfg(test)]
    pub(crate) fn output_mut(&mut self) -> &mut [u8] {
        let Range { start, end } = self.output;
        let memory = self.output_memory.as_mut().unwrap_or(&mut self.memory);
        // SAFETY: as in `input`.
        unsafe { std::slice::from_raw_parts_mut(memory.start_mut().add(start), end - start) }
    }

    fn pointers(&mut self) -> (*const u8, *mut u8) {
        match &mut self.output_memory {
            Some(output) => (self.memory.start(), output.start_mut()),
            None => {
                let both = self.memory.start_mut();
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
    if let Memory::Registered(memory) = &buffers.memory {
        return operate_registered(communicator, subject, memory);
    }
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

/// Call the operation once on registered memory.
fn operate_registered(
    communicator: &Communicator,
    subject: &Subject,
    memory: &RegisteredMemory,
) -> Result<(), Error> {
    let Subject { dtype, reduce_op, root, .. } = *subject;
    let count = subject.shape(communicator.world_size()).count;
    let raw = communicator.raw();
    // SAFETY: this thread alone uses this rank's memory, and is here until the call returns.
    unsafe {
        match subject.operation {
            Operation::AllReduce => raw.all_reduce_registered(memory, 0, count, dtype, reduce_op),
            Operation::Reduce => raw.reduce_registered(memory, 0, count, dtype, reduce_op, root),
            Operation::ReduceScatter => raw.reduce_scatter_registered(memory, 0, count, dtype, reduce_op),
            Operation::AllGather => raw.all_gather_registered(memory, 0, count, dtype),
            Operation::Broadcast => raw.broadcast_registered(memory, 0, count, dtype, root),
            // `unisono bench` has refused the others; without data there is nothing to register.
            _ => communicator.barrier(),
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
    fn registered_blocks_lie_in_the_larger_buffer() {
        let ranks = Communicator::in_process(2).unwrap();
        std::thread::scope(|scope| {
            for comm in ranks {
                scope.spawn(move || {
                    let shape = Operation::AllGather.shape(64, 2, 4);
                    let mut buffers = Buffers::registered(&comm, &shape, DType::F32).unwrap();
                    buffers.input().fill(7);
                    let own = 32 * comm.rank()..32 * (comm.rank() + 1);
                    for (index, byte) in buffers.output().iter().enumerate() {
                        assert_eq!(*byte == 7, own.contains(&index));
                    }
                });
            }
        });
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
