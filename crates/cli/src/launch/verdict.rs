//! Which rank failed first, and how.
//!
//! When a rank dies its peers notice within milliseconds and fail too, while the kernel may still be freeing the
//! dead rank's memory (about 50 ms per GiB) before it can be waited for. So the rank whose end is *seen* first
//! need not be the one that failed first. The one invariant that matters: a rank that was killed by a signal that
//! we did not send is blamed before ranks that ended by themselves, since ending is what survivors do.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use unisono_os::process;

/// A rank that failed, and how it ended.
pub(crate) type Failure = (usize, ExitStatus);

/// How a process ended, as a predicate: `exited with code 3`, `was killed by SIGKILL`.
pub(crate) fn predicate(status: ExitStatus) -> String {
    match status.code() {
        Some(code) => format!("exited with code {code}"),
        None => format!("was killed by {}", process::describe_exit(status)),
    }
}

/// The exit code by which shells tell of such an end.
pub(crate) fn exit_code(status: ExitStatus) -> u8 {
    u8::try_from(process::shell_exit_code(status)).unwrap_or(1)
}

/// The failure to blame, of `failures` in the order in which they were seen: the first rank that was killed, or
/// else the first that ended by itself. Failures seen after we began to end ranks ourselves do not belong here.
pub(crate) fn first_cause(failures: &[Failure]) -> Option<Failure> {
    let killed = failures.iter().find(|(_, status)| status.signal().is_some());
    killed.or(failures.first()).copied()
}

/// Whether a process is on its way out, but cannot be waited for yet: its memory is gone, itself is not.
pub(crate) fn is_dying(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/status")).is_ok_and(|status| {
        let is_zombie = status.lines().any(|line| line.starts_with("State:") && line.contains('Z'));
        let has_memory = status.lines().any(|line| line.starts_with("VmSize:"));
        !is_zombie && !has_memory
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exited(code: i32) -> ExitStatus {
        ExitStatus::from_raw(code << 8)
    }

    fn killed(signal: i32) -> ExitStatus {
        ExitStatus::from_raw(signal)
    }

    #[test]
    fn a_killed_rank_is_blamed_before_survivors_that_were_seen_earlier() {
        let failures = [(0, exited(1)), (2, killed(9)), (1, exited(1))];
        assert_eq!(first_cause(&failures), Some((2, killed(9))));
        assert_eq!(first_cause(&failures[..1]), Some((0, exited(1))));
        assert_eq!(first_cause(&[]), None);
    }

    #[test]
    fn ends_are_told_in_words_and_in_a_shells_exit_codes() {
        assert_eq!((exit_code(exited(3)), predicate(exited(3)).as_str()), (3, "exited with code 3"));
        assert_eq!((exit_code(killed(9)), predicate(killed(9)).as_str()), (137, "was killed by SIGKILL"));
    }

    #[test]
    fn a_living_process_is_not_dying() {
        assert!(!is_dying(std::process::id()));
        assert!(!is_dying(u32::MAX));
    }
}
