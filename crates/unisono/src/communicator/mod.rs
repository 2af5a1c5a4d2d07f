//! The communicator: what a rank holds of its group, and all that it can ask of it.
//!
//! | file | what |
//! |---|---|
//! | [`builder`](Builder) | how ranks find one another |
//! | `even` | collectives in which every rank has the same count |
//! | `uneven` | collectives with a count per rank |
//! | `raw` | the same on pointers and a type known at run time, for bindings |
//! | `registered`, `raw_registered` | memory that all ranks have mapped, and collectives in place on it |
//! | `split` | sub-groups |
//! | `asynchronous` | collectives that are started and waited for later |
//! | `threads` | several threads per rank |

mod asynchronous;
mod builder;
mod environment;
mod even;
mod raw;
mod raw_registered;
mod registered;
mod split;
mod threads;
mod uneven;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::call::Operation;
use crate::collectives::broadcast;
use crate::error::{PeerStatus, Result};
use crate::group::{Group, backend};
use crate::parameters::Parameters;
use asynchronous::Worker;
pub use asynchronous::{Pending, Scope};
pub use builder::{Builder, Exchange};
pub use raw::Raw;
use threads::Settings;

/// The default deadline of an operation: idle workers wait for hours for their next request, but not for ever.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30 * 60);

/// A rank's handle on its group.
///
/// Every rank makes the same collective calls in the same order. A communicator may be used from several threads; one
/// collective runs at a time, in the order in which they get an internal lock. Cloning is cheap and gives
/// another handle on the same group; when the last is dropped, this rank has left.
///
/// ```
/// use unisono::{Communicator, ReduceOp};
///
/// // Two ranks as threads; processes use `Communicator::from_env()`.
/// let ranks = Communicator::in_process(2)?;
/// std::thread::scope(|scope| {
///     for comm in ranks {
///         scope.spawn(move || {
///             let mut data = [comm.rank() as f32 + 1.0; 4];
///             comm.all_reduce(&mut data, ReduceOp::Sum)?;
///             assert_eq!(data, [3.0; 4]);
///             Ok::<_, unisono::Error>(())
///         });
///     }
/// });
/// # Ok::<_, unisono::Error>(())
/// ```
#[derive(Clone)]
pub struct Communicator {
    /// Before the group: asynchronous operations are over before this rank leaves.
    worker: Arc<Worker>,
    pub(crate) group: Arc<Group>,
    timeout: Option<Duration>,
}

impl Communicator {
    /// Set up how to meet the other ranks; see [`Builder`].
    pub fn builder() -> Builder {
        Builder::new()
    }

    /// Meet the other ranks as the environment says: torchrun's `RANK`, `WORLD_SIZE`, `LOCAL_RANK`, `LOCAL_WORLD_SIZE`,
    /// `MASTER_ADDR`, `MASTER_PORT` and `TORCHELASTIC_RUN_ID`, and the `UNISONO_*` variables of the README.
    ///
    /// # Errors
    /// [`Error::Setting`](crate::Error::Setting) names a variable that is missing or makes no sense;
    /// [`Error::Rendezvous`](crate::Error::Rendezvous) says who did not come, or who else was there.
    pub fn from_env() -> Result<Self> {
        environment::builder()?.connect()
    }

    /// `world_size` ranks that are threads of this process: hand one to each thread.
    ///
    /// # Errors
    /// If `world_size` is 0 or above 64, a `UNISONO_*` variable makes no sense, or there is no memory.
    pub fn in_process(world_size: usize) -> Result<Vec<Self>> {
        builder::check_world_size(world_size)?;
        Self::in_process_with(world_size, &Parameters::from_env(world_size)?)
    }

    /// [`Communicator::in_process`] with parameters of one's own.
    ///
    /// # Errors
    /// As there.
    pub fn in_process_with(world_size: usize, parameters: &Parameters) -> Result<Vec<Self>> {
        builder::check_world_size(world_size)?;
        builder::check_isa()?;
        let settings = Settings::from_env()?;
        backend::in_process::assemble(world_size, parameters)?
            .into_iter()
            .map(|assembled| {
                let comm = Self::over(Group::new(assembled), Some(DEFAULT_TIMEOUT));
                comm.apply(&settings)?;
                Ok(comm)
            })
            .collect()
    }

    fn over(group: Group, timeout: Option<Duration>) -> Self {
        let worker = Worker::new(Arc::clone(&group.backlog));
        Communicator { worker, group: Arc::new(group), timeout }
    }

    /// The group, for a call that the calling thread makes on this handle: it comes in its turn.
    #[inline]
    fn group(&self) -> &Group {
        if self.worker.is_jobs() && self.group.check_process("taking a turn").is_ok() {
            self.worker.take_turn();
        }
        &self.group
    }

    /// This rank: 0 to `world_size() - 1`.
    pub fn rank(&self) -> usize {
        self.group.members.rank
    }

    /// How many ranks there are.
    pub fn world_size(&self) -> usize {
        self.group.members.world
    }

    /// What the group is called in messages.
    pub fn name(&self) -> &str {
        &self.group.name
    }

    /// The parameters that all ranks agreed on: rank 0's.
    pub fn parameters(&self) -> &Parameters {
        &self.group.parameters
    }

    /// Shared memory that this rank brought along, in bytes.
    pub fn memory_bytes(&self) -> usize {
        self.group.layout.total()
    }

    /// How long an operation on this handle may wait; `None` is for ever.
    pub fn timeout(&self) -> Option<Duration> {
        self.timeout
    }

    /// A handle on the same group whose operations may wait this long; `None` is for ever. The time counts from the first
    /// wait of an operation to its end.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # let comm = unisono::Communicator::in_process(1)?.remove(0);
    /// comm.with_timeout(Some(Duration::from_secs(5))).barrier()?;
    /// # Ok::<_, unisono::Error>(())
    /// ```
    #[must_use]
    pub fn with_timeout(&self, timeout: Option<Duration>) -> Self {
        Communicator { timeout, ..self.clone() }
    }

    /// What each rank is and last did, as far as this rank can see. A forked child sees only who the ranks were.
    pub fn peers(&self) -> Vec<PeerStatus> {
        self.group.peers()
    }

    /// Nobody leaves before all have come.
    ///
    /// # Errors
    /// Any terminal error; see [`Error`](crate::Error).
    pub fn barrier(&self) -> Result<()> {
        Ok(broadcast::barrier(self.group(), Operation::Barrier, self.timeout)?)
    }

    /// Stop the group, from any thread: every operation under way or to come, on every rank, ends with
    /// [`Error::Aborted`](crate::Error::Aborted), but for a `recv` whose message has come already.
    pub fn abort(&self) {
        self.group.abort();
    }

    /// Leave together: wait for all ranks to call this, then leave. Dropping instead leaves at once, and alone. After `close`
    /// a new group may be formed under the same name at once; after a drop, once rank 0 has dropped its handle, too.
    ///
    /// # Errors
    /// If not all ranks came within `timeout`, or for any other terminal reason; this rank has left all the same.
    pub fn close(&self, timeout: Duration) -> Result<()> {
        // Before anybody comes out of the barrier: who does may form a new group of the same name.
        self.group.give_name_free();
        let together = broadcast::barrier(self.group(), Operation::Close, Some(timeout));
        self.group.leave();
        Ok(together?)
    }

    /// Leave at once, and alone, whatever other handles on this communicator there are: later calls on them return
    /// [`Error::Closed`](crate::Error::Closed), and a peer that still needs this rank gets
    /// [`Error::PeerLeft`](crate::Error::PeerLeft). A send or recv that needs it and of which nothing has moved stops nobody else.
    pub fn leave(&self) {
        self.group.leave();
    }

    /// The same operations on pointers, with the element type given at run time.
    pub fn raw(&self) -> Raw<'_> {
        Raw::new(self)
    }
}

impl fmt::Debug for Communicator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Communicator")
            .field("name", &self.group.name)
            .field("rank", &self.rank())
            .field("world_size", &self.world_size())
            .finish_non_exhaustive()
    }
}
