//! A rank that leaves is missed by those who need it, and by nobody else.

use unisono::{Communicator, Error, ReduceOp};

/// See that a transfer with `gone` failed because that rank has left, which ends nothing else.
fn has_only_left(outcome: unisono::Result<()>, gone: usize) {
    let error = outcome.expect_err("it has left");
    assert!(matches!(error, Error::PeerLeft { rank, terminal: false, .. } if rank == gone), "{error}");
    assert!(!error.is_terminal(), "{error}");
}

/// The last rank sends a message to each other one and leaves. Whoever then sends to it, or waits for more from it, is told, as
/// often as they try; the others go on among themselves.
pub(crate) fn who_left_is_missed_by_those_alone_who_need_it(comm: Communicator) {
    let (rank, others) = (comm.rank(), comm.world_size() - 1);
    if rank == others {
        for other in 0..others {
            comm.send(&[other as u64; 100], other).expect("the window has room");
        }
        return;
    }
    let mut message = [u64::MAX; 100];
    comm.recv(&mut message, others).expect("it was sent before its sender left");
    assert_eq!(message, [rank as u64; 100]);
    for _ in 0..3 {
        has_only_left(comm.recv(&mut message, others), others);
        has_only_left(comm.send(&message, others), others);
        // More than any window holds.
        has_only_left(comm.send(&vec![1u8; 1 << 20], others), others);
    }
    let (next, previous) = ((rank + 1) % others, (rank + others - 1) % others);
    for round in 0..50 {
        comm.send(&[(rank + round) as u64], next).expect("the next one is there");
        let mut received = [0];
        comm.recv(&mut received, previous).expect("the previous one is there");
        assert_eq!(received, [(previous + round) as u64]);
    }
    // A collective needs everybody, and so ends the group, once the others are done.
    let ended = if rank == 0 {
        for other in 1..others {
            comm.recv(&mut [0u8], other).expect("it is there");
        }
        comm.all_reduce(&mut [1.0f32], ReduceOp::Sum).expect_err("it has left")
    } else {
        comm.send(&[1u8], 0).expect("rank 0 is there");
        comm.recv(&mut [0u8], 0).expect_err("rank 0 has ended the group")
    };
    assert!(matches!(ended, Error::PeerLeft { rank, terminal: true, .. } if rank == others), "{ended}");
    let again = comm.recv(&mut message, others).expect_err("the group has ended");
    assert_eq!(again.to_string(), ended.to_string());
    assert!(again.is_terminal());
}
