//! Homes for messages that are too large for the ring.
//!
//! A large message lies in memory of its own, of which the ring holds the number. Every reader gets that memory once, through
//! its socket, before the number is published, and maps it; used again, it costs nothing more. The one invariant that
//! matters: **a home is used again only when every reader has passed the record that speaks of it.**

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::error::Result;
use super::hall::Hall;
use super::memory::Home;

/// Most bytes of large messages that may be unread; a single larger one is always allowed.
pub(super) const MOST_UNREAD_BYTES: u64 = 256 << 20;
/// Most large messages that may be unread: their homes' descriptors must fit into a reader's socket.
const MOST_UNREAD: usize = 64;
/// How much is kept for the next large messages, and in how many homes.
const MOST_IDLE_BYTES: u64 = 64 << 20;
const MOST_IDLE: u64 = 64;
/// A home that is this many times too large is kept for larger ones.
const MOST_TOO_LARGE: u64 = 4;
/// No home is smaller.
const SMALLEST_HOME: u64 = 4096;
/// Homes of up to this are rounded up to a power of two, larger ones to a multiple of the other.
const LARGEST_POWER: u64 = 64 << 20;
const HUGE_STEP: u64 = 2 << 20;

/// A home as its writer has it.
#[derive(Debug)]
pub(super) struct Housing {
    pub(super) number: u64,
    pub(super) home: Home,
    pub(super) descriptor: OwnedFd,
}

/// The homes of one queue.
#[derive(Debug, Default)]
pub(super) struct Pool {
    idle: Vec<Arc<Housing>>,
    /// With where the record ends that speaks of each; in the order of the records.
    occupied: VecDeque<(u64, Arc<Housing>)>,
    made: u64,
}

impl Pool {
    pub(super) fn is_unused(&self) -> bool {
        self.occupied.is_empty()
    }

    /// Every reader has passed `slowest`: take homes back, and give those up that are too many.
    pub(super) fn take_back(&mut self, slowest: u64, hall: &Hall) {
        let passed = self.occupied.partition_point(|(end, _)| *end <= slowest);
        self.idle.extend(self.occupied.drain(..passed).map(|(_, housing)| housing));
        let (mut kept, mut bytes_kept) = (0, 0);
        // The latest first: what was used last is in the caches.
        let (keep, give_up): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.idle).into_iter().rev().partition(|housing| {
                kept += 1;
                bytes_kept += housing.home.bytes();
                kept <= MOST_IDLE && bytes_kept <= MOST_IDLE_BYTES
            });
        self.idle = keep.into_iter().rev().collect();
        give_up.iter().for_each(|housing| hall.retire(housing));
    }

    /// Up to where readers must come before a message of `bytes` bytes may be housed, if they must.
    pub(super) fn target(&self, bytes: u64) -> Option<u64> {
        let mut unread: u64 = self.occupied.iter().map(|(_, housing)| housing.home.bytes()).sum();
        let mut count = self.occupied.len();
        let mut target = None;
        for (end, housing) in &self.occupied {
            if unread.saturating_add(bytes) <= MOST_UNREAD_BYTES && count < MOST_UNREAD {
                break;
            }
            unread -= housing.home.bytes();
            count -= 1;
            target = Some(*end);
        }
        target
    }

    /// A home for a message of `bytes` bytes, known to every reader.
    pub(super) fn house(&mut self, bytes: u64, hall: &Hall) -> Result<Arc<Housing>> {
        if let Some(at) = self.idle.iter().rposition(|housing| fits(bytes, housing.home.bytes())) {
            return Ok(self.idle.remove(at));
        }
        let (home, descriptor) = Home::create(size_for(bytes) as usize)?;
        self.made += 1;
        let housing = Arc::new(Housing { number: self.made, home, descriptor });
        hall.introduce(&housing);
        Ok(housing)
    }

    /// A home that was not needed after all.
    pub(super) fn give_back(&mut self, housing: Arc<Housing>) {
        self.idle.push(housing);
    }

    /// The home is spoken of by the record that ends at `end`.
    pub(super) fn occupy(&mut self, end: u64, housing: Arc<Housing>) {
        self.occupied.push_back((end, housing));
    }
}

/// Whether a message of `bytes` bytes may lie in a home of `home` bytes. One that was made for it always fits.
fn fits(bytes: u64, home: u64) -> bool {
    let smallest = SMALLEST_HOME / MOST_TOO_LARGE;
    (bytes..=bytes.max(smallest).saturating_mul(MOST_TOO_LARGE)).contains(&home)
}

/// How large a home is made for a message of `bytes` bytes. What is not touched takes no memory, so there is no harm in
/// room for the next, slightly longer message; what is huge counts as a whole when memory is asked for.
fn size_for(bytes: u64) -> u64 {
    if bytes <= LARGEST_POWER {
        bytes.next_power_of_two().max(SMALLEST_HOME)
    } else {
        bytes.checked_next_multiple_of(HUGE_STEP).unwrap_or(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_home_fits_the_message_that_it_was_made_for() {
        for bytes in [0, 1, 255, 256, 1023, 1024, 1025, 4096, 4097, 64 << 20, (64 << 20) + 1, 5 << 30] {
            let home = size_for(bytes);
            assert!(fits(bytes, home), "{bytes} in {home}");
            assert!(home <= (2 * bytes).max(SMALLEST_HOME), "{bytes} in {home}");
        }
        assert_eq!(size_for((1 << 30) + 1), (1 << 30) + HUGE_STEP);
        assert!(!fits(4096, 1 << 20) && !fits(4097, 4096));
    }
}
