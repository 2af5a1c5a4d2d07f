//! `cargo xtask test`: the parts one after the other, a table, and one line of totals.
//!
//! Called by developers, and by `.ci/run`. The invariant that matters: **nothing is passed over in silence**. A part
//! that cannot run fails the whole, unless the caller named it in `--allow-skip` and the reason is one that the
//! caller can do nothing about; and then the last line of all says which part was left out, and why.

use std::time::{Duration, Instant};

use anyhow::{Error, Result};
use clap::{Args, ValueEnum};
use comfy_table::{Table, presets};

use crate::python::Torch;
use crate::step::{CannotRun, Count};
use crate::workspace::Workspace;
use crate::{cross, kernels, lint, models, python, sanitize, unit};

/// What to run and what may be left out.
#[derive(Debug, Default, Args)]
pub(crate) struct Options {
    /// Run only these parts.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "PART,…")]
    pub(crate) only: Vec<Part>,
    /// Run the Python package's part alone.
    #[arg(long, conflicts_with_all = ["only", "all"])]
    pub(crate) python: bool,
    /// Which torch the Python package's part runs on: the pinned one, or the newest, without torch's own tests.
    #[arg(long, value_enum, default_value_t, value_name = "WHICH")]
    pub(crate) torch: Torch,
    /// Run every part and the Python package's.
    #[arg(long, conflicts_with = "only")]
    pub(crate) all: bool,
    /// Parts that may be left out when Debian no longer offers the compiler's source; all else is a failure.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "PART,…")]
    pub(crate) allow_skip: Vec<Part>,
}

impl Options {
    /// One part, and nothing may be left out.
    pub(crate) fn only(part: Part) -> Self {
        Self { only: vec![part], ..Self::default() }
    }

    fn parts(&self) -> Vec<Part> {
        if self.python {
            return vec![Part::Python];
        }
        let all = Part::value_variants().iter().copied();
        let is_wanted = |part: &Part| match self.only.as_slice() {
            [] => self.all || *part != Part::Python,
            only => only.contains(part),
        };
        all.filter(is_wanted).collect()
    }
}

/// The parts, in the order in which they run: what is quick to fail comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// Formatting, clippy, documentation, rules of the repository.
    Lint,
    /// Unit, integration and documentation tests of all crates.
    Unit,
    /// The GPU kernels: the same bytes as shipped, assembled for several generations.
    Kernels,
    /// Every order of events in the protocol's models.
    Models,
    /// ThreadSanitizer.
    Sanitize,
    /// 64-bit Arm, emulated.
    Cross,
    /// The Python package: built, installed, checked and used. Not run unless it is asked for.
    Python,
}

impl Part {
    fn name(self) -> &'static str {
        match self {
            Self::Lint => "lint",
            Self::Unit => "unit",
            Self::Kernels => "kernels",
            Self::Models => "models",
            Self::Sanitize => "sanitize",
            Self::Cross => "cross",
            Self::Python => "python",
        }
    }

    fn run(self, workspace: &Workspace, torch: Torch, count: &mut Count) -> Result<()> {
        match self {
            Self::Lint => lint::run(workspace),
            Self::Unit => unit::run(workspace, count),
            Self::Kernels => kernels::run(workspace, &kernels::Options::default(), count),
            Self::Models => models::run(workspace, count),
            Self::Sanitize => sanitize::run(workspace, count),
            Self::Cross => cross::run(workspace, count),
            Self::Python => python::run(workspace, torch, count),
        }
    }
}

/// How a part ended.
#[derive(Debug)]
enum Outcome {
    Passed,
    /// Left out, with the caller's leave.
    Skipped(String),
    Failed(String),
}

#[derive(Debug)]
struct Report {
    part: Part,
    outcome: Outcome,
    time: Duration,
    count: Count,
}

/// Runs the chosen parts and reports on them; returns whether none failed.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> bool {
    let reports: Vec<Report> = options
        .parts()
        .into_iter()
        .map(|part| {
            println!("\n==> {}", part.name());
            let report = run_part(part, options.allow_skip.contains(&part), |count| {
                part.run(workspace, options.torch, count)
            });
            println!("<== {}: {}, {:.1} s", part.name(), verdict(&report.outcome), report.time.as_secs_f64());
            report
        })
        .collect();
    println!("\n{}", table(&reports));
    for line in closing_lines(&reports) {
        println!("{line}");
    }
    !reports.iter().any(|report| matches!(report.outcome, Outcome::Failed(_)))
}

fn run_part(part: Part, may_skip: bool, run: impl FnOnce(&mut Count) -> Result<()>) -> Report {
    let mut count = Count::default();
    let start = Instant::now();
    let outcome = match run(&mut count) {
        Ok(()) => Outcome::Passed,
        Err(problem) if may_skip && is_out_of_our_hands(&problem) => Outcome::Skipped(format!("{problem:#}")),
        Err(problem) => Outcome::Failed(format!("{problem:#}")),
    };
    if matches!(outcome, Outcome::Failed(_)) && count.failed == 0 {
        // What failed was no test case (a build, a rule, a crash): the totals must not say that nothing failed.
        count.failed = 1;
    }
    Report { part, outcome, time: start.elapsed(), count }
}

/// Only one reason counts: the source that the part is built from is no longer offered.
fn is_out_of_our_hands(problem: &Error) -> bool {
    problem.chain().any(|cause| matches!(cause.downcast_ref(), Some(CannotRun::SourceGone { .. })))
}

fn verdict(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Passed => "passed",
        Outcome::Skipped(_) => "SKIPPED",
        Outcome::Failed(_) => "FAILED",
    }
}

fn table(reports: &[Report]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header(["step", "result", "seconds", "passed", "failed"]);
    for report in reports {
        table.add_row([
            report.part.name().to_owned(),
            verdict(&report.outcome).to_owned(),
            format!("{:.1}", report.time.as_secs_f64()),
            report.count.passed.to_string(),
            report.count.failed.to_string(),
        ]);
    }
    table
}

/// The reasons of failures, the totals, and, if any part was left out, which and why.
fn closing_lines(reports: &[Report]) -> Vec<String> {
    let mut lines = Vec::new();
    let mut skipped = Vec::new();
    let mut total = Count::default();
    let mut reason_to_skip = None;
    for report in reports {
        total.add(report.count);
        match &report.outcome {
            Outcome::Passed => {}
            Outcome::Failed(reason) => lines.push(format!("FAILED {}: {reason}", report.part.name())),
            Outcome::Skipped(reason) => {
                skipped.push(report.part.name());
                reason_to_skip = Some(reason);
            }
        }
    }
    lines.push(format!("{} passed, {} failed", total.passed, total.failed));
    if let Some(reason) = reason_to_skip {
        lines.push(format!("SKIPPED {}: {reason}", skipped.join(", ")));
    }
    lines
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    fn source_gone() -> Error {
        let gone = CannotRun::SourceGone { release: "1.0.0".into(), suites: "sid".into() };
        Error::new(gone).context("preparing")
    }

    #[test]
    fn a_part_is_left_out_only_by_leave_and_only_when_its_source_is_gone() {
        let skipped = run_part(Part::Cross, true, |_| Err(source_gone()));
        assert!(matches!(skipped.outcome, Outcome::Skipped(_)));
        let without_leave = run_part(Part::Cross, false, |_| Err(source_gone()));
        assert!(matches!(without_leave.outcome, Outcome::Failed(_)));
        let other_reason = run_part(Part::Cross, true, |_| Err(anyhow!("the linker is missing")));
        assert!(matches!(other_reason.outcome, Outcome::Failed(_)));
    }

    #[test]
    fn python_is_run_when_it_is_asked_for() {
        let rust = [Part::Lint, Part::Unit, Part::Kernels, Part::Models, Part::Sanitize, Part::Cross];
        assert_eq!(Options::default().parts(), rust);
        assert_eq!(
            Options { all: true, ..Options::default() }.parts(),
            [&rust[..], &[Part::Python]].concat()
        );
        assert_eq!(Options { python: true, ..Options::default() }.parts(), [Part::Python]);
        assert_eq!(Options::only(Part::Python).parts(), [Part::Python]);
    }

    #[test]
    fn the_totals_come_last_when_everything_ran() {
        let reports = [
            run_part(Part::Unit, false, |count| {
                count.passed = 7;
                Ok(())
            }),
            run_part(Part::Models, false, |count| {
                count.passed = 2;
                count.failed = 1;
                Err(anyhow!("a model failed"))
            }),
        ];
        assert_eq!(closing_lines(&reports), ["FAILED models: a model failed", "9 passed, 1 failed"]);
    }

    #[test]
    fn the_last_line_names_what_was_left_out() {
        let reports = [run_part(Part::Sanitize, true, |_| Err(source_gone()))];
        let lines = closing_lines(&reports);
        assert_eq!(lines[0], "0 passed, 0 failed");
        assert!(
            lines[1].starts_with("SKIPPED sanitize: preparing: Debian's pool no longer holds rust-src 1.0.0")
        );
    }

    #[test]
    fn a_failure_that_is_no_test_case_is_counted_as_one() {
        let report = run_part(Part::Lint, false, |_| Err(anyhow!("not formatted")));
        assert_eq!(report.count, Count { passed: 0, failed: 1 });
    }
}
