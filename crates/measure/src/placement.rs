//! How far two cores are apart: the time in which a cache line goes from one to the other and back.
//!
//! On a virtual machine the hypervisor moves the cores about without notice, and on a large one the
//! scheduler may put two ranks on one die or on two; results differ several times over between the two. So
//! everything that is measured is measured between two calls of [`round_trip`]. The one invariant that
//! matters: the probe ends, however busy the machine is, because it counts what it got done by a deadline.

use std::fmt;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::samples::median;

/// Round trips in one batch: long against the clock, short against a time slice.
const BATCH: u64 = 200;
/// Batches in one probe; the median of them is the answer.
const BATCHES: usize = 25;
/// The probe ends after this, whatever it has got. Undisturbed it takes 1 to 2 ms.
const DEADLINE: Duration = Duration::from_millis(250);

/// A cache line of its own. 128 bytes, because processors fetch neighbouring lines in pairs.
#[repr(align(128))]
struct Line(AtomicU64);

/// How far apart two cores are, told from their round trip.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Distance {
    /// Up to 200 ns: they share a cache.
    Near,
    /// 200 ns to 1 µs: on different dies or sockets.
    Far,
    /// More than that: they were not running at the same time.
    Disturbed,
}

impl Distance {
    /// The distance that a round trip tells.
    pub fn of(round_trip: Duration) -> Distance {
        match round_trip.as_nanos() {
            0..=200 => Distance::Near,
            201..=1000 => Distance::Far,
            _ => Distance::Disturbed,
        }
    }

    /// The name in reports: `near`, `far` or `disturbed`.
    pub fn name(self) -> &'static str {
        match self {
            Distance::Near => "near",
            Distance::Far => "far",
            Distance::Disturbed => "disturbed",
        }
    }
}

impl fmt::Display for Distance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Whether two round trips tell of the same placement: neither is more than half as long again as the other.
pub fn same_placement(one: Duration, other: Duration) -> bool {
    let (short, long) = (one.min(other), one.max(other));
    2 * long.as_nanos() <= 3 * short.as_nanos()
}

/// The time in which a cache line goes from one core to another and back.
///
/// Two threads are started; each calls its closure first, which is to pin it to a core (on another core
/// than the other's, or the answer tells of the scheduler). About 100 ns where the cores share a cache, about
/// 400 ns between dies. Takes 1 to 2 ms undisturbed, 250 ms at most.
pub fn round_trip(pin_a: impl FnOnce() + Send, pin_b: impl FnOnce() + Send) -> Duration {
    let (ping, pong) = (Line(AtomicU64::new(0)), Line(AtomicU64::new(0)));
    let stop = AtomicBool::new(false);
    let start = Barrier::new(2);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            pin_b();
            start.wait();
            answer(&ping, &pong, &stop);
        });
        let asking = scope.spawn(|| {
            pin_a();
            start.wait();
            let round_trip = ask(&ping, &pong);
            stop.store(true, Ordering::Release);
            round_trip
        });
        // The asking thread has nothing in it that can panic; a round trip without end stands for "it did".
        asking.join().unwrap_or(Duration::MAX)
    })
}

/// Send numbers and wait for each to come back, batch by batch; the median time of one.
fn ask(ping: &Line, pong: &Line) -> Duration {
    let begin = Instant::now();
    let mut number = 0;
    let mut batches = Vec::with_capacity(BATCHES);
    while batches.len() < BATCHES {
        let batch = Instant::now();
        for done in 0..BATCH {
            number += 1;
            ping.0.store(number, Ordering::Release);
            while pong.0.load(Ordering::Acquire) != number {
                std::hint::spin_loop();
                // Reading the clock costs less than a round trip takes when somebody is missing.
                if number % 16 == 0 && begin.elapsed() > DEADLINE {
                    batches.push(batch.elapsed() / (done as u32 + 1));
                    return median(&batches).unwrap_or(DEADLINE);
                }
            }
        }
        batches.push(batch.elapsed() / BATCH as u32);
        if begin.elapsed() > DEADLINE {
            break;
        }
    }
    median(&batches).unwrap_or(DEADLINE)
}

/// Send every number back until told to stop.
fn answer(ping: &Line, pong: &Line, stop: &AtomicBool) {
    let mut seen = 0;
    while !stop.load(Ordering::Acquire) {
        let number = ping.0.load(Ordering::Acquire);
        if number != seen {
            seen = number;
            pong.0.store(number, Ordering::Release);
        } else {
            std::hint::spin_loop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_probe_pins_both_threads_and_gives_a_plausible_time() {
        let pinned = AtomicU64::new(0);
        let pin = || {
            pinned.fetch_add(1, Ordering::Relaxed);
        };
        let begin = Instant::now();
        let round_trip = round_trip(pin, pin);
        assert_eq!(pinned.load(Ordering::Relaxed), 2);
        assert!(round_trip > Duration::from_nanos(1), "{round_trip:?}");
        // Disturbed, it may be anything up to the deadline, but it ends.
        assert!(begin.elapsed() < 20 * DEADLINE);
    }

    #[test]
    fn distances_are_told_apart() {
        let nanoseconds = Duration::from_nanos;
        assert_eq!(Distance::of(nanoseconds(105)), Distance::Near);
        assert_eq!(Distance::of(nanoseconds(390)), Distance::Far);
        assert_eq!(Distance::of(nanoseconds(4_000_000)), Distance::Disturbed);
        assert!(same_placement(nanoseconds(95), nanoseconds(105)));
        assert!(!same_placement(nanoseconds(105), nanoseconds(380)));
        assert!(!same_placement(nanoseconds(380), nanoseconds(105)));
    }
}
