//! What can go wrong with a queue, as its writer and its readers meet it.
//!
//! A time-out, a cancelled wait and an argument error change nothing: the next call goes on. Whoever is waited for is
//! named with what it last did.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The result of everything in this module that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Which side of a queue a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The one that writes.
    Writer,
    /// One of those that read.
    Reader,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Writer => "the writer",
            Role::Reader => "the reader",
        })
    }
}

/// What is known of a reader's process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Presence {
    /// Nobody has claimed the rank yet.
    Awaited,
    /// It is alive.
    Alive,
    /// It said goodbye.
    Left,
    /// Its process died.
    Dead,
    /// It wrote a position that cannot be, and is listened to no more.
    Broken,
    /// Its connection was lost: its process died, or its machine, or the way there.
    Unreachable,
}

/// One reader, as its writer sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ReaderStatus {
    /// Its rank.
    pub rank: usize,
    /// Its process, once one has claimed the rank.
    pub pid: Option<u32>,
    /// Whether it is there.
    pub presence: Presence,
    /// Messages that it has not finished with.
    pub lag_messages: u64,
    /// Bytes of the ring that it keeps occupied.
    pub lag_bytes: u64,
    /// How long ago it finished a message or came in; `None` if it never did.
    pub last_step: Option<Duration>,
    /// The address from which it came, if that is not this machine's memory.
    pub address: Option<String>,
}

impl fmt::Display for ReaderStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let presence = match self.presence {
            Presence::Awaited => return write!(f, "rank {} (nobody has claimed it yet)", self.rank),
            Presence::Alive => "alive",
            Presence::Left => "left",
            Presence::Dead => "dead",
            Presence::Broken => "broken",
            Presence::Unreachable => "unreachable",
        };
        let mut pid = self.pid.map_or("unknown".to_string(), |pid| pid.to_string());
        if let Some(address) = &self.address {
            pid = format!("{pid} at {address}");
        }
        let (messages, bytes) = (self.lag_messages, self.lag_bytes);
        write!(f, "rank {} (pid {pid}, {presence}, behind by {messages} messages, {bytes} bytes", self.rank)?;
        match self.last_step {
            Some(ago) => write!(f, ", last step {ago:.1?} ago)"),
            None => write!(f, ", no step yet)"),
        }
    }
}

/// Whom a wait was for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WaitedFor {
    /// These readers.
    Readers(Vec<ReaderStatus>),
    /// The writer, which was alive.
    Writer {
        /// Its rank.
        rank: usize,
        /// Its process.
        pid: u32,
        /// How many messages it has written; of one elsewhere, how many of them have arrived.
        messages: u64,
        /// Where it is, if it is elsewhere.
        address: Option<String>,
        /// How long ago something last came from it, if it is elsewhere.
        last_step: Option<Duration>,
    },
}

impl fmt::Display for WaitedFor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WaitedFor::Readers(readers) => {
                let names: Vec<String> = readers.iter().map(ToString::to_string).collect();
                f.write_str(&names.join(", "))
            }
            WaitedFor::Writer { rank, pid, messages, address, last_step } => {
                write!(f, "the writer, rank {rank} (pid {pid}")?;
                address.iter().try_for_each(|address| write!(f, " at {address}"))?;
                write!(f, ", alive, {messages} messages so far")?;
                last_step.iter().try_for_each(|ago| write!(f, ", last step {ago:.1?} ago"))?;
                f.write_str(")")
            }
        }
    }
}

/// Everything that can go wrong.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An argument makes no sense. Nothing was changed.
    #[error("{operation}: {problem}")]
    InvalidArgument {
        /// The method that was called.
        operation: &'static str,
        /// What was asked, what was found, what to do.
        problem: String,
    },
    /// The deadline passed. Nothing was lost: the same call may be made again.
    #[error("{operation} timed out after {waited:.1?} waiting for {waited_for}")]
    Timeout {
        /// The method that was called.
        operation: &'static str,
        /// How long it waited.
        waited: Duration,
        /// For whom.
        waited_for: WaitedFor,
    },
    /// The other side's process died. What it had written before can be read first.
    #[error("{role}, rank {rank} (pid {pid}), died")]
    PeerDied {
        /// Which side it was.
        role: Role,
        /// Its rank.
        rank: usize,
        /// Its process.
        pid: u32,
    },
    /// The other side said goodbye. What it had written before can be read first.
    #[error("{role}, rank {rank} (pid {pid}), has left the queue")]
    PeerLeft {
        /// Which side it was.
        role: Role,
        /// Its rank.
        rank: usize,
        /// Its process.
        pid: u32,
    },
    /// The other side wrote what it never may, and is listened to no more.
    #[error("{role}, rank {rank} (pid {pid}), {problem}: nothing from it is trusted any more")]
    PeerBroken {
        /// Which side it was.
        role: Role,
        /// Its rank.
        rank: usize,
        /// Its process.
        pid: u32,
        /// What was found.
        problem: &'static str,
    },
    /// The connection to the other side was lost: at once when it was reset, otherwise when nothing came over it for about
    /// two seconds. Its process died, or its machine, or the way there. What had arrived before can be read first.
    #[error(
        "{role}, rank {rank} (pid {pid} at {address}), cannot be reached any more: it died, or the network to it"
    )]
    LinkLost {
        /// Which side it was.
        role: Role,
        /// Its rank.
        rank: usize,
        /// Its process, on its machine.
        pid: u32,
        /// Its machine.
        address: String,
    },
    /// A message from another machine is missing. None is ever left out in silence: open the queue again.
    #[error(
        "message {expected} is missing, from part {} on: part {}, of message {found}, came in its place",
        .parts.0, .parts.1
    )]
    Lost {
        /// The number of the message that was to come, or to go on; the first is 0.
        expected: u64,
        /// The number of the one of which a part came.
        found: u64,
        /// Messages travel in parts, which are numbered over all messages: the one that was to come, and the one that came.
        parts: (u64, u64),
    },
    /// Readers elsewhere cannot be served, or reached.
    #[error("readers elsewhere: {problem}")]
    Elsewhere {
        /// What was asked, what was found, what to do.
        problem: String,
    },
    /// The memory of a large message did not reach this process; the message stays the next. What the problem names (open
    /// files, memory) is to be raised, and the queue to be opened again.
    #[error("{operation}: the memory of a large message did not arrive: {problem}")]
    Undelivered {
        /// The method that was called.
        operation: &'static str,
        /// What was expected and what was found.
        problem: String,
    },
    /// Another process reads under this rank.
    #[error("rank {rank} is process {pid} already: end that one first, or open another rank")]
    RankTaken {
        /// The rank that was asked for.
        rank: usize,
        /// The process that has it.
        pid: u32,
    },
    /// The handle has no such rank.
    #[error("rank {rank} is none of this queue's readers, which are {ranks:?}")]
    UnknownRank {
        /// The rank that was asked for.
        rank: usize,
        /// Those that there are.
        ranks: Vec<usize>,
    },
    /// The handle is of another version, or damaged.
    #[error("the handle cannot be used: {problem}")]
    Handle {
        /// What was expected and what was found.
        problem: String,
    },
    /// The writer that the handle speaks of could not be met.
    #[error("meeting the writer of queue {queue}: {problem}")]
    Meeting {
        /// Which queue.
        queue: String,
        /// What was expected and what was found.
        problem: String,
    },
    /// The wait was cancelled from another thread. The next call goes on.
    #[error("{operation}: cancelled")]
    Cancelled {
        /// The method that was called.
        operation: &'static str,
    },
    /// This side was shut down, here.
    #[error("{operation}: this side of the queue was shut down")]
    ShutDown {
        /// The method that was called.
        operation: &'static str,
    },
    /// This process is a forked child of the one that has the queue, which does not survive fork.
    #[error("{operation}: this process was forked from the one that has the queue: open it again here")]
    Forked {
        /// The method that was called.
        operation: &'static str,
    },
    /// Memory, or what else the system has to give, does not suffice.
    #[error(transparent)]
    System(#[from] crate::Error),
}

impl Error {
    pub(super) fn os(doing: &'static str) -> impl FnOnce(unisono_os::OsError) -> Error {
        move |error| crate::Error::os(doing)(error).into()
    }

    pub(super) fn argument(operation: &'static str, problem: impl Into<String>) -> Error {
        Error::InvalidArgument { operation, problem: problem.into() }
    }
}
