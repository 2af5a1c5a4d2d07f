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
use super::rendezvous::name::{DRAWN_BYTES, Drawn, Meeting};
use super::shared_memory::SharedMemory;
use super::{Assembled, Group};
use crate::call::Call;
use crate::collectives::blocks::Table;
use crate::collectives::gather;
use crate::error::{Error, Result};
use crate::memory::{Source, Target};
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

/// One allocation of registered memory, as all ranks know it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Registration {
    /// The name that they agreed on for it.
    pub(crate) name: Drawn,
    pub(crate) call: Call,
    /// Data of each rank.
    pub(crate) bytes: usize,
}

/// What came of this rank's part in a registration.
pub(crate) enum Registered {
    /// Memories by rank.
    Made(Vec<SharedMemory>),
    /// The others do not wait for this rank, and can be told so.
    Failed(Error),
    /// The others wait for this rank, which has no means to tell them but to stop the group.
    CouldNotCome(Error),
}

/// Ranks of `parent` that are to lead others draw a name, and all learn all names, as part of `call`.
pub(crate) fn draw_names(
    parent: &Group,
    call: Call,
    leads: bool,
    timeout: Option<Duration>,
) -> Result<Vec<Drawn>> {
    let drawn = if leads { Meeting::draw()? } else { [0; DRAWN_BYTES] };
    let mut all = vec![0u8; DRAWN_BYTES * parent.members.world];
    let blocks = Table::Even(DRAWN_BYTES);
    gather::all_gather(parent, call, Source::of(&drawn), Target::of(&mut all), &blocks, None, timeout)?;
    Ok(all.as_chunks().0.to_vec())
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

    /// Make this rank's part of a registration and map those of all others. All members call this at once; on an error
    /// others may have succeeded.
    pub(crate) fn register(
        &self,
        parent: &Group,
        registration: Registration,
        timeout: Option<Duration>,
    ) -> Registered {
        match self {
            Backend::Processes(neighbours) => neighbours.register(parent, registration, timeout),
            Backend::InProcess(house) => house
                .register(parent, registration, timeout)
                .map_or_else(Registered::Failed, Registered::Made),
        }
    }
}
