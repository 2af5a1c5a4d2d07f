//! Steps of `cargo xtask test` beside one another, each as a process of its own.
//!
//! Called by [`crate::test`] when more than one part is to run. What compiles and computes runs two at a time: the one fills the
//! cores while the other downloads, links, or has a single thread. What looks at deadlines, deaths or idle processors
//! follows, one after the other, with the machine to itself.
//!
//! The invariant that matters: **nobody's output runs into another's**. Only this thread prints. Of a step beside others it
//! prints the whole when the step ends, and until then now and then its last line, so that one that hangs shows where; a step that is alone
//! prints for itself.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// More would fight for two cores, and a rest would be left to one.
const AT_ONCE: usize = 2;

/// How often one hears of those that run.
const PROGRESS: Duration = Duration::from_secs(60);

/// A line of progress shows so much of what a step said last.
const SHOWN: usize = 100;

/// Something to run, and what it must not meet.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) name: String,
    pub(crate) command: Command,
    /// Needs the machine to itself.
    pub(crate) alone: bool,
    /// Folders that cargo locks: two steps that build in one would wait for one another, and keep a third from the cores.
    pub(crate) folders: &'static [&'static str],
    /// Runs only if the step of this name succeeded.
    pub(crate) after: Option<String>,
    /// Where its output stands, line by line, until it is printed: who ends all this meanwhile finds it there.
    pub(crate) log: PathBuf,
}

/// What became of a step.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) name: String,
    pub(crate) time: Duration,
    /// How its process ended; an error if there was none.
    pub(crate) status: Result<ExitStatus>,
}

impl Ended {
    fn succeeded(&self) -> bool {
        self.status.as_ref().is_ok_and(ExitStatus::success)
    }

    fn announce(&self, to: &mut impl Write) {
        let how = match &self.status {
            Ok(status) if status.success() => "done".to_owned(),
            Ok(status) => format!("FAILED, {status}"),
            Err(problem) => format!("FAILED, {problem:#}"),
        };
        say(to, &format!("<== {}: {how}, {:.1} s", self.name, self.time.as_secs_f64()));
    }
}

struct Running {
    name: String,
    folders: &'static [&'static str],
    start: Instant,
    last_line: Arc<Mutex<String>>,
}

/// Runs all of them, those that want to be alone at the end; returns how they ended, in the order in which they did.
pub(crate) fn run(steps: Vec<Step>, to: &mut impl Write) -> Vec<Ended> {
    let (alone, together) = steps.into_iter().partition(|step: &Step| step.alone);
    let mut ended = run_together(together, to);
    for step in alone {
        let before = step.after.as_ref().map(|name| ended.iter().find(|one| one.name == *name));
        let status = if before.flatten().is_some_and(|before| !before.succeeded()) {
            Err(anyhow::anyhow!("not run, since what it needs failed"))
        } else {
            say(to, &format!("\n==> {}, alone", step.name));
            Ok(step.command)
        };
        let start = Instant::now();
        let status = status.and_then(|mut command| command.status().context("starting it"));
        ended.push(Ended { name: step.name, time: start.elapsed(), status });
        if let Some(last) = ended.last() {
            last.announce(to);
        }
    }
    ended
}

fn run_together(mut waiting: Vec<Step>, to: &mut impl Write) -> Vec<Ended> {
    let (sender, heard) = mpsc::channel();
    let mut running: Vec<Running> = Vec::new();
    let mut ended = Vec::new();
    loop {
        while running.len() < AT_ONCE
            && let Some(next) = waiting.iter().position(|step| is_free(step.folders, &running))
        {
            let step = waiting.remove(next);
            let log = step.log.display();
            say(to, &format!("==> {}, beside others: its output follows when it ends ({log})", step.name));
            running.push(start(step, sender.clone()));
        }
        if running.is_empty() {
            return ended;
        }
        match heard.recv_timeout(PROGRESS) {
            Ok((one, output)) => {
                running.retain(|other| other.name != one.name);
                say(to, &format!("\n==> {}", one.name));
                let _ = to.write_all(&output);
                one.announce(to);
                ended.push(one);
            }
            Err(RecvTimeoutError::Timeout) => say(to, &progress(&running)),
            // Not as long as there is a sender, and there is ours.
            Err(RecvTimeoutError::Disconnected) => return ended,
        }
    }
}

fn is_free(folders: &[&str], running: &[Running]) -> bool {
    !running.iter().any(|other| other.folders.iter().any(|folder| folders.contains(folder)))
}

fn start(step: Step, ended: Sender<(Ended, Vec<u8>)>) -> Running {
    let Step { name, mut command, folders, log, .. } = step;
    let (start, last_line) = (Instant::now(), Arc::new(Mutex::new(String::new())));
    let running = Running { name: name.clone(), folders, start, last_line: last_line.clone() };
    thread::spawn(move || {
        let mut output = Vec::new();
        let status = catch_unwind(AssertUnwindSafe(|| listen(&mut command, &mut output, &last_line, &log)));
        let status = status.unwrap_or_else(|_| Err(anyhow::anyhow!("whoever listened to it panicked")));
        // If nobody hears it any more, all is over.
        let _ = ended.send((Ended { name, time: start.elapsed(), status }, output));
    });
    running
}

/// Runs it to its end and keeps what it says.
fn listen(
    command: &mut Command,
    output: &mut Vec<u8>,
    last_line: &Mutex<String>,
    log: &Path,
) -> Result<ExitStatus> {
    let mut log = File::create(log).with_context(|| format!("making {}", log.display()))?;
    let (lines, end) = io::pipe().context("making a pipe")?;
    let other_end = end.try_clone().context("making a pipe")?;
    command.stdin(Stdio::null()).stdout(end).stderr(other_end);
    let mut child = command.spawn().context("starting it")?;
    // As long as our own ends of the pipe are open, reading would not come to an end.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut lines = BufReader::new(lines);
    let mut seen = 0;
    while lines.read_until(b'\n', output).context("reading its output")? > 0 {
        let line = &output[seen..];
        log.write_all(line).context("writing its log")?;
        let line = String::from_utf8_lossy(line).trim().to_owned();
        seen = output.len();
        if !line.is_empty() {
            *last_line.lock().unwrap_or_else(PoisonError::into_inner) = line;
        }
    }
    child.wait().context("waiting for its end")
}

/// `... lint, 61 s: Checking syn v2.0.119`, one line for each.
fn progress(running: &[Running]) -> String {
    let line = |one: &Running| {
        let last = one.last_line.lock().unwrap_or_else(PoisonError::into_inner);
        let last: String = last.chars().take(SHOWN).collect();
        format!("... {}, {:.0} s: {last}", one.name, one.start.elapsed().as_secs_f64())
    };
    running.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// A closed `to` (a pager that was quit) stops nothing.
fn say(to: &mut impl Write, line: &str) {
    let _ = writeln!(to, "{line}").and_then(|()| to.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(name: &str, script: &str) -> Step {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        let log = std::env::temp_dir().join(format!("xtask-{name}-{}.log", std::process::id()));
        Step { name: name.into(), command, alone: false, folders: &[], after: None, log }
    }

    fn names(ended: &[Ended]) -> Vec<&str> {
        ended.iter().map(|one| one.name.as_str()).collect()
    }

    #[test]
    fn output_of_steps_that_run_beside_one_another_comes_in_blocks() {
        // Each waits for the other to have begun: they do run at once.
        let folder = std::env::temp_dir().join(format!("xtask-blocks-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let script = |me: &str, other: &str| {
            let folder = folder.display();
            format!(
                "echo {me} 1; touch {folder}/{me}; until [ -e {folder}/{other} ]; do sleep 0.01; done; echo {me} 2 >&2"
            )
        };
        let mut seen = Vec::new();
        let ended = run(vec![step("a", &script("a", "b")), step("b", &script("b", "a"))], &mut seen);
        assert!(ended.iter().all(Ended::succeeded));
        let seen = String::from_utf8(seen).unwrap();
        assert!(seen.contains("\n==> a\na 1\na 2\n<== a: done"), "{seen}");
        assert!(seen.contains("\n==> b\nb 1\nb 2\n<== b: done"), "{seen}");
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn what_fails_is_said_and_keeps_back_only_what_needs_it() {
        let alone = |step: Step, after: &str| Step { alone: true, after: Some(after.into()), ..step };
        let steps = vec![
            alone(step("use", "true"), "build"),
            alone(step("other use", "true"), "other build"),
            step("build", "exit 3"),
            step("other build", "true"),
        ];
        let mut seen = Vec::new();
        let ended = run(steps, &mut seen);
        assert_eq!(names(&ended)[2..], ["use", "other use"]);
        assert!(!ended[2].succeeded() && ended[3].succeeded());
        let seen = String::from_utf8(seen).unwrap();
        assert!(seen.contains("<== build: FAILED, exit status: 3"), "{seen}");
        assert!(seen.contains("<== use: FAILED, not run"), "{seen}");
    }

    #[test]
    fn two_that_build_in_one_folder_do_not_meet() {
        let in_folder = |step: Step| Step { folders: &["debug"], ..step };
        let marked = std::env::temp_dir().join(format!("xtask-folder-{}", std::process::id()));
        let script = format!("mkdir {0} && sleep 0.05 && rmdir {0}", marked.display());
        let steps = (0..3).map(|number| in_folder(step(&number.to_string(), &script)));
        let ended = run(steps.collect(), &mut Vec::new());
        assert!(ended.iter().all(Ended::succeeded));
        assert_eq!(names(&ended), ["0", "1", "2"]);
    }
}
