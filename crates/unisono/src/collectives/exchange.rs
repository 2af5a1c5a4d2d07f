//! Blocks between all pairs of ranks, in pieces that fit the swap regions: the common part of all-gather,
//! reduce-scatter, all-to-all, gather and scatter, and of their uneven forms.
//!
//! Each is a [`Blocks`]: which bytes this rank hands to which peer, and what it does with the pieces that come in.
//! The number of steps is the same on all ranks, because all ranks know the longest block.

use super::run::Run;
use crate::error::BoxedResult;
use crate::memory::{Rows, Source, Target, copy};
use crate::team::share::Share;

/// What one operation hands out and takes in.
pub(crate) trait Blocks<'a> {
    /// The block for `peer`; empty if there is none.
    fn outgoing(&self, peer: usize) -> Source<'a>;

    /// Bytes of the block that comes from `peer`; 0 if there is none.
    fn incoming(&self, peer: usize) -> usize;

    /// Deal with this share of the piece of up to `limit` bytes at `offset` of what this rank keeps for itself: right after
    /// it was handed out, while it is in the cache and the others' pieces are on their way.
    fn keep(&self, _share: Share, _offset: usize, _limit: usize) {}

    /// Deal with this share of the pieces of up to `limit` bytes at `offset` of all incoming blocks; `piece(peer)` is the
    /// peer's.
    fn take<'p>(&self, share: Share, offset: usize, limit: usize, piece: impl Fn(usize) -> Source<'p>);
}

impl Run<'_> {
    /// Bytes that one piece may have, in whole elements.
    pub(crate) fn swap_piece(&self, element: usize) -> usize {
        let region = self.group.layout.swap_bytes;
        // A single rank stages nothing.
        if self.members.world == 1 { usize::MAX } else { (region - region % element).max(element) }
    }

    /// Exchange all blocks, the longest of which anywhere has `longest` bytes. At least one step, so that every call
    /// takes part in the order of things.
    pub(crate) fn exchange<'a>(
        &mut self,
        blocks: &(impl Blocks<'a> + Sync),
        longest: usize,
        element: usize,
    ) -> BoxedResult<()> {
        let limit = self.swap_piece(element);
        let readers = self.those(|peer| blocks.outgoing(peer).len() > 0);
        let only_readers = readers & !self.those(|peer| blocks.incoming(peer) > 0);
        let mut offset: usize = 0;
        for pieces in 1.. {
            self.check_deadline(pieces)?;
            let swap = self.open_swap(longest.saturating_sub(offset).min(limit))?;
            self.look_back(only_readers)?;
            for peer in self.others() {
                let part = blocks.outgoing(peer).part(offset, limit);
                if part.len() > 0 {
                    self.put(swap, peer, part)?;
                }
            }
            self.publish();
            let kept = blocks.outgoing(self.members.rank).part(offset, limit).len();
            self.in_shares(kept, |share| blocks.keep(share, offset, limit));
            let sources = self.those(|peer| blocks.incoming(peer) > offset);
            self.wait_for_messages(swap, sources)?;
            let run = &*self;
            let piece =
                |peer| run.inbox(swap, peer).part(0, blocks.incoming(peer).saturating_sub(offset).min(limit));
            let moved =
                longest.saturating_sub(offset).min(limit).saturating_mul(sources.count_ones() as usize);
            run.in_shares(moved, |share| blocks.take(share, offset, limit, piece));
            offset = offset.saturating_add(limit);
            if offset >= longest {
                break;
            }
        }
        Ok(())
    }

    /// The other ranks of which this holds, one bit each.
    fn those(&self, holds: impl Fn(usize) -> bool) -> u64 {
        self.others().filter(|peer| holds(*peer)).fold(0, |those, peer| those | 1 << peer)
    }

    /// Exchange two numbers per pair: `mine(peer)` goes to each peer; returns what came from each (the own ones for this
    /// rank itself). Peers wrote them: bound them before use.
    pub(crate) fn exchange_numbers(
        &mut self,
        mine: impl Fn(usize) -> [u64; 2],
    ) -> BoxedResult<Vec<[u64; 2]>> {
        let swap = self.open_swap(size_of::<[u64; 2]>())?;
        for peer in self.others() {
            self.put(swap, peer, Source::of(&mine(peer)))?;
        }
        self.publish();
        self.wait_for_messages(swap, self.members.peers())?;
        let received = |peer| {
            let mut numbers = mine(peer);
            if peer != self.members.rank {
                copy(Target::of(&mut numbers), self.inbox(swap, peer));
            }
            numbers
        };
        Ok((0..self.members.world).map(received).collect())
    }
}

/// Blocks that are only copied: `outgoing` says what goes to a rank, `incoming` where its block comes to lie, in
/// `rows` if the block is strided. Empty memory stands for no block. The own rank's block is copied from one to the other.
pub(crate) struct Copies<O, I> {
    pub(crate) world: usize,
    pub(crate) rank: usize,
    pub(crate) outgoing: O,
    pub(crate) incoming: I,
    /// Bytes of an incoming block, where `rows` makes its memory longer than that.
    pub(crate) rows: Option<(Rows, usize)>,
}

impl<'a, O: Fn(usize) -> Source<'a>, I: Fn(usize) -> Target<'a>> Blocks<'a> for Copies<O, I> {
    fn outgoing(&self, peer: usize) -> Source<'a> {
        (self.outgoing)(peer)
    }

    fn incoming(&self, peer: usize) -> usize {
        self.rows.map_or_else(|| (self.incoming)(peer).len(), |(_, bytes)| bytes)
    }

    fn keep(&self, share: Share, offset: usize, limit: usize) {
        self.put_in_place(share, self.rank, offset, self.outgoing(self.rank).part(offset, limit));
    }

    fn take<'p>(&self, share: Share, offset: usize, _limit: usize, piece: impl Fn(usize) -> Source<'p>) {
        for peer in (0..self.world).filter(|peer| *peer != self.rank) {
            if self.incoming(peer) > 0 {
                self.put_in_place(share, peer, offset, piece(peer));
            }
        }
    }
}

impl<'a, O, I: Fn(usize) -> Target<'a>> Copies<O, I> {
    /// A piece of the block of `rank` that begins at `offset` of it.
    fn put_in_place(&self, share: Share, rank: usize, offset: usize, piece: Source<'_>) {
        let block = (self.incoming)(rank);
        match self.rows {
            None => share.copy(block.part(offset, piece.len()), piece),
            Some((rows, _)) => share.copy_into_rows(block, rows, offset, piece),
        }
    }
}
