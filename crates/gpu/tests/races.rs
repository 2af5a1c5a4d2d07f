//! No race, in any order that was drawn; and whatever is taken out of the kernels' synchronisation is found out.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on is to end")]

mod common;

use std::fmt;

use common::{Case, Options, World, inputs};
use unisono_gpu::{Algorithm, DType, artefacts};
use unisono_ptx_sim::Stopped;

/// In how many orders of events each kernel is run; `UNISONO_TEST_SEEDS` says otherwise.
fn seeds() -> u64 {
    std::env::var("UNISONO_TEST_SEEDS").map_or(200, |seeds| seeds.parse().unwrap())
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Ending {
    Right,
    Race,
    Hang,
    Wrong,
}

impl fmt::Display for Ending {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Right => "right",
            Self::Race => "race",
            Self::Hang => "hang",
            Self::Wrong => "wrong result",
        })
    }
}

/// Two launches one after the other on the same buffers, each rank's host writing its next input right after the last;
/// what the kernels do is `ptx` in the place of what is shipped.
fn run(case: Case, ptx: Option<&str>, seed: u64) -> Ending {
    let Case { algorithm, world, dtype, .. } = case;
    let mut ranks = World::new(
        world,
        Options { detects_races: true, most_bytes: 1 << 14, most_blocks: 2, table_rows: 4 },
    );
    if let Some(ptx) = ptx {
        ranks.simulator.replace(shipped(algorithm), ptx).unwrap();
    }
    let sources = ranks.registered(case.given() * dtype.size());
    let outputs = case.outputs(&ranks, &sources);
    let mut expected = Vec::new();
    for round in 0..2 {
        let contents = inputs(world, case.given(), dtype, seed + round);
        ranks.write(&sources, &contents);
        case.enqueue(&mut ranks, &sources, &outputs);
        expected = case.expected(&contents);
    }
    match ranks.simulator.run(seed) {
        Ok(()) => {}
        Err(Stopped::Hang(_)) => return Ending::Hang,
        Err(other) => panic!("{other}"),
    }
    if ranks.ranks.iter().any(|rank| rank.all_reduce.check().is_err()) {
        return Ending::Hang;
    }
    if ranks.simulator.report().race_count > 0 {
        return Ending::Race;
    }
    if ranks.read(&outputs, case.got() * dtype.size()) == expected { Ending::Right } else { Ending::Wrong }
}

/// The PTX that is shipped.
fn shipped(algorithm: Algorithm) -> &'static str {
    artefacts().into_iter().find(|artefact| artefact.algorithm == algorithm).unwrap().ptx
}

/// A message of several packs that ends within one; now and then so long that two blocks work on it.
fn case(algorithm: Algorithm, world: usize, seed: u64) -> Case {
    let dtype = DType::ALL[(seed % 3) as usize];
    let packs = if seed.is_multiple_of(50) { 600 } else { 5 + 2 * world };
    // Most reduce-scatters and all-gathers are of whole packs; the others go element by element.
    let is_half = matches!(algorithm, Algorithm::ReduceScatter | Algorithm::AllGather);
    let elements = packs * 16 / dtype.size() + usize::from(!is_half || seed.is_multiple_of(4));
    let is_in_place = match algorithm {
        Algorithm::TwoShot => true,
        Algorithm::ReduceScatter => seed.is_multiple_of(2),
        Algorithm::OneShot | Algorithm::AllGather => false,
    };
    Case { algorithm, world, elements, dtype, is_in_place, is_staged: false }
}

fn no_race(algorithm: Algorithm, world: usize) {
    // The other worlds differ in nothing but the number.
    let share = if matches!(world, 2 | 3 | 4 | 8) { 1 } else { 4 };
    for seed in 0..seeds() / share {
        let case = case(algorithm, world, seed);
        assert_eq!(run(case, None, seed), Ending::Right, "{case:?} with seed {seed}");
    }
}

#[test]
fn one_shot_has_no_race_in_any_order_drawn() {
    (2..=8).for_each(|world| no_race(Algorithm::OneShot, world));
}

#[test]
fn two_shot_in_place_has_no_race_in_any_order_drawn() {
    (2..=8).for_each(|world| no_race(Algorithm::TwoShot, world));
}

#[test]
fn reduce_scatter_has_no_race_in_any_order_drawn() {
    (2..=8).for_each(|world| no_race(Algorithm::ReduceScatter, world));
}

#[test]
fn all_gather_has_no_race_in_any_order_drawn() {
    (2..=8).for_each(|world| no_race(Algorithm::AllGather, world));
}

/// The first order in which a changed kernel is found out, and how.
fn caught(algorithm: Algorithm, world: usize, ptx: &str) -> Option<(u64, Ending)> {
    (0..seeds()).find_map(|seed| {
        let case = Case { dtype: DType::F32, ..case(algorithm, world, seed) };
        let ending = run(case, Some(ptx), seed);
        (ending != Ending::Right).then_some((seed, ending))
    })
}

/// The text of one kernel, with the head of its module.
fn alone(ptx: &str, kernel: &str) -> String {
    let head = &ptx[..ptx.find(".visible").unwrap()];
    let start = ptx.find(&format!(".visible .entry {kernel}(")).unwrap();
    let end = start + ptx[start..].find("\n}").unwrap() + 2;
    format!("{head}{}", &ptx[start..end])
}

/// What becomes of a line.
type Change<'a> = &'a dyn Fn(&str) -> String;

/// Every way of taking one thing out of the kernel's synchronisation, with a name.
fn mutants(ptx: &str) -> Vec<(String, String)> {
    let changes: [(&str, Change<'_>); 6] = [
        ("bar.sync", &|_| String::new()),
        ("bar.red.or.pred", &|line| line.replace("bar.red.or.pred", "mov.pred").replace(" 0,", "")),
        ("st.release.sys", &|line| line.replace("release.sys", "relaxed.sys")),
        ("st.release.sys", &|line| line.replace("release.sys", "release.gpu")),
        ("ld.acquire.sys", &|line| line.replace("acquire.sys", "relaxed.sys")),
        ("ld.acquire.sys", &|line| line.replace("acquire.sys", "volatile")),
    ];
    let lines: Vec<&str> = ptx.lines().collect();
    let mut found = Vec::new();
    for (sign, change) in changes {
        for (number, line) in lines.iter().enumerate().filter(|(_, line)| line.contains(sign)) {
            // What follows a claim is the record for the host, which reads it when all is over.
            let before = lines[..number].iter().rev();
            let is_other_flag = |line: &str| line.contains("ld.acquire") || line.contains("st.release");
            let is_record = before.take_while(|line| !is_other_flag(line)).any(|line| line.contains("atom."));
            if !is_record || !sign.starts_with("st.") {
                let changed = change(line);
                let mut mutant = lines.clone();
                mutant[number] = &changed;
                let name = format!("line {}: `{}` for `{}`", number + 1, changed.trim(), line.trim());
                found.push((name, mutant.join("\n")));
            }
        }
    }
    found
}

fn all_mutants_are_caught(algorithm: Algorithm) {
    let mut at_large = Vec::new();
    for world in [2, 3] {
        let kernel = algorithm.kernel(DType::F32, world);
        let text = alone(shipped(algorithm), &kernel);
        assert_eq!(caught(algorithm, world, &text), None, "{kernel} as it is shipped");
        for (name, mutant) in mutants(&text) {
            match caught(algorithm, world, &mutant) {
                Some((seed, ending)) => println!("{kernel}, {name}: {ending}, seed {seed}"),
                None => at_large.push(format!("{kernel}, {name}")),
            }
        }
        let without_parity = text.lines().map(|line| {
            if line.contains("and.b32") { line.replace(", 1;", ", 0;") } else { line.to_owned() }
        });
        match caught(algorithm, world, &without_parity.collect::<Vec<_>>().join("\n")) {
            Some((seed, ending)) => println!("{kernel}, without parity: {ending}, seed {seed}"),
            None => at_large.push(format!("{kernel}, without parity")),
        }
    }
    assert!(at_large.is_empty(), "not caught:\n{}", at_large.join("\n"));
}

/// Kernels that were compiled from changed sources: `cargo xtask kernels --mutants` makes them and runs this.
#[test]
#[ignore = "needs the mutants that `cargo xtask kernels --mutants` makes"]
fn mutants_of_the_source_are_caught() {
    let folder = std::env::var("UNISONO_TEST_MUTANTS").unwrap();
    let mut at_large = Vec::new();
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty());
    for file in files {
        let name = file.file_stem().unwrap().to_str().unwrap().to_owned();
        let text = std::fs::read_to_string(&file).unwrap();
        let is_of = |algorithm: &Algorithm| name.starts_with(algorithm.name());
        let algorithm = Algorithm::ALL.into_iter().find(is_of).unwrap();
        for world in [2, 3] {
            match caught(algorithm, world, &alone(&text, &algorithm.kernel(DType::F32, world))) {
                Some((seed, ending)) => println!("caught: {name}, {world} ranks: {ending}, seed {seed}"),
                None => at_large.push(format!("{name}, {world} ranks")),
            }
        }
    }
    assert!(at_large.is_empty(), "not caught:\n{}", at_large.join("\n"));
}

#[test]
fn one_shot_without_any_part_of_its_synchronisation_is_caught() {
    all_mutants_are_caught(Algorithm::OneShot);
}

#[test]
fn two_shot_without_any_part_of_its_synchronisation_is_caught() {
    all_mutants_are_caught(Algorithm::TwoShot);
}

#[test]
fn reduce_scatter_without_any_part_of_its_synchronisation_is_caught() {
    all_mutants_are_caught(Algorithm::ReduceScatter);
}

#[test]
fn all_gather_without_any_part_of_its_synchronisation_is_caught() {
    all_mutants_are_caught(Algorithm::AllGather);
}
