//! A session of its own for a whole measurement.
//!
//! The kernel shares the machine among terminal sessions before it shares it among processes, so a measurement that is to
//! have its cores must be a session that can raise its own weight. All ranks must be in the *same* one: a rank that yields
//! its core yields it within its session only. So the program starts itself again as the leader of a new session, and
//! the ranks stay in it. The invariant: the new session does not outlive the process that asked for it.

use std::process::{Command, ExitCode};

use super::{ChildSetup, Signal, prepare_child, shell_exit_code};

/// The number of the session of this process; 0 if its leader lives outside of this process's namespace.
pub fn session() -> u32 {
    rustix::process::getsid(None).map_or(0, |leader| leader.as_raw_nonzero().get().cast_unsigned())
}

/// Run `measure` in a session of its own: start this program again, with the same arguments, as the leader of one, and
/// return what it returned. `marker` is a variable that tells the second process from the first.
///
/// # Errors
/// When the program cannot start itself again, and what `measure` says.
pub fn in_its_own_session<E: From<std::io::Error>>(
    marker: &str,
    measure: impl FnOnce() -> Result<ExitCode, E>,
) -> Result<ExitCode, E> {
    if std::env::var_os(marker).is_some() {
        return measure();
    }
    let mut leader = Command::new(std::env::current_exe()?);
    leader.args(std::env::args_os().skip(1)).env(marker, "1");
    let die_with_parent = Some(Signal::Kill);
    prepare_child(&mut leader, ChildSetup { die_with_parent, new_session: true, ..Default::default() });
    let status = leader.status()?;
    Ok(ExitCode::from(u8::try_from(shell_exit_code(status)).unwrap_or(1)))
}
