//! Socket files: what they are called, and how those are taken away that killed processes left.
//!
//! A group's exists only until all have met, a queue's as long as its writer; one whose process was killed outlives it. So
//! whoever makes one sweeps the directory first. The one invariant that matters: **only what is called so, is this user's,
//! and has nobody listening is taken away.**

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

const START: &str = "unisono-";
const END: &str = ".sock";
/// What comes before the name where it is a queue's.
const QUEUE: &str = "queue-";
/// A name is so many hexadecimal digits.
const DIGITS: usize = 32;

/// The socket file of a group.
pub(crate) fn of_group(directory: &Path, name: &str) -> PathBuf {
    directory.join(format!("{START}{name}{END}"))
}

/// The socket file of a queue.
pub(crate) fn of_queue(directory: &Path, name: &str) -> PathBuf {
    directory.join(format!("{START}{QUEUE}{name}{END}"))
}

/// Take away the socket files in this directory that killed processes of this user left, whatever they were for.
pub(crate) fn sweep(directory: &Path) {
    match unisono_os::socket::sweep(directory, is_one) {
        Ok(0) => {}
        Ok(swept) => tracing::debug!(swept, "socket files of killed processes are taken away"),
        Err(error) => tracing::debug!(%error, "socket files of killed processes, if any, stay"),
    }
}

/// Whether a file is called as [`of_group`] or [`of_queue`] calls it.
fn is_one(name: &OsStr) -> bool {
    let between = |name: &str| name.strip_prefix(START)?.strip_suffix(END).map(str::to_owned);
    name.to_str().and_then(between).is_some_and(|name| {
        let name = name.strip_prefix(QUEUE).unwrap_or(&name);
        let is_digit = |digit: u8| digit.is_ascii_digit() || (b'a'..=b'f').contains(&digit);
        name.len() == DIGITS && name.bytes().all(is_digit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_file_is_known_by_its_name() {
        let hash = "0".repeat(DIGITS);
        for file in [of_group(Path::new("/run"), &hash), of_queue(Path::new("/run"), &hash)] {
            assert!(is_one(file.file_name().unwrap()), "{}", file.display());
        }
        for other in [
            "unisono-.sock".to_string(),
            "unisono-queue-.sock".to_string(),
            format!("unisono-queue-queue-{hash}.sock"),
            format!("unisono-{hash}"),
            format!("{hash}.sock"),
            format!("unisono-{hash}0.sock"),
            format!("unisono-{}.sock", "G".repeat(DIGITS)),
            format!("unisono-{hash}.sock.bak"),
        ] {
            assert!(!is_one(OsStr::new(&other)), "{other}");
        }
    }
}
