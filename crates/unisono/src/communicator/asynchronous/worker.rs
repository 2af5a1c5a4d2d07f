//! The thread of a communicator that carries out its asynchronous operations: started with the first, asleep between two.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

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
    /// If it belongs to the handle that a job makes its calls on: whether that job is under way.
    job: Option<AtomicBool>,
}

impl Worker {
    pub(in crate::communicator) fn new(backlog: Arc<Backlog>) -> Arc<Worker> {
        Arc::new(Worker { backlog, thread: Mutex::default(), job: None })
    }

    /// That of a handle of a job's own, which does not keep the thread from ending.
    fn of_job(backlog: Arc<Backlog>) -> Arc<Worker> {
        Arc::new(Worker { backlog, thread: Mutex::default(), job: Some(AtomicBool::new(true)) })
    }

    /// Whether it belongs to the handle that a job makes its calls on.
    #[inline]
    pub(in crate::communicator) fn is_jobs(&self) -> bool {
        self.job.is_some()
    }

    /// A call is about to be made: if it is one of the job under way, it waits for no other, whatever thread makes it.
    pub(in crate::communicator) fn take_turn(&self) {
        if let Some(under_way) = &self.job {
            self.backlog.join_in(under_way);
        }
    }

    /// The job is over: threads that still hold its handle come in turn like all others.
    fn end_job(&self) {
        if let Some(under_way) = &self.job {
            self.backlog.end_operation(under_way);
        }
    }

    fn start(&self) -> Result<()> {
        if self.is_jobs() {
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
    /// calls on it, from any thread; it must not wait for what is started after it.
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
        let comm = Communicator {
            worker: Worker::of_job(Arc::clone(&self.group.backlog)),
            group: Arc::clone(&self.group),
            timeout: self.timeout,
        };
        let result = Arc::clone(&slot);
        let job = Box::new(move || {
            let done = catch_unwind(AssertUnwindSafe(|| operate(&comm, &mut buffers)));
            let done = done.unwrap_or_else(|_| {
                // The peers must not wait for the rest of it. The error is that of any call from now on.
                comm.abort();
                comm.barrier()
            });
            comm.worker.end_job();
            drop(comm);
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
