//! One collective under way: its number, its steps, and the waits between them.
//!
//! A collective takes the group's lock, takes the next number, and goes through its steps, as
//! [`unisono_protocol::steps`] lays them down: [`Run::open_step`] · write staging · [`Run::publish`] ·
//! [`Run::wait_for`] the ranks whose data is needed · read. Staging is free once its readers have passed the step that last
//! wrote it ([`Run::wait_until_passed`]). What goes wrong becomes an error here, for this rank and for all others.

use std::time::Duration;

use parking_lot::MutexGuard;
use unisono_protocol::{Ended, Halt};

use crate::call::{Call, chained};
use crate::counts;
use crate::error::{BoxedResult, Error};
use crate::fault;
use crate::group::cause::Cause;
use crate::group::members::{Members, Situation, Waker};
use crate::group::waiter::Waiter;
use crate::group::{Group, Steps};
use crate::team::Sharing;
use crate::team::share::Share;

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
    // Always: handed over in memory it would be copied in wider pieces than it was written in, which costs 5 ns.
    #[inline(always)]
    pub(crate) fn begin(group: &'g Group, call: Call, timeout: Option<Duration>) -> BoxedResult<Self> {
        let mut steps = group.take_steps(call.operation.name(), timeout)?;
        let number = steps.calls + 1;
        let members = &*group.members;
        if members.is_stopped() {
            let at = Situation::at_once(call, number);
            return Err(group.end_with(members.explain(0, at)));
        }
        steps.calls = number;
        let fields = call.pack();
        steps.history = chained(steps.history, fields);
        members.own().header().latest.begin(number, fields);
        let waiter = Waiter::new(members, group.crowded, timeout).with_cadence(&steps.cadence);
        Ok(Run { group, members, steps, waiter, call, number })
    }

    /// The number of the step that is open.
    #[inline]
    pub(crate) fn step(&self) -> u64 {
        self.steps.taken.next()
    }

    /// Begin the next step: from here on staging may be written.
    #[inline(always)]
    pub(crate) fn open_step(&mut self) -> BoxedResult<()> {
        fault::reach("before_arrive");
        let members = self.members;
        let opened =
            self.steps.taken.open(members.peers(), |peer| members.memory(peer).arrival(), &mut self.waiter);
        opened.map_err(|halt| self.halt(halt))
    }

    /// Before a step in which this rank writes for `peers` and does not wait for them: see that they made the same calls,
    /// as far as they have come.
    #[inline]
    pub(crate) fn look_back(&mut self, peers: u64) -> BoxedResult<()> {
        let members = self.members;
        let looked = self.steps.taken.look_back(peers, |peer| members.memory(peer).arrival());
        looked.map_err(|halt| self.halt(halt))
    }

    /// Publish the open step: what was written is now visible to who waits for it.
    #[inline(always)]
    pub(crate) fn publish(&mut self) {
        fault::reach("after_copy_in");
        let arrival = self.members.own().arrival();
        if self.group.crowded {
            arrival.set_processor(unisono_os::cpu::current_cpu());
        }
        let history = self.steps.history;
        self.steps.taken.publish(arrival, history, &Waker);
        counts::step_published();
        fault::reach("after_publish");
    }

    /// Wait until every one of `peers` has published the step that this rank published last, and see that they
    /// made the same calls.
    #[inline]
    pub(crate) fn wait_for(&mut self, peers: u64) -> BoxedResult<()> {
        let members = self.members;
        let waited =
            self.steps.taken.wait_for(peers, |peer| members.memory(peer).arrival(), &mut self.waiter);
        waited.map_err(|halt| self.halt(halt))
    }

    /// Wait until every one of `peers` has published a step after `step`, and so has read all it had to read in it.
    #[inline]
    pub(crate) fn wait_until_passed(&mut self, peers: u64, step: u64) -> BoxedResult<()> {
        let members = self.members;
        let line_of = |peer: usize| members.memory(peer).arrival();
        let waited = self.steps.taken.wait_until_passed(peers, step, line_of, &mut self.waiter);
        waited.map_err(|halt| self.halt(halt))
    }

    /// [`Run::wait_until_passed`] for one peer.
    #[inline(always)]
    pub(crate) fn wait_until_passed_by(&mut self, peer: usize, step: u64) -> BoxedResult<()> {
        if self.steps.taken.is_passed_by(peer, step) {
            Ok(())
        } else {
            self.wait_until_passed(1 << peer, step)
        }
    }

    /// Let the threads of this rank do `work`, which moves about `bytes` bytes, each for its shares; all of it is done when
    /// this returns.
    #[inline(always)]
    pub(crate) fn in_shares(&self, bytes: usize, work: impl Fn(Share) + Sync) {
        match &self.steps.sharing {
            Sharing { threads: Some(threads), worth } if bytes >= *worth => {
                threads.share_out(bytes, *worth, &work);
            }
            _ => work(Share::WHOLE),
        }
    }

    /// Look at the clock now and then, where a peer decides how many steps there are.
    pub(crate) fn check_deadline(&mut self, steps: usize) -> BoxedResult<()> {
        if steps.is_multiple_of(STEPS_PER_LOOK_AT_THE_CLOCK) && self.waiter.is_overdue() {
            return Err(self.fail(Ended::TimedOut(self.members.peers())));
        }
        Ok(())
    }

    /// The call came to its end.
    #[inline(always)]
    pub(crate) fn finish(mut self) {
        let header = self.members.own().header();
        header.latest.finish(self.number);
        if self.waiter.has_waited_long() {
            header.note_step();
            self.steps.cadence.note(self.waiter.longest_wait());
        }
    }

    #[cold]
    fn halt(&mut self, halt: Halt) -> Box<Error> {
        match halt {
            Halt::Ended(ended) => self.fail(ended),
            Halt::Differs(peer) => self.mismatch(peer),
        }
    }

    fn fail(&mut self, ended: Ended) -> Box<Error> {
        self.group.end_wait(ended, self.waiter.situation(self.call, self.number))
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
        let at = Situation::at_once(self.call, self.number);
        self.members.stop(cause);
        self.group.end_with(self.members.explain(0, at))
    }
}
