//! Instructions as work grows: what one rank executes for an operation is counted, and held to a formula.
//!
//! A child process holds the ranks, on threads; its rank 0 is stepped instruction by instruction, and its parent counts
//! ([`unisono_os::process::count_sections`]). Instructions and not time, so that the answer does not depend on what else the
//! machine does. Before each wait the others are let finish, so that waiting is none of what is counted. The bytes and cache lines
//! that cross between cores, which decide the time of what is not small, are counted in the test `cost`.

#[allow(dead_code, reason = "memory is none of what is counted here")]
#[path = "../cost/formulas.rs"]
mod formulas;
mod limits;
mod plan;
mod stepped;
#[allow(dead_code, reason = "whose lines are whose is none of what is counted here")]
#[path = "../cost/work.rs"]
mod work;

use std::io::Read;
use std::process::{Command, Stdio};

use formulas::{Case, Kind};
use libtest_mimic::{Arguments, Failed, Trial};
use plan::{KINDS, WORLDS};
use unisono_os::process::count_sections;
use unisono_os::{OsError, cpu};

/// Names the kind and the world of a process that shall be stepped.
const STEPPED: &str = "UNISONO_TEST_STEPPED";

/// The instruction set that is counted: the widest that all machines have on which this is likely to run.
const ISA: &str = if cfg!(target_arch = "x86_64") { "avx2" } else { "neon" };

/// The C library's copy with one repeated instruction would count as one for each byte.
const NO_REPEATED_COPIES: &str =
    "glibc.cpu.x86_rep_movsb_threshold=0x7fffffffffff:glibc.cpu.x86_rep_stosb_threshold=0x7fffffffffff";

/// A limit so many times what is executed has come loose: it would let too much pass.
const TOO_GENEROUS: u64 = 2;

fn main() {
    if let Ok(what) = std::env::var(STEPPED) {
        let (kind, world) = what.split_once(' ').expect("a kind and a world");
        return stepped::run(kind_named(kind), world.parse().expect("a number of ranks"));
    }
    let trials = KINDS.iter().map(|(name, kind)| {
        let test = format!("{name}_executes_what_its_formula_says");
        // What a debug build executes says nothing of what users run.
        Trial::test(test, || executes_what_its_formula_says(name, *kind))
            .with_ignored_flag(cfg!(debug_assertions))
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit();
}

fn kind_named(name: &str) -> Kind {
    KINDS.iter().find(|(known, _)| *known == name).expect("a kind of the plan").1
}

fn executes_what_its_formula_says(name: &str, kind: Kind) -> Result<(), Failed> {
    let mut wrong = String::new();
    for world in WORLDS {
        let parameters = work::parameters(kind, world);
        for (bytes, found) in count(name, kind, world)? {
            let case = Case { kind, world, rank: 0, bytes };
            let limit = limits::instructions(case, &case.costs(&parameters));
            println!("{name:>14} {world:>3} ranks {bytes:>8} B: {found:>8} instructions, {limit:>8} allowed");
            if found > limit {
                wrong += &format!("{case:?} executes {found} instructions, {limit} are allowed\n");
            } else if limit > found * TOO_GENEROUS {
                wrong += &format!("{case:?} executes {found} instructions: {limit} is no limit\n");
            }
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong.into()) }
}

/// Do this on a core that the thread shares with its counterpart: the one that is stepped and the one that steps it take turns,
/// and handing over is faster so. Kinds are spread over the cores. Processes that are started before or after are free to use
/// all of them.
fn on_the_core_of<T>(kind: Kind, work: impl FnOnce() -> T) -> Result<T, OsError> {
    let cores = cpu::allowed_cpus();
    let number = KINDS.iter().position(|(_, known)| *known == kind).unwrap_or(0);
    cpu::pin_current_thread(&[cores[number % cores.len()]])?;
    let done = work();
    cpu::pin_current_thread(&cores)?;
    Ok(done)
}

/// The instructions of each size of the plan.
fn count(name: &str, kind: Kind, world: usize) -> Result<Vec<(usize, u64)>, Failed> {
    let mut child = Command::new(std::env::current_exe()?)
        .env(STEPPED, format!("{name} {world}"))
        .env("UNISONO_ISA", ISA)
        .env("GLIBC_TUNABLES", NO_REPEATED_COPIES)
        .stdout(Stdio::piped())
        .spawn()?;
    let (code, sections) = on_the_core_of(kind, || count_sections(child.id()))??;
    let mut lines = String::new();
    child.stdout.take().ok_or("its output is piped")?.read_to_string(&mut lines)?;
    if code != 0 {
        return Err(format!("{world} ranks ended with {code}").into());
    }
    let (empty, mut sections) = sections.split_first().ok_or("an empty section comes first")?;
    let mut operations = Vec::new();
    for line in lines.lines() {
        let (own, rest) = sections.split_at(line.parse()?);
        operations.push(own.iter().map(|section| section - empty).sum::<u64>());
        sections = rest;
    }
    let sizes = plan::sizes(kind, world);
    let expected: usize = sizes.iter().map(|bytes| plan::repetitions(*bytes)).sum();
    if operations.len() != expected || !sections.is_empty() {
        return Err(format!("{} operations instead of {expected}", operations.len()).into());
    }
    let mut operations = operations.into_iter();
    let least = |bytes: usize| operations.by_ref().take(plan::repetitions(bytes)).min().unwrap_or(u64::MAX);
    let least: Vec<u64> = sizes.iter().copied().map(least).collect();
    Ok(sizes.into_iter().zip(least).collect())
}
