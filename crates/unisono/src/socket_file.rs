//! Socket files: what they are called, and how those are taken away that killed processes left.
//!
//! A group's exists only until all have met, a queue's as long as its writer, a rank's as long as it; one whose process was killed outlives it. So
//! whoever makes one sweeps the directory first. The one invariant that matters: **only what is called so, is this user's,
//! and has nobody listening is taken away.**

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

const START: &str = "unisono-";
const END: &str = ".sock";
/// What comes before the name where it is a queue's, or one rank's.
const QUEUE: &str = "queue-";
const RANK: &str = "rank-";
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

/// The socket file at which one rank answers questions.
pub(crate) fn of_rank(directory: &Path, name: &str) -> PathBuf {
    directory.join(format!("{START}{RANK}{name}{END}"))
}

/// Take away the socket files in this directory that killed processes of this user left, whatever they were for.
pub(crate) fn sweep(directory: &Path) {
    match unisono_os::socket::sweep(directory, is_one) {
        Ok(0) => {}
        Ok(swept) => tracing::debug!(swept, "socket files of killed processes are taken away"),
        Err(error) => tracing::debug!(%error, "socket files of killed processes, if any, stay"),
    }
}

/// What a socket file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Group,
    Queue,
    Rank,
}

/// What files of this name are for, and the name that was given to them; `None` if it is not one of ours.
pub(crate) fn meant_by(file: &OsStr) -> Option<(Kind, &str)> {
    let name = file.to_str()?.strip_prefix(START)?.strip_suffix(END)?;
    let (kind, name) = match (name.strip_prefix(QUEUE), name.strip_prefix(RANK)) {
        (Some(name), _) => (Kind::Queue, name),
        (_, Some(name)) => (Kind::Rank, name),
        _ => (Kind::Group, name),
    };
    let is_digit = |digit: u8| digit.is_ascii_digit() || (b'a'..=b'f').contains(&digit);
    (name.len() == DIGITS && name.bytes().all(is_digit)).then_some((kind, name))
}

/// Whether a file is called as [`of_group`], [`of_queue`] or [`of_rank`] calls it.
fn is_one(name: &OsStr) -> bool {
    meant_by(name).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_file_is_known_by_its_name() {
        let hash = "0".repeat(DIGITS);
        let directory = Path::new("/run");
        for (file, kind) in [
            (of_group(directory, &hash), Kind::Group),
            (of_queue(directory, &hash), Kind::Queue),
            (of_rank(directory, &hash), Kind::Rank),
        ] {
            let found = meant_by(file.file_name().unwrap());
            assert_eq!(found, Some((kind, &hash[..])), "{}", file.display());
        }
        for other in [
            "unisono-.sock".to_string(),
            "unisono-queue-.sock".to_string(),
            format!("unisono-queue-queue-{hash}.sock"),
            format!("unisono-queue-rank-{hash}.sock"),
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
