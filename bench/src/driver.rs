//! The comparison from beginning to end.
//!
//! The one invariant that matters: it succeeds only if every target that could be judged was met and no result of
//! unisono's was wrong.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, ensure};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use unisono::DType;
use unisono_measure::{Operation, size};
use unisono_os::{cpu, process};

use crate::group::{Group, Place};
use crate::recipe::{Recipe, Recipes};
use crate::schedule::{Cell, CellResults, Probe, one_round};
use crate::stranger::Strangers;
use crate::targets::Targets;
use crate::verdict::{OURS, judge};
use crate::wire::{Loop, Work};
use crate::{picture, queue, report};

/// Set in the environment of the program that leads the session.
const INSIDE: &str = "UNISONO_COMPARE_SESSION";
/// What a group may burn of a core while it is not its turn.
const IDLE_SHARE: f64 = 0.02;

const ALL_REDUCE_SIZES: &str = "8,64,256,1KiB,4KiB,16KiB,64KiB,256KiB,1MiB,4MiB,16MiB,64MiB";
const ALL_GATHER_SIZES: &str = "64,1KiB,16KiB,256KiB,4MiB";
const TRAFFIC_SIZES: &str = "64KiB,256KiB,1MiB,4MiB,16MiB";
const CROWDED_SIZES: &str = "64,16KiB,1MiB";

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The file of recipes.
    #[arg(long)]
    recipes: PathBuf,
    /// Where the output of ranks goes.
    #[arg(long)]
    logs: PathBuf,
    /// all_reduce, all_gather, queue.
    #[arg(long, value_delimiter = ',', default_value = "all_reduce,all_gather,queue", value_parser = compared)]
    ops: Vec<Compared>,
    /// Numbers of ranks.
    #[arg(long, value_delimiter = ',', default_value = "2,4")]
    ranks: Vec<usize>,
    /// Element types: f32, bf16.
    #[arg(long, value_delimiter = ',', default_value = "f32")]
    dtype: Vec<DType>,
    /// alone: back to back; traffic: written before and read after.
    #[arg(long = "loop", value_delimiter = ',', default_value = "alone,traffic")]
    loops: Vec<Loop>,
    /// What each rank contributes, in bytes.
    #[arg(long, value_delimiter = ',', value_parser = size::parse)]
    sizes: Vec<usize>,
    /// Run everything beside so many processes that never yield; nothing is judged then.
    #[arg(long, default_value_t = 0)]
    strangers: usize,
    /// Rounds of each cell; up to as many again where too few count.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// How long each implementation works in each round of each cell.
    #[arg(long, default_value = "0.1", value_parser = seconds)]
    seconds: Duration,
    /// Write everything to this file.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Draw what was measured back to back into this file.
    #[arg(long)]
    svg: Option<PathBuf>,
}

/// What can be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Compared {
    Collective(Operation),
    Queue,
}

fn compared(name: &str) -> anyhow::Result<Compared> {
    if name == "queue" {
        return Ok(Compared::Queue);
    }
    let operation: Operation = name.replace('_', "-").parse()?;
    let known = matches!(operation, Operation::AllReduce | Operation::AllGather);
    ensure!(known, "{operation} is not compared: use all_reduce, all_gather or queue");
    Ok(Compared::Collective(operation))
}

impl Arguments {
    fn operations(&self) -> Vec<Operation> {
        let operation = |compared: &Compared| match compared {
            Compared::Collective(operation) => Some(*operation),
            Compared::Queue => None,
        };
        self.ops.iter().filter_map(operation).collect()
    }
}

fn seconds(text: &str) -> anyhow::Result<Duration> {
    let seconds: f64 = text.parse().context("not a number of seconds")?;
    Duration::try_from_secs_f64(seconds).context("not a duration")
}

/// Compare.
///
/// # Errors
/// When nothing can be measured.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    process::in_its_own_session(INSIDE, || {
        // Best effort: without privileges the measurement runs all the same, with more noise.
        let _ = process::raise_priority();
        compare(arguments)
    })
}

fn compare(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let targets = Targets::read()?;
    let recipes = Recipes::read(&arguments.recipes)?;
    println!("{}", report::introduction(&recipes));
    let sockets = tempfile::tempdir().context("making a folder for sockets")?;
    let mut all: Vec<CellResults> = Vec::new();
    let place = |ranks: usize| Place {
        ranks,
        cpus: cpu::allowed_cpus(),
        sockets: sockets.path().to_path_buf(),
        logs: arguments.logs.clone(),
    };
    for ranks in &arguments.ranks {
        let place = place(*ranks);
        let cells = cells(arguments, *ranks, place.cpus.len());
        if cells.is_empty() {
            continue;
        }
        let results = measure(arguments, &recipes, &place, &cells, &targets)?;
        print_tables(&results, &targets);
        all.extend(results);
    }
    let mut queues = Vec::new();
    if arguments.ops.contains(&Compared::Queue) {
        let (rounds, time) = (arguments.rounds, arguments.seconds);
        queues = queue::measure::measure(&recipes, &place(2), rounds, time, &targets)?;
        println!("{}", queue::judge::table_of(&queues, &targets));
    }
    let mut verdicts = judge(&all, &targets);
    verdicts.extend(queue::judge::judge(&queues, &targets));
    println!();
    for verdict in &verdicts {
        println!("{}", report::line_of(verdict));
    }
    if let Some(path) = &arguments.json {
        let mut json = report::json_of(&recipes, &all, &verdicts, &targets);
        json["queues"] = queue::judge::json_of(&queues, &targets).into();
        write(path, &format!("{json:#}\n"))?;
    }
    if let Some(path) = &arguments.svg {
        write(path, &picture::of(&all, &targets)?)?;
    }
    let wrong = all
        .iter()
        .flat_map(|results| &results.outcomes)
        .any(|outcome| outcome.name.starts_with(OURS) && (outcome.wrong > 0 || outcome.lacks.is_some()));
    let in_order =
        !wrong && !queue::judge::is_wrong(&queues) && verdicts.iter().all(|verdict| verdict.is_met());
    Ok(if in_order { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What is to be measured with so many ranks, in the order of the tables.
fn cells(arguments: &Arguments, ranks: usize, cores: usize) -> Vec<Cell> {
    let mut cells = Vec::new();
    for dtype in &arguments.dtype {
        for operation in &arguments.operations() {
            for around in &arguments.loops {
                let defaults = match (operation, around) {
                    (_, Loop::Traffic) if ranks + arguments.strangers > cores => continue,
                    (_, Loop::Traffic) => TRAFFIC_SIZES,
                    _ if ranks + arguments.strangers > cores => CROWDED_SIZES,
                    (Operation::AllGather, _) => ALL_GATHER_SIZES,
                    _ => ALL_REDUCE_SIZES,
                };
                let given = arguments.sizes.clone();
                let sizes = if given.is_empty() {
                    defaults.split(',').flat_map(size::parse).collect()
                } else {
                    given
                };
                cells.extend(sizes.into_iter().map(|bytes| Cell {
                    work: Work {
                        operation: *operation,
                        dtype: *dtype,
                        count: (bytes / dtype.size_bytes()).max(1),
                    },
                    around: *around,
                    ranks,
                    cores,
                    strangers: arguments.strangers,
                }));
            }
        }
    }
    cells
}

fn measure(
    arguments: &Arguments,
    recipes: &Recipes,
    place: &Place,
    cells: &[Cell],
    targets: &Targets,
) -> anyhow::Result<Vec<CellResults>> {
    let mut groups = start(recipes, place, cells);
    ensure!(groups.iter().any(|group| group.name() == OURS), "unisono's own ranks could not be started");
    let _strangers = Strangers::start(arguments.strangers)?;
    let cores = &place.cpus;
    let probe = Probe(cores.first().copied().zip(cores.get(1).copied()));
    let mut results: Vec<CellResults> = cells.iter().map(|cell| CellResults::new(*cell, &groups)).collect();
    let progress = progress(cells.len() * arguments.rounds);
    for round in 0..2 * arguments.rounds {
        for one in &mut results {
            if round >= arguments.rounds && one.is_done(targets.near_up_to()) {
                continue;
            }
            progress.set_message(format!(
                "{} of {} bytes, {} ranks",
                one.cell.work.operation,
                size::display(one.cell.work.bytes() as u64),
                one.cell.ranks
            ));
            one_round(one, &mut groups, probe, arguments.seconds);
            progress.inc(1);
        }
    }
    progress.finish_and_clear();
    for group in &groups {
        let share = group.idle().share();
        if share > IDLE_SHARE {
            println!("{} used {:.0} % of a core while it was not its turn", group.name(), 100.0 * share);
        }
    }
    Ok(results)
}

/// Start all groups that take part in any of the cells. One that does not start is told and left out.
fn start(recipes: &Recipes, place: &Place, cells: &[Cell]) -> Vec<Group> {
    let mut groups = Vec::new();
    let takes_part = |recipe: &&Recipe| cells.iter().any(|cell| recipe.is_for(cell));
    for recipe in recipes.available.iter().filter(takes_part) {
        match Group::start(recipe, place) {
            Ok(group) => groups.push(group),
            Err(problem) => {
                println!("  {}: NOT MEASURED with {} ranks: {problem:#}", recipe.name, place.ranks)
            }
        }
    }
    groups
}

/// One table for all cells that differ in their size only.
fn print_tables(results: &[CellResults], targets: &Targets) {
    for table in results.chunk_by(|one, other| one.cell.differs_in_size_only(&other.cell)) {
        println!("{}", report::table_of(&table.iter().collect::<Vec<_>>(), targets));
    }
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}

/// A bar on standard error, if that is a terminal.
fn progress(rounds: usize) -> ProgressBar {
    let target = if std::io::stderr().is_terminal() {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    };
    let bar = ProgressBar::with_draw_target(Some(rounds as u64), target);
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len}, {msg}, {elapsed}") {
        bar.set_style(style);
    }
    bar
}
