//! What is shown: a table for each operation, a line for each target, and all of it as JSON.
//!
//! The one invariant that matters: what was left out (a peer that cannot be had, a library that lacks an operation, a wrong
//! result, rounds that do not count) is said where one looks for it.

use std::collections::BTreeSet;

use serde_json::{Value as Json, json};
use unisono_measure::report::microseconds;
use unisono_measure::table;

use crate::cell::Placement;
use crate::recipe::Recipes;
use crate::schedule::{CellResults, size_in_words};
use crate::targets::Targets;
use crate::verdict::{Comparison, OURS, ROUNDS_TO_JUDGE, Verdict};

/// Marks a value of fewer rounds than are judged by.
const FEW_ROUNDS: &str = "†";

/// The table of the cells that differ in their size only.
pub(crate) fn table_of(cells: &[&CellResults], targets: &Targets) -> String {
    let Some(first) = cells.first() else { return String::new() };
    let names: Vec<&str> = first.outcomes.iter().map(|outcome| outcome.name.as_str()).collect();
    let mut headings = vec!["size", "cores"];
    headings.extend(&names);
    headings.extend(["ratio", "best peer"]);
    let mut rows = Vec::new();
    for placement in [Placement::Near, Placement::Far, Placement::OneCore] {
        for results in cells {
            rows.extend(
                Comparison::of(results, placement, targets).map(|comparison| row(results, &comparison)),
            );
        }
    }
    let cell = &first.cell;
    let figure = if cell.is_crowded() { "mean" } else { "median" };
    format!(
        "\n{} {}, {} ranks on {} cores, {}: {figure} of the slowest rank in us\n{}\n{}",
        cell.work.operation,
        cell.work.dtype,
        cell.ranks,
        cell.cores,
        cell.around_in_words(),
        table::render(&headings, &rows),
        footnotes(cells).join("\n")
    )
}

fn row(results: &CellResults, comparison: &Comparison) -> Vec<String> {
    let mut row = vec![size_in_words(&results.cell), comparison.placement.name().to_string()];
    for (_, value) in &comparison.values {
        row.push(value.as_ref().map_or("-".to_string(), |value| {
            let mark = if value.rounds < ROUNDS_TO_JUDGE { FEW_ROUNDS } else { "" };
            format!("{}{mark}", microseconds(results.cell.judged(value) as f64 / 1000.0))
        }));
    }
    // Of several settings of unisono the last one is the one that is offered for this loop.
    row.push(comparison.ratios.last().map_or("-".to_string(), |(_, ratio)| format!("{ratio:.2}")));
    row.push(comparison.best_peer.clone().unwrap_or_else(|| "-".to_string()));
    row
}

/// What the table cannot show: what is missing, and what is wrong.
fn footnotes(cells: &[&CellResults]) -> Vec<String> {
    let mut notes: Vec<String> = Vec::new();
    for results in cells {
        for outcome in &results.outcomes {
            let size = size_in_words(&results.cell);
            if outcome.wrong > 0 {
                notes.push(format!(
                    "  {} at {size}: {} WRONG elements, not compared",
                    outcome.name, outcome.wrong
                ));
            }
            if let Some(what) = &outcome.lacks {
                let note = format!("  {} lacks {what}", outcome.name);
                if !notes.contains(&note) {
                    notes.push(note);
                }
            }
        }
    }
    notes
}

/// A target that was reached, or missed by how much.
pub(crate) fn line_of(verdict: &Verdict) -> String {
    let Verdict { subject, target, ratio, best_peer, bytes } = verdict;
    let outcome =
        if verdict.is_met() { "met".to_string() } else { format!("MISSED by {:.0} %", verdict.missed_by()) };
    let size = unisono_measure::size::display(*bytes as u64);
    format!("{outcome:>14}  {ratio:.2} of {best_peer} at worst ({size}), target {target:.2}: {subject}")
}

/// Everything, for programs.
pub(crate) fn json_of(
    recipes: &Recipes,
    all: &[CellResults],
    verdicts: &[Verdict],
    targets: &Targets,
) -> Json {
    let cells: Vec<Json> = all.iter().map(|results| cell_as_json(results, targets)).collect();
    let versions: Vec<Json> = recipes
        .available
        .iter()
        .chain(recipes.queues.iter().filter(|recipe| recipe.name != OURS || recipes.available.is_empty()))
        .map(|recipe| json!({"name": recipe.name, "version": recipe.version}))
        .collect();
    let missing: Vec<Json> = recipes
        .unavailable
        .iter()
        .map(|missing| json!({"name": missing.name, "reason": missing.reason}))
        .collect();
    json!({
        "implementations": versions,
        "unavailable": missing,
        "near_up_to_ns": targets.near_up_to().as_nanos() as u64,
        "cells": cells,
        "verdicts": verdicts,
    })
}

fn cell_as_json(results: &CellResults, targets: &Targets) -> Json {
    let cell = &results.cell;
    let placements = [Placement::Near, Placement::Far, Placement::OneCore];
    let comparisons: Vec<Comparison> =
        placements.into_iter().filter_map(|placement| Comparison::of(results, placement, targets)).collect();
    json!({
        "op": cell.work.operation.name(),
        "dtype": cell.work.dtype.name(),
        "loop": cell.around,
        "ranks": cell.ranks,
        "cores": cell.cores,
        "bytes": cell.work.bytes(),
        "strangers": cell.strangers,
        "judged": if cell.is_crowded() { "mean_ns" } else { "p50_ns" },
        "outcomes": results.outcomes,
        "comparisons": comparisons,
    })
}

/// Who is measured, and who is not and why.
pub(crate) fn introduction(recipes: &Recipes) -> String {
    let all = || recipes.available.iter().chain(&recipes.queues);
    let mut lines: Vec<String> =
        all().map(|recipe| format!("  {}: {}", recipe.name, recipe.version)).collect();
    // Settings for different places go by one name, and unisono by one for both instruments.
    let mut said = BTreeSet::new();
    lines.retain(|line| said.insert(line.clone()));
    lines.extend(
        recipes
            .unavailable
            .iter()
            .map(|missing| format!("  {}: NOT MEASURED: {}", missing.name, missing.reason)),
    );
    if all().all(|recipe| recipe.name.starts_with(OURS)) {
        lines.push("  there is no peer to compare with".to_string());
    }
    lines.join("\n")
}
