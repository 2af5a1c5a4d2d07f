//! What can go wrong, as the caller meets it.
//!
//! An argument error is returned before anything is published and changes nothing. Every other error of a
//! collective is terminal: the communicator returns it from then on, and the contents of in-place buffers are
//! unspecified. Errors name the operation, its number, and the ranks that were waited for.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use unisono_os::OsError;

use crate::call::Call;

/// The result of everything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The same inside the crate. On the way of a small collective a result is returned many times: a pointer is cheaper to
/// pass than an [`Error`], which is made once.
pub(crate) type BoxedResult<T> = std::result::Result<T, Box<Error>>;

/// What a rank did last, as the others can see it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LastOperation {
    /// The number of the call, counted from 1 per communicator.
    pub number: u64,
    /// The call.
    pub call: Call,
    /// Whether the rank came out of it again.
    pub finished: bool,
}

impl fmt::Display for LastOperation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = if self.finished { "finished" } else { "inside" };
        write!(f, "{state} #{} {}", self.number, self.call)
    }
}

/// One rank that was waited for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerStatus {
    /// Its rank in the communicator.
    pub rank: usize,
    /// Its process; the own one for ranks that are threads of this process.
    pub pid: u32,
    /// Whether its process is alive, as far as is known here: nobody listens for the end of a rank that has left.
    pub alive: bool,
    /// What it last did; `None` if it never made a call.
    pub last: Option<LastOperation>,
}

impl fmt::Display for PeerStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let alive = if self.alive { "alive" } else { "dead" };
        write!(f, "rank {} (pid {}, {alive}, ", self.rank, self.pid)?;
        match &self.last {
            Some(last) => write!(f, "{last})"),
            None => write!(f, "no call yet)"),
        }
    }
}

fn list(peers: &[PeerStatus]) -> String {
    peers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn reported(by: &Option<usize>) -> String {
    by.map_or(String::new(), |rank| format!(" (noticed by rank {rank})"))
}

/// Everything that can go wrong.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An argument makes no sense. Nothing was published; the communicator is as it was.
    #[error("{operation}: {problem}")]
    InvalidArgument {
        /// The method that was called.
        operation: &'static str,
        /// What was asked, what was found, what to do.
        problem: String,
    },
    /// The deadline passed while ranks were missing. They are stopped, endlessly busy, or never made the call.
    #[error(
        "{call} (#{number}) timed out after {waited:.1?} waiting for {}{}: look at what these ranks do, or raise \
         the timeout of the call",
        list(peers),
        reported(reported_by)
    )]
    Timeout {
        /// The call that timed out.
        call: Call,
        /// Its number.
        number: u64,
        /// How long it waited.
        waited: Duration,
        /// The ranks that had not come.
        peers: Vec<PeerStatus>,
        /// The rank whose deadline passed first, if it was not this one.
        reported_by: Option<usize>,
        /// Whether the communicator is unusable now. It is not if this was a send or recv of which nothing had moved.
        terminal: bool,
    },
    /// A rank's process died.
    #[error("rank {rank} (pid {pid}) died during {call} (#{number}){}; its last operation: {}", reported(reported_by),
        last.as_ref().map_or("none".to_string(), ToString::to_string))]
    PeerDied {
        /// The dead rank.
        rank: usize,
        /// Its process.
        pid: u32,
        /// What it last did.
        last: Option<Box<LastOperation>>,
        /// The call of this rank that could not go on.
        call: Call,
        /// Its number.
        number: u64,
        /// The rank that noticed it, if it was not this one.
        reported_by: Option<usize>,
    },
    /// A rank that is still needed has left the communicator (it was dropped or closed there).
    #[error("rank {rank} (pid {pid}) has left the communicator, but {call} (#{number}) still needs it")]
    PeerLeft {
        /// The rank that left.
        rank: usize,
        /// Its process.
        pid: u32,
        /// The call of this rank that could not go on.
        call: Call,
        /// Its number.
        number: u64,
        /// Whether the communicator is unusable now. It is not if this was a send or recv of which nothing had moved.
        terminal: bool,
    },
    /// Ranks made different calls.
    #[error(
        "ranks made different calls: rank {rank} called {mine} and rank {peer} called {theirs} as call #{number}"
    )]
    Mismatch {
        /// The number of the first call that differs, as far as it is known.
        number: u64,
        /// The rank that noticed.
        rank: usize,
        /// Its call.
        mine: Call,
        /// The other rank.
        peer: usize,
        /// That rank's call.
        theirs: String,
    },
    /// Somebody called `abort` on the communicator.
    #[error("{} aborted the communicator during {call} (#{number})",
        by.map_or("somebody".to_string(), |rank| format!("rank {rank}")))]
    Aborted {
        /// The rank that did, if it is known.
        by: Option<usize>,
        /// The call of this rank that could not go on.
        call: Call,
        /// Its number.
        number: u64,
    },
    /// Another thread of this rank, or an asynchronous operation that comes first, took as long as this call may wait. Nothing
    /// was published.
    #[error(
        "{operation}: another thread or an asynchronous operation has been using this communicator for {waited:.1?}"
    )]
    Busy {
        /// The method that was called.
        operation: &'static str,
        /// How long it waited.
        waited: Duration,
    },
    /// The calling thread asked for the end of its wait, see [`interrupt`](crate::interrupt).
    #[error(
        "{operation} was interrupted on this rank{}",
        if *terminal { ": the communicator is stopped, for all ranks" } else { "" }
    )]
    Interrupted {
        /// The method that was called.
        operation: &'static str,
        /// Whether the communicator is unusable now: if the call had begun. The others hear that this rank aborted.
        terminal: bool,
    },
    /// The threads of a [`Team`](crate::Team) did not keep together, or one of them panicked.
    #[error("a team of threads: {problem}")]
    Team {
        /// What was expected and what was found.
        problem: String,
    },
    /// The communicator was closed on this rank.
    #[error("{operation}: this communicator was closed on this rank")]
    Closed {
        /// The method that was called.
        operation: &'static str,
    },
    /// This process is a forked child of the one that made the communicator, which does not survive fork.
    #[error(
        "{operation}: this process was forked from the one that made the communicator (pid {parent}); a communicator \
         does not survive fork: make a new one here, or start workers with spawn"
    )]
    Forked {
        /// The method that was called.
        operation: &'static str,
        /// The process that made the communicator.
        parent: u32,
    },
    /// The ranks could not find one another.
    #[error("rendezvous of {group}: {problem}")]
    Rendezvous {
        /// Which group, with everything that its name is made of.
        group: String,
        /// What was expected and what was found.
        problem: String,
        /// Ranks that never came, if that is the problem.
        missing: Vec<usize>,
    },
    /// A setting or environment variable makes no sense, or does not fit the others.
    #[error("{name}={value:?}: {problem}")]
    Setting {
        /// The variable or setting.
        name: String,
        /// What it holds.
        value: String,
        /// What was expected.
        problem: String,
    },
    /// More memory is needed than may still be had.
    #[error(
        "{what} needs {needed} bytes, but only {available} may still be had (limited by {limited_by}): {advice}"
    )]
    OutOfMemory {
        /// What the memory is for.
        what: String,
        /// How much is needed, in bytes.
        needed: u64,
        /// How much there is, in bytes.
        available: u64,
        /// Which limit says so.
        limited_by: String,
        /// What to do.
        advice: &'static str,
    },
    /// A shared segment is not what it should be.
    #[error("segment {name}: {problem}")]
    Segment {
        /// Its name.
        name: String,
        /// What was expected and what was found.
        problem: String,
    },
    /// The operating system refused something.
    #[error("{doing}: {source}")]
    Os {
        /// What was being done.
        doing: &'static str,
        /// What the system said.
        source: Arc<OsError>,
    },
}

impl From<Box<Error>> for Error {
    fn from(error: Box<Error>) -> Self {
        *error
    }
}

impl Error {
    pub(crate) fn os(doing: &'static str) -> impl FnOnce(OsError) -> Error {
        move |source| Error::Os { doing, source: Arc::new(source) }
    }

    pub(crate) fn argument(operation: &'static str, problem: impl Into<String>) -> Error {
        Error::InvalidArgument { operation, problem: problem.into() }
    }

    pub(crate) fn team(problem: impl Into<String>) -> Error {
        Error::Team { problem: problem.into() }
    }

    /// Whether the communicator is unusable after this error.
    pub fn is_terminal(&self) -> bool {
        match self {
            Error::Timeout { terminal, .. }
            | Error::PeerLeft { terminal, .. }
            | Error::Interrupted { terminal, .. } => *terminal,
            Error::PeerDied { .. } | Error::Mismatch { .. } | Error::Aborted { .. } => true,
            Error::Closed { .. } | Error::Forked { .. } => true,
            _ => false,
        }
    }
}
