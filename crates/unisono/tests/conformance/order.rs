//! Promise 2: ranks need not keep step. A root may run ahead of those that read from it, and those that
//! write to a root ahead of it, as far as the staging reaches; nobody is waited for who is not needed.

use std::time::Duration;

use unisono::{Communicator, DType, ReduceOp};

use super::{Case, Checker, Draws, Form, Kind};

/// Rooted operations, where the root comes first, then the others; or the others first, then the root; or each
/// when it likes.
pub(crate) fn rooted_operations_race_ahead(comm: &Communicator) {
    let checker = Checker::new(comm, 6);
    let mut draws = Draws::new(&[6]);
    let mut number = 0;
    for round in 0..9 {
        let root = draws.below(comm.world_size());
        let late = match round % 3 {
            0 => comm.rank() != root,
            1 => comm.rank() == root,
            _ => comm.rank() % 2 == 1,
        };
        if late {
            std::thread::sleep(Duration::from_millis(5));
        }
        let mut delays = Draws::new(&[6, round, comm.rank() as u64]);
        for _ in 0..40 {
            let kind = draws.pick(&[
                Kind::Broadcast,
                Kind::Scatter,
                Kind::ScatterV,
                Kind::Gather,
                Kind::GatherV,
                Kind::Reduce,
                Kind::Transfer,
            ]);
            let root = if draws.below(10) == 0 { draws.below(comm.world_size()) } else { root };
            let dtype = draws.pick(&[DType::F32, DType::U8, DType::F16]);
            let count = draws.below(900 / dtype.size_bytes());
            let form = draws.pick(&Form::ALL);
            if delays.below(25) == 0 {
                std::thread::sleep(Duration::from_micros(delays.below(1500) as u64));
            }
            checker.perform(number, Case { kind, dtype, op: ReduceOp::Sum, count, root, form });
            number += 1;
        }
    }
}

/// A root needs nobody for its first broadcasts: as many as it has buffers end while the others have not come.
/// They come only when the root says so, by a send, which needs nobody either.
pub(crate) fn a_root_does_not_wait_for_its_readers(comm: &Communicator) {
    comm.barrier().expect("all begin together");
    let mut data = [0u32; 16];
    if comm.rank() == 0 {
        for number in 1..=2 {
            data.fill(number);
            comm.broadcast(&mut data, 0).expect("a buffer is free");
        }
        for to in 1..comm.world_size() {
            comm.send(&[to as u64], to).expect("the window has room");
        }
    } else {
        let mut told = [0u64];
        comm.recv(&mut told, 0).expect("the root sends it after its broadcasts");
        assert_eq!(told, [comm.rank() as u64]);
        for number in 1..=2 {
            comm.broadcast(&mut data, 0).expect("the root has published it");
            assert_eq!(data, [number; 16]);
        }
    }
    comm.barrier().expect("all come to the end");
}

/// Messages of every length up to several windows, in both directions at once, in the order in which they were sent.
pub(crate) fn messages_arrive_in_order(comm: &Communicator) {
    let (rank, world) = (comm.rank(), comm.world_size());
    let (next, previous) = ((rank + 1) % world, (rank + world - 1) % world);
    let message = |from: usize, index: usize| vec![(from << 16 | index) as u32; index * 7 % 400];
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for index in 0..60 {
                comm.send(&message(rank, index), next).expect("the receiver takes it");
            }
        });
        for index in 0..60 {
            let expected = message(previous, index);
            let mut received = vec![0; expected.len()];
            comm.recv(&mut received, previous).expect("it was sent");
            assert_eq!(received, expected, "message {index} from rank {previous}");
        }
    });
}
