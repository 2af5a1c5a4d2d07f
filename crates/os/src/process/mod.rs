//! Processes: who we are, who others are, how they end.
//!
//! Called by the library for names in error messages, and by the `unisono` program, which starts ranks,
//! passes signals on and reports deaths. The invariant: what is said about another process is best effort,
//! since it may end at any moment; what is done to one (a signal) reports whether it was done.

mod child;
mod fork;
mod priority;
mod session;
mod signal;
mod state;
mod stepping;

pub use child::{ChildSetup, prepare_child};
pub use fork::fork_sleeping_child;
pub use priority::{PriorityRaised, raise_priority};
pub use session::{in_its_own_session, session};
pub use signal::{Signal, SignalWatch};
pub use state::{ProcessState, state};
pub use stepping::{be_stepped, count_sections, mark};

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::Pid;

use crate::OsError;

/// The number of this process, in its own namespace.
pub fn pid() -> u32 {
    std::process::id()
}

/// The number of this process's parent; 0 if it lives outside of this process's namespace.
pub fn parent_pid() -> u32 {
    rustix::process::getppid().map_or(0, |parent| parent.as_raw_nonzero().get().cast_unsigned())
}

/// The user on whose behalf this process acts.
pub fn uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Send a signal to a process.
///
/// # Errors
/// [`is_not_found`](OsError::is_not_found) if there is none, permission denied if it is somebody else's. A
/// number can be used again after its process was waited for: hold a [`pidfd`](crate::pidfd) where that
/// matters.
pub fn kill(pid: u32, signal: Signal) -> Result<(), OsError> {
    rustix::process::kill_process(number(pid)?, signal.number())
        .map_err(|errno| OsError::from_errno("kill", errno, format!("{pid}, {}", signal.name())))
}

/// Send a signal to every process of a group.
///
/// # Errors
/// As [`kill`].
pub fn kill_group(leader: u32, signal: Signal) -> Result<(), OsError> {
    rustix::process::kill_process_group(number(leader)?, signal.number())
        .map_err(|errno| OsError::from_errno("kill", errno, format!("group {leader}, {}", signal.name())))
}

/// Be sent a signal when the thread that started this process ends. (The thread: start ranks from one that
/// stays.)
///
/// Ask [`parent_pid`] afterwards: a parent that was gone before is not reported.
///
/// # Errors
/// Never, on the kernels this crate is for; the system's answer is passed on.
pub fn die_with_parent(signal: Signal) -> Result<(), OsError> {
    rustix::process::set_parent_process_death_signal(Some(signal.number()))
        .map_err(|errno| OsError::from_errno("prctl(PR_SET_PDEATHSIG)", errno, signal.name()))
}

/// Become the leader of a new session, without a terminal and with a scheduling group of its own where the
/// kernel groups by session.
///
/// # Errors
/// Permission denied if this process leads a process group already.
pub fn new_session() -> Result<(), OsError> {
    rustix::process::setsid()
        .map(|_| ())
        .map_err(|errno| OsError::from_errno("setsid", errno, "this process"))
}

/// From now on, orphaned descendants become children of this process, which must wait for them.
///
/// # Errors
/// Never, on the kernels this crate is for; the system's answer is passed on.
pub fn adopt_orphans() -> Result<(), OsError> {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .map_err(|errno| OsError::from_errno("prctl(PR_SET_CHILD_SUBREAPER)", errno, "this process"))
}

/// The network namespace of this process, as a number that is equal for processes that share one.
/// Abstract sockets reach only within it. `None` if the system does not tell.
pub fn network_namespace_id() -> Option<u64> {
    rustix::fs::stat("/proc/self/ns/net").ok().map(|status| status.st_ino)
}

/// The control group namespace of this process, equal for processes that see the same limits under the same
/// paths. `None` if the system does not tell.
pub fn cgroup_namespace_id() -> Option<u64> {
    rustix::fs::stat("/proc/self/ns/cgroup").ok().map(|status| status.st_ino)
}

/// The command line of a process, arguments separated by blanks, or its bare name; `None` if it cannot be
/// seen.
pub fn command_line(pid: u32) -> Option<String> {
    let raw = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let arguments: Vec<_> = raw.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
    let line = arguments.join(" ").trim_end().to_owned();
    if !line.is_empty() {
        return Some(line);
    }
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    Some(format!("[{}]", name.trim_end()))
}

/// The time that all threads of a process have run, in steps of about 10 ms; `None` if it cannot be seen.
pub fn cpu_time(pid: u32) -> Option<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in brackets, may hold anything; what follows it are numbers, of which the fields 14 and 15 (from 1, as the
    // manual counts) are the ticks in the process and in the kernel.
    let mut fields = stat.rsplit_once(") ")?.1.split(' ').skip(11);
    let ticks = fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?;
    Some(Duration::from_nanos(ticks * (1_000_000_000 / rustix::param::clock_ticks_per_second())))
}

/// How a process ended, in words: `exit code 1`, `SIGKILL`, `SIGSEGV (core dumped)`.
pub fn describe_exit(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => {
            let core = if status.core_dumped() { " (core dumped)" } else { "" };
            format!("{}{core}", signal::name_of(signal))
        }
        (None, None) => "unknown end".to_owned(),
    }
}

/// The exit code that a shell would report: the process's own, or 128 and the number of the signal that ended
/// it.
pub fn shell_exit_code(status: ExitStatus) -> i32 {
    status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1)
}

fn number(pid: u32) -> Result<Pid, OsError> {
    let known = i32::try_from(pid).ok().and_then(Pid::from_raw);
    known.ok_or_else(|| OsError::new("kill", libc::ESRCH, pid.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn the_time_of_a_busy_process_grows_and_nobody_has_none() {
        // Another process: an emulator makes up what `/proc` says of its own.
        let mut child = Command::new("sh").args(["-c", "while :; do :; done"]).spawn().unwrap();
        let begin = cpu_time(child.id()).unwrap();
        let deadline = std::time::Instant::now() + Duration::from_secs(60);
        while cpu_time(child.id()).unwrap() < begin + Duration::from_millis(20) {
            assert!(std::time::Instant::now() < deadline);
            std::thread::sleep(Duration::from_millis(5));
        }
        kill(child.id(), Signal::Kill).unwrap();
        child.wait().unwrap();
        assert_eq!(cpu_time(0), None);
    }

    #[test]
    fn ends_are_told_in_words_and_in_the_shells_numbers() {
        let end_of = |script: &str| Command::new("sh").args(["-c", script]).status().unwrap();
        let exited = end_of("exit 3");
        assert_eq!((describe_exit(exited), shell_exit_code(exited)), ("exit code 3".to_owned(), 3));
        let killed = end_of("kill -KILL $$");
        assert_eq!((describe_exit(killed), shell_exit_code(killed)), ("SIGKILL".to_owned(), 137));
    }

    #[test]
    fn a_process_is_known_by_its_command_line() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while command_line(child.id()).as_deref() != Some("sleep 60") {
            assert!(std::time::Instant::now() < deadline, "{:?}", command_line(child.id()));
        }
        kill(child.id(), Signal::Terminate).unwrap();
        assert_eq!(describe_exit(child.wait().unwrap()), "SIGTERM");
        assert_eq!(command_line(u32::MAX), None);
        assert!(kill(u32::MAX, Signal::Kill).unwrap_err().is_not_found());
        assert!(kill(0, Signal::Kill).unwrap_err().is_not_found(), "0 would mean our whole group");
    }

    #[test]
    fn a_process_knows_itself() {
        assert_eq!(pid(), std::process::id());
        assert!(parent_pid() > 0);
        assert!(network_namespace_id().is_some());
    }
}
