//! How long parts of messages are copied into the ring and out of it.
//!
//! Where a writer writes next a reader has read, and may have it in its caches still. Taking those lines back is quick if the two cores
//! share a cache; if they do not, it takes several times as long as the copy itself, and stores that go past the caches, which
//! need not have the lines, are the quicker ones, though the reader then finds the message in memory. Which it is nobody
//! says, and in a virtual machine it changes while a program runs. So a writer goes by the clock ([`Ways`]): it copies in the way that
//! took it less time of late, and tries the other now and then.

#![allow(unsafe_code)]

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Instant;

use unisono_kernels as kernels;

/// How much is copied at once.
const STRETCH: usize = 64 << 10;
/// What is shorter goes through the caches, without a look at the clock.
const LONG: usize = 32 << 10;
/// One of so many copies is made in the way that is not the quicker one, to see whether it still is not.
const TRY_EVERY: u32 = 64;
/// How much of what is known of a way stays when it was taken again, of 8 parts.
const KEPT: u64 = 7;

/// The ways of copying into shared memory, and how long each took of late.
#[derive(Debug, Default)]
pub(super) struct Ways {
    /// Picoseconds for a KiB, of what goes through the caches and of what goes past them; 0: it was not tried.
    took: [AtomicU64; 2],
    copies: AtomicU32,
}

const THROUGH: usize = 0;
const PAST: usize = 1;

impl Ways {
    /// Copy into shared memory, for others to read.
    ///
    /// # Safety
    /// `bytes` bytes may be read at `from` and written at `into`, and the two do not overlap.
    #[inline]
    pub(super) unsafe fn copy(&self, into: *mut u8, from: *const u8, bytes: usize) {
        // SAFETY: the caller's promise.
        unsafe {
            if bytes < LONG {
                kernels::copy(into, from, bytes);
            } else {
                self.copy_by_the_clock(into, from, bytes);
            }
        }
    }

    /// # Safety
    /// As for [`Ways::copy`].
    unsafe fn copy_by_the_clock(&self, into: *mut u8, from: *const u8, bytes: usize) {
        let way = self.next();
        let since = Instant::now();
        // SAFETY: the caller's promise, which is all that either asks for.
        unsafe {
            if way == PAST { kernels::copy_streaming(into, from, bytes) } else { copy(into, from, bytes) }
        };
        self.learn(way, since.elapsed().as_nanos() as u64, bytes);
    }

    /// Which way to go.
    fn next(&self) -> usize {
        let [through, past] = [THROUGH, PAST].map(|way| self.took[way].load(Ordering::Relaxed));
        let quicker = if past < through { PAST } else { THROUGH };
        let is_known = through != 0 && past != 0;
        let count = self.copies.fetch_add(1, Ordering::Relaxed);
        if is_known && count.is_multiple_of(TRY_EVERY) { 1 - quicker } else { quicker }
    }

    fn learn(&self, way: usize, nanoseconds: u64, bytes: usize) {
        let now = (nanoseconds * 1000 / (bytes as u64 >> 10)).max(1);
        let [before, other] = [way, 1 - way].map(|way| self.took[way].load(Ordering::Relaxed));
        // The slower one is tried too seldom for a mean.
        let mean = if before == 0 || before > other { now } else { (before * KEPT + now) / (KEPT + 1) };
        self.took[way].store(mean, Ordering::Relaxed);
    }
}

/// Copy by the library's own loop, whatever the length. Up to a MiB the C library would leave it to `rep movsb`, which on AMD's Zen 4
/// takes 15 times as long where the destination lies up to 15 bytes behind the source in its page; and parts of a message
/// and the buffers that they come from lie anyhow.
///
/// # Safety
/// `bytes` bytes may be read at `from` and written at `into`, and the two do not overlap.
#[inline]
pub(super) unsafe fn copy(into: *mut u8, from: *const u8, bytes: usize) {
    for done in (0..bytes).step_by(STRETCH) {
        // SAFETY: the stretch from `done` on lies inside both, as the caller vouches.
        unsafe { kernels::copy(into.add(done), from.add(done), STRETCH.min(bytes - done)) };
    }
}
