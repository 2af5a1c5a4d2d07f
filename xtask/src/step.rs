//! Running one command so that a person sees its output as it comes, while the test cases in it are counted.
//!
//! Every part of every verb goes through [`run`]. The invariant: a line is passed on before the next one is read, to the screen or, from
//! a part beside others ([`crate::side_by_side`]), to its log: so a command that hangs shows where it hangs.

use std::env;
use std::ffi::OsStr;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::iter;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// Test cases, counted over any number of test programs.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
}

impl Count {
    pub(crate) fn add(&mut self, other: Count) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

/// Why a part could not run at all. It is an error of its own so that `--allow-skip` can tell it from a failure.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CannotRun {
    /// Debian offers no `rust-src` of the running compiler's release; the suites searched are named.
    #[error(
        "Debian's pool no longer holds rust-src {release} (searched: {suites}); without the standard library's \
         source of exactly this compiler nothing can be built for another target or with a sanitizer"
    )]
    SourceGone { release: String, suites: String },
    /// Packages are missing and only root may install them; the command to run is named.
    #[error("needs Debian packages that only root may install; run: {command}")]
    NeedsRoot { command: String },
}

/// Runs `command`, passes its output on line by line and adds the test cases it reports to `count`.
///
/// Fails when the command cannot be started or ends with anything but success.
pub(crate) fn run(command: &mut Command, count: &mut Count) -> Result<()> {
    println!("$ {}", shown(command));
    run_into(command, count, io::stdout())
}

/// One pipe takes output and error output alike: what cargo says about a test program stands before what it prints.
fn run_into(command: &mut Command, count: &mut Count, to: impl Write) -> Result<()> {
    let (lines, end) = io::pipe().context("making a pipe")?;
    let other_end = end.try_clone().context("making a pipe")?;
    command.stdin(Stdio::null()).stdout(end).stderr(other_end);
    let mut child = command.spawn().with_context(|| format!("starting {}", shown(command)))?;
    // Our own ends of the pipe lie in the command: as long as they are open, reading would not come to an end.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let passed_on = pass_on(lines, to, count);
    let status = child.wait().with_context(|| format!("waiting for {}", shown(command)))?;
    passed_on?;
    if !status.success() {
        bail!("`{}` ended with {status}", words(command).join(" "));
    }
    Ok(())
}

/// Copies `from` to `to` by lines. A closed `to` (a pager that was quit) does not stop the command.
fn pass_on(from: impl Read, mut to: impl Write, count: &mut Count) -> Result<()> {
    let mut lines = BufReader::new(from);
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line).context("reading a command's output")? > 0 {
        let _ = to.write_all(&line).and_then(|()| to.flush());
        if let Some(found) = test_result(&String::from_utf8_lossy(&line)) {
            count.add(found);
        }
        line.clear();
    }
    Ok(())
}

/// Reads the line with which a test program ends: `test result: ok. 12 passed; 0 failed; 1 ignored; …`, or pytest's:
/// `1 failed, 72 passed in 1.48s`, perhaps between rows of `=`.
fn test_result(line: &str) -> Option<Count> {
    let Some(verdict) = line.strip_prefix("test result: ") else {
        return pytest_result(line.trim().trim_matches('=').trim());
    };
    Some(Count { passed: number_before(verdict, " passed")?, failed: number_before(verdict, " failed")? })
}

fn pytest_result(line: &str) -> Option<Count> {
    let (counts, time) = line.rsplit_once(" in ")?;
    let starts_with_number = |text: &str| text.starts_with(|letter: char| letter.is_ascii_digit());
    if !starts_with_number(counts) || !starts_with_number(time) {
        return None;
    }
    let number = |unit| number_before(counts, unit);
    let (passed, failed, errors) = (number(" passed"), number(" failed"), number(" error"));
    let failed = (failed.is_some() || errors.is_some())
        .then_some(failed.unwrap_or_default() + errors.unwrap_or_default());
    passed.or(failed)?;
    Some(Count { passed: passed.unwrap_or_default(), failed: failed.unwrap_or_default() })
}

fn number_before(text: &str, unit: &str) -> Option<u64> {
    let (before, _) = text.split_once(unit)?;
    before.rsplit(|letter: char| !letter.is_ascii_digit()).next()?.parse().ok()
}

/// The command as a person would type it: variables set for it first, then program and arguments.
fn shown(command: &Command) -> String {
    let mut typed = Vec::new();
    for (name, value) in command.get_envs() {
        if let Some(value) = value.filter(|_| name != "LD_LIBRARY_PATH") {
            typed.push(format!("{}={}", name.to_string_lossy(), quoted(&value.to_string_lossy())));
        }
    }
    typed.extend(words(command));
    typed.join(" ")
}

/// Program and arguments alone; the cargo that runs us is just `cargo`.
fn words(command: &Command) -> Vec<String> {
    let program = command.get_program();
    let is_our_cargo = env::var_os("CARGO").is_some_and(|cargo| cargo == program);
    let program = if is_our_cargo { OsStr::new("cargo") } else { program };
    iter::once(program).chain(command.get_args()).map(|word| quoted(&word.to_string_lossy())).collect()
}

fn quoted(word: &str) -> String {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "-_=./,:+@%".contains(letter);
    if !word.is_empty() && word.chars().all(plain) { word.to_owned() } else { format!("'{word}'") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closing_line_of_a_test_program_is_counted() {
        let line = "test result: FAILED. 12 passed; 3 failed; 1 ignored; 0 measured; 0 filtered out";
        assert_eq!(test_result(line), Some(Count { passed: 12, failed: 3 }));
    }

    #[test]
    fn colours_around_the_verdict_do_not_disturb_the_count() {
        let line = "test result: \u{1b}[32mok\u{1b}[m. 7 passed; 0 failed; 0 ignored";
        assert_eq!(test_result(line), Some(Count { passed: 7, failed: 0 }));
    }

    #[test]
    fn the_closing_line_of_pytest_is_counted() {
        let counted = |line| test_result(line).map(|count| (count.passed, count.failed));
        assert_eq!(counted("109 passed in 19.37s\n"), Some((109, 0)));
        assert_eq!(
            counted("== 1 failed, 72 passed, 2 skipped, 1 error in 1.48s (0:00:01) =="),
            Some((72, 2))
        );
        assert_eq!(counted("2 errors in 0.10s"), Some((0, 2)));
        assert_eq!(counted("3 of 5 in 2 s"), None);
        assert_eq!(counted("no tests ran in 0.01s"), None);
    }

    #[test]
    fn other_lines_are_not_counted() {
        assert_eq!(test_result("running 3 tests"), None);
        assert_eq!(test_result("12 passed, 0 failed"), None);
        assert_eq!(test_result("it printed: test result: ok. 1 passed; 0 failed"), None);
    }

    #[test]
    fn a_command_that_fails_is_an_error_and_its_cases_are_kept() {
        let mut count = Count::default();
        let mut command = Command::new("sh");
        command.args(["-c", "echo 'test result: FAILED. 1 passed; 2 failed; 0 ignored'; exit 101"]);
        let mut seen = Vec::new();
        assert!(run_into(&mut command, &mut count, &mut seen).is_err());
        assert!(seen.starts_with(b"test result: FAILED. 1 passed"));
        assert_eq!(count, Count { passed: 1, failed: 2 });
    }

    #[test]
    fn what_is_shown_can_be_typed() {
        let mut command = Command::new("cargo");
        command.env("RUSTFLAGS", "--cfg loom").args(["test", "--test", "loom*"]);
        assert_eq!(shown(&command), "RUSTFLAGS='--cfg loom' cargo test --test 'loom*'");
    }
}
