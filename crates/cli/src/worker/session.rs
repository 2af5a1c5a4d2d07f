//! A session of its own for a whole measurement.
//!
//! The kernel shares the machine among terminal sessions before it shares it among processes, so a measurement that is to
//! have its cores must be a session that can raise its own weight. All ranks must be in the *same* one: a rank that yields
//! its core yields it within its session only. So the program starts itself again as the leader of a new session, and
//! the ranks stay in it.

use std::process::{Command, ExitCode};

use anyhow::Context;
use unisono_os::process::{self, ChildSetup, Signal};

use crate::launch::verdict;

/// Set in the environment of the program that leads the session.
const INSIDE: &str = "UNISONO_BENCH_SESSION";

/// Run `measure` in a session of its own.
///
/// # Errors
/// When the program cannot start itself again, and what `measure` says.
pub(crate) fn in_its_own(measure: impl FnOnce() -> anyhow::Result<ExitCode>) -> anyhow::Result<ExitCode> {
    if std::env::var_os(INSIDE).is_some() {
        // Best effort: without privileges the measurement runs all the same, with more noise.
        let _ = process::raise_priority();
        return measure();
    }
    let program = std::env::current_exe().context("cannot tell where this program lies")?;
    let mut leader = Command::new(program);
    leader.args(std::env::args_os().skip(1)).env(INSIDE, "1");
    let die_with_parent = Some(Signal::Kill);
    process::prepare_child(
        &mut leader,
        ChildSetup { die_with_parent, new_session: true, ..Default::default() },
    );
    let status = leader.status().context("cannot start the measurement in a session of its own")?;
    Ok(ExitCode::from(verdict::exit_code(status)))
}
