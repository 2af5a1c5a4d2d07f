//! Why a function does not return `UNISONO_STATUS_OK`: the library's two kinds of errors, and what is found out before it is called.

use std::time::Duration;

use unisono::{Error, queue};

use crate::status::unisono_status;

/// Why a function does not return `UNISONO_STATUS_OK`.
#[derive(Debug)]
pub(crate) enum Problem {
    /// Found out here, before the library was called.
    Argument { operation: &'static str, problem: String },
    /// The caller's buffer has too little room.
    TooSmall { operation: &'static str, needed: usize, found: usize },
    /// What was started is not over.
    Unfinished { operation: &'static str, waited: Duration },
    /// Another thread is in a call on the same side of a queue.
    InUse { operation: &'static str },
    /// Caught at the edge.
    Panic { operation: &'static str, message: String },
    /// Of a communicator.
    Library(Error),
    /// Of a queue.
    Queue(queue::Error),
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        Problem::Library(error)
    }
}

impl From<queue::Error> for Problem {
    fn from(error: queue::Error) -> Self {
        match error {
            queue::Error::System(error) => Problem::Library(error),
            other => Problem::Queue(other),
        }
    }
}

impl Problem {
    pub(crate) fn status(&self) -> unisono_status {
        use unisono_status as S;
        match self {
            Problem::Argument { .. } => S::InvalidArgument,
            Problem::TooSmall { .. } => S::TooSmall,
            Problem::Unfinished { .. } => S::Unfinished,
            Problem::InUse { .. } => S::Busy,
            Problem::Panic { .. } => S::Panic,
            Problem::Library(error) => match error {
                Error::InvalidArgument { .. } => S::InvalidArgument,
                Error::Timeout { .. } => S::Timeout,
                Error::PeerDied { .. } => S::PeerDied,
                Error::PeerLeft { .. } => S::PeerLeft,
                Error::Mismatch { .. } => S::Mismatch,
                Error::Aborted { .. } => S::Aborted,
                Error::Busy { .. } => S::Busy,
                Error::Interrupted { .. } => S::Interrupted,
                Error::Closed { .. } => S::Closed,
                Error::Forked { .. } => S::Forked,
                Error::Rendezvous { .. } => S::Rendezvous,
                Error::Setting { .. } => S::Setting,
                Error::OutOfMemory { .. } => S::OutOfMemory,
                Error::Os { .. } => S::System,
                _ => S::Other,
            },
            Problem::Queue(error) => match error {
                queue::Error::InvalidArgument { .. } => S::InvalidArgument,
                queue::Error::Timeout { .. } => S::Timeout,
                queue::Error::PeerDied { .. } => S::PeerDied,
                queue::Error::PeerLeft { .. } => S::PeerLeft,
                queue::Error::PeerBroken { .. } => S::PeerBroken,
                queue::Error::LinkLost { .. } => S::LinkLost,
                queue::Error::Lost { .. } => S::Lost,
                queue::Error::Elsewhere { .. } => S::Elsewhere,
                queue::Error::Undelivered { .. } => S::Undelivered,
                queue::Error::RankTaken { .. } => S::RankTaken,
                queue::Error::UnknownRank { .. } => S::UnknownRank,
                queue::Error::Handle { .. } => S::Handle,
                queue::Error::Meeting { .. } => S::Meeting,
                queue::Error::Cancelled { .. } => S::Cancelled,
                queue::Error::ShutDown { .. } => S::ShutDown,
                queue::Error::Forked { .. } => S::Forked,
                _ => S::Other,
            },
        }
    }
}
