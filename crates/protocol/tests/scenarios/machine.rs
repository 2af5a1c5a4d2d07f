//! A rank that goes through steps, as `collectives/run.rs` of the library lets it.
//!
//! The library's own code runs on the standard atomics only, so its four moves are repeated here on the protocol's
//! types, in the same order: open a step, publish it, wait for peers, wait until peers have passed a step.

use unisono_protocol::{ArrivalLine, Ended, FINGERPRINTS, Wait, Word, wait_until};

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
    /// The step published last.
    published: u64,
    /// The step that each peer is known to have published.
    seen: Vec<u64>,
}

impl<'l, W: Wait> Rank<'l, W> {
    pub(crate) fn new(rank: usize, lines: &'l [ArrivalLine], wait: W, space: Space) -> Self {
        Rank { rank, lines, wait, space, published: 0, seen: vec![0; lines.len()] }
    }

    /// All ranks but this one, one bit each.
    pub(crate) fn peers(&self) -> u64 {
        ((1 << self.lines.len()) - 1) & !(1 << self.rank)
    }

    /// The number of the step that is open.
    pub(crate) fn step(&self) -> u64 {
        self.published + 1
    }

    /// Begin the next step, once the slot of its fingerprint is free.
    pub(crate) fn open_step(&mut self) -> Result<(), Ended> {
        match self.step().checked_sub(FINGERPRINTS) {
            Some(reused) => self.wait_until_passed(self.peers(), reused),
            None => Ok(()),
        }
    }

    /// Publish the open step.
    pub(crate) fn publish(&mut self) {
        let step = self.step();
        self.lines[self.rank].publish(step, fingerprint_of(step), &self.wait);
        self.published = step;
    }

    /// Wait for the step that this rank published last, and see that the peers mean the same call by it.
    pub(crate) fn wait_for(&mut self, peers: u64) -> Result<(), Ended> {
        let step = self.published;
        self.wait(peers, step)?;
        for peer in 0..self.lines.len() {
            if peers & (1 << peer) != 0 {
                assert_eq!(self.lines[peer].fingerprint(step), fingerprint_of(step), "of step {step}");
            }
        }
        Ok(())
    }

    /// Wait until each of `peers` has published a step after `step`. Step 0 is before all steps.
    pub(crate) fn wait_until_passed(&mut self, peers: u64, step: u64) -> Result<(), Ended> {
        if step == 0 || self.space == Space::Ignored {
            return Ok(());
        }
        let is_late = |peer: &usize| peers & (1 << peer) != 0 && self.seen[*peer] <= step;
        let late = (0..self.lines.len()).filter(is_late).fold(0, |late, peer| late | (1 << peer));
        if late == 0 { Ok(()) } else { self.wait(late, step + 1) }
    }

    fn wait(&mut self, peers: u64, step: u64) -> Result<(), Ended> {
        let lines = self.lines;
        wait_until(peers, step, |peer: usize| lines[peer].word(), &mut self.wait)?;
        for (peer, seen) in self.seen.iter_mut().enumerate() {
            if peers & (1 << peer) != 0 {
                *seen = step.max(*seen);
            }
        }
        Ok(())
    }
}

/// Another fingerprint for every step, so that one in the wrong slot is seen.
fn fingerprint_of(step: u64) -> u64 {
    step * 1_000_003
}
