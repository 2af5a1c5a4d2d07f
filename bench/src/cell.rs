//! From rounds to one value: which rounds count, and what is said of them.
//!
//! The one invariant that matters: rounds taken while the cores were near and rounds taken while they were far are never
//! mixed, and a round during which that changed counts for neither.

use std::time::Duration;

use anyhow::Context;
use serde::Serialize;
use unisono_measure::placement::same_placement;
use unisono_measure::samples::median;
use unisono_measure::{Distance, Samples};

/// Where the cores of a round were.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Placement {
    Near,
    Far,
    /// All ranks share one core: there is no distance.
    OneCore,
}

impl Placement {
    /// The word in reports.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Placement::Near => "near",
            Placement::Far => "far",
            Placement::OneCore => "one core",
        }
    }
}

/// The round trip between the ranks' cores before and after a round; `None` where all share one core.
pub(crate) type RoundTrips = Option<(Duration, Duration)>;

/// What one implementation did in one round of one cell. Times are in nanoseconds, of each the slowest rank's.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Round {
    pub(crate) p50_ns: u64,
    pub(crate) p99_ns: u64,
    pub(crate) mean_ns: u64,
    pub(crate) operations: usize,
    #[serde(serialize_with = "in_nanoseconds")]
    pub(crate) round_trip: RoundTrips,
}

fn in_nanoseconds<S: serde::Serializer>(round_trip: &RoundTrips, serializer: S) -> Result<S::Ok, S::Error> {
    round_trip
        .map(|(before, after)| (before.as_nanos() as u64, after.as_nanos() as u64))
        .serialize(serializer)
}

impl Round {
    /// One value for all ranks: a collective is as slow as its slowest rank.
    ///
    /// # Errors
    /// When there are no samples.
    pub(crate) fn of(ranks: &[Samples], round_trip: RoundTrips) -> anyhow::Result<Round> {
        let mut round = Round { p50_ns: 0, p99_ns: 0, mean_ns: 0, operations: 0, round_trip };
        for samples in ranks {
            let (summary, mean) =
                samples.summary().zip(samples.mean_ns()).context("a rank has timed nothing")?;
            round.p50_ns = round.p50_ns.max(summary.p50_ns);
            round.p99_ns = round.p99_ns.max(summary.p99_ns);
            round.mean_ns = round.mean_ns.max(mean);
            round.operations = summary.samples;
        }
        Ok(round)
    }

    /// Where the cores were, if they stayed there. `near_up_to` is the longest round trip of near cores.
    pub(crate) fn placement(&self, near_up_to: Duration) -> Option<Placement> {
        let Some((before, after)) = self.round_trip else { return Some(Placement::OneCore) };
        let side = |round_trip: Duration| match Distance::of(round_trip) {
            Distance::Disturbed => None,
            _ if round_trip <= near_up_to => Some(Placement::Near),
            _ => Some(Placement::Far),
        };
        let placement = side(before)?;
        (side(after) == Some(placement) && same_placement(before, after)).then_some(placement)
    }
}

/// What is said of an implementation in a cell and a placement: of each figure the median over the rounds that count.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Value {
    pub(crate) p50_ns: u64,
    pub(crate) p99_ns: u64,
    pub(crate) mean_ns: u64,
    pub(crate) rounds: usize,
    pub(crate) round_trip_ns: Option<u64>,
}

/// Settle the rounds of one placement; `None` if there are none.
pub(crate) fn settle(rounds: &[Round], placement: Placement, near_up_to: Duration) -> Option<Value> {
    let counted: Vec<&Round> =
        rounds.iter().filter(|round| round.placement(near_up_to) == Some(placement)).collect();
    let of =
        |figure: fn(&Round) -> u64| median(&counted.iter().map(|round| figure(round)).collect::<Vec<_>>());
    let round_trips: Vec<u64> =
        counted.iter().filter_map(|round| Some(round.round_trip?.0.as_nanos() as u64)).collect();
    Some(Value {
        p50_ns: of(|round| round.p50_ns)?,
        p99_ns: of(|round| round.p99_ns)?,
        mean_ns: of(|round| round.mean_ns)?,
        rounds: counted.len(),
        round_trip_ns: median(&round_trips),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEAR: Duration = Duration::from_nanos(160);

    fn round(p50_ns: u64, before: u64, after: u64) -> Round {
        let round_trip = Some((Duration::from_nanos(before), Duration::from_nanos(after)));
        Round { p50_ns, p99_ns: 2 * p50_ns, mean_ns: p50_ns + 1, operations: 10, round_trip }
    }

    #[test]
    fn a_round_in_which_the_cores_moved_counts_for_neither_placement() {
        for (before, after, placement) in [
            (100, 105, Some(Placement::Near)),
            (270, 300, Some(Placement::Far)),
            (100, 270, None),
            (270, 100, None),
            // Across the line, though hardly apart.
            (155, 165, None),
            // On one side, though far apart.
            (200, 400, None),
            (5_000, 5_000, None),
        ] {
            assert_eq!(round(1, before, after).placement(NEAR), placement, "{before} {after}");
        }
        let alone = Round { round_trip: None, ..round(1, 0, 0) };
        assert_eq!(alone.placement(NEAR), Some(Placement::OneCore));
    }

    #[test]
    fn near_and_far_are_settled_apart() {
        let rounds = [round(100, 100, 101), round(500, 270, 270), round(900, 100, 270), round(120, 102, 99)];
        let near = settle(&rounds, Placement::Near, NEAR).unwrap();
        assert_eq!((near.p50_ns, near.p99_ns, near.rounds, near.round_trip_ns), (100, 200, 2, Some(100)));
        let far = settle(&rounds, Placement::Far, NEAR).unwrap();
        assert_eq!((far.p50_ns, far.rounds), (500, 1));
        assert_eq!(settle(&rounds, Placement::OneCore, NEAR), None);
    }

    #[test]
    fn the_slowest_rank_speaks_for_all() {
        let rank = |times: &[u64]| times.iter().map(|time| Duration::from_nanos(*time)).collect::<Samples>();
        let round = Round::of(&[rank(&[10, 20, 90]), rank(&[30, 30, 30])], None).unwrap();
        assert_eq!((round.p50_ns, round.p99_ns, round.mean_ns, round.operations), (30, 90, 40, 3));
        assert!(Round::of(&[rank(&[])], None).is_err());
    }
}
