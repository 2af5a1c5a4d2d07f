//! A descriptor that stands for a process.
//!
//! A rank opens one on itself and hands it to its peers, who learn of its death from it, whatever process
//! numbers mean on their side. The one invariant that matters: **a pidfd never comes to mean another
//! process**, as a number does once it is used again.

use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags};

use crate::OsError;
use crate::process::Signal;

/// A descriptor of this process, to be handed to others.
///
/// # Errors
/// [`is_not_supported`](OsError::is_not_supported) before Linux 5.3: a death is then learnt from closed
/// sockets.
pub fn open_self() -> Result<OwnedFd, OsError> {
    open(std::process::id())
}

/// A descriptor of the process that has the number `pid` now. (For a child not yet waited for, that is the
/// child.)
///
/// # Errors
/// [`is_not_found`](OsError::is_not_found) if there is no such process; not supported before Linux 5.3.
pub fn open(pid: u32) -> Result<OwnedFd, OsError> {
    let context = || format!("process {pid}");
    let number = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let number = number.ok_or_else(|| OsError::new("pidfd_open", libc::ESRCH, context()))?;
    rustix::process::pidfd_open(number, PidfdFlags::empty())
        .map_err(|errno| OsError::from_errno("pidfd_open", errno, context()))
}

/// Whether the process has ended (all of its threads; it may still wait for its parent to notice).
///
/// To sleep until then, poll the descriptor: it becomes readable.
///
/// # Errors
/// If the descriptor cannot be polled.
pub fn has_exited(process: BorrowedFd<'_>) -> Result<bool, OsError> {
    let mut polled = [PollFd::new(&process, PollFlags::IN)];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    loop {
        match poll(&mut polled, Some(&at_once)) {
            Ok(_) => return Ok(polled[0].revents().intersects(PollFlags::IN | PollFlags::HUP)),
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(OsError::from_errno("poll", errno, "pidfd")),
        }
    }
}

/// Check that a received descriptor is a pidfd at all: anything else could pretend to be dead or alive for
/// ever.
///
/// # Errors
/// `EBADF` if it is not.
pub fn verify(process: BorrowedFd<'_>) -> Result<(), OsError> {
    use std::os::fd::AsRawFd;
    let path = format!("/proc/self/fd/{}", process.as_raw_fd());
    let kind = std::fs::read_link(&path).map_err(|error| OsError::from_io("readlink", &error, path))?;
    if matches!(kind.to_str(), Some(text) if text == "anon_inode:[pidfd]" || text.starts_with("pidfd:")) {
        Ok(())
    } else {
        let context = format!("expected a descriptor of a process, found {}", kind.display());
        Err(OsError::new("verify_pidfd", libc::EBADF, context))
    }
}

/// The number of the process in this process's eyes, `None` if it has ended or is invisible from here.
pub fn process_number(process: BorrowedFd<'_>) -> Option<u32> {
    use std::os::fd::AsRawFd;
    let path = format!("/proc/self/fdinfo/{}", process.as_raw_fd());
    let facts = std::fs::read_to_string(path).ok()?;
    let number: i64 = facts.lines().find_map(|line| line.strip_prefix("Pid:"))?.trim().parse().ok()?;
    u32::try_from(number).ok().filter(|number| *number != 0)
}

/// Send a signal to the process.
///
/// # Errors
/// [`is_not_found`](OsError::is_not_found) if it has ended, permission denied if it is somebody else's.
pub fn send_signal(process: BorrowedFd<'_>, signal: Signal) -> Result<(), OsError> {
    rustix::process::pidfd_send_signal(process, signal.number())
        .map_err(|errno| OsError::from_errno("pidfd_send_signal", errno, signal.name()))
}

/// Whether pidfds are there; asked once, by [`features`](crate::features).
pub(crate) fn probe() -> bool {
    open_self().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;
    use std::process::Command;

    #[test]
    fn a_process_is_seen_to_end() {
        let Ok(own) = open_self() else {
            eprintln!("SKIPPED: this kernel has no pidfd");
            return;
        };
        assert_eq!(has_exited(own.as_fd()), Ok(false));
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let watched = open(child.id()).unwrap();
        verify(watched.as_fd()).unwrap();
        assert_eq!(process_number(watched.as_fd()), Some(child.id()));
        assert_eq!(has_exited(watched.as_fd()), Ok(false));
        send_signal(watched.as_fd(), Signal::Kill).unwrap();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while !has_exited(watched.as_fd()).unwrap() {
            assert!(std::time::Instant::now() < deadline, "the death was not seen");
            std::thread::yield_now();
        }
        child.wait().unwrap();
        assert!(send_signal(watched.as_fd(), Signal::Kill).unwrap_err().is_not_found());
        assert_eq!(process_number(watched.as_fd()), None);
    }

    #[test]
    fn what_is_no_process_is_refused() {
        assert!(open(0).is_err());
        assert!(open(u32::MAX).unwrap_err().is_not_found());
        let file = std::fs::File::open("/dev/null").unwrap();
        assert_eq!(verify(file.as_fd()).unwrap_err().errno, libc::EBADF);
    }
}
