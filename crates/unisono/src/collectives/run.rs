//! One collective under way: its number, its steps, and the waits between them.
//!
//! A collective takes the group's lock, takes the next number, and goes through its steps. A step is:
//! [`Run::open_step`] · write staging · [`Run::publish`] · [`Run::wait_for`] the ranks whose data is needed · read.
//! Publishing step `s` says that everything this rank had to read before `s` has been read; that is what
//! [`Run::wait_until_passed`] relies on: staging last written in step `w` may be overwritten once its reader
//! has published a step after `w`. One rule for every operation.

use std::time::Duration;

use parking_lot::MutexGuard;
use unisono_protocol::{Ended, FINGERPRINTS, Sequence, wait_until};

use crate::call::Call;
use crate::error::{BoxedResult, Error};
use crate::fault;
use crate::group::cause::Cause;
use crate::group::members::{Members, Situation, Waker};
use crate::group::waiter::Waiter;
use crate::group::{Group, Steps};

/// How many steps may pass without a look at the clock, where a peer decides how many there are.
const STEPS_PER_LOOK_AT_THE_CLOCK: usize = 256;

/// One collective under way.
pub(crate) struct Run<'g> {
    pub(crate) group: &'g Group,
    pub(crate) members: &'g Members,
    pub(crate) steps: MutexGuard<'g, Steps>,
    waiter: Waiter<'g>,
    call: Call,
    number: u64,
}

impl<'g> Run<'g> {
    /// Take the next number for `call`.
    #[inline]
    pub(crate) fn begin(group: &'g Group, call: Call, timeout: Option<Duration>) -> BoxedResult<Self> {
        group.enter(call.operation.name())?;
        let mut steps = group.lock_steps(call.operation.name(), timeout)?;
        group.check_usable()?;
        let number = steps.calls + 1;
        let members = &*group.members;
        if members.is_stopped() {
            let at = Situation { call, number, waited: Duration::ZERO };
            return Err(group.end_with(members.explain(0, at)));
        }
        steps.calls = number;
        steps.history = call.chained(steps.history);
        members.own().header().latest.begin(number, call.pack());
        let waiter = Waiter::new(members, group.crowded, timeout);
        Ok(Run { group, members, steps, waiter, call, number })
    }

    /// The number of the step that is open.
    #[inline]
    pub(crate) fn step(&self) -> u64 {
        self.steps.step + 1
    }

    /// Begin the next step: from here on staging may be written. Waits until every peer is at most three steps
    /// behind, because the slot of a fingerprint is reused then.
    #[inline]
    pub(crate) fn open_step(&mut self) -> BoxedResult<()> {
        fault::reach("before_arrive");
        match self.step().checked_sub(FINGERPRINTS) {
            Some(reused) => self.wait_until_passed(self.members.peers(), reused),
            None => Ok(()),
        }
    }

    /// Publish the open step: what was written is now visible to who waits for it.
    #[inline]
    pub(crate) fn publish(&mut self) {
        fault::reach("after_copy_in");
        let step = self.step();
        let arrival = self.members.own().arrival();
        if self.group.crowded {
            arrival.set_processor(unisono_os::cpu::current_cpu());
        }
        // Pairs with the looks of `wait_until` in every peer's `wait_for` and `wait_until_passed`.
        // An abort is noticed by the next wait, after what has been published was used.
        arrival.publish(step, self.steps.history, &Waker);
        self.steps.step = step;
        self.steps.published = self.steps.history;
        fault::reach("after_publish");
    }

    /// Wait until every one of `peers` has published the step that this rank published last, and see that they
    /// made the same calls.
    #[inline]
    pub(crate) fn wait_for(&mut self, peers: u64) -> BoxedResult<()> {
        let step = self.steps.step;
        self.wait(peers, step)?;
        self.compare(peers, step)
    }

    /// See that `peers`, who have published `step`, the last one of this rank, made the same calls up to it.
    #[inline]
    fn compare(&mut self, peers: u64, step: u64) -> BoxedResult<()> {
        let mut rest = peers;
        while rest != 0 {
            let peer = rest.trailing_zeros() as usize;
            rest &= rest - 1;
            if self.members.memory(peer).arrival().fingerprint(step) != self.steps.published {
                return Err(self.mismatch(peer));
            }
        }
        Ok(())
    }

    /// Wait until every one of `peers` has published a step after `step`, and so has read all it had to read in it.
    /// Step 0 is before all steps: staging that was never used is free.
    #[inline]
    pub(crate) fn wait_until_passed(&mut self, peers: u64, step: u64) -> BoxedResult<()> {
        if step == 0 {
            return Ok(());
        }
        let mut late = 0;
        let mut rest = peers;
        while rest != 0 {
            let peer = rest.trailing_zeros() as usize;
            rest &= rest - 1;
            if self.steps.seen[peer] <= step {
                late |= 1 << peer;
            }
        }
        if late == 0 { Ok(()) } else { self.wait_for_late(late, step + 1) }
    }

    /// The slow path of [`Run::wait_until_passed`]. Ranks that only write (roots) would never compare their calls with
    /// anybody's: so those who have come as far as this rank are compared here. Of two ranks one is behind, and the
    /// fingerprint of its last step still stands with the other, who is less than [`FINGERPRINTS`] steps ahead.
    #[cold]
    fn wait_for_late(&mut self, late: u64, target: u64) -> BoxedResult<()> {
        self.wait(late, target)?;
        let step = self.steps.step;
        let has_come = |peer: &usize| {
            let look = self.members.memory(*peer).arrival().look();
            late & (1 << peer) != 0 && look.sequence().has_reached(Sequence::of(step))
        };
        let comparable = (0..self.members.world).filter(has_come).fold(0, |peers, peer| peers | 1 << peer);
        if step == 0 { Ok(()) } else { self.compare(comparable, step) }
    }

    /// Look at the clock now and then, where a peer decides how many steps there are.
    pub(crate) fn check_deadline(&mut self, steps: usize) -> BoxedResult<()> {
        if steps.is_multiple_of(STEPS_PER_LOOK_AT_THE_CLOCK) && self.waiter.is_overdue() {
            return Err(self.fail(Ended::TimedOut(self.members.peers())));
        }
        Ok(())
    }

    #[inline]
    fn wait(&mut self, peers: u64, step: u64) -> BoxedResult<()> {
        let members = self.members;
        self.waiter.begin_wait();
        let word_of = |peer: usize| members.memory(peer).arrival().word();
        if let Err(ended) = wait_until(peers, step, word_of, &mut self.waiter) {
            return Err(self.fail(ended));
        }
        let mut rest = peers;
        while rest != 0 {
            let peer = rest.trailing_zeros() as usize;
            rest &= rest - 1;
            let seen = &mut self.steps.seen[peer];
            *seen = step.max(*seen);
        }
        Ok(())
    }

    /// The call came to its end.
    #[inline]
    pub(crate) fn finish(self) {
        self.members.own().header().latest.finish(self.number);
    }

    #[cold]
    fn fail(&mut self, ended: Ended) -> Box<Error> {
        let at = Situation { call: self.call, number: self.number, waited: self.waiter.waited() };
        self.group.end_wait(ended, at)
    }

    /// A peer's history differs from ours: find the first call that does, tell everybody, and stop.
    #[cold]
    fn mismatch(&mut self, peer: usize) -> Box<Error> {
        let ours = &self.members.own().header().latest;
        let theirs = &self.members.memory(peer).header().latest;
        let remembered = self.number.saturating_sub(unisono_protocol::record::RECORDS - 1).max(1);
        let differing = (remembered..=self.number).find_map(|number| {
            let (mine, other) = (ours.call(number)?, theirs.call(number)?);
            (mine != other).then(|| (number, Call::unpack(mine).unwrap_or(self.call), Call::unpack(other)))
        });
        let (number, mine, theirs) = differing.unwrap_or((self.number, self.call, None));
        self.stop_with_mismatch(Cause::Mismatch { number, mine, peer, theirs })
    }

    /// A peer's lengths differ from what this rank expects of it.
    #[cold]
    pub(crate) fn length_mismatch(&mut self, peer: usize, mine: usize, theirs: usize) -> Box<Error> {
        let (number, call) = (self.number, self.call);
        let cause = Cause::Mismatch {
            number,
            mine: Call { count: mine, ..call },
            peer,
            theirs: Some(Call { count: theirs, ..call }),
        };
        self.stop_with_mismatch(cause)
    }

    fn stop_with_mismatch(&self, cause: Cause) -> Box<Error> {
        let at = Situation { call: self.call, number: self.number, waited: Duration::ZERO };
        self.members.stop(cause);
        self.group.end_with(self.members.explain(0, at))
    }
}
