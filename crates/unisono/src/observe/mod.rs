//! Seeing from outside what ranks and queues do, without disturbing them.
//!
//! `unisono ps` asks: [`list`] finds the sockets at which the watchers of communicators and the hosts of queues answer, and
//! puts together what they say. `unisono run` listens as a [`Supervisor`] and names itself to its ranks in
//! [`SUPERVISOR_VARIABLE`]; it still holds their memory when they are dead. The one invariant that matters: **nobody waits for
//! who looks**, and who looks believes nothing unbounded.

mod ask;
mod facts;
mod list;
mod supervisor;

pub use crate::error::LastOperation;
pub use facts::{
    CommunicatorFacts, LastCall, Listing, Process, ProcessFacts, QueueFacts, RankFacts, RankState,
    ReaderFacts, Silent,
};
pub use list::list;
pub(crate) use supervisor::report;
pub use supervisor::{SUPERVISOR_VARIABLE, Supervisor};
