//! The quick all-reduce has no race in any order that was drawn; and whatever is taken out of its synchronisation is found out.
//!
//! Most runs are of 32 threads per block: the kernels take what they are launched with, and 256 threads, which now and then
//! run, too, do eight times the same.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on is to end")]

#[path = "quick/model.rs"]
#[allow(dead_code, reason = "each test program uses a part")]
mod model;
mod mutate;
#[path = "quick/world.rs"]
#[allow(dead_code, reason = "each test program uses a part")]
mod world;

use model::all_reduce;
use mutate::{Ending, all_are_caught, alone, ended, mutants};
use unisono_gpu::{DType, QuantLevel, QuickHow, QuickOptions};
use world::{World, how, inputs};

/// In how many orders of events each level is run between two ranks; `UNISONO_TEST_SEEDS` says otherwise.
fn seeds() -> u64 {
    std::env::var("UNISONO_TEST_SEEDS").map_or(200, |seeds| seeds.parse().unwrap())
}

/// What is run.
#[derive(Debug, Clone, Copy)]
struct Case {
    world: usize,
    elements: usize,
    threads: usize,
    dtype: DType,
    how: QuickHow,
}

/// So many rows that every rank has one to reduce, ending within a pack; now and then two tiles for one block, or 256 threads.
fn case(level: QuantLevel, world: usize, seed: u64) -> Case {
    let (dtype, how) = how(level, seed);
    let (threads, rows) = match seed {
        7 => (256, 8 * (world - 1) / world + 1),
        seed if seed % 40 == 0 => (32, 8 + 8 * (world - 1) / world + 1),
        _ => (32, 8 * (world - 1) / world + 1),
    };
    Case { world, elements: rows * threads * 8 - 3, threads, dtype, how }
}

/// Two launches one after the other on the same buffers, each rank's host writing its next input right after the last;
/// what the kernels do is `ptx` in the place of what is shipped.
fn run(case: Case, ptx: Option<&str>, seed: u64) -> Ending {
    let Case { world, elements, threads, dtype, how } = case;
    let options = QuickOptions { most_bytes: 1 << 20, most_blocks: 1 + (seed % 2) as usize, threads };
    let ranks = World::new(world, options, true);
    if let Some(ptx) = ptx {
        ranks.simulator.replace(how.level.artefact().ptx, ptx).unwrap();
    }
    let buffers = ranks.buffers(elements);
    let mut expected = Vec::new();
    for round in 0..2 {
        let contents = inputs(world, elements, dtype, seed + round, true);
        ranks.write(&buffers, &contents);
        ranks.all_reduce(&buffers, &buffers, elements, dtype, how);
        expected = all_reduce(&contents, dtype, how);
    }
    let is_late = || ranks.ranks.iter().any(|(_, quick)| quick.check().is_err());
    let is_right = || ranks.read(&buffers, elements).iter().all(|found| *found == expected);
    ended(&ranks.simulator, seed, is_late, is_right)
}

fn no_race(level: QuantLevel) {
    for (world, share) in [(2, 1), (3, 10), (4, 20), (5, 40), (8, 40)] {
        for seed in 0..seeds() / share {
            let case = case(level, world, seed);
            assert_eq!(run(case, None, seed), Ending::Right, "{case:?} with seed {seed}");
        }
    }
}

#[test]
fn unquantised_has_no_race_in_any_order_drawn() {
    no_race(QuantLevel::Fp);
}

#[test]
fn int8_has_no_race_in_any_order_drawn() {
    no_race(QuantLevel::Int8);
}

#[test]
fn int6_has_no_race_in_any_order_drawn() {
    no_race(QuantLevel::Int6);
}

#[test]
fn int4_has_no_race_in_any_order_drawn() {
    no_race(QuantLevel::Int4);
}

/// The first order in which a changed kernel is found out, and how.
fn caught(level: QuantLevel, world: usize, ptx: &str) -> Option<(u64, Ending)> {
    (0..seeds()).find_map(|seed| {
        let (dtype, how) = how(level, 0);
        let ending = run(Case { dtype, how, ..case(level, world, seed) }, Some(ptx), seed);
        (ending != Ending::Right).then_some((seed, ending))
    })
}

#[test]
fn without_any_part_of_its_synchronisation_it_is_caught() {
    // The levels have their flags and barriers from the same lines of the source.
    let level = QuantLevel::Int4;
    let (dtype, how) = how(level, 0);
    let kernel = level.kernel(dtype, how.as_f16, how.arithmetic);
    let text = alone(level.artefact().ptx, &kernel);
    // Before posting and after waiting, two flags posted, and each waited for at first sight and in a loop; in both phases.
    assert_eq!(mutants(&text).len(), 2 * (1 + 1 + 2 + 2 * 2));
    for world in [2, 3] {
        let run_mutant =
            |mutant: &str, seed| run(Case { dtype, how, ..case(level, world, seed) }, Some(mutant), seed);
        all_are_caught(&format!("{kernel}, {world} ranks"), &text, seeds(), run_mutant);
    }
}

/// Kernels that were compiled from changed sources: `cargo xtask kernels --mutants` makes them and runs this.
#[test]
#[ignore = "needs the mutants that `cargo xtask kernels --mutants` makes"]
fn mutants_of_the_source_are_caught() {
    let folder = std::env::var("UNISONO_TEST_MUTANTS").unwrap();
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.file_stem().unwrap().to_str().unwrap().starts_with("quick_"));
    files.sort();
    assert!(!files.is_empty());
    let mut at_large = Vec::new();
    for file in files {
        let name = file.file_stem().unwrap().to_str().unwrap().to_owned();
        let text = std::fs::read_to_string(&file).unwrap();
        let is_of =
            |level: &QuantLevel| name.starts_with(&format!("quick_{}-", format!("{level:?}").to_lowercase()));
        let level = QuantLevel::ALL.into_iter().find(is_of).unwrap();
        let (dtype, how) = how(level, 0);
        let kernel = level.kernel(dtype, how.as_f16, how.arithmetic);
        for world in [2, 3] {
            match caught(level, world, &alone(&text, &kernel)) {
                Some((seed, ending)) => println!("caught: {name}, {world} ranks: {ending}, seed {seed}"),
                None => at_large.push(format!("{name}, {world} ranks")),
            }
        }
    }
    assert!(at_large.is_empty(), "not caught:\n{}", at_large.join("\n"));
}
