//! Timing loops, and which of several rounds count.
//!
//! A rank calls [`time_each`] for a round of back-to-back operations; whoever collects the ranks' answers
//! makes a [`Round`] of them and asks [`settle`] for the value of the cell. The one invariant that matters:
//! rounds taken while the cores were near and rounds taken while they were far are never mixed.

use std::time::{Duration, Instant};

use crate::placement::same_placement;
use crate::samples::{Samples, Summary, median};

/// Run `operation` `operations` times back to back and time each one, with a single clock read per operation:
/// the end of one is the beginning of the next. `operation` gets the number of the repetition, from 0.
///
/// # Errors
/// The first error of `operation`, at which the loop stops.
pub fn time_each<E>(
    operations: usize,
    mut operation: impl FnMut(usize) -> Result<(), E>,
) -> Result<Samples, E> {
    let mut samples = Samples::with_capacity(operations);
    let mut before = Instant::now();
    for number in 0..operations {
        operation(number)?;
        let after = Instant::now();
        samples.push(after.duration_since(before));
        before = after;
    }
    Ok(samples)
}

/// How many operations fill `wanted` if one takes `each`: at least `least`, at most `most`.
pub fn operations_in(wanted: Duration, each: Duration, least: usize, most: usize) -> usize {
    let operations = wanted.as_nanos() / each.as_nanos().max(1);
    usize::try_from(operations).unwrap_or(usize::MAX).clamp(least, most.max(least))
}

/// One round: what the slowest rank measured, and the core round trip before and after.
#[derive(Clone, Copy, Debug)]
pub struct Round {
    /// The slowest rank's percentiles.
    pub summary: Summary,
    /// The round trip between the ranks' cores before and after; `None` where it cannot be had (one core).
    pub round_trip: Option<(Duration, Duration)>,
}

impl Round {
    /// Whether the cores stayed where they were while the round ran.
    pub fn stayed(&self) -> bool {
        self.round_trip.is_none_or(|(before, after)| same_placement(before, after))
    }
}

/// The value of a cell, settled from its rounds.
#[derive(Clone, Copy, Debug)]
pub struct Settled {
    /// Of each percentile the median over the rounds that count.
    pub summary: Summary,
    /// The median round trip of the rounds that count.
    pub round_trip: Option<Duration>,
    /// How many rounds count.
    pub rounds: usize,
    /// No round had the same placement before and after it: the value is of a mixture.
    pub moved: bool,
}

/// Settle a cell: drop the rounds in which the placement moved, keep the largest group of the others that
/// share a placement, and take the median of each percentile over them. If the placement moved in every
/// round, all of them are taken and the result says so. `None` without rounds.
pub fn settle(rounds: &[Round]) -> Option<Settled> {
    let stayed: Vec<&Round> = rounds.iter().filter(|round| round.stayed()).collect();
    let moved = stayed.is_empty();
    let counted = if moved { rounds.iter().collect() } else { largest_group(&stayed) };
    let of = |value: fn(&Summary) -> u64| {
        median(&counted.iter().map(|round| value(&round.summary)).collect::<Vec<_>>())
    };
    let round_trips: Vec<Duration> = counted.iter().filter_map(|round| Some(round.round_trip?.0)).collect();
    Some(Settled {
        summary: Summary {
            samples: counted.iter().map(|round| round.summary.samples).sum(),
            p50_ns: of(|summary| summary.p50_ns)?,
            p99_ns: of(|summary| summary.p99_ns)?,
            max_ns: of(|summary| summary.max_ns)?,
        },
        round_trip: median(&round_trips),
        rounds: counted.len(),
        moved,
    })
}

/// The largest set of rounds that have the placement of one of them; the first such set if several are.
fn largest_group<'a>(rounds: &[&'a Round]) -> Vec<&'a Round> {
    let mut largest = Vec::new();
    for one in rounds {
        let group: Vec<&Round> = rounds.iter().copied().filter(|other| alike(one, other)).collect();
        if group.len() > largest.len() {
            largest = group;
        }
    }
    largest
}

fn alike(one: &Round, other: &Round) -> bool {
    match (one.round_trip, other.round_trip) {
        (Some((one, _)), Some((other, _))) => same_placement(one, other),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    fn round(p50_ns: u64, before_ns: u64, after_ns: u64) -> Round {
        Round {
            summary: Summary { samples: 10, p50_ns, p99_ns: 2 * p50_ns, max_ns: 3 * p50_ns },
            round_trip: Some((Duration::from_nanos(before_ns), Duration::from_nanos(after_ns))),
        }
    }

    #[test]
    fn every_operation_is_timed_once_and_errors_stop_the_loop() {
        let mut seen = Vec::new();
        let samples = time_each(5, |number| {
            seen.push(number);
            Ok::<(), Infallible>(())
        })
        .unwrap();
        assert_eq!((samples.len(), seen), (5, vec![0, 1, 2, 3, 4]));
        assert_eq!(time_each(5, |number| if number == 2 { Err("full") } else { Ok(()) }).err(), Some("full"));
    }

    #[test]
    fn a_sleeping_operation_is_timed_as_long_as_it_sleeps() {
        let samples = time_each(3, |_| {
            std::thread::sleep(Duration::from_millis(2));
            Ok::<(), Infallible>(())
        })
        .unwrap();
        assert!(samples.summary().unwrap().p50_ns >= 2_000_000);
    }

    #[test]
    fn rounds_in_which_the_placement_moved_are_dropped() {
        let settled = settle(&[round(100, 100, 102), round(900, 101, 390), round(120, 99, 100)]).unwrap();
        assert_eq!((settled.summary.p50_ns, settled.rounds, settled.moved), (100, 2, false));
        assert_eq!(settled.round_trip, Some(Duration::from_nanos(99)));
    }

    #[test]
    fn near_and_far_are_never_mixed() {
        let rounds = [round(100, 100, 100), round(500, 390, 391), round(480, 385, 390)];
        let settled = settle(&rounds).unwrap();
        assert_eq!((settled.summary.p50_ns, settled.rounds), (480, 2));
    }

    #[test]
    fn a_placement_that_never_stays_is_told() {
        let settled = settle(&[round(100, 100, 390), round(300, 390, 100)]).unwrap();
        assert!(settled.moved);
        assert_eq!(settled.rounds, 2);
        assert!(settle(&[]).is_none());
    }

    #[test]
    fn the_number_of_operations_fills_the_time_within_its_bounds() {
        let second = Duration::from_secs(1);
        assert_eq!(operations_in(second, Duration::from_micros(1), 10, 10_000_000), 1_000_000);
        assert_eq!(operations_in(second, Duration::from_secs(9), 10, 100), 10);
        assert_eq!(operations_in(second, Duration::ZERO, 10, 100), 100);
    }
}
