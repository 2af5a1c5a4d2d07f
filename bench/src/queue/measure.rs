//! Which group measures which cell, and when: as for the collectives, in turn.

use std::time::Duration;

use anyhow::ensure;
use unisono_measure::Samples;
use unisono_measure::rounds::operations_in;

use super::cell::{Cell, Kind, all};
use crate::cell::{Round, RoundTrips};
use crate::group::{Group, Place};
use crate::recipe::{Recipe, Recipes};
use crate::schedule::{Outcome, Probe};
use crate::targets::Targets;
use crate::wire::Answer;

const FIRST_LOOK: Duration = Duration::from_millis(5);
const FEWEST_MESSAGES: usize = 10;
const MOST_MESSAGES: usize = 2_000_000;
/// As many samples as travel back.
const MOST_ECHOES: usize = 50_000;

/// All that was measured of a cell.
#[derive(Clone, Debug)]
pub(crate) struct Results {
    pub(crate) cell: Cell,
    pub(crate) outcomes: Vec<Outcome>,
    /// How many messages of a round fill the time, by implementation.
    messages: Vec<Option<usize>>,
}

/// Measure all cells. `place` says where; its number of ranks is that of each cell.
///
/// # Errors
/// When unisono's own processes cannot be started.
pub(crate) fn measure(
    recipes: &Recipes,
    place: &Place,
    rounds: usize,
    time: Duration,
    targets: &Targets,
) -> anyhow::Result<Vec<Results>> {
    let mut cells = all();
    cells.sort_by_key(|cell| cell.readers);
    let mut measured = Vec::new();
    for cells in cells.chunk_by(|one, other| one.readers == other.readers) {
        let ranks = cells[0].readers + 1;
        let place = Place { ranks, ..place.clone() };
        let mut groups = start(&recipes.queues, &place);
        ensure!(groups.iter().any(|group| group.name() == "unisono"), "unisono's queue could not be started");
        let names: Vec<String> = groups.iter().map(|group| group.name().to_string()).collect();
        let mut results: Vec<Results> = cells.iter().map(|cell| Results::new(*cell, &names)).collect();
        let probe = Probe(place.cpus.first().copied().zip(place.cpus.get(1).copied()));
        for round in 0..2 * rounds {
            for one in &mut results {
                let is_enough = if one.cell.kind == Kind::Rest { round > 0 } else { round >= rounds };
                if !is_enough || (one.cell.kind != Kind::Rest && !one.is_done(targets.near_up_to())) {
                    one.round(&mut groups, probe, time);
                }
            }
        }
        measured.extend(results);
    }
    Ok(measured)
}

fn start(recipes: &[Recipe], place: &Place) -> Vec<Group> {
    let mut groups = Vec::new();
    for recipe in recipes {
        match Group::start(recipe, place) {
            Ok(group) => groups.push(group),
            Err(problem) => {
                println!("  {}: NOT MEASURED with {} readers: {problem:#}", recipe.name, place.ranks - 1);
            }
        }
    }
    groups
}

impl Results {
    fn new(cell: Cell, names: &[String]) -> Results {
        let outcomes = names.iter().map(|name| Outcome::new(name)).collect();
        Results { cell, outcomes, messages: vec![None; names.len()] }
    }

    fn is_done(&self, near_up_to: Duration) -> bool {
        self.outcomes.iter().all(|outcome| outcome.is_done(near_up_to))
    }

    /// Let every group do one round. One that fails does not come again.
    fn round(&mut self, groups: &mut Vec<Group>, probe: Probe, time: Duration) {
        let cell = self.cell;
        let mut failed = Vec::new();
        let mut before = probe.round_trip();
        for (outcome, messages) in self.outcomes.iter_mut().zip(&mut self.messages) {
            let Some(group) = groups.iter_mut().find(|group| group.name() == outcome.name) else { continue };
            if outcome.lacks.is_some() {
                continue;
            }
            match one_turn(&cell, outcome, messages, group, time) {
                Ok(Some(samples)) => {
                    let after = probe.round_trip();
                    // A reader's rest has no distance.
                    let round_trips: RoundTrips =
                        if cell.kind == Kind::Rest { None } else { before.zip(after) };
                    outcome.rounds.extend(Round::of(&samples, round_trips));
                    before = after;
                }
                Ok(None) => {}
                Err(problem) => {
                    outcome.lacks = Some(format!("{problem:#}"));
                    failed.push(outcome.name.clone());
                }
            }
        }
        groups.retain(|group| !failed.iter().any(|name| name == group.name()));
    }
}

fn one_turn(
    cell: &Cell,
    outcome: &mut Outcome,
    known: &mut Option<usize>,
    group: &mut Group,
    time: Duration,
) -> anyhow::Result<Option<Vec<Samples>>> {
    let messages = match *known {
        Some(messages) => messages,
        None if cell.kind == Kind::Rest => 1,
        None => {
            let most = if cell.kind == Kind::Stream { MOST_MESSAGES } else { MOST_ECHOES };
            let mut messages = FEWEST_MESSAGES;
            for wanted in [FIRST_LOOK, time] {
                let Some(samples) = ask(cell, outcome, group, 1, messages)? else { return Ok(None) };
                let value = samples.first().and_then(Samples::summary).map_or(1, |summary| summary.p50_ns);
                // A round trip has two ways.
                let ways = if cell.kind == Kind::Stream { 1 } else { 2 };
                let each = Duration::from_nanos(ways * value / cell.messages_of_a_value() as u64);
                messages = operations_in(wanted, each, FEWEST_MESSAGES, most);
            }
            *known.insert(messages)
        }
    };
    ask(cell, outcome, group, messages / 10 + 1, messages)
}

/// The writer's samples (for a rest the readers'); none if the library lacks what it takes.
fn ask(
    cell: &Cell,
    outcome: &mut Outcome,
    group: &mut Group,
    warm_up: usize,
    messages: usize,
) -> anyhow::Result<Option<Vec<Samples>>> {
    let mut all = Vec::new();
    for (rank, answer) in group.ask(&cell.request(warm_up, messages))?.into_iter().enumerate() {
        match answer {
            Answer::Lacks(what) => outcome.lacks = Some(what),
            Answer::Wrong(wrong) => outcome.wrong += wrong,
            Answer::Samples { samples, wrong } => {
                outcome.wrong += wrong;
                if (cell.kind == Kind::Rest) == (rank > 0) {
                    all.push(samples);
                }
            }
        }
    }
    Ok(outcome.lacks.is_none().then_some(all))
}
