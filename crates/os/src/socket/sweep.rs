//! Taking away socket files whose listeners were killed.
//!
//! A listener takes its file away when it is dropped; one that is killed cannot, and the system has no socket file that
//! goes with its process: a name is all that others can find it by, and a name stays. So those who come later sweep.
//! The invariant: **a file goes only if it is a socket of this user at which nobody listens**, and both are seen under
//! the lock of the directory that every maker of such a file holds. No link is followed. Where other machines may see
//! the same directory nothing is swept: their listeners cannot be heard from here.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, FileType};

use super::listener::lock_directory;
use super::{Address, Connection, SocketError};
use crate::OsError;

/// How many entries of a directory are looked at, and at how many listeners it is knocked. What is left over is swept
/// another time.
const MOST_ENTRIES: usize = 16_384;
const MOST_KNOCKS: usize = 256;

/// How long to wait for others who make files in the directory: cleaning up is not worth more.
const PATIENCE: Duration = Duration::from_millis(200);

/// What `statfs` says of file systems that one machine has for itself, whichever of its containers see them: tmpfs,
/// ramfs, overlay, ext, xfs, btrfs, f2fs, bcachefs, zfs.
const OF_ONE_MACHINE: [u64; 9] = [
    0x0102_1994,
    0x8584_58f6,
    0x794c_7630,
    0xef53,
    0x5846_5342,
    0x9123_683e,
    0xf2f5_2010,
    0xca45_1a4e,
    0x2fc1_2fc1,
];

/// Take away socket files of this user in `directory` at which nobody listens, of those whose names `is_meant`
/// accepts. Returns how many there were. Everything else stays: other users' files, what is no socket, links, and files
/// with a listener (which sees a connection that says nothing).
///
/// # Errors
/// If the directory cannot be read or locked; files that cannot be removed are passed over.
pub fn sweep(directory: &Path, is_meant: impl Fn(&OsStr) -> bool) -> Result<usize, SocketError> {
    let failed = |error: std::io::Error| OsError::from_io("readdir", &error, directory.display().to_string());
    let names: Vec<OsString> = std::fs::read_dir(directory)
        .map_err(failed)?
        .take(MOST_ENTRIES)
        .filter_map(|entry| Some(entry.ok()?.file_name()))
        .filter(|name| is_meant(name))
        .collect();
    if names.is_empty() {
        return Ok(0);
    }
    let opened = File::open(directory).map_err(failed)?;
    if !is_of_one_machine(&opened) {
        return Ok(0);
    }
    let sockets = names.iter().filter(|name| is_own_socket(&opened, name)).take(MOST_KNOCKS);
    let deserted: Vec<_> = sockets.filter(|name| nobody_listens(directory, name)).collect();
    if deserted.is_empty() {
        return Ok(0);
    }
    let _lock = lock_directory(directory, PATIENCE)?;
    // A file that was deserted a moment ago may have been replaced by one with a listener: only what is seen now counts.
    let is_deserted = |name: &&&OsString| is_own_socket(&opened, name) && nobody_listens(directory, name);
    let removed = deserted
        .iter()
        .filter(is_deserted)
        .filter(|name| rustix::fs::unlinkat(&opened, name.as_os_str(), AtFlags::empty()).is_ok());
    Ok(removed.count())
}

fn is_of_one_machine(directory: &File) -> bool {
    // The system's type of the number differs between architectures; the kinds known here fit all of them.
    rustix::fs::fstatfs(directory).is_ok_and(|found| OF_ONE_MACHINE.contains(&(found.f_type as u32).into()))
}

fn is_own_socket(directory: &File, name: &OsStr) -> bool {
    rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).is_ok_and(|found| {
        FileType::from_raw_mode(found.st_mode) == FileType::Socket
            && found.st_uid == rustix::process::geteuid().as_raw()
    })
}

/// A listener whose queue is full, or that speaks another kind of socket, listens, too.
fn nobody_listens(directory: &Path, name: &OsStr) -> bool {
    let address = Address::File(directory.join(name));
    matches!(Connection::connect(&address, Some(Instant::now())), Err(SocketError::NobodyListens { .. }))
}
