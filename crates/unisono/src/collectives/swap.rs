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
//! A small message is a **packet**: the line before its data carries a tag (`unisono_protocol::tag`), so that its reader
//! learns from the message itself that it has come, and needs no look at the writer's arrival line. That line is
//! published all the same, while the tag travels: for sleepers, for aborts, and for ranks that make other calls. What fits
//! beside the tag stands in its line, and only one line travels.
//!
//! Source: ownership migration of cache lines, measured in docs/performance.md.

use super::run::Run;
use crate::counts;
use crate::error::BoxedResult;
use crate::fault;
use crate::group::layout::BESIDE_TAG;
use crate::group::members::Members;
use crate::group::shared_memory::SwapRegion;
use crate::memory::{Source, Target};

/// How often a waiter looks for the tags of packets before it turns to the arrival lines; about 1 to 2 µs.
const LOOKS_FOR_TAGS: u32 = 64;

/// One use of all swap regions, in the open step.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Swap {
    flipped: bool,
    /// Whether the messages are packets.
    tagged: bool,
    /// Whether they stand in the line of their tag.
    beside_tag: bool,
}

impl<'g> Run<'g> {
    /// Open a step that uses the swap regions for messages of up to `bytes` bytes. Every rank does so in the same step,
    /// with the same number.
    #[inline(always)]
    pub(crate) fn open_swap(&mut self, bytes: usize) -> BoxedResult<Swap> {
        self.open_step()?;
        let flipped = self.steps.swap_uses % 2 == 1;
        self.steps.swap_uses += 1;
        let tagged = self.group.parameters.is_packet(bytes);
        Ok(Swap { flipped, tagged, beside_tag: tagged && bytes <= BESIDE_TAG })
    }

    /// Write `message` for `peer`, once the peer has read what was there.
    #[inline(always)]
    pub(crate) fn put(&mut self, swap: Swap, peer: usize, message: Source<'_>) -> BoxedResult<()> {
        let in_own_memory = !swap.flipped;
        let step = self.step();
        let written = std::mem::replace(&mut self.steps.swap_written[peer][usize::from(in_own_memory)], step);
        self.wait_until_passed_by(peer, written)?;
        let outbox = region(self.members, peer, in_own_memory);
        self.in_shares(message.len(), |share| share.copy(swap.message_in(outbox), message));
        if swap.tagged {
            self.steps.taken.announce(outbox.tag(), self.steps.history);
            counts::tag_announced();
            fault::reach("after_tag");
        }
        Ok(())
    }

    /// After [`Run::publish`]: wait for the messages of `peers`.
    #[inline(always)]
    pub(crate) fn wait_for_messages(&mut self, swap: Swap, peers: u64) -> BoxedResult<()> {
        let members = self.members;
        let missing = if swap.tagged && !self.group.crowded && peers != 0 {
            (0..self.group.pauses_before_tags).for_each(|_| std::hint::spin_loop());
            let tag_of = |peer: usize| region(members, peer, swap.flipped).tag();
            self.steps.taken.look_for(peers, tag_of, LOOKS_FOR_TAGS, std::hint::spin_loop)
        } else {
            peers
        };
        if missing == 0 { Ok(()) } else { self.wait_for(missing) }
    }

    /// Where `peer` has written for this rank, after [`Run::wait_for_messages`].
    #[inline(always)]
    pub(crate) fn inbox(&self, swap: Swap, peer: usize) -> Source<'g> {
        swap.message_in(region(self.members, peer, swap.flipped)).as_source()
    }
}

impl Swap {
    /// Where a message of this use stands in a region.
    #[inline(always)]
    fn message_in(self, region: SwapRegion<'_>) -> Target<'_> {
        if self.beside_tag { region.beside_tag() } else { region.data() }
    }
}

/// Pauses before the first look for a tag. A look that comes too early takes the line away from the writer that is about to
/// write it, and the message then takes two transfers more; one that comes late waits for nothing. Measured at 64 bytes: on
/// AMD's processors, whose pause takes 18 ns, 1 is best whether cores are near (none 0.120, one 0.116, two 0.137 µs) or far
/// (0.29, 0.22, 0.25 µs); on Intel's 2 are better than none (0.24 instead of 0.29 µs).
pub(crate) fn pauses_before_tags() -> u32 {
    if unisono_kernels::is_amd() { 1 } else { 2 }
}

/// One of the two regions that this rank shares with `peer`.
#[inline(always)]
fn region(members: &Members, peer: usize, in_own_memory: bool) -> SwapRegion<'_> {
    let (memory, other) =
        if in_own_memory { (members.own(), peer) } else { (members.memory(peer), members.rank) };
    memory.swap(other)
}
