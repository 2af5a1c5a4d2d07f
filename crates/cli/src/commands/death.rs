//! `unisono bench death`: kill ranks and measure how long it takes until all others know.
//!
//! Each round has ranks of its own, who all-reduce in a loop until one of them is killed. The one invariant that
//! matters: the time runs from just before the signal is sent to the moment at which the *last* survivor's call
//! has returned with the right rank's name.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{bail, ensure};
use serde::Serialize;
use unisono::MAX_WORLD_SIZE;
use unisono_measure::{Samples, Summary, size, table};
use unisono_os::process::{self, Signal};
use unisono_os::{clock, memory_limit};

use crate::output;
use crate::worker::pool::Pool;
use crate::worker::protocol::{Answer, Burden, Learned, Request};

/// What the library promises.
const PROMISE: Duration = Duration::from_millis(50);
/// What the heavy rank holds.
const HELD_BYTES: usize = 1 << 30;
/// How long ranks run before one is killed: long against their start, and different from round to round, so that death
/// comes in every part of an operation.
const BEFORE_DEATH: Duration = Duration::from_millis(20);

/// Kill ranks, and measure how long it takes until all others know.
///
/// A rank is killed (SIGKILL) while the others are inside an operation; the time ends when the last of them knows who
/// died.
///
/// Three kinds of victims: a small one, one that holds 1 GiB, and one with a forked child that lives on. Exit code 1 if
/// a death took longer than 50 ms to be noticed, or was not told as what it was.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// How many ranks, 2 to 64.
    #[arg(short = 'n', long, value_name = "N", default_value_t = 4)]
    ranks: usize,
    /// How many deaths of each kind.
    #[arg(long, default_value_t = 20)]
    rounds: usize,
    /// Print JSON lines on a terminal, too.
    #[arg(long)]
    json: bool,
}

/// The deaths of one kind.
#[derive(Serialize)]
struct Report {
    bench: &'static str,
    kind: &'static str,
    ranks: usize,
    rounds: usize,
    p50_ms: f64,
    p99_ms: f64,
    max_ms: f64,
    promise_ms: f64,
    /// Survivors whose error did not name the dead rank.
    misnamed: usize,
    held: bool,
}

impl Report {
    fn new(kind: &'static str, ranks: usize, summary: Summary, misnamed: usize) -> Report {
        let milliseconds = |nanoseconds: u64| nanoseconds as f64 / 1e6;
        let held = misnamed == 0 && Duration::from_nanos(summary.max_ns) <= PROMISE;
        Report {
            bench: "death",
            kind,
            ranks,
            rounds: summary.samples,
            p50_ms: milliseconds(summary.p50_ns),
            p99_ms: milliseconds(summary.p99_ns),
            max_ms: milliseconds(summary.max_ns),
            promise_ms: PROMISE.as_secs_f64() * 1e3,
            misnamed,
            held,
        }
    }

    fn row(&self) -> Vec<String> {
        let time = |milliseconds: f64| format!("{milliseconds:.3}");
        vec![
            self.kind.to_string(),
            self.rounds.to_string(),
            time(self.p50_ms),
            time(self.p99_ms),
            time(self.max_ms),
            self.misnamed.to_string(),
            if self.held { "yes" } else { "NO" }.to_string(),
        ]
    }
}

/// Kill and measure.
///
/// # Errors
/// When ranks cannot be started, or fail before one is killed.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let Arguments { ranks, rounds, .. } = *arguments;
    ensure!((2..=MAX_WORLD_SIZE).contains(&ranks), "-n {ranks}: there must be 2 to {MAX_WORLD_SIZE} ranks");
    ensure!(rounds > 0, "--rounds 0: there must be one death at least");
    let as_json = arguments.json || !std::io::stdout().is_terminal();
    let mut reports = Vec::new();
    for (kind, burden) in kinds() {
        let report = measure(kind, burden, ranks, rounds)?;
        if as_json {
            output::result_line(&serde_json::to_string(&report)?)?;
        }
        reports.push(report);
    }
    if !as_json {
        let headings = ["victim", "deaths", "p50 (ms)", "p99 (ms)", "max (ms)", "misnamed", "within 50 ms"];
        let rows: Vec<Vec<String>> = reports.iter().map(Report::row).collect();
        output::result_line(&table::render(&headings, &rows))?;
    }
    Ok(if reports.iter().all(|report| report.held) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The kinds of victims; the heavy one only where there is memory for it.
fn kinds() -> Vec<(&'static str, Burden)> {
    let mut kinds = vec![("small", Burden::None)];
    let headroom = memory_limit::headroom();
    if headroom.bytes / 2 >= HELD_BYTES as u64 {
        kinds.push(("holding 1 GiB", Burden::Memory(HELD_BYTES)));
    } else {
        let (left, by) = (size::about(headroom.bytes), headroom.limited_by);
        output::complain(&format!("no victim holding 1 GiB: only {left} may still be had ({by})"));
    }
    kinds.push(("with a forked child", Burden::ForkedChild));
    kinds
}

fn measure(kind: &'static str, burden: Burden, ranks: usize, rounds: usize) -> anyhow::Result<Report> {
    let mut samples = Samples::with_capacity(rounds);
    let mut misnamed = 0;
    for round in 0..rounds {
        let victim = round % ranks;
        let (killed_at_ns, survivors) = kill_one(burden, ranks, victim, BEFORE_DEATH + jitter(round))?;
        let last = survivors.iter().map(|learned| learned.at_ns).max().unwrap_or(killed_at_ns);
        samples.push(Duration::from_nanos(last.saturating_sub(killed_at_ns)));
        for learned in survivors.iter().filter(|learned| learned.dead_rank != Some(victim)) {
            misnamed += 1;
            output::complain(&format!("rank {victim} was killed, but a survivor said: {}", learned.error));
        }
    }
    match samples.summary() {
        Some(summary) => Ok(Report::new(kind, ranks, summary, misnamed)),
        None => bail!("no death was measured"),
    }
}

/// A part of a millisecond that differs from round to round.
fn jitter(round: usize) -> Duration {
    Duration::from_micros((round as u64 * 617) % 1000)
}

/// One death: when the signal was sent, and how each survivor learned of it.
fn kill_one(
    burden: Burden,
    ranks: usize,
    victim: usize,
    after: Duration,
) -> anyhow::Result<(u64, Vec<Learned>)> {
    let mut pool = Pool::start(ranks)?;
    pool.worker(victim).ask(&Request::Prepare(burden))?;
    pool.worker(victim).answer()?;
    for rank in 0..ranks {
        pool.worker(rank).ask(&Request::LoopUntilDeath)?;
    }
    std::thread::sleep(after);
    let pid = pool.worker(victim).pid();
    let killed_at_ns = clock::monotonic_nanoseconds();
    process::kill(pid, Signal::Kill)?;
    let mut survivors = Vec::new();
    for rank in (0..ranks).filter(|rank| *rank != victim) {
        match pool.worker(rank).answer()? {
            Answer::Learned(learned) => survivors.push(learned),
            other => bail!("rank {rank} answered {other:?}"),
        }
    }
    Ok((killed_at_ns, survivors))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(max_ms: u64, misnamed: usize) -> Report {
        let max_ns = max_ms * 1_000_000;
        Report::new("small", 4, Summary { samples: 20, p50_ns: 1_000_000, p99_ns: max_ns, max_ns }, misnamed)
    }

    #[test]
    fn the_promise_is_held_only_in_time_and_by_name() {
        assert!(report(50, 0).held);
        assert!(!report(51, 0).held);
        assert!(!report(2, 1).held);
        assert_eq!(report(50, 0).row()[1..], ["20", "1.000", "50.000", "50.000", "0", "yes"]);
    }
}
