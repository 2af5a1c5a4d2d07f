//! What ranks say to one another before they share memory, and the limits within which it is believed.
//!
//! ```text
//!   rank r                         rank 0
//!     Hello {who I am}        ──►           every rank, in any order
//!                             ◄──  Seated              heard; or  Refused {why}
//!                             ◄──  Welcome {what we agreed on}   or  Refused {why}
//!     Memory + memfd, pidfd   ──►
//!                             ◄──  Roster {pids} + all memfds, all pidfds
//!     Ready                   ──►           mapped and checked
//!                             ◄──  Go
//! ```

use std::os::fd::BorrowedFd;
use std::time::Instant;

use serde::{Deserialize, Serialize};
use unisono_os::socket::{Connection, Message as Packet, Received, SocketError};

use crate::parameters::Parameters;

/// Changes whenever a message or the layout of the memory does.
pub(crate) const VERSION: u32 = 2;
const LONGEST: usize = 64 * 1024;

/// Who a rank is and where it runs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Hello {
    pub(crate) version: u32,
    pub(crate) rank: usize,
    pub(crate) world: usize,
    pub(crate) pid: u32,
    pub(crate) cpus: Vec<usize>,
    pub(crate) quota: Option<f64>,
    /// Memory it may still get, which limit says so, and in which cgroup namespace that limit is.
    pub(crate) headroom: u64,
    pub(crate) limited_by: String,
    pub(crate) limited_in: Option<u64>,
}

/// What all ranks go by from now on.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Welcome {
    pub(crate) nonce: u64,
    pub(crate) parameters: Parameters,
    pub(crate) crowded: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Message {
    Hello(Hello),
    /// Rank 0 lives and has heard the hello; what it waits for now are the others.
    Seated,
    Welcome(Welcome),
    /// The end, from rank 0; `missing` are ranks that never came.
    Refused {
        problem: String,
        missing: Vec<usize>,
    },
    /// The sender's memfd, and its pidfd if it has one.
    Memory,
    /// All ranks' processes, and which of them have a pidfd; with all memfds, then those pidfds.
    Roster {
        pids: Vec<u32>,
        has_pidfd: Vec<bool>,
    },
    Ready,
    Go,
    /// The end, from another rank.
    Failed {
        problem: String,
    },
}

/// Send a message.
pub(crate) fn send(
    connection: &Connection,
    message: &Message,
    descriptors: &[BorrowedFd<'_>],
    deadline: Option<Instant>,
) -> Result<(), SocketError> {
    let bytes = postcard::to_stdvec(message).map_err(|_| SocketError::MessageTooLong { allowed: LONGEST })?;
    connection.send(&bytes, descriptors, deadline)
}

/// Receive a message; `None` if the other side has gone. What cannot be understood is a failure of the other side.
pub(crate) fn receive(
    connection: &Connection,
    deadline: Option<Instant>,
) -> Result<Option<(Message, Packet)>, SocketError> {
    match connection.receive(LONGEST, deadline)? {
        Received::Closed => Ok(None),
        Received::Message(packet) => {
            let message = postcard::from_bytes(&packet.bytes).unwrap_or_else(|error| Message::Failed {
                problem: format!(
                    "sent a message that cannot be understood ({error}): is it another version of unisono?"
                ),
            });
            Ok(Some((message, packet)))
        }
    }
}
