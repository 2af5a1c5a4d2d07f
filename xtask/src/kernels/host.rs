//! The kernels' source on the host, under ThreadSanitizer: what holds for every target, so also for those that no simulator runs.
//!
//! `crates/gpu/kernels/host*.cpp` have a thread of the operating system for every thread of a device. That it sees what is wrong
//! is shown by mutants, as for the PTX.

use std::fs;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, anyhow, bail};

use super::Sources;
use super::nvrtc::Source;
use crate::setup::apt::{self, Needed};
use crate::workspace::Workspace;

/// A mutant must be found within so many runs: the operating system draws the order of events, and not very differently.
const RUNS: usize = 400;

/// What runs the kernels that meet; others have programs of their own.
pub(super) const MEETING: &str = "host.cpp";

/// Builds and runs all of them; fails on a wrong result or a race.
pub(super) fn run(workspace: &Workspace, sources: &Sources) -> Result<()> {
    for Source { name, .. } in &sources.host {
        match complaint(workspace, &build(workspace, "host-kernels", sources, name)?)? {
            None => println!("{name}, under ThreadSanitizer: no race, the sums of a plain loop"),
            Some(complaint) => bail!("{name}: {complaint}"),
        }
    }
    Ok(())
}

/// What is to be found out by a program of the host's.
#[derive(Debug)]
pub(super) struct Mutant {
    pub(super) program: &'static str,
    pub(super) name: &'static str,
    pub(super) sources: Sources,
}

/// Shows that each mutant is found. Twice as many at a time as there are processors: one that hangs mostly waits.
pub(super) fn catch_all(workspace: &Workspace, mutants: &[Mutant]) -> Result<()> {
    let next = AtomicUsize::new(0);
    let work = |worker: usize| {
        // Relaxed: each number is drawn once, and nothing else is told by it.
        while let Some(mutant) = mutants.get(next.fetch_add(1, Ordering::Relaxed)) {
            catch(workspace, &format!("host-kernels-{worker}"), mutant)?;
        }
        anyhow::Ok(())
    };
    let workers = 2 * std::thread::available_parallelism().map_or(1, NonZero::get);
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..workers).map(|worker| scope.spawn(move || work(worker))).collect();
        let ended = all.into_iter().map(|one| one.join().map_err(|_| anyhow!("a thread panicked"))?);
        ended.collect()
    })
}

/// In how many runs the mutant was found by the program, and by what; fails if it was not.
fn catch(workspace: &Workspace, folder: &str, mutant: &Mutant) -> Result<()> {
    let Mutant { program, name, sources } = mutant;
    let program = build(workspace, folder, sources, program)?;
    for run in 1..=RUNS {
        if let Some(complaint) = complaint(workspace, &program)? {
            let kind = if complaint.contains("data race") { "race" } else { "wrong result or time-out" };
            println!("caught: on the host, {name}: {kind}, run {run}");
            return Ok(());
        }
    }
    bail!("on the host, the mutant {name} was not caught in {RUNS} runs")
}

fn build(workspace: &Workspace, folder: &str, sources: &Sources, main: &str) -> Result<PathBuf> {
    apt::install_missing(workspace, &[Needed { sign: "g++", package: "g++" }])?;
    let folder = workspace.empty_folder(folder)?;
    for source in sources.headers.iter().chain(&sources.host) {
        fs::write(folder.join(&source.name), &source.text)
            .with_context(|| format!("writing {}", source.name))?;
    }
    let program = folder.join("program");
    let built = workspace
        .command("g++")
        .args(["-std=c++17", "-O1", "-g", "-ffp-contract=off", "-fsanitize=thread"])
        .args(["-Wall", "-Wextra", "-Wno-unknown-pragmas", "-Wno-unused"])
        .arg(folder.join(main))
        .arg("-o")
        .arg(&program)
        .output()
        .context("starting g++")?;
    if !built.status.success() {
        bail!("g++ refuses the kernels:\n{}", String::from_utf8_lossy(&built.stderr));
    }
    Ok(program)
}

/// What one run complains about, if it does.
fn complaint(workspace: &Workspace, program: &Path) -> Result<Option<String>> {
    // The first race is enough.
    let mut command = workspace.command(program);
    let done = command
        .env("TSAN_OPTIONS", "halt_on_error=1")
        .output()
        .context("starting the kernels on the host")?;
    let said = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
    Ok((!done.status.success()).then_some(said))
}
