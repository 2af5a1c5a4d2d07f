//! What can go wrong between machines.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// The result of everything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a publisher cannot be had, or a subscriber not come in.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The address cannot be listened at.
    #[error("listening at {ip}: {problem}: choose an address of this machine at which the others reach it")]
    Bind {
        /// The address that was asked for.
        ip: IpAddr,
        /// The system's reason.
        problem: String,
    },
    /// Nobody answers there.
    #[error("{address} cannot be reached: {problem}")]
    Unreachable {
        /// The publisher's address.
        address: SocketAddr,
        /// The system's reason.
        problem: String,
    },
    /// Somebody is there and does not answer as a publisher does.
    #[error(
        "no answer from {address} within {waited:.1?}: is it a queue's writer of this version, and alive?"
    )]
    NoAnswer {
        /// The publisher's address.
        address: SocketAddr,
        /// How long it was waited for.
        waited: Duration,
    },
    /// What came from there is not tagged with this key.
    #[error(
        "what {address} says is not signed with this queue's key: the handle is of another queue, or somebody else answers there"
    )]
    WrongKey {
        /// The publisher's address.
        address: SocketAddr,
    },
    /// The rank has a reader.
    #[error("rank {rank} is process {pid} at {at} already")]
    Taken {
        /// The rank that was asked for.
        rank: u64,
        /// The process that has it, on its machine.
        pid: u32,
        /// Its machine.
        at: String,
    },
    /// The publisher said no.
    #[error("{address} refuses: {problem}")]
    Refused {
        /// The publisher's address.
        address: SocketAddr,
        /// Why.
        problem: String,
    },
    /// The system, or ZeroMQ, did not do what it was asked.
    #[error("{doing}: {problem}")]
    System {
        /// What it was asked for.
        doing: &'static str,
        /// What it answered.
        problem: String,
    },
}

impl Error {
    pub(crate) fn zmq(doing: &'static str) -> impl FnOnce(zmq::Error) -> Error {
        move |error| Error::System { doing, problem: error.to_string() }
    }
}
