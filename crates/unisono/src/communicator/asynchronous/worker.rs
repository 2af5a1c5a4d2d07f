//! The thread of a communicator that carries out its asynchronous operations: started with the first, asleep between two.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use parking_lot::Mutex;

use super::pending::{Pending, Slot};
use crate::background::Background;
use crate::communicator::Communicator;
use crate::error::{Error, Result};
use crate::group::backlog::{Backlog, Job};

/// What the handles on a communicator share of its asynchronous operations. Dropped with the last of them: it waits until all
/// operations are over.
#[derive(Debug)]
pub(in crate::communicator) struct Worker {
    backlog: Arc<Backlog>,
    thread: Mutex<Option<Background>>,
    /// Whether it belongs to the handle that a job makes its calls on.
    is_jobs: bool,
}

impl Worker {
    pub(in crate::communicator) fn new(backlog: Arc<Backlog>) -> Arc<Worker> {
        Arc::new(Worker { backlog, thread: Mutex::default(), is_jobs: false })
    }

    fn start(&self) -> Result<()> {
        if self.is_jobs {
            let problem =
                "inside an asynchronous operation calls are synchronous: start it on another handle";
            return Err(Error::argument("start", problem));
        }
        let mut thread = self.thread.lock();
        if thread.is_none() {
            let backlog = Arc::clone(&self.backlog);
            *thread = Some(Background::spawn("unisono-async", move || backlog.work())?);
        }
        Ok(())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.get_mut()
            && !thread.lives_elsewhere()
        {
            self.backlog.end();
            thread.join();
        }
    }
}

/// An operation that is ready to be carried out.
pub(super) struct Prepared<'j, B> {
    pub(super) pending: Pending<B>,
    pub(super) slot: Arc<Slot<B>>,
    pub(super) job: Box<dyn FnOnce() + Send + 'j>,
}

impl Communicator {
    /// Carry out `operate` on `buffers` after all that was started before, and return at once: for operations, or several of
    /// them, that have no asynchronous method of their own. It gets a handle on this communicator and makes synchronous
    /// calls; it must not wait for what is started after it.
    ///
    /// ```
    /// # let comm = unisono::Communicator::in_process(1)?.remove(0);
    /// let lengths = vec![3usize];
    /// let gathered = comm.start(vec![0u8; 3], move |comm, output| comm.all_gather_v(b"abc", output, &lengths));
    /// assert_eq!(gathered.wait()?, b"abc");
    /// # Ok::<_, unisono::Error>(())
    /// ```
    pub fn start<B: Send + 'static>(
        &self,
        buffers: B,
        operate: impl FnOnce(&Communicator, &mut B) -> Result<()> + Send + 'static,
    ) -> Pending<B> {
        let Prepared { pending, slot, job } = self.prepare(buffers, operate);
        if let Err(error) = self.enqueue(job) {
            slot.finish(Err(error));
        }
        pending
    }

    pub(super) fn prepare<'j, B: Send + 'j>(
        &self,
        mut buffers: B,
        operate: impl FnOnce(&Communicator, &mut B) -> Result<()> + Send + 'j,
    ) -> Prepared<'j, B> {
        let (pending, slot) = Pending::new(Arc::clone(&self.group.backlog));
        // A handle of the job's own, which does not keep the worker from ending.
        let comm = Communicator {
            worker: Arc::new(Worker {
                backlog: Arc::clone(&self.group.backlog),
                thread: Mutex::default(),
                is_jobs: true,
            }),
            group: Arc::clone(&self.group),
            timeout: self.timeout,
        };
        let backlog = Arc::clone(&self.group.backlog);
        let result = Arc::clone(&slot);
        let job = Box::new(move || {
            let done = catch_unwind(AssertUnwindSafe(|| operate(&comm, &mut buffers)));
            let done = done.unwrap_or_else(|_| {
                // The peers must not wait for the rest of it. The error is that of any call from now on.
                comm.abort();
                comm.barrier()
            });
            drop(comm);
            backlog.operation_is_over();
            result.finish(done.map(|()| buffers));
        });
        Prepared { pending, slot, job }
    }

    /// # Errors
    /// If this process is a forked child, or the thread cannot be started; the job is dropped then.
    pub(super) fn enqueue(&self, job: Job) -> Result<()> {
        self.group.check_process("starting an asynchronous operation")?;
        self.worker.start()?;
        self.group.backlog.add(job);
        Ok(())
    }
}
