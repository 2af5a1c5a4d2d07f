//! Ranks that are threads of one process: for tests, for ThreadSanitizer, and for engines that run in one process.
//!
//! All ranks share one mapping per rank, at one address, so that a race detector sees both sides of every access.
//! Threads are not killed, so nobody dies here; a rank that is dropped has left.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use unisono_os::mapping::Mapping;

use super::{Backend, Registration, Subgroup};
use crate::call::Operation;
use crate::collectives::broadcast::{barrier, meet};
use crate::error::{Error, Result};
use crate::group::header::Identity;
use crate::group::layout::Layout;
use crate::group::members::Members;
use crate::group::rendezvous::name::Drawn;
use crate::group::shared_memory::SharedMemory;
use crate::group::{Assembled, Group};
use crate::parameters::Parameters;
use crate::segment::check_headroom;

/// Which memory: of the sub-group with this split number and color, the member with this rank.
type Key = (u64, u64, usize);

/// What a member of a new sub-group lays down: its memory, and a house, of which the first member's is used by all.
type LaidDown = (Arc<Mapping>, Arc<House>);

/// What the ranks of one group share beside their memories: a place where new sub-groups lay down theirs, and where
/// ranks lay down what they register.
#[derive(Debug, Default)]
pub(crate) struct House {
    laid_down: Mutex<HashMap<Key, LaidDown>>,
    /// By the registration's name and rank. Who uses the memory keeps it, nobody else.
    registered: Mutex<HashMap<(Drawn, usize), Weak<Mapping>>>,
}

/// Bring `world` ranks of this process together.
pub(crate) fn assemble(world: usize, parameters: &Parameters) -> Result<Vec<Assembled>> {
    let layout = Arc::new(Layout::new(world, parameters)?);
    let mappings = (0..world).map(|_| new_memory(&layout)).collect::<Result<Vec<_>>>()?;
    let house = Arc::new(House::default());
    let name = format!("{world} threads of process {}", unisono_os::process::pid());
    (0..world)
        .map(|rank| {
            let backend = Backend::InProcess(Arc::clone(&house));
            assembled(name.clone(), rank, &mappings, parameters, &layout, backend)
        })
        .collect()
}

fn new_memory(layout: &Layout) -> Result<Arc<Mapping>> {
    Mapping::anonymous(layout.total()).map(Arc::new).map_err(Error::os("mapping a rank's memory"))
}

fn assembled(
    name: String,
    rank: usize,
    mappings: &[Arc<Mapping>],
    parameters: &Parameters,
    layout: &Arc<Layout>,
    backend: Backend,
) -> Result<Assembled> {
    let world = mappings.len();
    let memories = mappings
        .iter()
        .enumerate()
        .map(|(owner, mapping)| SharedMemory::new(Arc::clone(mapping), Arc::clone(layout), owner))
        .collect::<Result<Vec<_>>>()?;
    memories[rank].header().identify(Identity { rank, world, bytes: layout.total(), nonce: 0 });
    let members = Members::new(rank, vec![unisono_os::process::pid(); world], memories);
    Ok(Assembled {
        name,
        parameters: parameters.clone(),
        layout: Arc::clone(layout),
        members: Arc::new(members),
        crowded: world as f64 > unisono_os::cpu::usable_cores(),
        backend,
    })
}

impl House {
    /// Lay the own memory down, wait until everybody has, take what the others laid down.
    pub(crate) fn split(
        &self,
        parent: &Group,
        subgroup: Option<&Subgroup>,
        timeout: Option<Duration>,
    ) -> Result<Option<Assembled>> {
        let layout = match subgroup {
            Some(subgroup) => Some(Arc::new(Layout::new(subgroup.members.len(), &parent.parameters)?)),
            None => None,
        };
        if let (Some(subgroup), Some(layout)) = (subgroup, &layout) {
            let memory = new_memory(layout)?;
            let house = Arc::new(House::default());
            self.laid_down.lock().insert((subgroup.split, subgroup.color, subgroup.rank), (memory, house));
        }
        barrier(parent, Operation::Split, timeout)?;
        let taken = subgroup.map(|subgroup| self.take(subgroup)).transpose()?;
        barrier(parent, Operation::Split, timeout)?;
        let (Some(subgroup), Some(layout), Some(taken)) = (subgroup, layout, taken) else { return Ok(None) };
        self.laid_down.lock().remove(&(subgroup.split, subgroup.color, subgroup.rank));
        let name = format!("{} (split {})", parent.name, subgroup.split);
        let (mappings, houses): (Vec<_>, Vec<_>) = taken.into_iter().unzip();
        // The first member's house is everybody's.
        let backend = Backend::InProcess(Arc::clone(&houses[0]));
        assembled(name, subgroup.rank, &mappings, &parent.parameters, &layout, backend).map(Some)
    }

    /// Lay the own memory down, wait until everybody has, take what the others laid down.
    pub(crate) fn register(
        &self,
        parent: &Group,
        registration: Registration,
        timeout: Option<Duration>,
    ) -> Result<Vec<SharedMemory>> {
        let Registration { name, call, bytes } = registration;
        let (rank, world) = (parent.members.rank, parent.members.world);
        let layout = Arc::new(Layout::registered(world, bytes)?);
        let sum = layout.total().saturating_mul(world);
        let suffices = check_headroom(&format!("the registered memory of {world} ranks"), sum);
        // Everybody compares before anybody reserves.
        meet(parent, call, timeout)?;
        let own = suffices.and_then(|()| new_memory(&layout)).and_then(|memory| {
            memory.populate().map_err(Error::os("reserving registered memory"))?;
            Ok(memory)
        });
        if let Ok(own) = &own {
            let mut registered = self.registered.lock();
            registered.retain(|_, memory| memory.strong_count() > 0);
            registered.insert((name, rank), Arc::downgrade(own));
        }
        meet(parent, call, timeout)?;
        let own = own?;
        let registered = self.registered.lock();
        (0..world)
            .map(|owner| {
                let memory = if owner == rank {
                    Some(Arc::clone(&own))
                } else {
                    registered.get(&(name, owner)).and_then(Weak::upgrade)
                };
                let memory = memory.ok_or_else(|| laid_nothing_down(&call.to_string(), owner))?;
                SharedMemory::new(memory, Arc::clone(&layout), owner)
            })
            .collect()
    }

    fn take(&self, subgroup: &Subgroup) -> Result<Vec<LaidDown>> {
        let laid_down = self.laid_down.lock();
        (0..subgroup.members.len())
            .map(|rank| {
                let found = laid_down.get(&(subgroup.split, subgroup.color, rank)).cloned();
                found.ok_or_else(|| laid_nothing_down(&format!("split {}", subgroup.split), rank))
            })
            .collect()
    }
}

fn laid_nothing_down(what: &str, rank: usize) -> Error {
    Error::Rendezvous {
        group: format!("{what} of threads"),
        problem: format!("rank {rank} laid down no memory"),
        missing: vec![rank],
    }
}
