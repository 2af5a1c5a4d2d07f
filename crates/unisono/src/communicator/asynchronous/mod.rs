//! Collectives that are started and waited for later.
//!
//! They are carried out by one thread per communicator, in the order in which they were started; a synchronous call comes
//! after those that were started before it. Their buffers belong to the operation until it is over ([`Pending`]), or are
//! borrowed within a [`Scope`].
//!
//! | file | what |
//! |---|---|
//! | `pending` | the handle |
//! | `scope` | operations on borrowed memory |
//! | `worker` | the thread |

mod pending;
mod scope;
mod worker;

use unisono_kernels::{Element, ReduceOp};

use super::Communicator;
pub use pending::Pending;
pub use scope::Scope;
pub(super) use worker::Worker;

impl Communicator {
    /// Start an [`all_reduce`](Self::all_reduce) of `data`, which comes back with the result in it.
    ///
    /// Every rank makes the same calls in the same order, synchronous and asynchronous ones taken together. If the last handle
    /// on a communicator is dropped, it waits for what was started.
    ///
    /// ```
    /// use unisono::ReduceOp;
    /// # let comm = unisono::Communicator::in_process(1)?.remove(0);
    /// let sum = comm.all_reduce_async(vec![1.0f32; 4096], ReduceOp::Sum);
    /// // ... compute something else ...
    /// let sum = sum.wait()?;
    /// assert_eq!(sum[0], comm.world_size() as f32);
    /// # Ok::<_, unisono::Error>(())
    /// ```
    pub fn all_reduce_async<T: Element>(&self, data: impl Into<Vec<T>>, op: ReduceOp) -> Pending<Vec<T>> {
        self.start(data.into(), move |comm, data| comm.all_reduce(data, op))
    }

    /// Start a [`reduce`](Self::reduce) of `data`, which comes back, at the root with the result in it.
    pub fn reduce_async<T: Element>(
        &self,
        data: impl Into<Vec<T>>,
        op: ReduceOp,
        root: usize,
    ) -> Pending<Vec<T>> {
        self.start(data.into(), move |comm, data| comm.reduce(data, op, root))
    }

    /// Start a [`reduce_scatter`](Self::reduce_scatter); `input` and `output` come back.
    pub fn reduce_scatter_async<T: Element>(
        &self,
        input: impl Into<Vec<T>>,
        output: impl Into<Vec<T>>,
        op: ReduceOp,
    ) -> Pending<(Vec<T>, Vec<T>)> {
        self.start((input.into(), output.into()), move |comm, (input, output)| {
            comm.reduce_scatter(input, output, op)
        })
    }

    /// Start an [`all_gather`](Self::all_gather); `input` and `output` come back.
    pub fn all_gather_async<T: Element>(
        &self,
        input: impl Into<Vec<T>>,
        output: impl Into<Vec<T>>,
    ) -> Pending<(Vec<T>, Vec<T>)> {
        self.start((input.into(), output.into()), |comm, (input, output)| comm.all_gather(input, output))
    }

    /// Start an [`all_to_all`](Self::all_to_all); `input` and `output` come back.
    pub fn all_to_all_async<T: Element>(
        &self,
        input: impl Into<Vec<T>>,
        output: impl Into<Vec<T>>,
    ) -> Pending<(Vec<T>, Vec<T>)> {
        self.start((input.into(), output.into()), |comm, (input, output)| comm.all_to_all(input, output))
    }

    /// Start a [`broadcast`](Self::broadcast) of `data`, which comes back as the root's.
    pub fn broadcast_async<T: Element>(&self, data: impl Into<Vec<T>>, root: usize) -> Pending<Vec<T>> {
        self.start(data.into(), move |comm, data| comm.broadcast(data, root))
    }

    /// Start a [`barrier`](Self::barrier): it is finished when all ranks have started it.
    pub fn barrier_async(&self) -> Pending<()> {
        self.start((), |comm, ()| comm.barrier())
    }
}
