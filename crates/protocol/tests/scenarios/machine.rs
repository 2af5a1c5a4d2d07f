//! A rank that goes through steps, as `collectives/run.rs` of the library lets it: on the protocol's own [`Steps`].

use unisono_protocol::{ArrivalLine, Ended, Halt, Steps, Tag, Wait, Word};

use super::platform::yield_now;

/// Whether a rank keeps the space rule: staging is written again only after its readers have passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Space {
    Kept,
    /// The seeded bug of the tests that show the models have teeth.
    #[cfg_attr(not(loom), allow(dead_code, reason = "a race is only ever run where it cannot do harm"))]
    Ignored,
}

/// The arrival lines of `world` ranks, before their first step.
pub(crate) fn lines(world: usize) -> Vec<ArrivalLine> {
    (0..world).map(|_| ArrivalLine::default()).collect()
}

/// The words of these lines.
pub(crate) fn words(lines: &[ArrivalLine]) -> impl Iterator<Item = &Word> {
    lines.iter().map(ArrivalLine::word)
}

/// One rank and how far it has come.
pub(crate) struct Rank<'l, W> {
    pub(crate) rank: usize,
    lines: &'l [ArrivalLine],
    wait: W,
    space: Space,
    steps: Steps,
}

impl<'l, W: Wait> Rank<'l, W> {
    pub(crate) fn new(rank: usize, lines: &'l [ArrivalLine], wait: W, space: Space) -> Self {
        Rank { rank, lines, wait, space, steps: Steps::new() }
    }

    /// All ranks but this one, one bit each.
    pub(crate) fn peers(&self) -> u64 {
        ((1 << self.lines.len()) - 1) & !(1 << self.rank)
    }

    /// The number of the step that is open.
    pub(crate) fn step(&self) -> u64 {
        self.steps.next()
    }

    /// Begin the next step, once the slot of its fingerprint is free.
    pub(crate) fn open_step(&mut self) -> Result<(), Ended> {
        if self.space == Space::Ignored {
            return Ok(());
        }
        let lines = self.lines;
        ended(self.steps.open(self.peers(), |peer| &lines[peer], &mut self.wait))
    }

    /// See that those of `peers` who have come mean the same call by the last step.
    pub(crate) fn look_back(&mut self, peers: u64) -> Result<(), Ended> {
        if self.space == Space::Ignored {
            return Ok(()); // A look would order what is not to be ordered.
        }
        let lines = self.lines;
        ended(self.steps.look_back(peers, |peer| &lines[peer]))
    }

    /// Say that the message of the open step stands behind this tag.
    pub(crate) fn announce(&self, tag: &Tag) {
        self.steps.announce(tag, fingerprint_of(self.step()));
    }

    /// After [`Rank::publish`]: wait for the message of `peer` behind this tag, as packets do: a look or two, then the
    /// arrival line.
    pub(crate) fn wait_for_message(&mut self, peer: usize, tag: &Tag) -> Result<(), Ended> {
        match self.steps.look_for(1 << peer, |_| tag, 2, yield_now) {
            0 => Ok(()),
            missing => self.wait_for(missing),
        }
    }

    /// Publish the open step.
    pub(crate) fn publish(&mut self) {
        self.steps.publish(&self.lines[self.rank], fingerprint_of(self.step()), &self.wait);
    }

    /// Wait for the step that this rank published last, and see that the peers mean the same call by it.
    pub(crate) fn wait_for(&mut self, peers: u64) -> Result<(), Ended> {
        let lines = self.lines;
        ended(self.steps.wait_for(peers, |peer| &lines[peer], &mut self.wait))
    }

    /// Wait until each of `peers` has published a step after `step`. Step 0 is before all steps.
    pub(crate) fn wait_until_passed(&mut self, peers: u64, step: u64) -> Result<(), Ended> {
        if self.space == Space::Ignored {
            return Ok(());
        }
        let lines = self.lines;
        ended(self.steps.wait_until_passed(peers, step, |peer| &lines[peer], &mut self.wait))
    }
}

/// In a scenario all ranks make the same calls: a fingerprint that differs is one read from the wrong slot.
fn ended(result: Result<(), Halt>) -> Result<(), Ended> {
    match result {
        Ok(()) => Ok(()),
        Err(Halt::Ended(ended)) => Err(ended),
        Err(Halt::Differs(peer)) => panic!("the fingerprint of rank {peer} differs"),
    }
}

/// Another fingerprint for every step, so that one in the wrong slot is seen.
fn fingerprint_of(step: u64) -> u64 {
    step * 1_000_003
}
