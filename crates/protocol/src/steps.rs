//! The steps of one rank: publishing them, waiting for those of the peers, and when staging is free again.
//!
//! Every collective is a fixed number of steps. A step is: [`Steps::open`] · write staging · [`Steps::publish`] ·
//! [`Steps::wait_for`] the ranks whose data is needed · read. A barrier is one step that waits for all. Publishing step
//! `s` says that everything this rank had to read before `s` has been read; that is what
//! [`Steps::wait_until_passed`] relies on, the space rule: **staging last written in step `w` may be overwritten once
//! its reader has published a step after `w`.** One rule for every operation. Where everybody waits for everybody it
//! costs nothing, because the wait has shown it already.
//!
//! **Other calls** are noticed where a rank waits for data, at that call. A rank that only writes waits for nobody, and must
//! not: it would lose its lead, and pay a transfer of every reader's line at each call. So before a step in which it only
//! writes it looks back ([`Steps::look_back`]): with those who have made its last call it compares that. Of two ranks that
//! only write, the one that comes later notices at its next call, and the other is told; who is ahead of all others has
//! nothing to compare with until they come, for [`FINGERPRINTS`] steps at most. Only lines are looked at that no wait has
//! shown since: where one such step follows another, and there the space rule is about to ask the same of them, so that
//! nothing is lost. (A look back at every step would cost a transfer where a broadcast is followed by an operation that
//! waits, and so compares, anyway: 100 ns of 540.)

use crate::arrival::{ArrivalLine, FINGERPRINTS};
use crate::sequence::Sequence;
use crate::tag::Tag;
use crate::waiting::{Ended, Wait, wait_until};
use crate::word::Futex;

/// As many ranks as a set of peers, one bit each, can name.
pub const MAX_RANKS: usize = u64::BITS as usize;

/// Why a step cannot be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Halt {
    /// A wait ended without all peers.
    Ended(Ended),
    /// This peer published another fingerprint: it makes different calls.
    Differs(usize),
}

impl From<Ended> for Halt {
    fn from(ended: Ended) -> Self {
        Halt::Ended(ended)
    }
}

/// How far one rank has come, and what it knows of the others.
#[derive(Debug)]
pub struct Steps {
    /// The step published last; steps count from 1.
    last: u64,
    /// The fingerprint that was published with it.
    fingerprint: u64,
    /// Per peer: a step that it is known to have published. In place: looked at several times a call.
    seen: [u64; MAX_RANKS],
}

impl Default for Steps {
    fn default() -> Self {
        Self::new()
    }
}

impl Steps {
    /// Before the first step.
    pub fn new() -> Self {
        Steps { last: 0, fingerprint: 0, seen: [0; MAX_RANKS] }
    }

    /// The number of the step that is open, or will be.
    #[inline]
    pub fn next(&self) -> u64 {
        self.last + 1
    }

    /// Open the next step: from here on staging may be written. Waits until every one of `peers` (all of them) is at most
    /// three steps behind, because the slot of a fingerprint is reused then.
    ///
    /// # Errors
    /// [`Halt`], as [`Steps::wait_until_passed`].
    #[inline(always)]
    pub fn open<'l>(
        &mut self,
        peers: u64,
        line_of: impl Fn(usize) -> &'l ArrivalLine,
        wait: &mut impl Wait,
    ) -> Result<(), Halt> {
        match self.next().checked_sub(FINGERPRINTS) {
            Some(reused) => self.wait_until_passed(peers, reused, line_of, wait),
            None => Ok(()),
        }
    }

    /// Publish the open step of the call with this fingerprint: what was written is visible to whoever waits for it.
    /// An abort is noticed by the next wait, after what has been published was used.
    #[inline(always)]
    pub fn publish(&mut self, own: &ArrivalLine, fingerprint: u64, futex: &impl Futex) {
        // Pairs with the looks of `wait_until` in every peer's `wait_for` and `wait_until_passed`.
        own.publish(self.next(), fingerprint, futex);
        self.last += 1;
        self.fingerprint = fingerprint;
    }

    /// Wait until every one of `peers` has published the step that this rank published last, and see that it means the
    /// same call.
    ///
    /// # Errors
    /// [`Halt`] says who has not come, or who makes different calls.
    #[inline]
    pub fn wait_for<'l>(
        &mut self,
        peers: u64,
        line_of: impl Fn(usize) -> &'l ArrivalLine,
        wait: &mut impl Wait,
    ) -> Result<(), Halt> {
        self.wait(peers, self.last, &line_of, wait)?;
        self.compare(peers, &line_of)
    }

    /// Before the open step of a rank that will write for `peers` and not wait for them: see that those of them who have come
    /// as far as this rank mean the same call by its last step. Peers that a wait has shown to be that far are not looked at.
    ///
    /// # Errors
    /// [`Halt::Differs`] says who makes different calls.
    #[inline]
    pub fn look_back<'l>(
        &mut self,
        peers: u64,
        line_of: impl Fn(usize) -> &'l ArrivalLine,
    ) -> Result<(), Halt> {
        let unseen = bits(peers).filter(|peer| self.seen[*peer] < self.last);
        match unseen.fold(0, |unseen, peer| unseen | 1 << peer) {
            0 => Ok(()),
            unseen => self.compare_those_who_have_come(unseen, &line_of),
        }
    }

    /// Say, before the open step is published, that a message of it stands behind this tag.
    #[inline(always)]
    pub fn announce(&self, tag: &Tag, fingerprint: u64) {
        // Pairs with the looks of `look_for` in the peer that shares the tag.
        tag.announce(self.next(), fingerprint);
    }

    /// Look for the messages of `peers` in the step that this rank published last, `looks` times at most, with a `pause`
    /// after each. Returns the peers whose tag has not come, for [`Steps::wait_for`]: a tag is faster than an
    /// arrival line, but only the latter can be slept on and speaks of aborts and of other calls.
    ///
    /// Whose tag has come has opened this step, hence has read all it had to read in earlier ones.
    #[inline(always)]
    pub fn look_for<'t>(
        &mut self,
        peers: u64,
        tag_of: impl Fn(usize) -> &'t Tag,
        looks: u32,
        mut pause: impl FnMut(),
    ) -> u64 {
        let mut missing = peers;
        for _ in 0..looks {
            for peer in bits(missing) {
                if tag_of(peer).announces(self.last, self.fingerprint) {
                    missing &= !(1 << peer);
                    self.seen[peer] = self.last.max(self.seen[peer]);
                }
            }
            if missing == 0 {
                break;
            }
            pause();
        }
        missing
    }

    /// Wait until every one of `peers` has published a step after `step`, and so has read all it had to read in it.
    /// Step 0 is before all steps: staging that was never used is free.
    ///
    /// # Errors
    /// [`Halt`] says who has not come, or who makes different calls.
    #[inline]
    pub fn wait_until_passed<'l>(
        &mut self,
        peers: u64,
        step: u64,
        line_of: impl Fn(usize) -> &'l ArrivalLine,
        wait: &mut impl Wait,
    ) -> Result<(), Halt> {
        if step == 0 {
            return Ok(());
        }
        let late =
            bits(peers).filter(|peer| !self.is_passed_by(*peer, step)).fold(0, |late, peer| late | 1 << peer);
        if late == 0 { Ok(()) } else { self.wait_for_late(late, step + 1, &line_of, wait) }
    }

    /// Whether `peer` is known to have published a step after `step`. If not, [`Steps::wait_until_passed`] looks.
    #[inline(always)]
    pub fn is_passed_by(&self, peer: usize, step: u64) -> bool {
        step == 0 || self.seen[peer] > step
    }

    /// The slow path of [`Steps::wait_until_passed`], where calls are compared, too.
    #[cold]
    fn wait_for_late<'l>(
        &mut self,
        late: u64,
        target: u64,
        line_of: &impl Fn(usize) -> &'l ArrivalLine,
        wait: &mut impl Wait,
    ) -> Result<(), Halt> {
        self.wait(late, target, line_of, wait)?;
        self.compare_those_who_have_come(late, line_of)
    }

    /// Compare with those of `peers` who have published this rank's last step. Its fingerprint still stands with whoever has
    /// come further, who is less than [`FINGERPRINTS`] steps ahead: as long as this rank has not announced a message of the
    /// open step to that peer, which may then go one step further. So within a step every comparison with a peer comes
    /// before the announcement to it.
    fn compare_those_who_have_come<'l>(
        &mut self,
        peers: u64,
        line_of: &impl Fn(usize) -> &'l ArrivalLine,
    ) -> Result<(), Halt> {
        if self.last == 0 {
            return Ok(());
        }
        let last = Sequence::of(self.last);
        let mut come = 0;
        // The look pairs with the peer's `publish`, as those of `wait_until` do.
        for peer in bits(peers).filter(|peer| line_of(*peer).look().sequence().has_reached(last)) {
            self.seen[peer] = self.last.max(self.seen[peer]);
            come |= 1 << peer;
        }
        self.compare(come, line_of)
    }

    #[inline]
    fn wait<'l>(
        &mut self,
        peers: u64,
        step: u64,
        line_of: &impl Fn(usize) -> &'l ArrivalLine,
        wait: &mut impl Wait,
    ) -> Result<(), Halt> {
        wait_until(peers, step, |peer| line_of(peer).word(), wait)?;
        for peer in bits(peers) {
            self.seen[peer] = step.max(self.seen[peer]);
        }
        Ok(())
    }

    /// See that `peers`, who have published this rank's last step, mean the same call by it.
    #[inline]
    fn compare<'l>(&self, peers: u64, line_of: &impl Fn(usize) -> &'l ArrivalLine) -> Result<(), Halt> {
        match bits(peers).find(|peer| line_of(*peer).fingerprint(self.last) != self.fingerprint) {
            Some(peer) => Err(Halt::Differs(peer)),
            None => Ok(()),
        }
    }
}

/// The positions of the bits that are set.
#[inline]
fn bits(mut set: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let bit = (set != 0).then(|| set.trailing_zeros() as usize)?;
        set &= set - 1;
        Some(bit)
    })
}
