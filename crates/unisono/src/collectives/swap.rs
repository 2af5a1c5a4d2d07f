//! Swap: for each pair of ranks two regions whose roles flip with every use.
//!
//! In one use a rank writes one of the pair's regions and reads the other; in the next it writes the region
//! that it has just read. So the lines it writes are its own already, and no acknowledgement is needed where both
//! ranks read: a rank overwrites only what it has itself read. Where only one side had something to write
//! (rooted operations), the space rule of [`super::run`] applies, by the same code.
//!
//! ```text
//!   use      region in a's memory      region in b's memory
//!   even     a writes, b reads         b writes, a reads
//!   odd      b writes, a reads         a writes, b reads
//! ```
//!
//! Source: ownership migration of cache lines, measured in docs/performance.md.

use super::run::Run;
use crate::error::BoxedResult;
use crate::memory::{Source, Target};

/// One use of all swap regions, in the open step.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Swap {
    flipped: bool,
}

impl<'g> Run<'g> {
    /// Open a step that uses the swap regions. Every rank does so in the same step.
    #[inline]
    pub(crate) fn open_swap(&mut self) -> BoxedResult<Swap> {
        self.open_step()?;
        let flipped = self.steps.swap_uses % 2 == 1;
        self.steps.swap_uses += 1;
        Ok(Swap { flipped })
    }

    /// Where this rank writes for `peer`, once the peer has read what was there.
    #[inline]
    pub(crate) fn outbox(&mut self, swap: Swap, peer: usize) -> BoxedResult<Target<'g>> {
        let in_own_memory = !swap.flipped;
        let step = self.step();
        let written = std::mem::replace(&mut self.steps.swap_written[peer][usize::from(in_own_memory)], step);
        self.wait_until_passed(1 << peer, written)?;
        Ok(self.swap_region(peer, in_own_memory))
    }

    /// Where `peer` has written for this rank, after [`Run::wait_for`] it.
    #[inline]
    pub(crate) fn inbox(&self, swap: Swap, peer: usize) -> Source<'g> {
        self.swap_region(peer, swap.flipped).as_source()
    }

    #[inline]
    fn swap_region(&self, peer: usize, in_own_memory: bool) -> Target<'g> {
        let members = self.members;
        if in_own_memory { members.own().swap(peer) } else { members.memory(peer).swap(members.rank) }
    }
}
