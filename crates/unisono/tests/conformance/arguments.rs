//! An argument error is returned before anything is published: the next operation works, also where only one rank
//! made the mistake.

#![allow(unsafe_code)]

use unisono::{Communicator, DType, Error, ReduceOp, Result};

use super::stream::random_case;
use super::{Checker, Draws};

type Mistake = (&'static str, fn(&Communicator) -> Result<()>);

/// Calls that cannot be right, for any world of two ranks or more: 127 is a prime number.
const MISTAKES: &[Mistake] = &[
    ("the bitwise and of floats", |comm| comm.all_reduce(&mut [1.0f32; 4], ReduceOp::And)),
    ("outputs of another length", |comm| comm.all_reduce_into(&[1u8; 4], &mut [0; 5], ReduceOp::Sum)),
    ("a reduction to nobody", |comm| comm.reduce(&mut [1u8; 4], ReduceOp::Sum, comm.world_size())),
    ("a root without output", |comm| comm.reduce_into(&[1u8; 4], None, ReduceOp::Sum, comm.rank())),
    ("an input that is no multiple", |comm| comm.reduce_scatter(&[1u8; 127], &mut [0; 2], ReduceOp::Sum)),
    ("data that cannot be divided", |comm| comm.reduce_scatter_in_place(&mut [1u8; 127], ReduceOp::Sum)),
    ("an output too short", |comm| comm.all_gather(&[1u8; 3], &mut [0; 3])),
    ("an indivisible output", |comm| comm.all_gather_in_place(&mut [1u8; 127])),
    ("a dimension too high", |comm| {
        comm.all_gather_dim(&[1u8; 6], &mut vec![0; 6 * comm.world_size()], &[2, 3], 2)
    }),
    ("a dimension too low", |comm| {
        comm.all_gather_dim(&[1u8; 6], &mut vec![0; 6 * comm.world_size()], &[2, 3], -3)
    }),
    ("a shape of another size", |comm| {
        comm.all_gather_dim(&[1u8; 6], &mut vec![0; 6 * comm.world_size()], &[7], 0)
    }),
    ("a shape beyond all memory", |comm| comm.all_gather_dim(&[1u8; 6], &mut [0; 6], &[usize::MAX, 9], 0)),
    ("a broadcast from nobody", |comm| comm.broadcast(&mut [1u8; 4], usize::MAX)),
    ("a gather without output", |comm| comm.gather(&[1u8; 4], None, comm.rank())),
    ("a gather with a short output", |comm| comm.gather(&[1u8; 4], Some(&mut [0; 5]), comm.rank())),
    ("a gather to nobody", |comm| comm.gather(&[1u8; 4], None, comm.world_size())),
    ("a scatter without input", |comm| comm.scatter(None, &mut [0u8; 4], comm.rank())),
    ("a scatter of a short input", |comm| comm.scatter(Some(&[1u8; 5]), &mut [0; 4], comm.rank())),
    ("a scatter from nobody", |comm| comm.scatter(None, &mut [0u8; 4], 99)),
    ("an indivisible all-to-all", |comm| comm.all_to_all(&[1u8; 127], &mut [0; 127])),
    ("an all-to-all of two lengths", |comm| comm.all_to_all(&[1u8; 4], &mut [0; 8])),
    ("too few counts", |comm| comm.all_gather_v(&[1u8; 4], &mut [0; 4], &[4])),
    ("counts that another rank's input has", |comm| {
        comm.all_gather_v(&[1u8; 4], &mut vec![0; 5 * comm.world_size()], &vec![5; comm.world_size()])
    }),
    ("counts beyond all memory", |comm| {
        comm.reduce_scatter_v(&[1u8; 4], &mut [0; 4], &vec![usize::MAX / 2; comm.world_size()], ReduceOp::Sum)
    }),
    ("an own block of two lengths", |comm| {
        let world = comm.world_size();
        comm.all_to_all_v(&vec![1u8; world], &vec![1; world], &mut vec![0; 2 * world], &vec![2; world])
    }),
    ("a gather with a wrong own count", |comm| {
        let counts = vec![3; comm.world_size()];
        comm.gather_v(&[1u8; 4], Some((&mut vec![0; 3 * counts.len()], &counts)), comm.rank())
    }),
    ("a scatter with too many counts", |comm| {
        comm.scatter_v(Some((&[1u8; 4], &vec![1; comm.world_size() + 1])), &mut [0; 1], comm.rank())
    }),
    ("a message to nobody", |comm| comm.send(&[1u8; 4], comm.world_size())),
    ("a message from nobody", |comm| comm.recv(&mut [1u8; 4], 64)),
    ("an overlap that is not in place", |comm| {
        let mut data = [0u8; 64];
        let start = data.as_mut_ptr();
        // SAFETY: the bytes 1 to 32 and 0 to 31 lie inside `data`, which nobody else uses.
        unsafe { comm.raw().all_reduce(start.add(1), start, 32, DType::U8, ReduceOp::Sum) }
    }),
    ("an output inside the wrong block", |comm| {
        let mut data = vec![0u8; 32 * comm.world_size()];
        let wrong = (comm.rank() + 1) % comm.world_size();
        // SAFETY: every block of 32 bytes lies inside `data`, which nobody else uses.
        unsafe {
            let block = data.as_mut_ptr().add(32 * wrong);
            comm.raw().reduce_scatter(data.as_ptr(), block, 32, DType::U8, ReduceOp::Sum)
        }
    }),
    ("an all-to-all half over itself", |comm| {
        let world = comm.world_size();
        let mut data = vec![0u8; 16 * world + 8];
        let start = data.as_mut_ptr();
        // SAFETY: both ranges of 16 bytes for each rank lie inside `data`, which nobody else uses.
        unsafe { comm.raw().all_to_all(start, start.add(8), 16, DType::U8) }
    }),
    ("a null input", |comm| {
        let mut data = [0u8; 4];
        // SAFETY: null is refused before it is used; the output is 4 bytes.
        unsafe { comm.raw().all_reduce(std::ptr::null(), data.as_mut_ptr(), 4, DType::U8, ReduceOp::Sum) }
    }),
    ("a null output at the root", |comm| {
        // SAFETY: null is refused before it is used; the input is 4 bytes.
        unsafe { comm.raw().gather([0u8; 4].as_ptr(), std::ptr::null_mut(), 4, DType::U8, comm.rank()) }
    }),
    ("more bytes than there are addresses", |comm| {
        // SAFETY: null is refused before it is used.
        unsafe { comm.raw().broadcast(std::ptr::null_mut(), usize::MAX / 4, DType::F64, 0) }
    }),
];

/// Every mistake, made by all ranks or by one; after each an operation that works.
pub(crate) fn an_argument_error_changes_nothing(comm: &Communicator) {
    let checker = Checker::new(comm, 10);
    for (number, (what, mistake)) in MISTAKES.iter().enumerate() {
        let made_by = number % (comm.world_size() + 1);
        if made_by == comm.rank() || made_by == comm.world_size() {
            let error = mistake(comm).expect_err(what);
            assert!(matches!(error, Error::InvalidArgument { .. }), "{what}: {error}");
            assert!(!error.is_terminal(), "{what}: {error}");
        }
        let mut draws = Draws::new(&[10, number as u64]);
        checker.perform(number as u64, random_case(&mut draws, comm.world_size()));
    }
}
