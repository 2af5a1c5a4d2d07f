//! Listening at an address: taking it, accepting connections, leaving it.
//!
//! The invariant: **an address is never taken from a process that still listens there**. A socket file whose
//! listener is dead is replaced; that decision and the replacement are one step among processes that do the
//! same, since they hold a lock on the directory meanwhile.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FileType, FlockOperation, Mode};
use rustix::io::Errno;

use super::connection::{flags, nap_before, new_socket};
use super::{Address, Connection, Credentials, SocketError};
use crate::fork_guard::ForkMark;
use crate::{OsError, poll};

/// Connections that may wait to be accepted: more than ranks on any machine.
const QUEUE: i32 = 1024;

/// How long to wait for another process that is taking an address in the same directory.
const DIRECTORY_PATIENCE: Duration = Duration::from_secs(1);

/// A socket that others connect to. Dropped, it takes its file away.
#[derive(Debug)]
pub struct Listener {
    /// Taken away before the socket is closed: as long as we listen, nobody replaces the file.
    _file: Option<SocketFile>,
    socket: OwnedFd,
    address: Address,
}

/// A socket file as we made it, so that a later one in its place is left alone.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
    born: ForkMark,
}

impl Listener {
    /// Listen at an address. A socket file is made for this user alone (mode 0600); one left by a dead
    /// listener of this user is replaced.
    ///
    /// # Errors
    /// [`SocketError::InUse`], naming the process, if somebody listens there, or if the path is taken by
    /// anything but a socket of this user. (To learn the name, a listener is knocked at: it sees a connection
    /// that says nothing.)
    pub fn bind(address: &Address) -> Result<Listener, SocketError> {
        let socket = new_socket()?;
        let file = match address {
            Address::Abstract(_) => {
                bind_or_name_the_holder(&socket, address)?;
                None
            }
            Address::File(path) => Some(bind_file(&socket, address, path)?),
        };
        // For a file, `bind_file` listens already, under its lock; to listen again changes nothing.
        let listener = Listener { _file: file, socket, address: address.clone() };
        listen(&listener.socket, address)?;
        Ok(listener)
    }

    /// The next connection.
    ///
    /// # Errors
    /// [`SocketError::TimedOut`] if none came by the deadline.
    pub fn accept(&self, deadline: Option<Instant>) -> Result<Connection, SocketError> {
        loop {
            match rustix::net::accept_with(&self.socket, flags()) {
                Ok(socket) => return Ok(Connection::adopt(socket)),
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(Errno::AGAIN) => {
                    if !poll::until_readable(&[self.socket.as_fd()], deadline)?
                        .iter()
                        .any(|found| found.any())
                    {
                        return Err(SocketError::TimedOut {
                            doing: format!("waiting for a connection at {}", self.address),
                        });
                    }
                }
                Err(errno) => {
                    return Err(OsError::from_errno("accept4", errno, self.address.to_string()).into());
                }
            }
        }
    }

    /// Where it listens.
    pub fn address(&self) -> &Address {
        &self.address
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.born.crossed_fork() {
            return; // The parent still listens.
        }
        let ours = rustix::fs::lstat(&self.path)
            .is_ok_and(|found| (found.st_dev, found.st_ino) == (self.device, self.inode));
        if ours {
            let _ = rustix::fs::unlink(&self.path);
        }
    }
}

/// Who listens at an address, `None` if nobody does. The listener sees a connection that says nothing.
pub fn holder_of(address: &Address) -> Option<Credentials> {
    let knock = Connection::connect(address, Some(Instant::now())).ok()?;
    knock.peer_credentials().ok()
}

fn bind_or_name_the_holder(socket: &OwnedFd, address: &Address) -> Result<(), SocketError> {
    match rustix::net::bind(socket, &address.to_system()?) {
        Ok(()) => Ok(()),
        Err(Errno::ADDRINUSE) => {
            Err(SocketError::InUse { address: address.clone(), holder: holder_of(address) })
        }
        Err(errno) => Err(OsError::from_errno("bind", errno, address.to_string()).into()),
    }
}

fn listen(socket: &OwnedFd, address: &Address) -> Result<(), SocketError> {
    rustix::net::listen(socket, QUEUE)
        .map_err(|errno| OsError::from_errno("listen", errno, address.to_string()).into())
}

/// Bind a socket file and listen, having removed one that a dead listener left; all under the directory's
/// lock.
fn bind_file(socket: &OwnedFd, address: &Address, path: &Path) -> Result<SocketFile, SocketError> {
    address.to_system()?; // An invalid address is told before anything is locked.
    let _lock = lock_directory(directory_of(path), DIRECTORY_PATIENCE)?;
    // The file gets the socket's mode: nobody else can connect, not even for a moment.
    rustix::fs::fchmod(socket, Mode::RUSR | Mode::WUSR)
        .map_err(|errno| OsError::from_errno("fchmod", errno, address.to_string()))?;
    remove_stale(address, path)?;
    bind_or_name_the_holder(socket, address)?;
    let made = rustix::fs::lstat(path)
        .map_err(|errno| OsError::from_errno("lstat", errno, path.display().to_string()))?;
    let file =
        SocketFile { path: path.to_owned(), device: made.st_dev, inode: made.st_ino, born: ForkMark::now() };
    listen(socket, address)?;
    Ok(file)
}

/// Take away a socket file of this user at which nobody listens. Everything else stays as it is.
fn remove_stale(address: &Address, path: &Path) -> Result<(), SocketError> {
    let Ok(found) = rustix::fs::lstat(path) else { return Ok(()) };
    let is_socket = FileType::from_raw_mode(found.st_mode) == FileType::Socket;
    let is_ours = found.st_uid == rustix::process::geteuid().as_raw();
    if !is_socket || !is_ours {
        return Err(SocketError::InUse { address: address.clone(), holder: None });
    }
    match Connection::connect(address, Some(Instant::now())) {
        Err(SocketError::NobodyListens { .. }) => rustix::fs::unlink(path)
            .map_err(|errno| OsError::from_errno("unlink", errno, path.display().to_string()).into()),
        Ok(knock) => {
            let holder = knock.peer_credentials().ok();
            Err(SocketError::InUse { address: address.clone(), holder })
        }
        Err(_) => Err(SocketError::InUse { address: address.clone(), holder: None }),
    }
}

fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Lock a directory among processes that take addresses in it or sweep it, until the file is dropped.
pub(super) fn lock_directory(directory: &Path, patience: Duration) -> Result<File, SocketError> {
    let context = || directory.display().to_string();
    let opened = File::open(directory).map_err(|error| OsError::from_io("open", &error, context()))?;
    let deadline = Some(Instant::now() + patience);
    loop {
        match rustix::fs::flock(&opened, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(opened),
            Err(Errno::AGAIN | Errno::INTR) => match nap_before(deadline, Duration::from_millis(2)) {
                Some(nap) => std::thread::sleep(nap),
                None => {
                    let doing = format!("waiting for the lock of {}", context());
                    return Err(SocketError::TimedOut { doing });
                }
            },
            Err(errno) => return Err(OsError::from_errno("flock", errno, context()).into()),
        }
    }
}
