//! The first page of a rank's memory: who it is, how far it has come, what it does and why it stopped.
//!
//! Only atomics, because peers look while the rank writes. What is read here is compared or bounded, never used
//! as an offset or a length of memory.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use unisono_os::clock;
use unisono_protocol::{ArrivalLine, CauseRecord, Latest};

/// "unisono" and a digit that changes with the layout of this page.
const MAGIC: u64 = u64::from_le_bytes(*b"unisono1");

/// What a group's memory says about itself; written before it is handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) rank: usize,
    pub(crate) world: usize,
    pub(crate) bytes: usize,
    /// The number that rank 0 drew for this group.
    pub(crate) nonce: u64,
}

#[derive(Debug, Default)]
#[repr(C, align(128))]
struct IdentityWords {
    magic: AtomicU64,
    nonce: AtomicU64,
    bytes: AtomicU64,
    rank: AtomicU32,
    world: AtomicU32,
}

/// The header page. Zero-filled memory is a valid header of nobody.
#[derive(Debug, Default)]
#[repr(C)]
pub(crate) struct Header {
    identity: IdentityWords,
    pub(crate) arrival: ArrivalLine,
    pub(crate) cause: CauseRecord,
    /// The collectives.
    pub(crate) latest: Latest,
    /// The sends and receives.
    pub(crate) transfers: Latest,
    left: AtomicU32,
    step: Step,
}

/// When the owner last did something, for people: noted only where that holds up nothing, which is where it waits for long.
#[derive(Debug, Default)]
#[repr(C, align(64))]
struct Step {
    /// On the monotonic clock, in nanoseconds; 0: never, or being written.
    at: AtomicU64,
    /// How many calls had begun by then: it says nothing of later ones.
    calls: AtomicU64,
}

impl Header {
    /// Say whose memory this is. The magic number comes last (release), so that whoever sees it sees the rest.
    pub(crate) fn identify(&self, identity: Identity) {
        self.identity.nonce.store(identity.nonce, Ordering::Relaxed);
        self.identity.bytes.store(identity.bytes as u64, Ordering::Relaxed);
        self.identity.rank.store(identity.rank as u32, Ordering::Relaxed);
        self.identity.world.store(identity.world as u32, Ordering::Relaxed);
        self.identity.magic.store(MAGIC, Ordering::Release);
    }

    /// Whose memory this is; `Err` describes what stands where the magic number should.
    pub(crate) fn identity(&self) -> Result<Identity, String> {
        let magic = self.identity.magic.load(Ordering::Acquire);
        if magic != MAGIC {
            return Err(format!("expected the magic number {MAGIC:#018x}, found {magic:#018x}"));
        }
        Ok(Identity {
            rank: self.identity.rank.load(Ordering::Relaxed) as usize,
            world: self.identity.world.load(Ordering::Relaxed) as usize,
            bytes: self.identity.bytes.load(Ordering::Relaxed) as usize,
            nonce: self.identity.nonce.load(Ordering::Relaxed),
        })
    }

    /// Say goodbye. Release: whoever sees it sees everything the rank published before.
    pub(crate) fn set_left(&self) {
        self.left.store(1, Ordering::Release);
    }

    /// Whether the rank said goodbye (pairs with [`Header::set_left`]).
    pub(crate) fn has_left(&self) -> bool {
        self.left.load(Ordering::Acquire) != 0
    }

    /// Note that the owner is alive and at work now; another of its threads may do so at the same time.
    #[cold]
    pub(crate) fn note_step(&self) {
        self.step.at.store(0, Ordering::Relaxed);
        self.step.calls.store(self.calls_begun(), Ordering::Release);
        self.step.at.store(clock::coarse_nanoseconds(), Ordering::Release);
    }

    /// When the owner last noted a step, if it has begun no call since.
    pub(crate) fn last_step(&self) -> Option<u64> {
        // Acquire: whoever sees the time sees the calls that it is of, or later ones.
        let at = self.step.at.load(Ordering::Acquire);
        let calls = self.step.calls.load(Ordering::Acquire);
        (at != 0 && calls == self.calls_begun()).then_some(at)
    }

    fn calls_begun(&self) -> u64 {
        self.latest.begun().wrapping_add(self.transfers.begun())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_known_until_the_next_call_begins() {
        let header = Header::default();
        assert_eq!(header.last_step(), None);
        header.latest.begin(1, [0; 4]);
        header.note_step();
        let at = header.last_step().unwrap();
        header.latest.finish(1);
        assert_eq!(header.last_step(), Some(at));
        header.transfers.begin(1, [0; 4]);
        assert_eq!(header.last_step(), None);
    }
}
