//! Ranks that are threads of one process: for tests, for ThreadSanitizer, and for engines that run in one process.
//!
//! All ranks share one mapping per rank, at one address, so that a race detector sees both sides of every access.
//! Threads are not killed, so nobody dies here; a rank that is dropped has left.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use unisono_os::mapping::Mapping;

use super::{Backend, Subgroup};
use crate::call::Operation;
use crate::collectives::broadcast::barrier;
use crate::error::{Error, Result};
use crate::group::header::Identity;
use crate::group::layout::Layout;
use crate::group::members::Members;
use crate::group::shared_memory::SharedMemory;
use crate::group::{Assembled, Group};
use crate::parameters::Parameters;

/// Which memory: of the sub-group with this split number and color, the member with this rank.
type Key = (u64, u64, usize);

/// What a member of a new sub-group lays down: its memory, and a house, of which the first member's is used by all.
type LaidDown = (Arc<Mapping>, Arc<House>);

/// What the ranks of one group share beside their memories: a place where new sub-groups lay down theirs.
#[derive(Debug, Default)]
pub(crate) struct House {
    laid_down: Mutex<HashMap<Key, LaidDown>>,
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

    fn take(&self, subgroup: &Subgroup) -> Result<Vec<LaidDown>> {
        let laid_down = self.laid_down.lock();
        (0..subgroup.members.len())
            .map(|rank| {
                laid_down.get(&(subgroup.split, subgroup.color, rank)).cloned().ok_or_else(|| {
                    Error::Rendezvous {
                        group: format!("split {} of threads", subgroup.split),
                        problem: format!("rank {rank} laid down no memory"),
                        missing: vec![rank],
                    }
                })
            })
            .collect()
    }
}
