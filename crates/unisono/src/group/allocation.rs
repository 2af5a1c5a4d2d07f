//! Registered memory: a piece of each rank's memory that all ranks of the group have mapped.
//!
//! An allocation is a collective call. Every rank makes its own part, touches it first and hands it to all others, by
//! the same means by which a new group hands its memory round. A failure on one rank (no memory, say) is one on all, and
//! the group goes on; but a rank that cannot even come to where they meet (no descriptor left) stops the group, so that
//! nobody waits for it.
//!
//! The one invariant that matters: **offsets and lengths come from the own call**, which the fingerprint compares with those of
//! the others, and never from shared memory. Freeing is local: a peer that still reads or writes has a mapping of its
//! own, which keeps the memory.

use std::sync::{Arc, Weak};
use std::time::Duration;

use unisono_kernels::DType;
use unisono_os::fork_guard::ForkMark;

use super::Group;
use super::backend::{Registered, Registration, draw_names};
use super::members::Members;
use super::shared_memory::SharedMemory;
use crate::arguments;
use crate::call::{Call, Operation};
use crate::collectives::blocks::Table;
use crate::collectives::gather;
use crate::error::{Error, Result};
use crate::fault;
use crate::memory::{Source, Target};

/// One allocation, as one rank holds it.
#[derive(Debug)]
pub(crate) struct Allocation {
    /// By rank.
    memories: Vec<SharedMemory>,
    rank: usize,
    /// Counted from 1 per group; the same on all ranks, because they allocate in the same order.
    pub(crate) number: u64,
    /// Whose ranks they are.
    group: Weak<Members>,
    born: ForkMark,
    parent: u32,
}

impl Allocation {
    /// Make the allocation, together with all other ranks.
    pub(crate) fn new(group: &Group, count: usize, dtype: DType, timeout: Option<Duration>) -> Result<Self> {
        let bytes = arguments::total_bytes("alloc", count, dtype.size_bytes(), 1)?;
        // Before the lock is taken: an operation that was started earlier may want it, and is waited for here.
        group.enter_in_turn("alloc", timeout)?;
        let mut allocations = group.lock_allocations("alloc", timeout)?;
        let call = Call::new(Operation::Alloc).of(count, dtype);
        let name = draw_names(group, call, group.members.rank == 0, timeout)?[0];
        *allocations += 1;
        fault::reach("before_register");
        let made = match group.backend.register(group, Registration { name, call, bytes }, timeout) {
            Registered::Made(memories) => Ok(memories),
            Registered::Failed(error) => Err(error),
            Registered::CouldNotCome(error) => {
                group.abort();
                return Err(error);
            }
        };
        let memories = agree(group, call, made, timeout).inspect_err(|error| {
            // Another thread kept the communicator from the rest of the call: nobody may wait for it.
            if matches!(error, Error::Busy { .. }) {
                group.abort();
            }
        })?;
        Ok(Allocation {
            memories,
            rank: group.members.rank,
            number: *allocations,
            group: Arc::downgrade(&group.members),
            born: ForkMark::now(),
            parent: unisono_os::process::pid(),
        })
    }

    /// A rank's part.
    #[inline]
    pub(crate) fn part(&self, rank: usize) -> Target<'_> {
        self.memories[rank].registered()
    }

    /// This rank's part.
    #[inline]
    pub(crate) fn own(&self) -> Target<'_> {
        self.part(self.rank)
    }

    /// See that it belongs to the group whose ranks these are.
    pub(crate) fn check_group(&self, operation: &'static str, members: &Arc<Members>) -> Result<()> {
        if std::ptr::eq(self.group.as_ptr(), Arc::as_ptr(members)) {
            return Ok(());
        }
        let problem = "the memory was allocated on another communicator: allocate it on this one";
        Err(Error::argument(operation, problem))
    }

    /// In a forked child it is not mapped.
    #[inline]
    pub(crate) fn check_mapped(&self, operation: &'static str) -> Result<()> {
        if self.born.crossed_fork() {
            return Err(Error::Forked { operation, parent: self.parent });
        }
        Ok(())
    }
}

/// What was made counts only if all ranks made it.
fn agree<T>(group: &Group, call: Call, made: Result<T>, timeout: Option<Duration>) -> Result<T> {
    if let Err(Error::Busy { .. }) = made {
        return made;
    }
    let succeeded = [u8::from(made.is_ok())];
    let mut all = vec![0u8; group.members.world];
    let blocks = Table::Even(succeeded.len());
    gather::all_gather(group, call, Source::of(&succeeded), Target::of(&mut all), &blocks, None, timeout)?;
    let made = made?;
    let failed: Vec<usize> = (0..all.len()).filter(|rank| all[*rank] == 0).collect();
    if failed.is_empty() {
        return Ok(made);
    }
    let problem = format!("ranks {failed:?} could not take part, and say why; nothing was allocated");
    Err(Error::Rendezvous { group: format!("{} / {call}", group.name), problem, missing: Vec::new() })
}
