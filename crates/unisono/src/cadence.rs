//! How long waits have taken lately, and so how long the next one is worth looking for before going to sleep.
//!
//! To be woken takes 30 to 50 µs on a virtual machine, and waking somebody a few, on the path of the rank that came last. So where
//! what is waited for comes every hundred microseconds it pays to keep looking, and where it comes every ten milliseconds it
//! does not. The one invariant that matters: **no wait looks longer than its [`Bounds`] say**, however long waits have been.

use std::time::Duration;

/// How long a wait may look; both below two seconds.
#[derive(Debug)]
pub(crate) struct Bounds {
    /// Every wait looks this long, and one that is likely to be long no longer.
    pub(crate) shortest: Duration,
    /// No wait looks longer.
    pub(crate) longest: Duration,
}

/// How long waits of one kind have taken.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cadence {
    bounds: &'static Bounds,
    /// Nanoseconds.
    typical: u32,
    /// Nanoseconds; kept, as it is asked for at every call and seldom changes.
    look_for: u32,
}

impl Cadence {
    /// Before the first wait.
    pub(crate) const fn new(bounds: &'static Bounds) -> Self {
        Cadence { bounds, typical: 0, look_for: bounds.shortest.as_nanos() as u32 }
    }

    /// A wait has taken this long.
    pub(crate) fn note(&mut self, waited: Duration) {
        let Bounds { shortest, longest } = self.bounds;
        let typical = (self.typical() * 7 + waited.min(2 * *longest)) / 8;
        // A bit longer than it usually takes, if that is not long.
        let enough = typical * 2 + *shortest;
        let look_for = match enough {
            _ if enough > *longest => *shortest,
            // A single long wait says nothing of short ones.
            _ if waited > *longest => enough.min(self.look_for()),
            _ => enough,
        };
        // Both are at most twice the longest look.
        (self.typical, self.look_for) = (typical.as_nanos() as u32, look_for.as_nanos() as u32);
    }

    fn typical(&self) -> Duration {
        Duration::from_nanos(self.typical.into())
    }

    /// How long to look for something before going to sleep.
    #[inline]
    pub(crate) fn look_for(&self) -> Duration {
        Duration::from_nanos(self.look_for.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static BOUNDS: Bounds =
        Bounds { shortest: Duration::from_micros(50), longest: Duration::from_micros(1000) };

    fn after(waits: impl IntoIterator<Item = u64>) -> Duration {
        let mut cadence = Cadence::new(&BOUNDS);
        waits.into_iter().for_each(|micros| cadence.note(Duration::from_micros(micros)));
        cadence.look_for()
    }

    #[test]
    fn what_comes_soon_is_looked_for() {
        assert_eq!(after([]), BOUNDS.shortest);
        let expected = Duration::from_micros(2 * 186 + 50);
        let found = after([186; 50]);
        assert!(found.abs_diff(expected) < Duration::from_micros(5), "{found:?}");
    }

    #[test]
    fn what_comes_late_is_slept_for() {
        assert_eq!(after([10_000; 10]), BOUNDS.shortest);
        assert_eq!(after([u64::MAX / 2]), BOUNDS.shortest);
        let found = after([100, 100, 100, 10_000]);
        assert_eq!(found, after([100, 100, 100]), "one wait proves little");
        let found = after((0..10).map(|_| 10_000).chain([100; 40]));
        assert!(found > BOUNDS.shortest, "what was is forgotten: {found:?}");
    }

    #[test]
    fn it_follows_from_the_one_to_the_other_and_back() {
        let mut cadence = Cadence::new(&BOUNDS);
        for _ in 0..3 {
            (0..100).for_each(|_| cadence.note(BOUNDS.longest / 3));
            assert!(cadence.look_for() > BOUNDS.longest / 3, "{cadence:?}");
            (0..100).for_each(|_| cadence.note(Duration::from_secs(1)));
            assert_eq!(cadence.look_for(), BOUNDS.shortest);
        }
    }

    #[test]
    fn no_wait_looks_longer_than_its_bounds() {
        for micros in [0, 1, 100, 400, 474, 475, 476, 500, 1000, 5000] {
            let found = after([micros; 100]);
            assert!((BOUNDS.shortest..=BOUNDS.longest).contains(&found), "{micros} µs: {found:?}");
        }
    }
}
