//! Packets: no race, in any order that was drawn; and whatever is taken out of what makes them right is found out.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on is to end")]

mod common;
#[path = "common/packets.rs"]
mod packets;

use std::fmt;
use std::time::Duration;

use common::inputs;
use packets::{Group, Options, connect, shipped, threads};
use unisono_gpu::DType;
use unisono_gpu::driver::sim::Simulator;
use unisono_gpu::packet::{PacketKernel, Sum};
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

/// What is run: ranks of a node, and a type.
#[derive(Debug, Clone, Copy)]
struct Case {
    kernel: PacketKernel,
    ranks: usize,
    dtype: DType,
}

/// Four launches one after the other in place, each rank's host writing its next input right after the last. The first is so
/// short that most ranks have nothing to reduce: what it does not reach is written anew, and reached by the third. By two blocks
/// now and then. What the kernels do is `ptx` in the place of what is shipped.
fn run(case: Case, ptx: Option<&str>, seed: u64) -> Ending {
    let Case { kernel, ranks, dtype } = case;
    let (world, wires) = match kernel {
        PacketKernel::Near => (ranks, Vec::new()),
        PacketKernel::Far => (2 * ranks, threads(ranks)),
    };
    let sum = if kernel == PacketKernel::Far && seed % 2 == 1 { Sum::ByNode } else { Sum::InRankOrder };
    let simulator = Simulator::new(world, true);
    if let Some(ptx) = ptx {
        simulator.replace(shipped(kernel), ptx).unwrap();
        // Whoever waits for the host waits in vain.
        simulator.set_outside_patience(Duration::from_millis(200));
    } else {
        // Nobody does; but a busy machine may not run the host's threads for a while.
        simulator.set_outside_patience(Duration::from_secs(180));
    }
    let patience = Duration::from_millis(if ptx.is_some() { 400 } else { 180_000 });
    let options = Options { most_bytes: 1 << 9, sum, patience, ..Options::default() };
    let group = connect(&simulator, world, ranks, options, wires).unwrap();
    let mut group = Group { simulator, ranks: group, sum };
    let mut launched = Vec::new();
    let blocks = if seed.is_multiple_of(10) { 2 } else { 1 };
    for round in 0..4 {
        // A short one after a long one: who is ahead writes words anew that whoever is behind has yet to read, if slots had no parity.
        let elements = [30, 1, 3 * world + 2, 7][round];
        let buffers = group.buffers(elements * dtype.size());
        let contents = inputs(world, elements, dtype, seed + round as u64);
        group.write(&buffers, &contents);
        for (rank, at) in group.ranks.iter_mut().zip(&buffers) {
            match rank.context.all_reduce(*at, *at, elements, dtype, Some((512, blocks))) {
                Ok(()) => {}
                Err(_) => return Ending::Hang,
            }
        }
        let expected = group.expected(&contents, dtype);
        launched.push((buffers, expected));
    }
    let ran = group.simulator.run(seed);
    if group.simulator.report().race_count > 0 {
        return Ending::Race;
    }
    match ran {
        Ok(()) => {}
        Err(Stopped::Hang(_)) => return Ending::Hang,
        // A flag that is read as data is looked at for ever.
        Err(Stopped::Fault { problem, .. }) if problem.contains("runs on and on") => return Ending::Hang,
        Err(other) => panic!("{other}"),
    }
    if group.ranks.iter_mut().any(|rank| rank.context.check().is_err()) {
        return Ending::Hang;
    }
    let is_right = |(buffers, expected): &(Vec<u64>, Vec<u8>)| {
        group.read(buffers, expected.len()).iter().all(|found| found == expected)
    };
    if launched.iter().all(is_right) { Ending::Right } else { Ending::Wrong }
}

fn no_race(kernel: PacketKernel, ranks: usize, seeds: u64) {
    for seed in 0..seeds {
        let case = Case { kernel, ranks, dtype: DType::ALL[(seed % 3) as usize] };
        assert_eq!(run(case, None, seed), Ending::Right, "{case:?} with seed {seed}");
    }
}

#[test]
fn packets_on_one_node_have_no_race_in_any_order_drawn() {
    for ranks in 2..=8 {
        // The other worlds differ in nothing but the number.
        no_race(PacketKernel::Near, ranks, seeds() / if matches!(ranks, 2 | 3 | 4 | 8) { 1 } else { 4 });
    }
}

#[test]
fn packets_between_two_nodes_have_no_race_in_any_order_drawn() {
    for ranks in 1..=4 {
        no_race(PacketKernel::Far, ranks, seeds() / if ranks == 4 { 4 } else { 1 });
    }
}

/// The first order in which a changed kernel is found out, and how.
fn caught(case: Case, ptx: &str) -> Option<(u64, Ending)> {
    (0..seeds()).find_map(|seed| {
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

/// What is found in a line, and what takes its place.
const CHANGES: [(&str, &str, &str); 7] = [
    ("bar.sync", "bar.sync \t0;", ""),
    ("ld.relaxed.sys.global.u64", "relaxed.sys.", ""),
    ("ld.relaxed.sys.global.u64", "relaxed.sys", "relaxed.gpu"),
    ("st.relaxed.sys.global.u64", "relaxed.sys.", ""),
    ("st.relaxed.sys.global.u64", "relaxed.sys", "relaxed.gpu"),
    ("atom.acq_rel.gpu", "acq_rel.gpu", "acquire.gpu"),
    ("atom.acq_rel.gpu", "acq_rel.gpu", "release.gpu"),
];

/// Between two nodes a thread that is told that nothing will come looks once more. No link is lost here, so nobody does: the
/// load behind the acquire, or behind the record for the host, which stands in between.
fn is_last_look(before: &[&str]) -> bool {
    let is_access = |line: &&&str| ["ld.", "st.", "atom."].iter().any(|sign| line.contains(sign));
    let last = before.iter().rev().find(is_access);
    last.is_some_and(|line| line.contains("ld.acquire.sys") || line.contains("st.release.sys"))
}

/// Every way of taking one thing out, with a name.
fn mutants(kernel: PacketKernel, ptx: &str) -> Vec<(String, String)> {
    let lines: Vec<&str> = ptx.lines().collect();
    let mut found = Vec::new();
    for (sign, from, to) in CHANGES {
        for (number, line) in lines.iter().enumerate().filter(|(_, line)| line.contains(sign)) {
            if kernel == PacketKernel::Far && sign.starts_with("ld.") && is_last_look(&lines[..number]) {
                continue;
            }
            let changed = line.replace(from, to);
            assert_ne!(changed, **line);
            let mut mutant = lines.clone();
            mutant[number] = &changed;
            let name = format!("line {}: `{}` for `{}`", number + 1, changed.trim(), line.trim());
            found.push((name, mutant.join("\n")));
        }
    }
    found
}

fn all_mutants_are_caught(kernel: PacketKernel, ranks: usize) {
    let mut at_large = Vec::new();
    let case = Case { kernel, ranks, dtype: DType::F32 };
    let name = kernel.name(DType::F32, ranks);
    let text = alone(shipped(kernel), &name);
    let mutants = mutants(kernel, &text);
    assert!(mutants.len() > 10, "{} mutants", mutants.len());
    for (change, mutant) in mutants {
        match caught(case, &mutant) {
            Some((seed, ending)) => println!("{name}, {change}: {ending}, seed {seed}"),
            None => at_large.push(format!("{name}, {change}")),
        }
    }
    assert!(at_large.is_empty(), "not caught:\n{}", at_large.join("\n"));
}

#[test]
fn packets_on_one_node_without_any_part_of_what_makes_them_right_are_caught() {
    all_mutants_are_caught(PacketKernel::Near, 2);
    all_mutants_are_caught(PacketKernel::Near, 4);
}

#[test]
fn packets_between_two_nodes_without_any_part_of_what_makes_them_right_are_caught() {
    all_mutants_are_caught(PacketKernel::Far, 2);
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
        let kernel = if name.starts_with("packet_near") { PacketKernel::Near } else { PacketKernel::Far };
        for ranks in [2, 3] {
            let case = Case { kernel, ranks, dtype: DType::F32 };
            match caught(case, &alone(&text, &kernel.name(DType::F32, ranks))) {
                Some((seed, ending)) => println!("caught: {name}, {ranks} ranks: {ending}, seed {seed}"),
                None => at_large.push(format!("{name}, {ranks} ranks")),
            }
        }
    }
    assert!(at_large.is_empty(), "not caught:\n{}", at_large.join("\n"));
}
