//! What a reader and its writer say to one another over their socket, and the limits within which it is believed.
//!
//! ```text
//!   reader                                   writer
//!     Hello {who, which rank} + memory, pidfd   ──►
//!                                               ◄──  Admitted {geometry} + data, pidfd;  or  Refused {why}
//!     Ready                                     ──►          mapped and checked
//!                                               ◄──  Segment {number} + memory           a large message's home
//!                                               ◄──  Retired {number}                     … is needed no more
//! ```
//!
//! The socket stays open for as long as both live.

use std::os::fd::BorrowedFd;
use std::time::Instant;

use serde::{Deserialize, Serialize};
use unisono_os::socket::{Connection, Message as Packet, Received, SocketError};

/// Changes whenever a message or the layout of the memory does.
pub(super) const VERSION: u32 = 1;
const LONGEST: usize = 4096;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Message {
    /// The sender wants to be reader `rank`; with its memory, and its pidfd if it has one.
    Hello {
        version: u32,
        nonce: [u8; 16],
        rank: usize,
    },
    /// With the ring's memory, and the writer's pidfd if it has one.
    Admitted(Admitted),
    Refused(Refusal),
    Ready,
    /// A large message's home, from now on; with its memory.
    Segment {
        number: u64,
        bytes: u64,
    },
    /// That home is needed no more.
    Retired {
        number: u64,
    },
}

/// What a reader needs to know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Admitted {
    /// Which of the writer's death words is for this reader.
    pub(super) seat: usize,
    pub(super) ring_bytes: u64,
    /// Where its first message begins, and how many there were before.
    pub(super) position: u64,
    pub(super) messages: u64,
    pub(super) has_pidfd: bool,
    /// Whether the processes of this queue outnumber the cores.
    pub(super) crowded: bool,
}

/// Why a reader is turned away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Refusal {
    Taken { pid: u32 },
    Other { problem: String },
}

/// Send a message.
pub(super) fn send(
    connection: &Connection,
    message: &Message,
    descriptors: &[BorrowedFd<'_>],
    deadline: Option<Instant>,
) -> Result<(), SocketError> {
    let bytes = postcard::to_stdvec(message).map_err(|_| SocketError::MessageTooLong { allowed: LONGEST })?;
    connection.send(&bytes, descriptors, deadline)
}

/// Receive a message; `None` if the other side has gone. What cannot be understood is a refusal to go on.
pub(super) fn receive(
    connection: &Connection,
    deadline: Option<Instant>,
) -> Result<Option<(Message, Packet)>, SocketError> {
    match connection.receive(LONGEST, deadline)? {
        Received::Closed => Ok(None),
        Received::Message(packet) => {
            let message = postcard::from_bytes(&packet.bytes).unwrap_or_else(|error| {
                let problem = format!(
                    "it sent a message that cannot be understood ({error}): is it another version of unisono?"
                );
                Message::Refused(Refusal::Other { problem })
            });
            Ok(Some((message, packet)))
        }
    }
}
