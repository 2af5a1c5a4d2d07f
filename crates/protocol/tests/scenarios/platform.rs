//! What a scenario stands on: threads and plain memory, loom's or the machine's.

pub(crate) use std::sync::Arc; // not loom's: who owns the memory is no part of the protocol

#[cfg(loom)]
pub(crate) use loom::{
    cell::UnsafeCell,
    sync::Mutex,
    thread::{JoinHandle, Thread, current, park, spawn, yield_now},
};
#[cfg(not(loom))]
pub(crate) use std::{
    sync::Mutex,
    thread::{JoinHandle, Thread, current, park, spawn, yield_now},
};
use unisono_protocol::Ended;

/// The standard cell behind the two methods of loom's that are used here.
#[cfg(not(loom))]
#[derive(Debug, Default)]
pub(crate) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

#[cfg(not(loom))]
impl<T> UnsafeCell<T> {
    fn new(value: T) -> Self {
        UnsafeCell(std::cell::UnsafeCell::new(value))
    }

    fn with<R>(&self, read: impl FnOnce(*const T) -> R) -> R {
        read(self.0.get())
    }

    fn with_mut<R>(&self, write: impl FnOnce(*mut T) -> R) -> R {
        write(self.0.get())
    }
}

/// Memory that ranks share and that only the protocol keeps from being read and written at once.
#[derive(Debug)]
pub(crate) struct Region(UnsafeCell<u64>);

// SAFETY: to share a region is sound only if the protocol under test orders every write before and after every
// other access. That is what the tests are there to find out: loom checks it before each access is made
// and stops the model instead of making a racing one; on the machine's atomics only sequences run that loom has passed.
unsafe impl Sync for Region {}

impl Region {
    pub(crate) fn new(value: u64) -> Self {
        Region(UnsafeCell::new(value))
    }

    pub(crate) fn read(&self) -> u64 {
        // SAFETY: the pointer is to the cell's own value; that nobody writes meanwhile is argued at `Sync` above.
        self.0.with(|value| unsafe { *value })
    }

    pub(crate) fn write(&self, value: u64) {
        // SAFETY: the pointer is to the cell's own value; that nobody reads or writes meanwhile is argued at
        // `Sync` above.
        self.0.with_mut(|place| unsafe { *place = value })
    }
}

/// Run `act` once for each rank, each in a thread of its own (rank 0 in the calling one), and wait for all.
/// The error is that of the first rank that did not come to its end.
pub(crate) fn run_ranks<S>(
    world: usize,
    shared: &Arc<S>,
    act: fn(usize, &S) -> Result<(), Ended>,
) -> Result<(), Ended>
where
    S: Send + Sync + 'static,
{
    let others: Vec<JoinHandle<Result<(), Ended>>> = (1..world)
        .map(|rank| {
            let shared = shared.clone();
            spawn(move || act(rank, &shared))
        })
        .collect();
    let own = act(0, shared);
    join_all(others).into_iter().fold(own, Result::and)
}

/// Wait for the end of all `threads`; a panic in one of them is one here.
pub(crate) fn join_all<T>(threads: impl IntoIterator<Item = JoinHandle<T>>) -> Vec<T> {
    threads.into_iter().map(|thread| thread.join().expect("a rank of the scenario panicked")).collect()
}
