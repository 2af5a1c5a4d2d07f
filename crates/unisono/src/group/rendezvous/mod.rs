//! How ranks that are processes find one another and come to map each other's memory.
//!
//! A star, not a mesh: rank 0 listens, the others come; it collects each rank's memory and a descriptor of its process,
//! and hands the whole set to all. What must be the same everywhere (parameters) is rank 0's. Whoever cannot go on says why,
//! and rank 0 passes it on, so that an error on one rank is an error with the same reason on all, never a hang.
//!
//! | file | what |
//! |---|---|
//! | [`name`] | where a group meets |
//! | [`messages`] | what is said |
//! | [`door`] | the sockets that rank 0 listens at, also later, to turn latecomers away |
//! | [`alongside`] | who reserves memory at the same time, and under which limit |
//! | [`leader`], [`member`] | rank 0's part and everybody else's |

pub(crate) mod alongside;
pub(crate) mod door;
pub(crate) mod leader;
pub(crate) mod member;
pub(crate) mod messages;
pub(crate) mod name;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use unisono_os::mapping::{Access, Mapping};
use unisono_os::socket::{Connection, Message as Packet, SocketError};
use unisono_os::{cpu, memfd, pidfd, process};

use crate::call::{Call, Operation};
use crate::error::{Error, Result};
use crate::group::header::Identity;
use crate::group::layout::Layout;
use crate::group::members::{Members, Situation};
use crate::group::shared_memory::SharedMemory;
use crate::interrupt;
use crate::parameters::Parameters;
use crate::segment::check_headroom;
use alongside::{Alongside, Limit};
use messages::{Hello, Message, Welcome};
use name::Meeting;

/// How often those who wait for a sub-group look whether its parent still goes on.
const LOOK_AT_PARENT_EVERY: Duration = Duration::from_millis(20);
/// How long rank 0 may take to close its last socket after the first.
const DYING_TAKES: Duration = Duration::from_millis(5);

/// What ranks meet for, and so what memory each brings along.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Purpose {
    /// To form a group: words and staging.
    Group,
    /// To register this many bytes each.
    Registration(usize),
}

/// What a rank knows before it meets the others.
#[derive(Clone, Debug)]
pub(crate) struct Invitation {
    pub(crate) purpose: Purpose,
    pub(crate) rank: usize,
    pub(crate) world: usize,
    pub(crate) meeting: Meeting,
    /// `None`: wait for ever.
    pub(crate) deadline: Option<Instant>,
    /// What this rank would like; rank 0's counts.
    pub(crate) parameters: Parameters,
    /// The group of which this will be a sub-group: if it stops, nobody waits for those who cannot come any more.
    pub(crate) parent: Option<Arc<Members>>,
    /// Who reserves memory at the same time as those who meet; `None`: nobody else.
    pub(crate) alongside: Option<Alongside>,
}

/// A rank's own memory and how others learn of its death.
#[derive(Debug)]
pub(crate) struct Own {
    pub(crate) layout: Arc<Layout>,
    pub(crate) memory: OwnedFd,
    pub(crate) mapping: Arc<Mapping>,
    pub(crate) pidfd: Option<OwnedFd>,
}

/// What a rank has once all have met.
#[derive(Debug)]
pub(crate) struct Met {
    pub(crate) welcome: Welcome,
    pub(crate) own: Own,
    pub(crate) memories: Vec<SharedMemory>,
    pub(crate) pids: Vec<u32>,
    pub(crate) pidfds: Vec<Option<OwnedFd>>,
    /// Rank 0: a connection to every other rank. The others: one to rank 0.
    pub(crate) connections: Vec<(usize, Connection)>,
    /// Rank 0's listening sockets.
    pub(crate) door: Option<door::Door>,
}

/// Why this rank did not meet the others.
#[derive(Debug)]
pub(crate) struct NotMet {
    pub(crate) error: Box<Error>,
    /// Whether there are ranks that cannot have been told, because this one could not even come.
    pub(crate) others_wait: bool,
}

impl NotMet {
    /// This rank failed before all were together. Where the error is that others did not come, they have the same deadline.
    fn before_all_came(error: Error) -> NotMet {
        let are_missing = matches!(&error, Error::Rendezvous { missing, .. } if !missing.is_empty());
        NotMet { error: Box::new(error), others_wait: !are_missing }
    }
}

/// Those who have come were told.
impl From<Error> for NotMet {
    fn from(error: Error) -> NotMet {
        NotMet { error: Box::new(error), others_wait: false }
    }
}

impl From<NotMet> for Error {
    fn from(not_met: NotMet) -> Error {
        *not_met.error
    }
}

/// What [`Met`] is made of, as it was handed round.
struct Roster {
    pids: Vec<u32>,
    memories: Vec<OwnedFd>,
    pidfds: Vec<Option<OwnedFd>>,
}

impl Purpose {
    /// As part of which operation of the parent, if there is one, ranks meet.
    fn operation(self) -> Operation {
        match self {
            Purpose::Group => Operation::Split,
            Purpose::Registration(_) => Operation::Alloc,
        }
    }

    /// Where things lie in the memory that each of `world` ranks brings along.
    fn layout(self, world: usize, parameters: &Parameters) -> Result<Layout> {
        match self {
            Purpose::Group => Layout::new(world, parameters),
            Purpose::Registration(bytes) => Layout::registered(world, bytes),
        }
    }
}

impl Invitation {
    /// An error of this meeting.
    fn error(&self, problem: impl Into<String>) -> Error {
        Error::Rendezvous { group: self.meeting.label.clone(), problem: problem.into(), missing: Vec::new() }
    }

    /// A socket did not do what it should, while talking to `whom`.
    fn socket_error(&self, whom: &str) -> impl Fn(SocketError) -> Error {
        move |error| self.error(format!("{whom}: {error}"))
    }

    /// How long to sleep at most before looking whether to go on.
    fn next_look(&self, deadline: Option<Instant>) -> Option<Instant> {
        let look = self.parent.as_ref().map(|_| Instant::now() + LOOK_AT_PARENT_EVERY);
        interrupt::next_question([deadline, look].into_iter().flatten().min())
    }

    /// See that the parent, if there is one, still goes on, and that the thread wants to.
    fn check_goes_on(&self) -> Result<()> {
        if interrupt::is_requested() {
            let operation = self.parent.as_ref().map_or("connect", |_| self.purpose.operation().name());
            return Err(Error::Interrupted { operation, terminal: false });
        }
        match &self.parent {
            Some(parent) if parent.is_stopped() => {
                let call = Call::new(self.purpose.operation());
                Err(parent.explain(0, Situation::at_once(call, 0)))
            }
            _ => Ok(()),
        }
    }

    /// The next message from `whom`; `None` if it has gone.
    fn receive(
        &self,
        connection: &Connection,
        whom: &str,
        deadline: Option<Instant>,
    ) -> Result<Option<(Message, Packet)>> {
        loop {
            match messages::receive(connection, self.next_look(deadline)) {
                Err(error)
                    if error.is_timed_out() && deadline.is_none_or(|deadline| Instant::now() < deadline) =>
                {
                    self.check_goes_on()?;
                }
                received => return received.map_err(self.socket_error(whom)),
            }
        }
    }

    /// Who this rank is, and where.
    fn hello(&self) -> Hello {
        let limit = self.alongside.as_ref().map_or_else(Limit::now, |alongside| alongside.before.clone());
        Hello {
            version: messages::VERSION,
            rank: self.rank,
            world: self.world,
            pid: process::pid(),
            cpus: cpu::allowed_cpus(),
            quota: cpu::quota(),
            headroom: limit.headroom.bytes,
            limited_by: limit.headroom.limited_by,
            limited_in: limit.namespace,
        }
    }

    /// Make this rank's memory: sealed, touched first by its owner, and identified. `before_handing_out` runs once it exists.
    fn make_own(
        &self,
        welcome: &Welcome,
        before_handing_out: &mut dyn FnMut(BorrowedFd<'_>) -> Result<()>,
    ) -> Result<Own> {
        let layout = Arc::new(self.purpose.layout(self.world, &welcome.parameters)?);
        let bytes = layout.total();
        // Rank 0 has compared the sum already, if it is what it should be.
        check_headroom(&format!("the memory of rank {}", self.rank), bytes)?;
        let memory = memfd::create_sealed("unisono", bytes).map_err(Error::os("making shared memory"))?;
        let mapping = Mapping::shared(memory.as_fd(), 0, bytes, Access::ReadWrite)
            .map_err(Error::os("mapping this rank's memory"))?;
        mapping.advise_huge_pages();
        mapping.populate().map_err(Error::os("reserving this rank's memory"))?;
        let mapping = Arc::new(mapping);
        SharedMemory::new(Arc::clone(&mapping), Arc::clone(&layout), self.rank)?
            .header()
            .identify(Identity { rank: self.rank, world: self.world, bytes, nonce: welcome.nonce });
        before_handing_out(memory.as_fd())?;
        Ok(Own { layout, memory, mapping, pidfd: crate::marker::own_pidfd()? })
    }

    /// Map every rank's memory, after seeing that it is what it should be.
    fn map_all(&self, welcome: &Welcome, own: &Own, roster: &Roster) -> Result<Vec<SharedMemory>> {
        (0..self.world)
            .map(|rank| {
                let mapping = if rank == self.rank {
                    Arc::clone(&own.mapping)
                } else {
                    Arc::new(self.map_peer(rank, own.layout.total(), roster.memories[rank].as_fd())?)
                };
                let memory = SharedMemory::new(mapping, Arc::clone(&own.layout), rank)?;
                self.check_identity(&memory, rank, welcome.nonce, own.layout.total())?;
                Ok(memory)
            })
            .collect()
    }

    /// Memory that can shrink would kill whoever touches what is gone: the seals are checked before it is mapped.
    fn map_peer(&self, rank: usize, bytes: usize, memory: BorrowedFd<'_>) -> Result<Mapping> {
        memfd::verify_sealed(memory, bytes)
            .map_err(|error| self.error(format!("the memory of rank {rank} is refused: {error}")))?;
        Mapping::shared(memory, 0, bytes, Access::ReadWrite).map_err(Error::os("mapping a peer's memory"))
    }

    fn check_identity(&self, memory: &SharedMemory, rank: usize, nonce: u64, bytes: usize) -> Result<()> {
        let expected = Identity { rank, world: self.world, bytes, nonce };
        match memory.header().identity() {
            Ok(found) if found == expected => Ok(()),
            Ok(found) => Err(self.error(format!(
                "the memory of rank {rank} is refused: expected {expected:?}, found {found:?}"
            ))),
            Err(problem) => Err(self.error(format!("the memory of rank {rank} is refused: {problem}"))),
        }
    }
}

impl Roster {
    /// Descriptors in the order of the ranks; what is not a descriptor of a process is not believed.
    fn check_pidfds(&mut self) {
        for (rank, entry) in self.pidfds.iter_mut().enumerate() {
            if let Some(error) = entry.as_ref().and_then(|pidfd| pidfd::verify(pidfd.as_fd()).err()) {
                tracing::warn!(rank, %error, "a rank's process descriptor is refused");
                *entry = None;
            }
        }
    }
}

/// Meet the other ranks. `before_handing_out` is given this rank's memory before anybody else is.
pub(crate) fn meet(
    invitation: &Invitation,
    mut before_handing_out: impl FnMut(BorrowedFd<'_>) -> Result<()>,
) -> Result<Met, NotMet> {
    if invitation.rank == 0 {
        leader::lead(invitation, &mut before_handing_out)
    } else {
        member::join(invitation, &mut before_handing_out).inspect_err(|_| {
            // Rank 0 may have been killed: then its sockets are closed one after the other about now.
            std::thread::sleep(DYING_TAKES);
            invitation.meeting.sweep();
        })
    }
}
