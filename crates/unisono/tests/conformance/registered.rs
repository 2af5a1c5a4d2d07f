//! Checks of the operations on registered memory: on a part of a large allocation, anywhere in it, with what lies around
//! it left alone; and of what a [`Registered`](unisono::Registered) buffer does by itself.

#![allow(unsafe_code)]

use std::time::Duration;

use unisono::{Communicator, Error, Parameters, ReduceOp, RegisteredMemory};

use super::{Kind, Task, oracle};

/// Bytes on either side of the part, which must stay as they are.
const MARGIN: usize = 72;
/// Where parts begin: at any of this many elements.
const PLACES: usize = 40;
/// The longest element.
const ELEMENT: usize = 8;

/// Memory for parts of up to `bytes` bytes per rank or block.
pub(super) fn pool_bytes(world: usize, bytes: usize) -> usize {
    2 * MARGIN + PLACES * ELEMENT + bytes * world
}

fn filler(index: usize) -> u8 {
    (index % 241) as u8 ^ 0x5a
}

impl Task<'_> {
    /// Carry out the case on a part of `pool` and compare it and what lies around it.
    pub(super) fn on_registered(&self, pool: &RegisteredMemory) {
        let (raw, case) = (self.comm.raw(), self.case);
        let (count, dtype, op, root) = (case.count, case.dtype, case.op, case.root);
        let offset = MARGIN.div_ceil(dtype.size_bytes()) + self.draws(4 << 32).below(PLACES);
        let (own, expected) = self.own_and_expected();
        let start = self.bytes(offset);
        let around = || (start - MARGIN..start).chain(start + own.len()..start + own.len() + MARGIN);
        assert!(
            start + own.len() + MARGIN <= pool.size_bytes(),
            "{}: the pool is too small",
            self.describe()
        );
        let memory = pool.as_mut_ptr();
        // SAFETY: the part and its margins lie inside the pool (just checked). Between two operations nobody but this
        // thread uses this rank's memory.
        unsafe {
            around().for_each(|at| memory.add(at).write(filler(at)));
            memory.add(start).copy_from_nonoverlapping(own.as_ptr(), own.len());
        }
        // SAFETY: this thread alone uses this rank's memory.
        self.ok(unsafe {
            match case.kind {
                Kind::AllReduceRegistered => raw.all_reduce_registered(pool, offset, count, dtype, op),
                Kind::ReduceRegistered => raw.reduce_registered(pool, offset, count, dtype, op, root),
                Kind::ReduceScatterRegistered => {
                    raw.reduce_scatter_registered(pool, offset, count, dtype, op)
                }
                Kind::AllGatherRegistered => raw.all_gather_registered(pool, offset, count, dtype),
                Kind::BroadcastRegistered => raw.broadcast_registered(pool, offset, count, dtype, root),
                other => unreachable!("{other:?} is not about registered memory"),
            }
        });
        let mut found = vec![0u8; own.len()];
        // SAFETY: as above.
        let touched = unsafe {
            memory.add(start).copy_to_nonoverlapping(found.as_mut_ptr(), found.len());
            around().find(|at| memory.add(*at).read() != filler(*at))
        };
        assert_eq!(touched, None, "{}: memory around {start} was written", self.describe());
        let wrong = found.iter().zip(&expected).position(|(found, expected)| found != expected);
        assert_eq!(wrong, None, "{}: a byte is wrong", self.describe());
    }

    /// What this rank's part holds before and after.
    fn own_and_expected(&self) -> (Vec<u8>, Vec<u8>) {
        let (count, rank, world) = (self.case.count, self.rank, self.world);
        let blocks = count * world;
        let block = |rank: usize| self.bytes(count * rank)..self.bytes(count * (rank + 1));
        match self.case.kind {
            Kind::AllReduceRegistered => (self.data(rank, count), self.reduced(count)),
            Kind::ReduceRegistered => {
                let own = self.data(rank, count);
                let expected = if self.at_root() { self.reduced(count) } else { own.clone() };
                (own, expected)
            }
            Kind::ReduceScatterRegistered => {
                let own = self.data(rank, blocks);
                let mut expected = own.clone();
                expected[block(rank)].copy_from_slice(&self.reduced(blocks)[block(rank)]);
                (own, expected)
            }
            Kind::AllGatherRegistered => {
                let own = self.data(rank, blocks);
                let all: Vec<u8> =
                    (0..world).flat_map(|peer| self.data(peer, blocks)[block(peer)].to_vec()).collect();
                (own, all)
            }
            _ => (self.data(rank, count), self.data(self.case.root, count)),
        }
    }
}

/// All there is to a buffer: contents in and out, parts, sizes, freeing while a peer goes on, several at once.
pub(crate) fn registered_buffers(comm: &Communicator) {
    let (rank, world) = (comm.rank(), comm.world_size());
    for count in [0usize, 1, 1000, 70_001] {
        let mut one = comm.alloc::<f32>(count).expect("all ranks allocate");
        let mut other = comm.alloc::<i64>(count).expect("all ranks allocate");
        assert_eq!((one.len(), one.is_empty()), (count, count == 0));
        let mut found = vec![9.0; count];
        one.read_into(0, &mut found).expect("it fits");
        assert!(found.iter().all(|value| *value == 0.0), "new memory is zero");
        let mine: Vec<f32> = (0..count).map(|index| (index % 100 * (rank + 1)) as f32).collect();
        one.write_from(0, &mine).expect("it fits");
        other.fill(rank as i64).expect("it is there");
        comm.all_reduce_registered(&mut one, ReduceOp::Sum).expect("all ranks call it");
        comm.all_reduce_registered(&mut other, ReduceOp::Max).expect("all ranks call it");
        one.read_into(0, &mut found).expect("it fits");
        let inputs: Vec<Vec<u8>> = (0..world)
            .map(|rank| {
                (0..count).flat_map(|index| ((index % 100 * (rank + 1)) as f32).to_ne_bytes()).collect()
            })
            .collect();
        let expected = oracle::reduce(unisono::DType::F32, ReduceOp::Sum, &inputs);
        let bytes: Vec<u8> = found.iter().flat_map(|value| value.to_ne_bytes()).collect();
        assert!(bytes == expected, "the sum of {count} elements");
        if let Some(last) = count.checked_sub(1) {
            assert_eq!(other.get(last).expect("it is there"), world as i64 - 1);
            other.set(last, -1).expect("it is there");
            // SAFETY: the operations on this memory are over, and no rank begins another one on it before the barrier.
            assert_eq!(unsafe { other.as_slice() }[last], -1);
            comm.barrier().expect("all ranks call it");
        }
        assert!(one.get(count).is_err() && one.slice(1..count + 2).is_err());
        assert!(other.write_from(usize::MAX, &[1, 2]).is_err());
        // Freed here at once, elsewhere later.
        if rank == 0 {
            drop(one);
        }
        comm.all_reduce_registered(&mut other, ReduceOp::Min).expect("all ranks call it");
    }
}

/// An argument error on registered memory changes nothing, and memory belongs to its communicator.
pub(crate) fn mistakes_with_registered_memory(comm: &Communicator) {
    let part = comm.split(Some(0), 0).expect("all ranks split").expect("all have a color");
    let mut buffer = comm.alloc::<f32>(127).expect("all ranks allocate");
    let mistakes = [
        ("memory of another communicator", part.all_reduce_registered(&mut buffer, ReduceOp::Sum)),
        ("the bitwise and of floats", comm.all_reduce_registered(&mut buffer, ReduceOp::And)),
        ("a prime number of elements", comm.all_gather_registered(&mut buffer)),
        ("blocks of a prime number", comm.reduce_scatter_registered(&mut buffer, ReduceOp::Sum)),
        ("a root that is not there", comm.broadcast_registered(&mut buffer, comm.world_size())),
        ("nobody's reduction", comm.reduce_registered(&mut buffer, ReduceOp::Sum, 99)),
    ];
    for (what, result) in mistakes {
        let error = result.expect_err(what);
        assert!(matches!(error, Error::InvalidArgument { .. }), "{what}: {error}");
    }
    let outside = [(0, 128), (128, 0), (usize::MAX, 2), (3, usize::MAX), (usize::MAX / 2, 5)];
    for (offset, count) in outside {
        let memory = buffer.memory();
        // SAFETY: what reaches outside is refused.
        let result = unsafe {
            comm.raw().all_reduce_registered(memory, offset, count, unisono::DType::F32, ReduceOp::Sum)
        };
        assert!(matches!(result, Err(Error::InvalidArgument { .. })), "{count} from {offset}: {result:?}");
    }
    let too_much = comm.alloc::<u64>(usize::MAX / 8);
    assert!(matches!(too_much, Err(Error::InvalidArgument { .. })), "{too_much:?}");
    buffer.fill(1.0).expect("it is there");
    comm.all_reduce_registered(&mut buffer, ReduceOp::Sum).expect("the communicator goes on");
    assert_eq!(buffer.get(126).expect("it is there"), comm.world_size() as f32);
}

/// More memory than there is: refused on all ranks together, and the communicator goes on.
pub(crate) fn too_much_registered_memory_is_refused(comm: &Communicator) {
    for _ in 0..2 {
        let error = comm.alloc::<u8>(1 << 46).expect_err("64 TiB");
        assert!(!error.is_terminal(), "{error}");
        let text = error.to_string();
        assert!(matches!(error, Error::OutOfMemory { .. } | Error::Rendezvous { .. }), "{text}");
        assert!(text.contains("bytes") && text.contains("may still be had"), "{text}");
        let mut buffer = comm.alloc::<u8>(100).expect("this much there is");
        buffer.fill(1).expect("it is there");
        comm.all_reduce_registered(&mut buffer, ReduceOp::Sum).expect("all ranks call it");
        assert_eq!(buffer.get(99).expect("it is there"), comm.world_size() as u8);
    }
}

/// With a short deadline: a rank that does not come is an error within it.
pub(crate) fn an_allocation_has_a_deadline(comm: &Communicator) {
    let begin = std::time::Instant::now();
    if comm.rank() == 0 {
        let error = comm
            .with_timeout(Some(Duration::from_millis(200)))
            .alloc::<u8>(1)
            .expect_err("the others do not come");
        assert!(matches!(error, Error::Timeout { .. }), "{error}");
        assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
    } else {
        std::thread::sleep(Duration::from_millis(400));
        let error = comm.alloc::<u8>(1).expect_err("rank 0 has given up");
        assert!(matches!(error, Error::Timeout { .. }), "{error}");
    }
}

/// Parameters under which everything is pushed.
pub(crate) fn pushing(world: usize) -> Parameters {
    let mut parameters = super::small_parameters(world);
    parameters.push_bytes = 0;
    parameters
}
