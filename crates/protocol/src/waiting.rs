//! Waiting for words of several peers at once.
//!
//! Peers are looked at in turn, not one after the other, so the slowest alone decides how long it takes.
//! What has been published counts before an abort does: a peer that published and then died has arrived. Hence
//! one more round of looks after the first that shows an abort: it may have been shown by the word of one peer after
//! the word of another had been looked at, which published in between.
//! The waiter itself decides how to pass its time ([`Wait::turn`]): a few pauses, a yield, then sleep.

use crate::sequence::Sequence;
use crate::word::{Futex, Word};

/// What a waiter does next, after a look that brought nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Look again.
    LookAgain,
    /// Announce it and sleep until the word moves.
    Sleep,
    /// The deadline has passed.
    GiveUp,
}

/// How a waiter passes its time between two looks.
pub trait Wait: Futex {
    /// Another wait begins.
    fn begin(&mut self) {}

    /// Pass a moment. `missing` are the peers that have not come yet, one bit each.
    fn turn(&mut self, missing: u64) -> Turn;
}

/// Why a wait ended without all peers: the peers still missing, one bit each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// A missing peer's word says that nothing more will come.
    Aborted(u64),
    /// The deadline passed.
    TimedOut(u64),
}

/// Wait until every peer in the bit set `peers` has published `target` in the word that `word_of` names.
///
/// # Errors
/// [`Ended`] says which peers had not.
#[inline]
pub fn wait_until<'w>(
    peers: u64,
    target: u64,
    word_of: impl Fn(usize) -> &'w Word,
    wait: &mut impl Wait,
) -> Result<(), Ended> {
    wait.begin();
    let target = Sequence::of(target);
    let mut missing = peers;
    let mut aborted_before = false;
    let mut overdue = false;
    loop {
        let mut aborted = false;
        let mut rest = missing;
        while rest != 0 {
            let peer = rest.trailing_zeros() as usize;
            rest &= rest - 1;
            let look = word_of(peer).look();
            if look.sequence().has_reached(target) {
                missing &= !(1 << peer);
            } else {
                aborted |= look.is_aborted();
            }
        }
        if missing == 0 {
            return Ok(());
        }
        if aborted && aborted_before {
            return Err(Ended::Aborted(missing));
        }
        aborted_before = aborted;
        if aborted {
            continue; // whatever was published before the ABORT was set is seen by the looks that follow
        }
        if overdue {
            return Err(Ended::TimedOut(missing));
        }
        match wait.turn(missing) {
            Turn::LookAgain => {}
            Turn::GiveUp => overdue = true, // one more look: it may have come while we were asleep
            Turn::Sleep => {
                let peer = missing.trailing_zeros() as usize;
                let seen = word_of(peer).look();
                if !seen.sequence().has_reached(target) && !seen.is_aborted() {
                    // Who leaves says so in its own word only, and then rouses those who sleep on others.
                    let has_left = |peer: usize| word_of(peer).look().is_aborted();
                    word_of(peer).sleep_unless(seen, wait, || any(missing & !(1 << peer), has_left));
                }
            }
        }
    }
}

/// Whether one of the positions of the bits that are set satisfies this.
fn any(mut set: u64, is_so: impl Fn(usize) -> bool) -> bool {
    while set != 0 {
        if is_so(set.trailing_zeros() as usize) {
            return true;
        }
        set &= set - 1;
    }
    false
}
