//! Promise 2 with several threads in a rank: collectives in one order on all ranks, messages beside them.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use unisono::{Communicator, ReduceOp};

use super::stream::random_case;
use super::{Checker, Draws, Kind};

/// How many threads of a rank take turns with collectives.
const THREADS: u64 = 3;

/// Lets threads go in the order of numbers.
#[derive(Default)]
struct Turns {
    next: Mutex<u64>,
    changed: Condvar,
}

impl Turns {
    /// Do something when it is the turn of `number`.
    fn at(&self, number: u64, act: impl FnOnce()) {
        let next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next =
            self.changed.wait_while(next, |next| *next != number).unwrap_or_else(PoisonError::into_inner);
        act();
        *next += 1;
        self.changed.notify_all();
    }
}

/// Threads with clones of a communicator take turns with collectives, while two more send and receive.
pub(crate) fn threads_share_a_communicator(comm: &Communicator, cases: u64) {
    let (rank, world) = (comm.rank(), comm.world_size());
    let turns = Turns::default();
    let collective = |number: u64| {
        let mut draws = Draws::new(&[9, number]);
        let mut case = random_case(&mut draws, world);
        if case.kind == Kind::Transfer {
            // Messages between two ranks have one order, which belongs to the threads below.
            case.kind = Kind::AllReduce;
        }
        case
    };
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (clone, turns) = (comm.clone(), &turns);
            scope.spawn(move || {
                let clone = clone.with_timeout(Some(Duration::from_secs(60)));
                let checker = Checker::new(&clone, 9);
                for number in (thread..cases).step_by(THREADS as usize) {
                    turns.at(number, || checker.perform(number, collective(number)));
                }
            });
        }
        let message = |from: usize, index: u64| vec![from as u64 ^ index << 8; index as usize % 90];
        scope.spawn(move || {
            for index in 0..cases {
                comm.send(&message(rank, index), (rank + 1) % world).expect("the receiver takes it");
            }
        });
        scope.spawn(move || {
            let from = (rank + world - 1) % world;
            for index in 0..cases {
                let expected = message(from, index);
                let mut received = vec![0; expected.len()];
                comm.recv(&mut received, from).expect("it was sent");
                assert_eq!(received, expected, "message {index} from rank {from}");
            }
        });
    });
}

/// The same call from several threads needs no order of the caller's: the communicator's own lock gives one.
pub(crate) fn equal_calls_need_no_order(comm: &Communicator) {
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..40 {
                    let mut ones = [1u32; 33];
                    comm.all_reduce(&mut ones, ReduceOp::Sum).expect("all ranks call it as often");
                    assert_eq!(ones, [comm.world_size() as u32; 33]);
                }
            });
        }
    });
}
