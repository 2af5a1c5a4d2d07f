//! Asynchronous operations on borrowed memory: a scope that is left only when all of them are over.
//!
//! The one invariant that matters: **a job that borrows does not outlive its scope**. The scope waits for every job to be
//! dropped, not only for its result, and also when the caller's function panics.

#![allow(unsafe_code)]

use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Condvar, Mutex};

use unisono_kernels::{Element, ReduceOp};
use unisono_os::fork_guard::ForkMark;
use unisono_os::monitor::{lock, wait_until};

use super::pending::Pending;
use super::worker::Prepared;
use crate::communicator::Communicator;
use crate::error::{Error, Result};
use crate::group::backlog::Job;

/// Where asynchronous operations on borrowed memory are started; see [`Communicator::scope`].
#[derive(Debug)]
pub struct Scope<'scope, 'env: 'scope> {
    comm: &'scope Communicator,
    jobs: Arc<Jobs>,
    /// Neither lifetime may be shortened or lengthened, as for a scope of threads.
    scope: PhantomData<&'scope mut &'scope ()>,
    env: PhantomData<&'env mut &'env ()>,
}

/// The jobs of a scope.
#[derive(Debug, Default)]
struct Jobs {
    state: Mutex<State>,
    all_over: Condvar,
}

#[derive(Debug, Default)]
struct State {
    running: usize,
    /// The first that failed.
    error: Option<Error>,
}

/// Counts a job of a scope as long as it lives.
struct Running {
    jobs: Arc<Jobs>,
    born: ForkMark,
}

impl Running {
    fn new(jobs: &Arc<Jobs>) -> Self {
        lock(&jobs.state).running += 1;
        Running { jobs: Arc::clone(jobs), born: ForkMark::now() }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.born.crossed_fork() {
            return; // Nobody waits here, and a thread that does not exist may hold the lock.
        }
        let mut state = lock(&self.jobs.state);
        state.running -= 1;
        if state.running == 0 {
            self.jobs.all_over.notify_all();
        }
    }
}

/// A job with what counts it: fields are dropped in this order, so that nothing borrowed is left when it is counted off.
struct Counted<'scope> {
    job: Box<dyn FnOnce() + Send + 'scope>,
    running: Running,
}

impl Counted<'_> {
    fn carry_out(self) {
        let Counted { job, running } = self;
        // Declared first, dropped last: also if the job panics, whatever it borrowed is gone before.
        let _running = running;
        job();
    }
}

impl Communicator {
    /// Start asynchronous operations on borrowed memory, and return when all of them are over. A function that waits for none of
    /// them may do something else meanwhile.
    ///
    /// ```
    /// use unisono::ReduceOp;
    /// # let comm = unisono::Communicator::in_process(1)?.remove(0);
    /// let (mut hidden, mut scores) = (vec![1.0f32; 4096], vec![2.0f32; 64]);
    /// comm.scope(|scope| {
    ///     scope.all_reduce(&mut hidden, ReduceOp::Sum);
    ///     let scores = scope.all_reduce(&mut scores, ReduceOp::Max);
    ///     // ... compute something else ...
    ///     let scores = scores.wait()?; // its memory is back
    ///     assert_eq!(scores[0], 2.0);
    ///     Ok::<_, unisono::Error>(())
    /// })??; // here all of it is
    /// assert_eq!(hidden[0], comm.world_size() as f32);
    /// # Ok::<_, unisono::Error>(())
    /// ```
    ///
    /// # Errors
    /// That of the first operation that failed, whether or not anybody waited for it. Inside an asynchronous operation it is
    /// refused, and `work` is not called: what is started there comes after that operation.
    pub fn scope<'env, F, R>(&'env self, work: F) -> Result<R>
    where
        F: for<'scope> FnOnce(&'scope Scope<'scope, 'env>) -> R,
    {
        self.group.check_process("scope")?;
        self.group.backlog.check_may_wait("scope")?;
        let jobs = Arc::<Jobs>::default();
        let scope = Scope { comm: self, jobs: Arc::clone(&jobs), scope: PhantomData, env: PhantomData };
        let outcome = catch_unwind(AssertUnwindSafe(|| work(&scope)));
        let error = self.wait_for_all(&jobs);
        match (outcome, error) {
            (Err(panic), _) => resume_unwind(panic),
            (Ok(_), Some(error)) => Err(error),
            (Ok(value), None) => Ok(value),
        }
    }

    fn wait_for_all(&self, jobs: &Jobs) -> Option<Error> {
        if let Err(error) = self.group.check_process("scope") {
            // In a forked child nobody works on the jobs, and nobody ever will.
            return Some(*error);
        }
        let mut state = lock(&jobs.state);
        while state.running > 0 {
            state = wait_until(&jobs.all_over, state, None);
        }
        state.error.take()
    }
}

impl<'scope> Scope<'scope, '_> {
    /// Start an [`all_reduce`](Communicator::all_reduce) of `data`.
    pub fn all_reduce<T: Element>(
        &'scope self,
        data: &'scope mut [T],
        op: ReduceOp,
    ) -> Pending<&'scope mut [T]> {
        self.start(data, move |comm, data| comm.all_reduce(data, op))
    }

    /// Start a [`reduce`](Communicator::reduce) of `data`.
    pub fn reduce<T: Element>(
        &'scope self,
        data: &'scope mut [T],
        op: ReduceOp,
        root: usize,
    ) -> Pending<&'scope mut [T]> {
        self.start(data, move |comm, data| comm.reduce(data, op, root))
    }

    /// Start a [`reduce_scatter`](Communicator::reduce_scatter).
    pub fn reduce_scatter<T: Element>(
        &'scope self,
        input: &'scope [T],
        output: &'scope mut [T],
        op: ReduceOp,
    ) -> Pending<&'scope mut [T]> {
        self.start(output, move |comm, output| comm.reduce_scatter(input, output, op))
    }

    /// Start an [`all_gather`](Communicator::all_gather).
    pub fn all_gather<T: Element>(
        &'scope self,
        input: &'scope [T],
        output: &'scope mut [T],
    ) -> Pending<&'scope mut [T]> {
        self.start(output, move |comm, output| comm.all_gather(input, output))
    }

    /// Start an [`all_to_all`](Communicator::all_to_all).
    pub fn all_to_all<T: Element>(
        &'scope self,
        input: &'scope [T],
        output: &'scope mut [T],
    ) -> Pending<&'scope mut [T]> {
        self.start(output, move |comm, output| comm.all_to_all(input, output))
    }

    /// Start a [`broadcast`](Communicator::broadcast) of `data`.
    pub fn broadcast<T: Element>(
        &'scope self,
        data: &'scope mut [T],
        root: usize,
    ) -> Pending<&'scope mut [T]> {
        self.start(data, move |comm, data| comm.broadcast(data, root))
    }

    /// Start a [`barrier`](Communicator::barrier).
    pub fn barrier(&'scope self) -> Pending<()> {
        self.start((), |comm, ()| comm.barrier())
    }

    /// Carry out `operate` on `buffers`, as [`Communicator::start`] does.
    pub fn start<B: Send + 'scope>(
        &'scope self,
        buffers: B,
        operate: impl FnOnce(&Communicator, &mut B) -> Result<()> + Send + 'scope,
    ) -> Pending<B> {
        let jobs = Arc::clone(&self.jobs);
        let Prepared { pending, slot, job } = self.comm.prepare(buffers, move |comm, buffers: &mut B| {
            operate(comm, buffers).inspect_err(|error| {
                lock(&jobs.state).error.get_or_insert_with(|| error.clone());
            })
        });
        if let Err(error) = self.comm.group.check_process("starting an asynchronous operation") {
            // A thread that does not exist here may hold the lock of the jobs. The scope finds the same at its end.
            slot.finish(Err(*error));
            return pending;
        }
        let counted = Counted { job, running: Running::new(&self.jobs) };
        let job: Box<dyn FnOnce() + Send + 'scope> = Box::new(move || counted.carry_out());
        // SAFETY: only the lifetime changes. `Communicator::scope` does not return before `Running` of this job is dropped,
        // which comes after everything else in it; `'scope` lasts until then. In a forked child the job is never run.
        let job = unsafe { std::mem::transmute::<Box<dyn FnOnce() + Send + 'scope>, Job>(job) };
        if let Err(error) = self.comm.enqueue(job) {
            lock(&self.jobs.state).error.get_or_insert_with(|| error.clone());
            slot.finish(Err(error));
        }
        pending
    }
}
