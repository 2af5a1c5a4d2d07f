//! A forked child that does nothing but live.
//!
//! Used by `unisono bench death` and by tests: such a child keeps its parent's sockets and descriptors open
//! when the parent dies, so whoever relies on their end to learn of the death waits in vain. The invariant:
//! the child makes only calls that are safe after a fork of a program with threads, and it ends by itself.

#![allow(unsafe_code)]

use crate::OsError;

/// Fork a child that sleeps until a signal ends it, `lifetime_s` seconds at most, and give its number.
/// It stays in this process's group and keeps copies of all its descriptors.
///
/// # Errors
/// If there are too many processes, or memory runs out.
pub fn fork_sleeping_child(lifetime_s: u32) -> Result<u32, OsError> {
    // SAFETY: the child runs nothing but the loop below, whose calls are async-signal-safe, and never
    // returns; so it does not matter that other threads' locks may be held for ever in it.
    let number = unsafe { libc::fork() };
    if number == 0 {
        // SAFETY: takes a number; the alarm's signal ends the child, as no handler of ours is set for it.
        unsafe {
            libc::signal(libc::SIGALRM, libc::SIG_DFL);
            libc::alarm(lifetime_s.max(1));
        }
        super::signal::open_all_signals();
        loop {
            // SAFETY: takes nothing, and returns only after a signal handler has run.
            unsafe { libc::pause() };
        }
    }
    u32::try_from(number).map_err(|_| OsError::last("fork", "a sleeping child"))
}

#[cfg(test)]
mod tests {
    use super::super::{Signal, kill};
    use super::*;

    #[test]
    fn a_sleeping_child_lives_until_it_is_ended() {
        let child = fork_sleeping_child(60).unwrap();
        kill(child, Signal::Continue).unwrap();
        kill(child, Signal::Kill).unwrap();
        let pid = rustix::process::Pid::from_raw(child.cast_signed());
        let ended = rustix::process::waitpid(pid, rustix::process::WaitOptions::empty()).unwrap().unwrap();
        assert_eq!(ended.1.terminating_signal(), Some(libc::SIGKILL));
    }
}
