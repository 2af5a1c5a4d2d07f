//! Which group measures what, and when.
//!
//! In each round each size is measured on all groups, one right after the other; then the next size, then the next round.
//! So what is compared was measured within a second, and a disturbance meets all alike. The one invariant that matters:
//! at any moment one group works and all others sleep.

use std::time::Duration;

use serde::Serialize;
use unisono_measure::rounds::operations_in;
use unisono_measure::{Samples, round_trip, size};
use unisono_os::cpu;

use crate::cell::{Placement, Round, RoundTrips, Value, settle};
use crate::group::Group;
use crate::verdict::ROUNDS_TO_JUDGE;
use crate::wire::{Answer, Loop, Request, Work};

/// A first look at how long an operation takes.
const FIRST_LOOK: Duration = Duration::from_millis(5);
/// Fewer operations have no median.
const FEWEST_OPERATIONS: usize = 5;
/// More operations tell nothing more.
const MOST_OPERATIONS: usize = 50_000;
/// Checked calls of a cell, each with other data.
const CHECKED: usize = 3;
/// Larger results are checked once: a check takes longer than a round.
const CHECKED_ONCE_FROM: usize = 4 << 20;

/// What is compared: one operation on one size, in one loop, among so many ranks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cell {
    pub(crate) work: Work,
    pub(crate) around: Loop,
    pub(crate) ranks: usize,
    pub(crate) cores: usize,
    /// Processes of others that never yield.
    pub(crate) strangers: usize,
}

impl Cell {
    /// Whether more want to run than there are cores.
    pub(crate) fn is_crowded(&self) -> bool {
        self.ranks + self.strangers > self.cores
    }

    /// The figure that is compared: with more ranks than cores the mean, because the median hides the slices of time
    /// that ranks wait for.
    pub(crate) fn judged(&self, value: &Value) -> u64 {
        if self.is_crowded() { value.mean_ns } else { value.p50_ns }
    }

    /// Whether both stand in one table.
    pub(crate) fn differs_in_size_only(&self, other: &Cell) -> bool {
        let work = Work { count: self.work.count, ..other.work };
        Cell { work, ..*other } == *self
    }

    /// The loop in words.
    pub(crate) fn around_in_words(&self) -> String {
        let around = match self.around {
            Loop::Alone => "back to back",
            Loop::Traffic => "written before and read after",
        };
        match self.strangers {
            0 => around.to_string(),
            1 => format!("{around} beside a process that never yields"),
            many => format!("{around} beside {many} processes that never yield"),
        }
    }
}

/// What one implementation did in a cell.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Outcome {
    pub(crate) name: String,
    pub(crate) rounds: Vec<Round>,
    /// Wrong elements in checked and timed calls.
    pub(crate) wrong: u64,
    /// Why there are no rounds, or no more.
    pub(crate) lacks: Option<String>,
    #[serde(skip)]
    operations: Option<usize>,
}

impl Outcome {
    /// Nothing yet.
    pub(crate) fn new(name: &str) -> Outcome {
        Outcome { name: name.to_string(), rounds: Vec::new(), wrong: 0, lacks: None, operations: None }
    }

    /// What it reached in a placement; nothing if it was wrong.
    pub(crate) fn value(&self, placement: Placement, near_up_to: Duration) -> Option<Value> {
        settle(&self.rounds, placement, near_up_to).filter(|_| self.wrong == 0)
    }

    /// Whether enough rounds of some placement count, or more would not help.
    pub(crate) fn is_done(&self, near_up_to: Duration) -> bool {
        let placements = [Placement::Near, Placement::Far, Placement::OneCore];
        let counted = placements.map(|placement| {
            self.rounds.iter().filter(|round| round.placement(near_up_to) == Some(placement)).count()
        });
        self.lacks.is_some() || counted.into_iter().any(|rounds| rounds >= ROUNDS_TO_JUDGE)
    }
}

/// All that was measured in a cell.
#[derive(Clone, Debug)]
pub(crate) struct CellResults {
    pub(crate) cell: Cell,
    pub(crate) outcomes: Vec<Outcome>,
}

impl CellResults {
    /// Nothing yet.
    pub(crate) fn new(cell: Cell, groups: &[Group]) -> CellResults {
        let taking_part = groups.iter().filter(|group| group.recipe.is_for(&cell));
        CellResults { cell, outcomes: taking_part.map(|group| Outcome::new(group.name())).collect() }
    }

    /// Whether further rounds would tell anything.
    pub(crate) fn is_done(&self, near_up_to: Duration) -> bool {
        self.outcomes.iter().all(|outcome| outcome.is_done(near_up_to))
    }
}

/// The two cores whose distance is looked at, if there are two.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Probe(pub(crate) Option<(usize, usize)>);

impl Probe {
    /// How far they are apart now.
    pub(crate) fn round_trip(self) -> Option<Duration> {
        let (one, other) = self.0?;
        // A thread that cannot be pinned gives a round trip that no placement has, and the round does not count.
        let pin = |core| {
            move || {
                let _ = cpu::pin_current_thread(&[core]);
            }
        };
        Some(round_trip(pin(one), pin(other)))
    }
}

/// Let every group do one round of a cell. A group that fails does not come again: its outcome says why.
pub(crate) fn one_round(results: &mut CellResults, groups: &mut Vec<Group>, probe: Probe, time: Duration) {
    let mut failed = Vec::new();
    let mut before = probe.round_trip();
    for group in groups.iter_mut() {
        let Some(outcome) = results.outcomes.iter_mut().find(|outcome| outcome.name == group.name()) else {
            continue;
        };
        if outcome.lacks.is_some() {
            continue;
        }
        match measure(outcome, group, &results.cell, time) {
            Ok(Some(ranks)) => {
                let after = probe.round_trip();
                let round_trips: RoundTrips = before.zip(after);
                outcome.rounds.extend(Round::of(&ranks, round_trips));
                before = after;
            }
            Ok(None) => {}
            Err(problem) => {
                outcome.lacks = Some(format!("{problem:#}"));
                failed.push(group.name().to_string());
            }
        }
    }
    groups.retain(|group| !failed.iter().any(|name| name == group.name()));
}

/// The samples of all ranks; none if the library lacks what it takes.
fn measure(
    outcome: &mut Outcome,
    group: &mut Group,
    cell: &Cell,
    time: Duration,
) -> anyhow::Result<Option<Vec<Samples>>> {
    let operations = match outcome.operations {
        Some(operations) => operations,
        None => {
            let repetitions = if cell.work.bytes() >= CHECKED_ONCE_FROM { 1 } else { CHECKED };
            let check = Request::Check { work: cell.work, repetitions, seed: 1 };
            let Some((_, wrong)) = ask(outcome, group, &check)? else { return Ok(None) };
            outcome.wrong += wrong;
            let Some(operations) = first_look(outcome, group, cell, time)? else { return Ok(None) };
            *outcome.operations.insert(operations)
        }
    };
    let request =
        Request::Time { work: cell.work, around: cell.around, warm_up: operations / 10 + 1, operations };
    let Some((samples, wrong)) = ask(outcome, group, &request)? else { return Ok(None) };
    outcome.wrong += wrong;
    Ok(Some(samples))
}

/// How many operations of a round fill `time`.
fn first_look(
    outcome: &mut Outcome,
    group: &mut Group,
    cell: &Cell,
    time: Duration,
) -> anyhow::Result<Option<usize>> {
    let mut operations = 3;
    for wanted in [FIRST_LOOK, time] {
        let request = Request::Time { work: cell.work, around: cell.around, warm_up: 1, operations };
        let Some((samples, _)) = ask(outcome, group, &request)? else { return Ok(None) };
        let slowest = samples.iter().filter_map(|samples| Some(samples.summary()?.p50_ns)).max();
        let each = Duration::from_nanos(slowest.unwrap_or(1));
        operations = operations_in(wanted, each, FEWEST_OPERATIONS, MOST_OPERATIONS);
    }
    Ok(Some(operations))
}

/// The samples, if any, and the wrong elements of all ranks; none if the library lacks what it takes.
fn ask(
    outcome: &mut Outcome,
    group: &mut Group,
    request: &Request,
) -> anyhow::Result<Option<(Vec<Samples>, u64)>> {
    let (mut all, mut total) = (Vec::new(), 0);
    for answer in group.ask(request)? {
        match answer {
            Answer::Lacks(what) => outcome.lacks = Some(what),
            Answer::Wrong(wrong) => total += wrong,
            Answer::Samples { samples, wrong } => {
                total += wrong;
                all.push(samples);
            }
        }
    }
    Ok(outcome.lacks.is_none().then_some((all, total)))
}

/// The size of a cell in words.
pub(crate) fn size_in_words(cell: &Cell) -> String {
    size::display(cell.work.bytes() as u64)
}
