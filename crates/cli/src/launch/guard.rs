//! The guard: a small process that ends the ranks' process groups when `unisono run` itself is killed.
//!
//! `unisono run` tells it over a pipe which groups there are. When the pipe ends, all groups that were not taken
//! back are killed: a killed parent cannot do that itself, and the parent-death signal reaches a rank, but not what
//! the rank has started. The one invariant that matters: the guard lives in a session of its own, so that
//! nothing that is sent to the parent's group or terminal reaches it.

use std::collections::BTreeSet;
use std::io::{BufRead, Write};
use std::process::{Child, ChildStdin, Command, ExitCode, Stdio};

use anyhow::Context;
use unisono_os::process::{self, Signal};

/// The hidden subcommand that becomes the guard.
pub(crate) const SUBCOMMAND: &str = "guard-of-run";

/// The parent's end.
pub(crate) struct Guard {
    process: Child,
    pipe: Option<ChildStdin>,
}

impl Guard {
    /// Start the guard.
    ///
    /// # Errors
    /// When this program cannot be started once more.
    pub(crate) fn start() -> anyhow::Result<Guard> {
        let program = std::env::current_exe().context("cannot tell where this program lies")?;
        let mut process = Command::new(program)
            .arg(SUBCOMMAND)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start the process that guards the ranks")?;
        let pipe = process.stdin.take();
        Ok(Guard { process, pipe })
    }

    /// From now on the process group led by `pid` ends with this process.
    pub(crate) fn watch(&mut self, pid: u32) {
        self.tell('+', pid);
    }

    /// The process group led by `pid` is gone.
    pub(crate) fn forget(&mut self, pid: u32) {
        self.tell('-', pid);
    }

    fn tell(&mut self, what: char, pid: u32) {
        // A guard that was killed is no reason to end a run that goes well: the parent-death signal remains.
        if let Some(pipe) = &mut self.pipe {
            let _ = writeln!(pipe, "{what}{pid}");
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.pipe = None;
        let _ = self.process.wait();
    }
}

/// Be the guard: follow what the pipe says, and end what is left when it ends.
///
/// # Errors
/// None; the result has the form that all subcommands have.
pub(crate) fn serve() -> anyhow::Result<ExitCode> {
    // It fails only for the leader of a group, who is out of the parent's group as well.
    let _ = process::new_session();
    let groups = left_over(std::io::stdin().lock());
    for group in groups {
        // A group that is gone is what we want.
        let _ = process::kill_group(group, Signal::Kill);
    }
    Ok(ExitCode::SUCCESS)
}

/// The groups that were named and not taken back when the pipe ended.
fn left_over(pipe: impl BufRead) -> BTreeSet<u32> {
    let mut groups = BTreeSet::new();
    for line in pipe.lines().map_while(Result::ok) {
        if let Some(pid) = line.strip_prefix('+').and_then(|pid| pid.parse().ok()) {
            groups.insert(pid);
        } else if let Some(pid) = line.strip_prefix('-').and_then(|pid| pid.parse().ok()) {
            groups.remove(&pid);
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_that_were_taken_back_are_left_alone() {
        assert_eq!(left_over(&b"+10\n+11\n-10\n+12\n"[..]), BTreeSet::from([11, 12]));
        assert_eq!(left_over(&b"+x\n\n"[..]), BTreeSet::new());
    }
}
