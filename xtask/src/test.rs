//! `cargo xtask test`: the parts, a table, and one line of totals.
//!
//! Called by developers, and by `.ci/run`. One part runs in this process; several are processes of their own, in part beside one
//! another ([`side_by_side`]), each of which leaves a report in a file. The invariant that matters: **nothing is passed over in silence**. A part
//! that cannot run fails the whole, unless the caller named it in `--allow-skip` and the reason is one that the
//! caller can do nothing about; and then the last line of all says which part was left out, and why.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, anyhow};
use clap::{Args, ValueEnum};
use comfy_table::{Table, presets};
use serde_json::{Value, json};

use crate::python::Torch;
use crate::side_by_side::{self, Ended, Step};
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
    /// Do this much of the one part.
    #[arg(long, value_enum, hide = true, requires = "only")]
    stage: Option<Stage>,
    /// Write how the one part ended into this file, in place of a table.
    #[arg(long, hide = true, requires = "only")]
    report: Option<PathBuf>,
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

/// The parts.
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

/// The two halves of a part whose tests need the machine to themselves, and whose building does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Stage {
    Build,
    Run,
}

/// Where cargo builds, below `target`; nothing for parts that have a folder of their own.
const DEBUG: &str = "debug";
const RELEASE: &str = "release";

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

    /// Tests that kill, stop and starve processes and then look what the others do, or what they use of the machine, are kept from
    /// everything else. Models, emulator and sanitizer are slow anyway, and their tests wait accordingly.
    fn is_built_apart(self) -> bool {
        matches!(self, Self::Unit | Self::Python)
    }

    fn folders(self) -> &'static [&'static str] {
        match self {
            Self::Lint | Self::Cross => &[DEBUG],
            Self::Unit => &[DEBUG, RELEASE],
            Self::Python => &[RELEASE],
            Self::Kernels | Self::Models | Self::Sanitize => &[],
        }
    }

    fn run(self, workspace: &Workspace, stage: Option<Stage>, torch: Torch, count: &mut Count) -> Result<()> {
        match (self, stage) {
            (Self::Lint, _) => lint::run(workspace),
            (Self::Unit, Some(Stage::Build)) => unit::build(workspace),
            (Self::Unit, _) => unit::run(workspace, count),
            (Self::Kernels, _) => kernels::run(workspace, &kernels::Options::default(), count),
            (Self::Models, _) => models::run(workspace, count),
            (Self::Sanitize, _) => sanitize::run(workspace, count),
            (Self::Cross, _) => cross::run(workspace, count),
            (Self::Python, Some(Stage::Build)) => python::build(workspace, torch),
            (Self::Python, Some(Stage::Run)) => python::run(workspace, torch, count),
            (Self::Python, None) => {
                python::build(workspace, torch)?;
                python::run(workspace, torch, count)
            }
        }
    }
}

/// Parts that run beside others begin in this order: what is quick to fail first, then those that take long, and the downloads
/// of one beside what another compiles.
const ORDER: [Part; 7] =
    [Part::Lint, Part::Python, Part::Unit, Part::Sanitize, Part::Cross, Part::Kernels, Part::Models];

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
    name: String,
    outcome: Outcome,
    time: Duration,
    /// What it and all it started used of the processors.
    processors: Duration,
    count: Count,
}

impl Report {
    fn to_json(&self) -> Value {
        let reason = match &self.outcome {
            Outcome::Passed => None,
            Outcome::Skipped(reason) | Outcome::Failed(reason) => Some(reason),
        };
        json!({
            "outcome": verdict(&self.outcome), "reason": reason, "processors": self.processors.as_secs_f64(),
            "passed": self.count.passed, "failed": self.count.failed,
        })
    }

    /// Of a step that was a process: what it left in its file, if it did.
    fn of(ended: &Ended, file: &Path) -> Self {
        let told = fs::read_to_string(file)
            .context("reading its report")
            .and_then(|text| serde_json::from_str::<Value>(&text).context("understanding its report"));
        let number = |name: &str| told.as_ref().ok().and_then(|told| told[name].as_u64()).unwrap_or_default();
        let mut count = Count { passed: number("passed"), failed: number("failed") };
        let reason = |told: &Value| told["reason"].as_str().unwrap_or("for no reason").to_owned();
        let succeeded = ended.status.as_ref().is_ok_and(|status| status.success());
        let outcome = match (&ended.status, &told) {
            (Err(problem), _) => Outcome::Failed(format!("{problem:#}")),
            (Ok(_), Ok(told)) if told["outcome"] == "passed" && succeeded => Outcome::Passed,
            (Ok(_), Ok(told)) if told["outcome"] == "SKIPPED" && succeeded => Outcome::Skipped(reason(told)),
            (Ok(_), Ok(told)) if told["outcome"] == "FAILED" => Outcome::Failed(reason(told)),
            (Ok(status), _) => Outcome::Failed(format!("ended with {status}")),
        };
        if matches!(outcome, Outcome::Failed(_)) {
            count.failed = count.failed.max(1);
        }
        let processors = told.as_ref().ok().and_then(|told| told["processors"].as_f64()).unwrap_or_default();
        let processors = Duration::from_secs_f64(processors);
        Self { name: ended.name.clone(), outcome, time: ended.time, processors, count }
    }
}

/// Runs the chosen parts and reports on them; returns whether none failed.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> bool {
    let reports = match options.parts().as_slice() {
        [part] => vec![run_here(workspace, *part, options)],
        parts => match run_as_processes(workspace, parts, options) {
            Ok(reports) => reports,
            Err(problem) => {
                println!("FAILED: {problem:#}");
                return false;
            }
        },
    };
    let none_failed = !reports.iter().any(|report| matches!(report.outcome, Outcome::Failed(_)));
    if let ([report], Some(file)) = (reports.as_slice(), &options.report) {
        if let Err(problem) = fs::write(file, report.to_json().to_string()) {
            println!("FAILED: writing the report: {problem}");
            return false;
        }
        return none_failed;
    }
    println!("\n{}", table(&reports));
    for line in closing_lines(&reports) {
        println!("{line}");
    }
    none_failed
}

fn run_here(workspace: &Workspace, part: Part, options: &Options) -> Report {
    let is_asked_for_a_report = options.report.is_some();
    if !is_asked_for_a_report {
        println!("\n==> {}", part.name());
    }
    let report = run_part(part, options.allow_skip.contains(&part), |count| {
        part.run(workspace, options.stage, options.torch, count)
    });
    if !is_asked_for_a_report {
        println!("<== {}: {}, {:.1} s", part.name(), verdict(&report.outcome), report.time.as_secs_f64());
    } else if let Outcome::Failed(reason) | Outcome::Skipped(reason) = &report.outcome {
        println!("{}: {reason}", verdict(&report.outcome));
    }
    report
}

fn run_as_processes(workspace: &Workspace, parts: &[Part], options: &Options) -> Result<Vec<Report>> {
    let folder = workspace.empty_folder("reports")?;
    let file = |name: &str| folder.join(format!("{}.json", name.replace(' ', "-")));
    let one = |part: Part, stage: Option<Stage>| {
        let name = name_of(part, stage);
        Step {
            command: command(workspace, part, stage, options, &file(&name)),
            alone: stage == Some(Stage::Run),
            folders: part.folders(),
            after: (stage == Some(Stage::Run)).then(|| name_of(part, Some(Stage::Build))),
            log: file(&name).with_extension("log"),
            name,
        }
    };
    let steps = ORDER.into_iter().filter(|part| parts.contains(part)).flat_map(|part| {
        let stages: &[_] =
            if part.is_built_apart() { &[Some(Stage::Build), Some(Stage::Run)] } else { &[None] };
        stages.iter().map(move |stage| (part, *stage))
    });
    let steps: Vec<Step> = steps.map(|(part, stage)| one(part, stage)).collect();
    let wanted = steps.len();
    let ended = side_by_side::run(steps, &mut io::stdout());
    anyhow::ensure!(ended.len() == wanted, "{} of {wanted} steps were run", ended.len());
    Ok(ended.iter().map(|ended| Report::of(ended, &file(&ended.name))).collect())
}

fn name_of(part: Part, stage: Option<Stage>) -> String {
    match stage {
        Some(Stage::Build) => format!("{} build", part.name()),
        Some(Stage::Run) | None => part.name().to_owned(),
    }
}

/// This program, for one part. Its file may be written anew by what a part builds, hence not by its path.
fn command(
    workspace: &Workspace,
    part: Part,
    stage: Option<Stage>,
    options: &Options,
    report: &Path,
) -> Command {
    let mut command = workspace.command("/proc/self/exe");
    command.args(["test", "--only", part.name(), "--report"]).arg(report);
    let value = |value: &dyn Fn() -> Option<clap::builder::PossibleValue>| {
        value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    };
    command.arg("--torch").arg(value(&|| options.torch.to_possible_value()));
    if let Some(stage) = stage {
        command.arg("--stage").arg(value(&|| stage.to_possible_value()));
    }
    if options.allow_skip.contains(&part) {
        command.args(["--allow-skip", part.name()]);
    }
    command
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
    let processors = processors_used().unwrap_or_default();
    Report { name: part.name().to_owned(), outcome, time: start.elapsed(), processors, count }
}

/// What this process and those it waited for used, user and system, of which Linux tells hundredths of a second.
fn processors_used() -> Result<Duration> {
    let stat = fs::read_to_string("/proc/self/stat").context("reading /proc/self/stat")?;
    // The name, in parentheses, may have spaces; the times are 12 to 15 after it.
    let (_, rest) = stat.rsplit_once(") ").ok_or_else(|| anyhow!("a line without a name"))?;
    let hundredths: u64 =
        rest.split(' ').skip(11).take(4).filter_map(|field| field.parse::<u64>().ok()).sum();
    Ok(Duration::from_millis(hundredths * 10))
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
    table.set_header(["step", "result", "seconds", "processor seconds", "passed", "failed"]);
    for report in reports {
        table.add_row([
            report.name.clone(),
            verdict(&report.outcome).to_owned(),
            format!("{:.1}", report.time.as_secs_f64()),
            format!("{:.1}", report.processors.as_secs_f64()),
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
            Outcome::Failed(reason) => lines.push(format!("FAILED {}: {reason}", report.name)),
            Outcome::Skipped(reason) => {
                skipped.push(report.name.as_str());
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

    #[test]
    fn every_part_is_in_the_order() {
        assert!(Part::value_variants().iter().all(|part| ORDER.contains(part)));
    }

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
