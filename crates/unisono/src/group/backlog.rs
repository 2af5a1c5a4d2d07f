//! Asynchronous operations of this rank: those that wait, and whose turn it is.
//!
//! One thread carries them out in the order in which they were started. A synchronous collective comes after those that
//! were started before it: it finds [`AHEAD`] in the word that every call looks at anyway, and waits until they are over.
//! So a rank's order of collectives is the order of its calls, and calls where nothing is asynchronous pay nothing.
//!
//! The one invariant that matters: **AHEAD stands from before an operation can be seen by its thread until it is over**,
//! so that a call that was made after another was started never overtakes it.
//!
//! Threads sleep here while others fork: see [`unisono_os::monitor`].

use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use unisono_os::monitor::{lock, wait_until};

use crate::error::{BoxedResult, Error, Result};
use crate::interrupt;

/// This rank has left.
pub(crate) const CLOSED: u32 = 1;
/// Asynchronous operations are waiting or under way.
pub(crate) const AHEAD: u32 = 2;
/// There was a terminal error; the group remembers it.
pub(crate) const ENDED: u32 = 4;

/// How often who waits for its turn looks whether another rank has stopped the group meanwhile.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// One operation to carry out.
pub(crate) type Job = Box<dyn FnOnce() + Send>;

/// The operations that were started and are not over.
#[derive(Default)]
pub(crate) struct Backlog {
    /// [`CLOSED`], [`AHEAD`] and [`ENDED`].
    pub(crate) state: AtomicU32,
    jobs: Mutex<Jobs>,
    /// A job was added, or no more will be.
    added: Condvar,
    /// A job is over.
    over: Condvar,
}

#[derive(Default)]
struct Jobs {
    waiting: VecDeque<Job>,
    started: u64,
    over: u64,
    /// Who carries them out.
    worker: Option<ThreadId>,
    /// Whether it is inside of an operation, rather than asleep or telling of its end.
    operates: bool,
    /// Other threads that make calls for the operation under way.
    helpers: Vec<ThreadId>,
    ends: bool,
}

impl Backlog {
    /// Nothing panics while it is held that would leave it half changed.
    fn lock(&self) -> MutexGuard<'_, Jobs> {
        lock(&self.jobs)
    }

    /// Let `job` be carried out after all that were added before.
    pub(crate) fn add(&self, job: Job) {
        let mut jobs = self.lock();
        jobs.started += 1;
        jobs.waiting.push_back(job);
        // Release: a call that happens after this one sees it (acquire in `Group::enter_in_turn`).
        self.state.fetch_or(AHEAD, Ordering::AcqRel);
        self.added.notify_one();
    }

    /// The life of the thread that carries them out: until the end, and until nothing waits any more.
    pub(crate) fn work(&self) {
        let mut jobs = self.lock();
        jobs.worker = Some(std::thread::current().id());
        loop {
            while let Some(job) = jobs.waiting.pop_front() {
                jobs.operates = true;
                drop(jobs);
                // What panics in here is a waker of the caller's.
                let outcome = catch_unwind(AssertUnwindSafe(job));
                if outcome.is_err() {
                    tracing::error!("what was to be told of the end of an operation panicked");
                }
                jobs = self.lock();
                jobs.over += 1;
                if jobs.over == jobs.started {
                    self.state.fetch_and(!AHEAD, Ordering::AcqRel);
                }
                self.over.notify_all();
            }
            if jobs.ends {
                return;
            }
            jobs = wait_until(&self.added, jobs, None);
        }
    }

    /// No more will be added: the thread ends when all are over.
    pub(crate) fn end(&self) {
        self.lock().ends = true;
        self.added.notify_all();
    }

    /// The calling thread makes a call for an operation, whose own word says whether it is `under_way`: if so the thread is in
    /// turn until it is over, like the worker.
    pub(crate) fn join_in(&self, under_way: &AtomicBool) {
        let mut jobs = self.lock();
        if under_way.load(Ordering::Relaxed) && !jobs.is_in_turn() {
            jobs.helpers.push(std::thread::current().id());
        }
    }

    /// The operation has come to its end; whoever waits for it has yet to be told. Its word is written and read under the lock.
    pub(crate) fn end_operation(&self, under_way: &AtomicBool) {
        let mut jobs = self.lock();
        under_way.store(false, Ordering::Relaxed);
        jobs.operates = false;
        jobs.helpers.clear();
    }

    /// The group was stopped: nobody waits for a turn any more.
    pub(crate) fn wake(&self) {
        let _jobs = self.lock(); // Who has looked and found nothing sleeps by now.
        self.over.notify_all();
    }

    /// See that the calling thread may sleep until a job is over: the one that carries them out would sleep for ever.
    pub(crate) fn check_may_wait(&self, operation: &'static str) -> Result<()> {
        if self.lock().is_worker() {
            return Err(waits_for_a_later_one(operation));
        }
        Ok(())
    }

    /// Whether the calling thread is inside of an operation of these. Who is told of its end on the same thread is not.
    pub(crate) fn operates_here(&self) -> bool {
        let jobs = self.lock();
        jobs.is_worker() && jobs.operates
    }

    /// Wait until all are over that were added before, or the group `is_stopped`: the call may be made then, and in a group
    /// that was stopped it returns why. Not past the deadline, and only as long as it `goes_on`. The threads that carry
    /// one out do not wait for it.
    pub(crate) fn wait_for_turn(
        &self,
        deadline: Option<Instant>,
        is_stopped: impl Fn() -> bool,
        goes_on: impl Fn() -> BoxedResult<()>,
    ) -> BoxedResult<()> {
        let mut jobs = self.lock();
        let ahead = jobs.started;
        while !jobs.is_in_turn() && jobs.over < ahead && !is_stopped() {
            let look = Instant::now() + LOOK_EVERY;
            let until = deadline.map_or(look, |deadline| deadline.min(look));
            drop(wait_until(&self.over, jobs, interrupt::next_question(Some(until))));
            goes_on()?;
            jobs = self.lock();
        }
        Ok(())
    }
}

/// The error of an operation that would wait for itself to be over.
pub(crate) fn waits_for_a_later_one(operation: &'static str) -> Error {
    Error::argument(operation, "an asynchronous operation waits for one that comes after it")
}

impl Jobs {
    fn is_worker(&self) -> bool {
        self.worker == Some(std::thread::current().id())
    }

    /// Whether the calling thread makes its calls for the operation under way.
    fn is_in_turn(&self) -> bool {
        self.is_worker() || self.helpers.contains(&std::thread::current().id())
    }
}

impl fmt::Debug for Backlog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let jobs = self.lock();
        f.debug_struct("Backlog")
            .field("started", &jobs.started)
            .field("over", &jobs.over)
            .finish_non_exhaustive()
    }
}
