//! The monotonic clock, in nanoseconds.
//!
//! `Instant` is opaque and belongs to one process; a number can be written into shared memory, and another
//! process of the same machine can compare it with its own. The invariant: all processes of a machine (of one
//! time namespace) read the same clock, and it never goes back.

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds since some moment before the machine's start of work; the same clock in every process.
///
/// The clock does not count time in which the machine was suspended.
#[inline]
pub fn monotonic_nanoseconds() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec.cast_unsigned().wrapping_mul(1_000_000_000).wrapping_add(now.tv_nsec.cast_unsigned())
}

/// The same clock as it stood at the last tick, a few milliseconds ago at most: cheap enough for every message.
#[inline]
pub fn coarse_nanoseconds() -> u64 {
    let now = clock_gettime(ClockId::MonotonicCoarse);
    now.tv_sec.cast_unsigned().wrapping_mul(1_000_000_000).wrapping_add(now.tv_nsec.cast_unsigned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    #[test]
    fn the_clock_advances_as_instants_do() {
        let (instant, start) = (Instant::now(), monotonic_nanoseconds());
        std::thread::sleep(Duration::from_millis(20));
        let (counted, elapsed) = (monotonic_nanoseconds() - start, instant.elapsed());
        assert!(counted >= 20_000_000, "{counted} ns");
        assert!(
            Duration::from_nanos(counted) <= elapsed + Duration::from_millis(1),
            "{counted} ns, {elapsed:?}"
        );
    }

    #[test]
    fn the_coarse_clock_lags_by_ticks_only() {
        let coarse = coarse_nanoseconds();
        let fine = monotonic_nanoseconds();
        assert!(coarse <= fine && fine - coarse < 1_000_000_000, "{coarse} {fine}");
    }
}
