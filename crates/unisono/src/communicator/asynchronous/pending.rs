//! A handle on an asynchronous operation.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use unisono_os::fork_guard::ForkMark;
use unisono_os::monitor::{lock, wait_until};

use crate::error::{Error, Result};
use crate::group::backlog::{self, Backlog};

/// An asynchronous operation under way, and the buffers `B` that it holds until it is over.
///
/// [`wait`](Self::wait) for it, ask whether it [is finished](Self::is_finished), or `.await` it. Dropped, it is detached: the
/// operation goes on to its end, and its buffers live until then.
pub struct Pending<B> {
    slot: Arc<Slot<B>>,
    backlog: Arc<Backlog>,
    born: ForkMark,
    parent: u32,
}

/// Where the result appears. The lock is the standard library's, for the sake of forked children: see [`Backlog`].
pub(super) struct Slot<B> {
    state: Mutex<State<B>>,
    finished: Condvar,
}

enum State<B> {
    /// Under way; who is to be woken when it is over.
    Running(Option<Waker>),
    Finished(Result<B>),
    Taken,
}

impl<B> State<B> {
    fn take(&mut self) -> Option<Result<B>> {
        if let State::Running(_) = self {
            return None;
        }
        match std::mem::replace(self, State::Taken) {
            State::Finished(result) => Some(result),
            _ => Some(Err(Error::argument("wait", "the result of this operation was taken before"))),
        }
    }
}

impl<B> Slot<B> {
    fn lock(&self) -> MutexGuard<'_, State<B>> {
        lock(&self.state)
    }

    /// The operation is over.
    pub(super) fn finish(&self, result: Result<B>) {
        let before = std::mem::replace(&mut *self.lock(), State::Finished(result));
        self.finished.notify_all();
        if let State::Running(Some(waker)) = before {
            waker.wake();
        }
    }
}

impl<B> Pending<B> {
    /// A handle, and where its result is to appear.
    pub(super) fn new(backlog: Arc<Backlog>) -> (Self, Arc<Slot<B>>) {
        let slot = Arc::new(Slot { state: Mutex::new(State::Running(None)), finished: Condvar::new() });
        let (born, parent) = (ForkMark::now(), unisono_os::process::pid());
        (Pending { slot: Arc::clone(&slot), backlog, born, parent }, slot)
    }

    /// Wait for the end of the operation; gives back its buffers, with the result in them.
    ///
    /// # Errors
    /// Those of the operation.
    pub fn wait(self) -> Result<B> {
        self.check_process()?;
        let mut state = self.slot.lock();
        loop {
            if let Some(result) = state.take() {
                return result;
            }
            self.backlog.check_may_wait("wait")?;
            state = wait_until(&self.slot.finished, state, None);
        }
    }

    /// Wait no longer than `timeout`: gives the result, or the handle back if the operation is not over. It goes on: what
    /// ends it is its own time-out ([`Communicator::with_timeout`](crate::Communicator::with_timeout)).
    ///
    /// ```
    /// # use std::time::Duration;
    /// # let comm = unisono::Communicator::in_process(1)?.remove(0);
    /// let mut pending = comm.barrier_async();
    /// let result = loop {
    ///     match pending.wait_timeout(Duration::from_millis(10)) {
    ///         Ok(result) => break result,
    ///         Err(unfinished) => pending = unfinished, // and do something else
    ///     }
    /// };
    /// result?;
    /// # Ok::<_, unisono::Error>(())
    /// ```
    ///
    /// # Errors
    /// The handle, if the time is up.
    pub fn wait_timeout(self, timeout: Duration) -> std::result::Result<Result<B>, Self> {
        if let Err(error) = self.check_process() {
            return Ok(Err(error));
        }
        let deadline = Instant::now().checked_add(timeout);
        let mut state = self.slot.lock();
        loop {
            if let Some(result) = state.take() {
                return Ok(result);
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                drop(state);
                return Err(self);
            }
            state = wait_until(&self.slot.finished, state, deadline);
        }
    }

    /// Whether the operation is over, so that [`wait`](Self::wait) returns at once.
    pub fn is_finished(&self) -> bool {
        self.check_process().is_err() || !matches!(*self.slot.lock(), State::Running(_))
    }

    /// The thread that works on it does not exist in a forked child.
    fn check_process(&self) -> Result<()> {
        if self.born.crossed_fork() {
            return Err(Error::Forked { operation: "wait", parent: self.parent });
        }
        Ok(())
    }
}

impl<B> Future for Pending<B> {
    type Output = Result<B>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Err(error) = self.check_process() {
            return Poll::Ready(Err(error));
        }
        let mut state = self.slot.lock();
        if let Some(result) = state.take() {
            return Poll::Ready(result);
        }
        if self.backlog.operates_here() {
            return Poll::Ready(Err(backlog::waits_for_a_later_one("wait")));
        }
        if let State::Running(waker) = &mut *state {
            *waker = Some(context.waker().clone());
        }
        Poll::Pending
    }
}

impl<B> fmt::Debug for Pending<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending").field("is_finished", &self.is_finished()).finish_non_exhaustive()
    }
}
