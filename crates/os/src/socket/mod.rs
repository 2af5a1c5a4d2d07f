//! Sockets between processes of one machine, which carry messages, descriptors and the sender's identity.
//!
//! Ranks meet over them: rank 0 listens, the others connect, hand over their memory and learn whose memory
//! they get. A message arrives whole or not at all, with the descriptors that were sent with it. The one
//! invariant that matters: **a call ends at its deadline**, whatever the other side does, and a truncated
//! message is an error, never a shorter message. Deadlines are `Option<Instant>`; `None` waits without end.

mod address;
mod connection;
mod listener;
mod listening;
mod sweep;

pub use address::Address;
pub use connection::{Connection, Credentials, MOST_DESCRIPTORS, Message, Received};
pub use listener::{Listener, holder_of};
pub use listening::listening;
pub use sweep::sweep;

use crate::OsError;

/// Why a socket did not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SocketError {
    /// The deadline passed. The other side is slow, stopped, or not there.
    #[error("timed out {doing}")]
    TimedOut {
        /// What was being waited for.
        doing: String,
    },
    /// Another process listens at this address. End it, or choose another name or port.
    #[error("{address} is in use{}", in_use_by(.holder))]
    InUse {
        /// The address asked for.
        address: Address,
        /// Who listens there, if it could be asked.
        holder: Option<Credentials>,
    },
    /// Nobody listens at this address (yet): is the process that should be running, and in the same network
    /// namespace?
    #[error("nobody listens at {address}")]
    NobodyListens {
        /// The address asked for.
        address: Address,
    },
    /// The address cannot be one: too long, or empty.
    #[error("{address} cannot be an address: {problem}")]
    InvalidAddress {
        /// The address asked for.
        address: Address,
        /// What is wrong with it.
        problem: String,
    },
    /// The other side has closed the connection, so nothing can be sent.
    #[error("the other side has closed the connection")]
    Closed,
    /// The message cannot be sent as one: empty, too long, or with too many descriptors.
    #[error("a message of {bytes} bytes and {descriptors} descriptors cannot be sent: {problem}")]
    CannotSend {
        /// Its bytes.
        bytes: usize,
        /// Its descriptors.
        descriptors: usize,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A longer message arrived than was allowed for; it is lost. The other side speaks another language.
    #[error("a message longer than {allowed} bytes arrived")]
    MessageTooLong {
        /// The bytes allowed for.
        allowed: usize,
    },
    /// Descriptors of a message were lost: more than can be received, or this process has no room for more.
    /// Raise the limit of open files (`ulimit -n`).
    #[error("descriptors of a message were lost: this process may not open that many")]
    DescriptorsLost,
    /// The system refused.
    #[error(transparent)]
    Os(#[from] OsError),
}

impl SocketError {
    /// Whether the deadline passed.
    pub fn is_timed_out(&self) -> bool {
        matches!(self, SocketError::TimedOut { .. })
    }
}

fn in_use_by(holder: &Option<Credentials>) -> String {
    match holder {
        Some(holder) if holder.pid != 0 => {
            let command =
                crate::process::command_line(holder.pid).unwrap_or_else(|| "unknown command".to_owned());
            format!(" by process {} of user {} ({command})", holder.pid, holder.uid)
        }
        Some(holder) => format!(" by a process of user {} in another process namespace", holder.uid),
        None => String::new(),
    }
}
