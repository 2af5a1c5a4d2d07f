//! Kernels without a part of their synchronisation, made by changing the PTX that is shipped, and how a run of one ends.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on is to end")]

use std::fmt;

use unisono_gpu::driver::sim::Simulator;
use unisono_ptx_sim::Stopped;

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ending {
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

/// Runs what is on the streams. Whether a rank waited in vain, and whether the results are right, is asked when all is over.
pub(crate) fn ended(
    simulator: &Simulator,
    seed: u64,
    is_late: impl FnOnce() -> bool,
    is_right: impl FnOnce() -> bool,
) -> Ending {
    match simulator.run(seed) {
        Ok(()) => {}
        Err(Stopped::Hang(_)) => return Ending::Hang,
        Err(other) => panic!("{other}"),
    }
    if is_late() {
        return Ending::Hang;
    }
    if simulator.report().race_count > 0 {
        return Ending::Race;
    }
    if is_right() { Ending::Right } else { Ending::Wrong }
}

/// Runs each of the mutants of a kernel in orders of events until one finds it out; fails with those that are at large.
pub(crate) fn all_are_caught(kernel: &str, text: &str, seeds: u64, run: impl Fn(&str, u64) -> Ending) {
    let mut at_large = Vec::new();
    for (name, mutant) in mutants(text) {
        let endings = (0..seeds).map(|seed| (seed, run(&mutant, seed)));
        match endings.into_iter().find(|(_, ending)| *ending != Ending::Right) {
            Some((seed, ending)) => println!("{kernel}, {name}: {ending}, seed {seed}"),
            None => at_large.push(format!("{kernel}, {name}")),
        }
    }
    assert!(at_large.is_empty(), "not caught:\n{}", at_large.join("\n"));
}

/// The text of one kernel, with the head of its module.
pub(crate) fn alone(ptx: &str, kernel: &str) -> String {
    let head = &ptx[..ptx.find(".visible").unwrap()];
    let start = ptx.find(&format!(".visible .entry {kernel}(")).unwrap();
    let end = start + ptx[start..].find("\n}").unwrap() + 2;
    format!("{head}{}", &ptx[start..end])
}

/// What becomes of a line.
type Change<'a> = &'a dyn Fn(&str) -> String;

/// Every way of taking one thing out of the kernel's synchronisation, with a name.
pub(crate) fn mutants(ptx: &str) -> Vec<(String, String)> {
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
