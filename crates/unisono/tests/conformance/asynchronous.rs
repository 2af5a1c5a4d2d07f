//! Collectives that are started and waited for later: promises 1 and 2 hold for them, mixed with synchronous ones.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake};
use std::time::{Duration, Instant};

use unisono::{Communicator, Error, Pending, ReduceOp};

use super::stream::random_case;
use super::{Checker, Draws};

/// What rank `rank` passes in call `number`.
fn input(number: u64, rank: usize, count: usize) -> Vec<u64> {
    let mut draws = Draws::new(&[number, rank as u64, 11]);
    (0..count).map(|_| draws.below(1 << 40) as u64).collect()
}

/// The sum of what all ranks pass.
fn sum(number: u64, world: usize, count: usize) -> Vec<u64> {
    let mut sum = vec![0u64; count];
    for rank in 0..world {
        sum.iter_mut().zip(input(number, rank, count)).for_each(|(sum, value)| *sum += value);
    }
    sum
}

fn inputs(number: u64, world: usize, count: usize) -> Vec<u64> {
    (0..world).flat_map(|rank| input(number, rank, count)).collect()
}

/// Block `block` of what each rank passes.
fn blocks(number: u64, world: usize, count: usize, block: usize) -> Vec<u64> {
    (0..world)
        .flat_map(|rank| input(number, rank, count * world)[block * count..][..count].to_vec())
        .collect()
}

/// An operation under way and what is to come of it.
struct Expected {
    number: u64,
    pending: Pending<(Vec<u64>, Vec<u64>)>,
    result: Vec<u64>,
}

impl Expected {
    fn check(self) {
        let (_, found) = self.pending.wait().unwrap_or_else(|error| panic!("#{}: {error}", self.number));
        assert!(found == self.result, "#{}: another result", self.number);
    }
}

/// Start one of the operations; all ranks draw the same.
fn start(comm: &Communicator, draws: &mut Draws, number: u64) -> Expected {
    let (rank, world) = (comm.rank(), comm.world_size());
    let longest = if draws.below(10) == 0 { 3000 } else { 60 };
    let count = draws.below(longest);
    let root = draws.below(world);
    let (own, all) = (input(number, rank, count), input(number, rank, count * world));
    // Those with one buffer are made to give two, as the others do.
    let (pending, result) = match draws.below(7) {
        0 => (
            comm.start((vec![], own), |comm, (_, data)| comm.all_reduce(data, ReduceOp::Sum)),
            sum(number, world, count),
        ),
        1 => {
            let result = if rank == root { sum(number, world, count) } else { own.clone() };
            let pending =
                comm.start((vec![], own), move |comm, (_, data)| comm.reduce(data, ReduceOp::Sum, root));
            (pending, result)
        }
        2 => {
            let result = sum(number, world, count * world)[rank * count..][..count].to_vec();
            (comm.reduce_scatter_async(all, vec![0; count], ReduceOp::Sum), result)
        }
        3 => (comm.all_gather_async(own, vec![0; count * world]), inputs(number, world, count)),
        4 => (comm.all_to_all_async(all, vec![0; count * world]), blocks(number, world, count, rank)),
        5 => {
            let pending = comm.start((vec![], own), move |comm, (_, data)| comm.broadcast(data, root));
            (pending, input(number, root, count))
        }
        _ => (comm.start((vec![], vec![]), |comm, _| comm.barrier()), vec![]),
    };
    Expected { number, pending, result }
}

/// Asynchronous and synchronous operations in any order; handles are waited for late, in any order, or dropped.
pub(crate) fn both_kinds_follow_one_another(comm: &Communicator, seed: u64, operations: u64) {
    let mut draws = Draws::new(&[seed, 12]);
    // What only this rank does: when it waits, and for which.
    let mut own = Draws::new(&[seed, 13, comm.rank() as u64]);
    let checker = Checker::new(comm, seed);
    let mut pending = VecDeque::new();
    for number in 0..operations {
        if draws.below(3) == 0 {
            checker.perform(number, random_case(&mut draws, comm.world_size()));
        } else {
            pending.push_back(start(comm, &mut draws, number));
        }
        match own.below(4) {
            0 => drop(pending.pop_front()),
            1 => pending.drain(own.below(pending.len() + 1)..).for_each(Expected::check),
            2 if !pending.is_empty() => {
                let chosen = own.below(pending.len());
                pending.remove(chosen).into_iter().for_each(Expected::check);
            }
            _ => {}
        }
    }
    pending.into_iter().for_each(Expected::check);
}

/// Each method that has an asynchronous form.
pub(crate) fn every_method_gives_its_buffers_back(comm: &Communicator) {
    let (rank, world, count) = (comm.rank(), comm.world_size(), 500);
    let own = || input(1, rank, count);
    let all_reduce = comm.all_reduce_async(own(), ReduceOp::Sum);
    let reduce = comm.reduce_async(own().into_boxed_slice(), ReduceOp::Sum, world - 1);
    let broadcast = comm.broadcast_async(own(), world - 1);
    let barrier = comm.barrier_async();
    let gather = comm.all_gather_async(own(), vec![0; count * world]);
    assert_eq!(gather.wait().expect("all start it"), (own(), inputs(1, world, count)));
    assert!(barrier.is_finished() && all_reduce.is_finished(), "they were started before");
    assert_eq!(all_reduce.wait().expect("all start it"), sum(1, world, count));
    let reduced = if rank == world - 1 { sum(1, world, count) } else { own() };
    assert_eq!(reduce.wait().expect("all start it"), reduced);
    assert_eq!(broadcast.wait().expect("all start it"), input(1, world - 1, count));
    barrier.wait().expect("all start it");
}

/// Operations on borrowed memory are over when the scope is left, also by a panic.
pub(crate) fn a_scope_ends_after_its_operations(comm: &Communicator) {
    let (rank, world) = (comm.rank(), comm.world_size());
    let mut seconds = vec![0u64; 900 * world];
    let (mut first, own) = (input(2, rank, 5000), input(3, rank, 900));
    let waited = comm.scope(|scope| {
        scope.all_reduce(&mut first, ReduceOp::Sum);
        let gathered = scope.all_gather(&own, &mut seconds);
        let gathered = gathered.wait().expect("all start it");
        assert_eq!(gathered, inputs(3, world, 900));
        gathered[0] = 77;
        scope.barrier();
        rank
    });
    assert_eq!(waited.expect("all succeed"), rank);
    assert_eq!(first, sum(2, world, 5000));
    assert_eq!(seconds[0], 77);

    let mut data = input(4, rank, 70_000);
    let panicking = std::panic::AssertUnwindSafe(|| {
        let _ = comm.scope(|scope| {
            scope.all_reduce(&mut data, ReduceOp::Sum);
            std::panic::resume_unwind(Box::new("as the test wants it"));
        });
    });
    assert!(std::panic::catch_unwind(panicking).is_err());
    assert_eq!(data, sum(4, world, 70_000), "it is over all the same");

    // What nobody waited for is told at the end.
    let refused = comm.scope(|scope| drop(scope.broadcast(&mut data, world)));
    assert!(matches!(refused, Err(Error::InvalidArgument { .. })), "{refused:?}");
    comm.barrier().expect("an argument error changes nothing");
}

/// Rank 0 starts operations and goes; the others take their time.
pub(crate) fn who_goes_finishes_what_it_started(comm: Communicator) {
    let world = comm.world_size();
    if comm.rank() == 0 {
        for number in 0..5 {
            drop(comm.all_reduce_async(input(number, 0, 4000), ReduceOp::Sum));
        }
        return;
    }
    std::thread::sleep(Duration::from_millis(30));
    for number in 0..5 {
        let mut data = input(number, comm.rank(), 4000);
        comm.all_reduce(&mut data, ReduceOp::Sum).expect("rank 0 has started it");
        assert_eq!(data, sum(number, world, 4000));
    }
    let left = comm.barrier().expect_err("rank 0 has gone");
    assert!(matches!(left, Error::PeerLeft { .. }), "{left}");
}

/// Nobody else comes: whatever is pending ends when the group is stopped, each with the reason.
pub(crate) fn an_abort_ends_what_is_pending(comm: &Communicator) {
    if comm.rank() > 0 {
        while comm.barrier().is_ok() {}
        return;
    }
    let pending: Vec<_> =
        (0..4).map(|number| comm.all_reduce_async(input(number, 0, 70_000), ReduceOp::Sum)).collect();
    comm.abort();
    for pending in pending {
        let error = pending.wait().expect_err("the group was stopped");
        assert!(error.is_terminal(), "{error}");
    }
    assert!(comm.barrier_async().wait().is_err(), "after a terminal error every call returns it");
    assert!(comm.barrier().is_err());
}

/// Rank 0 waits alone: handles come back in time, operations end by their own time-out.
pub(crate) fn waiting_has_an_end(comm: &Communicator) {
    if comm.rank() > 0 {
        return;
    }
    let patient = comm.with_timeout(Some(Duration::from_millis(300)));
    let start = Instant::now();
    let pending = patient.barrier_async();
    let behind = patient.all_reduce_async(vec![1u8; 10], ReduceOp::Sum);
    assert!(!pending.is_finished());
    let pending = pending.wait_timeout(Duration::from_millis(20)).expect_err("nobody comes");
    let busy = comm.with_timeout(Some(Duration::from_millis(20))).barrier().expect_err("it is not its turn");
    assert!(matches!(busy, Error::Busy { .. }), "{busy}");
    assert!(start.elapsed() < Duration::from_millis(290), "nobody waited longer than he was told to");
    let error = pending.wait().expect_err("nobody comes");
    assert!(matches!(error, Error::Timeout { terminal: true, .. }), "{error}");
    let error = behind.wait().expect_err("the communicator is unusable");
    assert!(matches!(error, Error::Timeout { .. }), "{error}");
}

/// An operation that waits for one that comes after it would wait for ever.
pub(crate) fn an_operation_does_not_wait_for_a_later_one(comm: &Communicator) {
    let outer = comm.clone();
    let inner = comm.start((), move |comm, ()| {
        assert!(matches!(comm.barrier_async().wait(), Err(Error::InvalidArgument { .. })));
        comm.barrier()?; // Its own calls are synchronous.
        let later = outer.barrier_async();
        assert!(matches!(later.wait(), Err(Error::InvalidArgument { .. })));
        let scoped = outer.scope(|scope| drop(scope.barrier()));
        assert!(matches!(scoped, Err(Error::InvalidArgument { .. })), "{scoped:?}");
        let mut later = std::pin::pin!(outer.barrier_async());
        let polled = later.as_mut().poll(&mut Context::from_waker(std::task::Waker::noop()));
        assert!(matches!(polled, Poll::Ready(Err(Error::InvalidArgument { .. }))), "{polled:?}");
        Ok(())
    });
    inner.wait().expect("it was told");
    comm.barrier().expect("the later ones were carried out");
}

/// An allocation comes after one that was started before, and does not keep it from its end.
pub(crate) fn allocations_of_both_kinds_follow_one_another(comm: &Communicator) {
    for _ in 0..20 {
        let started = comm.start((), |comm, ()| {
            std::thread::sleep(Duration::from_millis(1)); // The other thread is at its call by now.
            comm.alloc::<f32>(100).map(drop)
        });
        comm.alloc::<f32>(100).expect("it comes after the one that was started");
        assert!(started.is_finished(), "it was started before");
        started.wait().expect("all start it");
    }
}

/// What an operation's threads call on its handle belongs to it, also while another call waits for its turn.
pub(crate) fn threads_of_an_operation_make_its_calls(comm: &Communicator) {
    let world = comm.world_size();
    let total = world as u64;
    for _ in 0..20 {
        let started = comm.start(vec![1u64; 100], |comm, data| {
            let helper = || comm.all_reduce(data, ReduceOp::Sum);
            std::thread::scope(|scope| scope.spawn(helper).join().expect("it does not panic"))
        });
        comm.barrier().expect("it comes after the one that was started");
        assert_eq!(started.wait().expect("all start it"), [total; 100]);
    }
}

/// Who waits for its turn behind an operation that does not end is told when the group is stopped.
pub(crate) fn an_abort_ends_the_wait_for_ones_turn(comm: &Communicator) {
    let (end, ended) = std::sync::mpsc::channel::<()>();
    let endless = comm.start((), move |_, ()| {
        ended.recv().expect_err("nothing is sent");
        Ok(())
    });
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| comm.with_timeout(None).barrier());
        std::thread::sleep(Duration::from_millis(20));
        assert!(!waiting.is_finished(), "it is not its turn");
        comm.abort();
        let error = waiting.join().expect("it does not panic").expect_err("the group was stopped");
        assert!(matches!(error, Error::Aborted { .. }), "{error}");
    });
    drop(end);
    endless.wait().expect("it made no call");
}

struct Woken(std::thread::Thread, AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.1.store(true, Ordering::Release);
        self.0.unpark();
    }
}

/// A handle is a future.
pub(crate) fn a_handle_may_be_awaited(comm: &Communicator) {
    if comm.rank() > 0 {
        std::thread::sleep(Duration::from_millis(10));
        return comm.barrier().expect("all come");
    }
    let mut pending = std::pin::pin!(comm.barrier_async());
    let woken = Arc::new(Woken(std::thread::current(), AtomicBool::new(false)));
    let waker = Arc::clone(&woken).into();
    let mut context = Context::from_waker(&waker);
    while pending.as_mut().poll(&mut context).is_pending() {
        while !woken.1.swap(false, Ordering::AcqRel) {
            std::thread::park();
        }
    }
    let Poll::Ready(again) = pending.as_mut().poll(&mut context) else { panic!("it has ended") };
    assert!(matches!(again, Err(Error::InvalidArgument { .. })), "its result was taken: {again:?}");
}
