//! The two ways in which ranks come together, side by side: processes and threads of one process.
//!
//! A backend provides each rank's memory to all ranks, knows who is alive, and forms sub-groups. Everything above works on
//! [`Members`](super::members::Members) and does not know which backend brought them together; the same
//! tests run on both.

pub(crate) mod in_process;
pub(crate) mod processes;

use std::sync::Arc;
use std::time::Duration;

use super::rendezvous::alongside::Alongside;
use super::{Assembled, Group};
use crate::error::Result;
use in_process::House;
use processes::Neighbours;

/// How the ranks of a group are connected.
#[derive(Debug)]
pub(crate) enum Backend {
    /// Each rank is a process.
    Processes(Neighbours),
    /// Each rank is a thread of this process.
    InProcess(Arc<House>),
}

/// One sub-group, as all its members know it.
#[derive(Clone, Debug)]
pub(crate) struct Subgroup {
    /// Its members' ranks in the parent, in the order of their new ranks.
    pub(crate) members: Vec<usize>,
    /// This rank's new rank.
    pub(crate) rank: usize,
    /// What tells it from all other sub-groups of the parent.
    pub(crate) color: u64,
    /// The number of the split within the parent.
    pub(crate) split: u64,
    /// Who reserves memory in this split, the own sub-group included.
    pub(crate) alongside: Alongside,
}

impl Backend {
    /// Nobody is to come to this group any more: give its name free.
    pub(crate) fn close_door(&self, rank: usize) {
        if let Backend::Processes(neighbours) = self {
            neighbours.close_door(rank);
        }
    }

    /// Form a sub-group of `parent`. All members call this at once; ranks that are in none pass `None`.
    pub(crate) fn split(
        &self,
        parent: &Group,
        subgroup: Option<&Subgroup>,
        timeout: Option<Duration>,
    ) -> Result<Option<Assembled>> {
        match self {
            Backend::Processes(neighbours) => neighbours.split(parent, subgroup, timeout),
            Backend::InProcess(house) => house.split(parent, subgroup, timeout),
        }
    }
}
