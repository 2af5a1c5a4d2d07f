//! The times of single operations and what is said of them: median, 99th percentile, maximum.
//!
//! Whoever runs a timing loop collects into [`Samples`]; what travels between processes is the [`Summary`].
//! The one invariant that matters: a percentile is always a time that was measured (nearest rank, no
//! interpolation), so that it can be found again in the raw data.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The times of single operations, in nanoseconds, in the order in which they were measured.
#[derive(Clone, Debug, Default)]
pub struct Samples {
    nanoseconds: Vec<u64>,
}

impl Samples {
    /// Room for `operations` samples, so that the timing loop never allocates.
    pub fn with_capacity(operations: usize) -> Self {
        Samples { nanoseconds: Vec::with_capacity(operations) }
    }

    /// Add the time of one operation. Times beyond 584 years are taken as that.
    pub fn push(&mut self, time: Duration) {
        self.nanoseconds.push(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.nanoseconds.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.nanoseconds.is_empty()
    }

    /// The mean in nanoseconds; `None` if there is none. Where ranks take turns on a core it says more than the median, which
    /// hides the slices of time that they wait for.
    pub fn mean_ns(&self) -> Option<u64> {
        let sum: u64 = self.nanoseconds.iter().fold(0, |sum, time| sum.saturating_add(*time));
        sum.checked_div(self.nanoseconds.len() as u64)
    }

    /// The percentiles of these samples; `None` if there is none.
    pub fn summary(&self) -> Option<Summary> {
        let mut sorted = self.nanoseconds.clone();
        sorted.sort_unstable();
        Some(Summary {
            samples: sorted.len(),
            p50_ns: percentile(&sorted, 50.0)?,
            p99_ns: percentile(&sorted, 99.0)?,
            max_ns: *sorted.last()?,
        })
    }
}

impl FromIterator<Duration> for Samples {
    fn from_iter<I: IntoIterator<Item = Duration>>(times: I) -> Self {
        let mut samples = Samples::default();
        times.into_iter().for_each(|time| samples.push(time));
        samples
    }
}

/// What is said of a set of samples. Times are in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// How many operations were timed.
    pub samples: usize,
    /// The median.
    pub p50_ns: u64,
    /// The 99th percentile.
    pub p99_ns: u64,
    /// The slowest.
    pub max_ns: u64,
}

impl Summary {
    /// One value for all ranks: of each percentile the slowest rank's. `None` without ranks.
    ///
    /// A collective is as slow as its slowest rank, and an average over ranks would hide it.
    pub fn slowest(ranks: &[Summary]) -> Option<Summary> {
        ranks.iter().copied().reduce(|one, other| Summary {
            samples: one.samples.min(other.samples),
            p50_ns: one.p50_ns.max(other.p50_ns),
            p99_ns: one.p99_ns.max(other.p99_ns),
            max_ns: one.max_ns.max(other.max_ns),
        })
    }
}

/// The least of the sorted values that at least `percent` percent of them do not exceed; `None` if there is
/// none.
pub fn percentile<T: Copy>(sorted: &[T], percent: f64) -> Option<T> {
    let rank = (percent / 100.0 * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.clamp(1, sorted.len().max(1)) - 1).copied()
}

/// The median of values in any order: the lower of the two in the middle, so always one of them; `None` if
/// there is none.
pub fn median<T: Copy + PartialOrd>(values: &[T]) -> Option<T> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(|a, b| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal));
    percentile(&sorted, 50.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_the_nearest_measured_value() {
        let hundred: Vec<u64> = (1..=100).collect();
        assert_eq!(percentile(&hundred, 50.0), Some(50));
        assert_eq!(percentile(&hundred, 99.0), Some(99));
        assert_eq!(percentile(&hundred, 100.0), Some(100));
        assert_eq!(percentile(&hundred, 0.0), Some(1));
        assert_eq!(percentile(&[7], 99.0), Some(7));
        assert_eq!(percentile(&[1, 2], 50.0), Some(1));
        assert_eq!(percentile::<u64>(&[], 50.0), None);
    }

    #[test]
    fn one_outlier_moves_the_maximum_and_not_the_median() {
        let samples: Samples =
            (0..99).map(|_| Duration::from_nanos(100)).chain([Duration::from_millis(4)]).collect();
        let summary = samples.summary().unwrap();
        assert_eq!(summary, Summary { samples: 100, p50_ns: 100, p99_ns: 100, max_ns: 4_000_000 });
        assert_eq!(samples.mean_ns(), Some(40_099));
        assert!(Samples::default().summary().is_none() && Samples::default().mean_ns().is_none());
    }

    #[test]
    fn the_slowest_rank_speaks_for_all() {
        let rank = |p50_ns, p99_ns| Summary { samples: 10, p50_ns, p99_ns, max_ns: p99_ns };
        let slowest = Summary::slowest(&[rank(5, 90), rank(7, 20)]).unwrap();
        assert_eq!((slowest.p50_ns, slowest.p99_ns), (7, 90));
        assert_eq!(Summary::slowest(&[]), None);
    }

    #[test]
    fn the_median_does_not_depend_on_the_order() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4, 1, 3, 2]), Some(2));
        assert_eq!(median::<u8>(&[]), None);
    }
}
