//! The chart: time over size, a line for each implementation, a panel for each operation.
//!
//! The one invariant that matters: a panel is of one placement, that in which most was measured.

use anyhow::Context;
use unisono_measure::chart::{self, Line, Panel};

use crate::cell::Placement;
use crate::schedule::CellResults;
use crate::targets::Targets;
use crate::wire::Loop;

/// Draw what was measured back to back with a core for each rank.
///
/// # Errors
/// When there is nothing of it.
pub(crate) fn of(all: &[CellResults], targets: &Targets) -> anyhow::Result<String> {
    let drawn: Vec<&CellResults> = all
        .iter()
        .filter(|results| results.cell.around == Loop::Alone && !results.cell.is_crowded())
        .collect();
    let panels: Vec<Panel> = drawn
        .chunk_by(|one, other| one.cell.differs_in_size_only(&other.cell))
        .filter_map(|cells| panel(cells, targets))
        .collect();
    chart::svg(&panels).context("of what was measured back to back with a core for each rank")
}

fn panel(cells: &[&CellResults], targets: &Targets) -> Option<Panel> {
    let first = &cells.first()?;
    let placement = most_measured(cells, targets);
    let line = |name: &str| Line {
        name: name.to_string(),
        points: cells.iter().filter_map(|results| point(results, name, placement, targets)).collect(),
    };
    let lines: Vec<Line> = first
        .outcomes
        .iter()
        .map(|outcome| line(&outcome.name))
        .filter(|line| !line.points.is_empty())
        .collect();
    let cell = &first.cell;
    let title = format!(
        "{} {}, {} ranks, cores {}",
        cell.work.operation,
        cell.work.dtype,
        cell.ranks,
        placement.name()
    );
    (!lines.is_empty()).then_some(Panel { title, lines })
}

fn point(results: &CellResults, name: &str, placement: Placement, targets: &Targets) -> Option<(u64, f64)> {
    let outcome = results.outcomes.iter().find(|outcome| outcome.name == name)?;
    let value = outcome.value(placement, targets.near_up_to())?;
    Some((results.cell.work.bytes() as u64, results.cell.judged(&value) as f64 / 1000.0))
}

fn most_measured(cells: &[&CellResults], targets: &Targets) -> Placement {
    let rounds = |placement: &Placement| -> usize {
        let outcomes = cells.iter().flat_map(|results| &results.outcomes);
        outcomes
            .filter_map(|outcome| outcome.value(*placement, targets.near_up_to()))
            .map(|value| value.rounds)
            .sum()
    };
    let placements = [Placement::OneCore, Placement::Far, Placement::Near];
    placements.into_iter().max_by_key(rounds).unwrap_or(Placement::OneCore)
}
