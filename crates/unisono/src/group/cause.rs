//! Why a rank stopped its group, as it writes it into its header for the others.
//!
//! What is read back was written by a peer and is trusted with nothing: ranks are bounded by the world
//! size, calls that make no sense are dropped, and an unknown cause is no cause.

use std::time::Duration;

use crate::call::Call;

/// Why a rank stopped the group.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Cause {
    /// It saw a process die.
    PeerDied { rank: usize, pid: u32 },
    /// It saw a peer make a different call.
    Mismatch { number: u64, mine: Call, peer: usize, theirs: Option<Call> },
    /// Its user called `abort`.
    Aborted,
    /// Its deadline passed while these ranks were missing.
    Timeout { missing: u64, waited: Duration },
    /// It needed a rank that had left.
    PeerLeft { rank: usize },
}

impl Cause {
    /// Which of several causes to report: what explains the others comes first.
    pub(crate) fn precedence(&self) -> u32 {
        match self {
            Cause::PeerDied { .. } => 0,
            Cause::Mismatch { .. } => 1,
            Cause::Aborted => 2,
            Cause::Timeout { .. } => 3,
            Cause::PeerLeft { .. } => 4,
        }
    }

    pub(crate) fn pack(&self) -> (u32, [u64; 12]) {
        let mut fields = [0; 12];
        match *self {
            Cause::PeerDied { rank, pid } => (fields[0], fields[1]) = (rank as u64, u64::from(pid)),
            Cause::Mismatch { number, mine, peer, theirs } => {
                (fields[0], fields[1]) = (number, peer as u64);
                fields[4..8].copy_from_slice(&mine.pack());
                fields[8..12].copy_from_slice(&theirs.map_or([0; 4], |call| call.pack()));
            }
            Cause::Aborted => {}
            Cause::Timeout { missing, waited } => {
                (fields[0], fields[1]) = (missing, u64::try_from(waited.as_nanos()).unwrap_or(u64::MAX));
            }
            Cause::PeerLeft { rank } => fields[0] = rank as u64,
        }
        (self.precedence(), fields)
    }

    pub(crate) fn unpack(kind: u32, fields: [u64; 12], world: usize) -> Option<Self> {
        let rank_in = |field: u64| usize::try_from(field).ok().filter(|rank| *rank < world);
        let call_at = |at: usize| Call::unpack([fields[at], fields[at + 1], fields[at + 2], fields[at + 3]]);
        Some(match kind {
            0 => Cause::PeerDied { rank: rank_in(fields[0])?, pid: fields[1] as u32 },
            1 => Cause::Mismatch {
                number: fields[0],
                mine: call_at(4)?,
                peer: rank_in(fields[1])?,
                theirs: call_at(8),
            },
            2 => Cause::Aborted,
            3 => Cause::Timeout { missing: fields[0], waited: Duration::from_nanos(fields[1]) },
            4 => Cause::PeerLeft { rank: rank_in(fields[0])? },
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::Operation;

    #[test]
    fn every_cause_survives_the_header() {
        let call = Call::new(Operation::Barrier);
        for cause in [
            Cause::PeerDied { rank: 3, pid: 77 },
            Cause::Mismatch {
                number: 9,
                mine: call,
                peer: 2,
                theirs: Some(Call::new(Operation::Gather).rooted(1)),
            },
            Cause::Mismatch { number: 9, mine: call, peer: 2, theirs: None },
            Cause::Aborted,
            Cause::Timeout { missing: 0b110, waited: Duration::from_millis(1500) },
            Cause::PeerLeft { rank: 1 },
        ] {
            let (kind, fields) = cause.pack();
            assert_eq!(Cause::unpack(kind, fields, 4), Some(cause));
        }
    }

    #[test]
    fn garbage_is_no_cause_or_a_bounded_one() {
        for kind in 0..8 {
            if let Some(Cause::PeerDied { rank, .. } | Cause::PeerLeft { rank }) =
                Cause::unpack(kind, [u64::MAX; 12], 4)
            {
                assert!(rank < 4);
            }
        }
    }
}
