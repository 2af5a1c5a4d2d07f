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
//! Somebody who is no reader may ask how things stand (`Question`), is told (`Seen`), and that is all.
//!
//! The socket stays open for as long as both live.

use serde::{Deserialize, Serialize};

use super::error::ReaderStatus;
use crate::words::Language;
pub(super) use crate::words::{receive, send};

/// Changes whenever a message or the layout of the memory does.
pub(super) const VERSION: u32 = 2;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Message {
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
    /// From somebody who is no reader: how do things stand?
    Question,
    Seen(QueueSeen),
}

/// A queue as its writer sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct QueueSeen {
    pub(crate) name: String,
    pub(crate) writer_rank: u64,
    pub(crate) pid: u32,
    pub(crate) messages: u64,
    pub(crate) ring_bytes: u64,
    pub(crate) readers: Vec<ReaderStatus>,
}

/// What a reader needs to know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Admitted {
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
pub(crate) enum Refusal {
    Taken { pid: u32 },
    Other { problem: String },
}

impl Language for Message {
    const LONGEST: usize = 24 * 1024;

    /// A refusal to go on.
    fn not_understood(problem: String) -> Self {
        Message::Refused(Refusal::Other { problem: format!("it {problem}") })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::queue::Presence;
    use unisono_os::socket::Connection;

    #[test]
    fn the_fullest_answer_fits_a_message() {
        let reader = ReaderStatus {
            rank: usize::MAX,
            pid: Some(u32::MAX),
            presence: Presence::Broken,
            lag_messages: u64::MAX,
            lag_bytes: u64::MAX,
            last_step: Some(Duration::from_nanos(u64::MAX)),
            address: None,
        };
        let longest_address = "0000:0000:0000:0000:0000:0000:0000:0000%wlp0s20f3u1u4".to_string();
        let elsewhere = ReaderStatus { address: Some(longest_address), ..reader.clone() };
        let most = super::super::memory::MOST_READERS;
        let seen = QueueSeen {
            name: "01234567".to_string(),
            writer_rank: u64::MAX,
            pid: u32::MAX,
            messages: u64::MAX,
            ring_bytes: u64::MAX,
            readers: [vec![reader; most], vec![elsewhere; most]].concat(),
        };
        let (here, there) = Connection::pair().unwrap();
        send(&here, &Message::Seen(seen.clone()), &[], None).unwrap();
        let arrived = receive::<Message>(&there, None).unwrap().unwrap().0;
        assert_eq!(arrived, Message::Seen(seen));
    }
}
