//! Readers that cannot reach the writer's memory: on other machines, or where they are told to use the network.
//!
//! The writer has an [`Outlet`] to them, each of them is a [`Far`]. Both are thin: how messages travel is `unisono_remote`'s
//! subject, behind the feature `remote`. Without it the same types are there and nobody can have one, so that the rest of the
//! queue need not know. The one invariant that matters: **a message has the same number and order everywhere.**

#[cfg(feature = "remote")]
mod far;
#[cfg(not(feature = "remote"))]
mod nowhere;
#[cfg(feature = "remote")]
mod outlet;

#[cfg(feature = "remote")]
pub(super) use far::{Far, FarControl};
#[cfg(not(feature = "remote"))]
pub(super) use nowhere::{Far, FarControl, Outlet};
#[cfg(feature = "remote")]
pub(super) use outlet::Outlet;

use std::net::IpAddr;

use super::hall::WhenGone;

/// What an outlet is to be.
#[derive(Clone, Debug)]
#[cfg_attr(
    not(feature = "remote"),
    expect(dead_code, reason = "nobody reads it where nobody can be elsewhere")
)]
pub(super) struct Plan {
    pub(super) nonce: [u8; 16],
    pub(super) writer_rank: usize,
    pub(super) ranks: Vec<usize>,
    /// Where to listen; by default at the address at which others reach this machine.
    pub(super) ip: Option<IpAddr>,
    pub(super) policy: WhenGone,
    pub(super) room: Room,
}

/// How much may be unread by a reader elsewhere.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(
    not(feature = "remote"),
    expect(dead_code, reason = "nobody reads it where nobody can be elsewhere")
)]
pub(super) struct Room {
    pub(super) messages: Option<usize>,
    /// Bytes of messages of up to `small` bytes, and of any.
    pub(super) bytes: u64,
    pub(super) small: u64,
    pub(super) bytes_of_any: u64,
}

/// How a wait for readers elsewhere ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waited {
    ThereIsRoom,
    /// A reader elsewhere is gone, without which the queue does not go on.
    #[cfg_attr(not(feature = "remote"), expect(dead_code, reason = "nobody is elsewhere"))]
    SomebodyIsGone,
    /// Something else is to be looked at.
    Roused,
    TimeIsUp,
}
