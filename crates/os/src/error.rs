//! The error of a system call: which call, about what, and what the system answered.
//!
//! Modules whose callers must tell failures apart have an enum of their own that holds an [`OsError`] for the
//! rest. The invariant: an error always carries the number that the system gave, so nothing is lost on the
//! way up.

use std::fmt;

use rustix::io::Errno;

/// A system call failed.
///
/// Displayed as `call(context): text (os error number)`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct OsError {
    /// The system call, as its manual page names it.
    pub call: &'static str,
    /// The number that the system answered with (`errno`).
    pub errno: i32,
    /// What the call was about: a name, a size, a process. May be empty.
    pub context: String,
}

impl OsError {
    /// An error from its parts.
    pub fn new(call: &'static str, errno: i32, context: impl Into<String>) -> OsError {
        OsError { call, errno, context: context.into() }
    }

    /// An error from one of the standard library; an error without a number counts as `EIO`.
    pub fn from_io(call: &'static str, error: &std::io::Error, context: impl Into<String>) -> OsError {
        OsError::new(call, error.raw_os_error().unwrap_or(libc::EIO), context)
    }

    pub(crate) fn from_errno(call: &'static str, errno: Errno, context: impl Into<String>) -> OsError {
        OsError::new(call, errno.raw_os_error(), context)
    }

    /// What `errno` holds after a call through libc has failed.
    pub(crate) fn last(call: &'static str, context: impl Into<String>) -> OsError {
        OsError::from_io(call, &std::io::Error::last_os_error(), context)
    }

    /// Whether the kernel (or an emulator, or a sandbox that answers so) does not know the call:
    /// take the other way, if there is one.
    pub fn is_not_supported(&self) -> bool {
        matches!(self.errno, libc::ENOSYS | libc::EOPNOTSUPP)
    }

    /// Whether this user may not do that.
    pub fn is_permission_denied(&self) -> bool {
        matches!(self.errno, libc::EPERM | libc::EACCES)
    }

    /// Whether what was asked for does not exist (any more): a file, a process.
    pub fn is_not_found(&self) -> bool {
        matches!(self.errno, libc::ENOENT | libc::ESRCH)
    }

    /// Whether a limit was reached: memory, descriptors of this process or of the system.
    pub fn is_exhausted(&self) -> bool {
        matches!(self.errno, libc::ENOMEM | libc::EMFILE | libc::ENFILE | libc::ENOSPC)
    }
}

impl fmt::Display for OsError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = std::io::Error::from_raw_os_error(self.errno);
        write!(formatter, "{}({}): {text}", self.call, self.context)
    }
}

impl From<OsError> for std::io::Error {
    fn from(error: OsError) -> std::io::Error {
        std::io::Error::new(std::io::Error::from_raw_os_error(error.errno).kind(), error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_the_call_its_subject_and_the_answer() {
        let error = OsError::new("memfd_create", libc::EMFILE, "unisono");
        assert_eq!(error.to_string(), "memfd_create(unisono): Too many open files (os error 24)");
        assert!(error.is_exhausted() && !error.is_not_supported());
        assert_eq!(
            std::io::Error::from(error).to_string(),
            "memfd_create(unisono): Too many open files (os error 24)"
        );
    }

    #[test]
    fn only_an_unknown_call_counts_as_not_supported() {
        assert!(OsError::new("futex_waitv", libc::ENOSYS, "").is_not_supported());
        assert!(!OsError::new("futex_waitv", libc::EINVAL, "").is_not_supported());
        assert!(OsError::new("kill", libc::ESRCH, "1").is_not_found());
        assert!(OsError::new("kill", libc::EPERM, "1").is_permission_denied());
    }
}
