//! Values against targets: who the best peer is, how unisono compares, and whether that is enough.
//!
//! The one invariant that matters: what is compared is of one cell and one placement, and the best peer is the best of all
//! that were measured there, however few rounds of it count; doubts are to unisono's disadvantage.

use serde::Serialize;

use crate::cell::{Placement, Value};
use crate::schedule::{Cell, CellResults};
use crate::targets::{Target, Targets};

/// What unisono's names begin with: other settings of it are no peers.
pub(crate) const OURS: &str = "unisono";
/// A value of unisono's own needs so many rounds to be judged.
pub(crate) const ROUNDS_TO_JUDGE: usize = 3;

/// One cell in one placement, compared.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Comparison {
    pub(crate) placement: Placement,
    /// What each implementation reached, in the order of the columns.
    pub(crate) values: Vec<(String, Option<Value>)>,
    /// The peer that is ahead of all others.
    pub(crate) best_peer: Option<String>,
    /// For each of unisono's settings its time over the best peer's.
    pub(crate) ratios: Vec<(String, f64)>,
}

impl Comparison {
    /// Compare what was measured in a cell while the cores were in a placement; `None` if nothing was.
    pub(crate) fn of(results: &CellResults, placement: Placement, targets: &Targets) -> Option<Comparison> {
        let near_up_to = targets.near_up_to();
        let values: Vec<(String, Option<Value>)> = results
            .outcomes
            .iter()
            .map(|outcome| (outcome.name.clone(), outcome.value(placement, near_up_to)))
            .collect();
        values.iter().any(|(_, value)| value.is_some()).then(|| {
            let judged = |value: &Value| results.cell.judged(value);
            let best = values
                .iter()
                .filter(|(name, _)| !name.starts_with(OURS))
                .filter_map(|(name, value)| Some((name, judged(value.as_ref()?))))
                .min_by_key(|(_, time)| *time);
            let ratios = values
                .iter()
                .filter(|(name, _)| name.starts_with(OURS))
                .filter_map(|(name, value)| {
                    let ((_, peer), own) = (best?, value.as_ref()?);
                    Some((name.clone(), judged(own) as f64 / peer.max(1) as f64))
                })
                .collect();
            Comparison { placement, best_peer: best.map(|(name, _)| name.clone()), ratios, values }
        })
    }

    /// The ratio of one of unisono's settings, if it may be judged by.
    fn ratio_to_judge(&self, name: &str) -> Option<f64> {
        let (_, value) = self.values.iter().find(|(of, _)| of == name)?;
        let enough = value.is_some_and(|value| value.rounds >= ROUNDS_TO_JUDGE);
        let ratio = self.ratios.iter().find(|(of, _)| of == name).map(|(_, ratio)| *ratio);
        ratio.filter(|_| enough)
    }
}

/// Whether a target was reached, for one type and placement.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Verdict {
    /// What the target is about.
    pub(crate) subject: String,
    pub(crate) target: f64,
    /// The worst size of those that the target is about.
    pub(crate) bytes: usize,
    pub(crate) ratio: f64,
    pub(crate) best_peer: String,
}

impl Verdict {
    /// Whether the target was reached.
    pub(crate) fn is_met(&self) -> bool {
        self.ratio <= self.target
    }

    /// By how many percent it was missed.
    pub(crate) fn missed_by(&self) -> f64 {
        100.0 * (self.ratio / self.target - 1.0)
    }
}

/// Judge all cells: one verdict for each target, type, number of ranks and placement that something was measured of.
pub(crate) fn judge(results: &[CellResults], targets: &Targets) -> Vec<Verdict> {
    let mut verdicts: Vec<Verdict> = Vec::new();
    for target in &targets.list {
        for one in results.iter().filter(|one| target.covers(&one.cell)) {
            for placement in [Placement::Near, Placement::Far] {
                let verdict = judge_cell(target, one, placement, targets);
                verdicts.extend(verdict);
            }
        }
    }
    worst_of_each_subject(verdicts)
}

fn judge_cell(
    target: &Target,
    results: &CellResults,
    placement: Placement,
    targets: &Targets,
) -> Option<Verdict> {
    let Cell { work, ranks, .. } = results.cell;
    let comparison = Comparison::of(results, placement, targets)?;
    let ratio = comparison.ratio_to_judge(&target.implementation)?;
    let sizes = target.sizes();
    let around = results.cell.around_in_words();
    Some(Verdict {
        subject: format!(
            "{} {around}, {} {}, {ranks} ranks, {sizes}, {}",
            target.implementation,
            work.operation,
            work.dtype,
            placement.name()
        ),
        target: target.ratio(placement)? * targets.allowance(work.dtype.name()),
        bytes: work.bytes(),
        ratio,
        best_peer: comparison.best_peer?,
    })
}

/// One verdict for each subject: that of its worst size. The order of first mention is kept.
fn worst_of_each_subject(verdicts: Vec<Verdict>) -> Vec<Verdict> {
    let mut worst: Vec<Verdict> = Vec::new();
    for verdict in verdicts {
        match worst.iter_mut().find(|known| known.subject == verdict.subject) {
            Some(known) if known.ratio < verdict.ratio => *known = verdict,
            Some(_) => {}
            None => worst.push(verdict),
        }
    }
    worst
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use unisono::DType;
    use unisono_measure::Operation;

    use super::*;
    use crate::cell::Round;
    use crate::schedule::Outcome;
    use crate::wire::{Loop, Work};

    const NEAR: u64 = 100;
    const FAR: u64 = 270;

    fn rounds(p50_ns: u64, distances: &[(u64, u64)]) -> Vec<Round> {
        let round_trip = |(before, after)| Some((Duration::from_nanos(before), Duration::from_nanos(after)));
        distances
            .iter()
            .map(|distance| Round {
                p50_ns,
                p99_ns: 2 * p50_ns,
                mean_ns: 10 * p50_ns,
                operations: 100,
                round_trip: round_trip(*distance),
            })
            .collect()
    }

    fn outcome(name: &str, rounds: Vec<Round>) -> Outcome {
        let mut outcome = Outcome::new(name);
        outcome.rounds = rounds;
        outcome
    }

    fn results(bytes: usize, ranks: usize, outcomes: Vec<Outcome>) -> CellResults {
        let work = Work { operation: Operation::AllReduce, dtype: DType::F32, count: bytes / 4 };
        CellResults { cell: Cell { work, around: Loop::Alone, ranks, cores: 2, strangers: 0 }, outcomes }
    }

    fn far(times: &[(&str, u64)]) -> Vec<Outcome> {
        times.iter().map(|(name, time)| outcome(name, rounds(*time, &[(FAR, FAR); 3]))).collect()
    }

    #[test]
    fn the_ratio_is_to_the_best_peer_and_settings_of_unisono_are_none() {
        let times = far(&[("unisono", 50), ("unisono registered", 30), ("slow", 200), ("fast", 100)]);
        let comparison =
            Comparison::of(&results(64, 2, times), Placement::Far, &Targets::read().unwrap()).unwrap();
        assert_eq!(comparison.best_peer.as_deref(), Some("fast"));
        assert_eq!(
            comparison.ratios,
            [("unisono".to_string(), 0.5), ("unisono registered".to_string(), 0.3)]
        );
    }

    #[test]
    fn a_target_is_met_at_its_ratio_and_missed_above() {
        let targets = Targets::read().unwrap();
        let verdicts = judge(&[results(64, 2, far(&[("unisono", 70), ("peer", 100)]))], &targets);
        assert_eq!(verdicts.len(), 1);
        assert!(verdicts[0].is_met(), "{verdicts:?}");
        let verdicts = judge(&[results(64, 2, far(&[("unisono", 77), ("peer", 100)]))], &targets);
        assert!(!verdicts[0].is_met());
        assert!((verdicts[0].missed_by() - 10.0).abs() < 1e-6, "{verdicts:?}");
    }

    #[test]
    fn the_worst_size_of_a_target_speaks_for_it() {
        let targets = Targets::read().unwrap();
        let cells = [
            results(8, 2, far(&[("unisono", 60), ("peer", 100)])),
            results(64, 2, far(&[("unisono", 90), ("peer", 100)])),
            results(16, 2, far(&[("unisono", 10), ("peer", 100)])),
        ];
        let verdicts = judge(&cells, &targets);
        assert_eq!(verdicts.len(), 1, "{verdicts:?}");
        assert_eq!((verdicts[0].bytes, verdicts[0].ratio), (64, 0.9));
    }

    #[test]
    fn near_and_far_are_judged_apart_and_never_against_one_another() {
        let near = [(NEAR, NEAR); 3];
        let both = [(NEAR, NEAR), (FAR, FAR), (NEAR, NEAR), (FAR, FAR), (NEAR, NEAR), (FAR, FAR)];
        let mut own = rounds(80, &near);
        own.extend(rounds(300, &[(FAR, FAR); 3]));
        let cells = [results(65536, 2, vec![outcome("unisono", own), outcome("peer", rounds(160, &both))])];
        let verdicts = judge(&cells, &Targets::read().unwrap());
        let found: Vec<(f64, f64)> = verdicts.iter().map(|verdict| (verdict.ratio, verdict.target)).collect();
        assert_eq!(found, [(0.5, 0.53), (300.0 / 160.0, 0.91)]);
    }

    #[test]
    fn too_few_rounds_of_unisono_are_not_judged_but_few_of_a_peer_count_against_it() {
        let targets = Targets::read().unwrap();
        let moved = [(FAR, FAR), (FAR, FAR), (NEAR, FAR)];
        let own = outcome("unisono", rounds(50, &moved));
        let cells = [results(64, 2, vec![own, outcome("peer", rounds(100, &[(FAR, FAR); 3]))])];
        assert_eq!(judge(&cells, &targets), []);

        let own = outcome("unisono", rounds(50, &[(FAR, FAR); 3]));
        let cells = [results(64, 2, vec![own, outcome("peer", rounds(40, &moved))])];
        assert_eq!(judge(&cells, &targets)[0].ratio, 1.25);
    }

    #[test]
    fn with_more_ranks_than_cores_the_mean_is_judged() {
        let targets = Targets::read().unwrap();
        let verdicts = judge(&[results(64, 4, far(&[("unisono", 80), ("peer", 100)]))], &targets);
        assert_eq!((verdicts[0].ratio, verdicts[0].target), (0.8, 0.85));
        let cell = results(64, 4, Vec::new()).cell;
        let value = crate::cell::settle(&rounds(7, &[(FAR, FAR)]), Placement::Far, targets.near_up_to());
        assert_eq!(cell.judged(&value.unwrap()), 70);
    }

    #[test]
    fn a_peer_whose_results_are_wrong_is_no_peer() {
        let mut times = far(&[("unisono", 50), ("wrong", 10), ("right", 100)]);
        times[1].wrong = 3;
        let comparison =
            Comparison::of(&results(64, 2, times), Placement::Far, &Targets::read().unwrap()).unwrap();
        assert_eq!(comparison.best_peer.as_deref(), Some("right"));
    }

    #[test]
    fn bf16_may_be_a_tenth_worse() {
        let mut cell = results(64, 2, far(&[("unisono", 75), ("peer", 100)]));
        cell.cell.work.dtype = DType::BF16;
        cell.cell.work.count = 32;
        let verdicts = judge(&[cell], &Targets::read().unwrap());
        assert!(verdicts[0].is_met() && verdicts[0].target > 0.76, "{verdicts:?}");
    }
}
