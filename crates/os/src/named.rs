//! Memory with a name in `/dev/shm`, for programs that must meet by name alone.
//!
//! The library prefers nameless memory ([`memfd`](crate::memfd)); a queue that has to be found by processes
//! that share no socket has this. The one invariant that matters: **an object is only ever used by the user
//! who made it**: it is created anew, never taken over, readable for its owner alone, and one of another user
//! is refused.

use std::fmt;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, Stat};
use rustix::io::Errno;
use rustix::shm::OFlags;

use crate::OsError;

/// The longest name, in bytes.
pub const LONGEST_NAME: usize = 254;

/// Why a named object could not be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NamedError {
    /// The name cannot be one: use 1 to 254 bytes, no slash, no zero byte, not starting with a dot.
    #[error("{name:?} is no name for shared memory: 1 to 254 bytes, no slash, no zero byte, no dot in front")]
    InvalidName {
        /// The name given.
        name: String,
    },
    /// The name is taken. Choose another, end the process that has it, or unlink it if its owner is dead.
    #[error("{path} exists already{holder}", path = .path.display())]
    AlreadyExists {
        /// Where it lies.
        path: PathBuf,
        /// Who has it open or mapped, if that can be seen.
        holder: Holder,
    },
    /// There is no object of that name (yet): is the process that creates it running?
    #[error("{path} does not exist", path = .path.display())]
    Missing {
        /// Where it would lie.
        path: PathBuf,
    },
    /// Another user made it. It is not touched.
    #[error("{path} belongs to user {found}, we are user {expected}", path = .path.display())]
    ForeignOwner {
        /// Where it lies.
        path: PathBuf,
        /// Our user number.
        expected: u32,
        /// Its owner's.
        found: u32,
    },
    /// Something of that name exists, but it is no memory object.
    #[error("{path} is no memory object", path = .path.display())]
    NotMemory {
        /// Where it lies.
        path: PathBuf,
    },
    /// The system refused.
    #[error(transparent)]
    Os(#[from] OsError),
}

/// A process that has an object open, if one was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its number; `None` if nobody has it open, or only processes that we may not look into.
    pub pid: Option<u32>,
}

impl fmt::Display for Holder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pid {
            Some(pid) => write!(formatter, ", in use by process {pid}"),
            None => write!(formatter, ", and no process was found that uses it"),
        }
    }
}

/// Create an object of `bytes` zero bytes under a name that nobody has.
///
/// # Errors
/// [`NamedError::AlreadyExists`] if somebody has it; the object is left as it is.
pub fn create_exclusive(name: &str, bytes: usize) -> Result<OwnedFd, NamedError> {
    let path = path_of(name)?;
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR;
    let descriptor = match rustix::shm::open(name, flags, Mode::RUSR | Mode::WUSR) {
        Ok(descriptor) => descriptor,
        Err(Errno::EXIST) => {
            let holder = Holder { pid: find_holder(&path) };
            return Err(NamedError::AlreadyExists { path, holder });
        }
        Err(errno) => return Err(OsError::from_errno("shm_open", errno, name).into()),
    };
    if let Err(errno) = rustix::fs::ftruncate(&descriptor, bytes as u64) {
        let _ = rustix::shm::unlink(name); // Half an object is worse than none.
        return Err(OsError::from_errno("ftruncate", errno, format!("{name}, {bytes} bytes")).into());
    }
    Ok(descriptor)
}

/// Open an object that this user made, for reading and writing.
///
/// Its size is whatever its owner gave it and may change: check it, and map no more than there is
/// ([`Mapping::shared`](crate::mapping::Mapping::shared) refuses more).
///
/// # Errors
/// [`NamedError::Missing`], [`NamedError::ForeignOwner`] or what else was found in its place.
pub fn open(name: &str) -> Result<OwnedFd, NamedError> {
    let path = path_of(name)?;
    // A link could lead to any file of this user.
    let flags = OFlags::RDWR | OFlags::from_bits_retain(rustix::fs::OFlags::NOFOLLOW.bits());
    let descriptor = rustix::shm::open(name, flags, Mode::empty()).map_err(|errno| match errno {
        Errno::NOENT => NamedError::Missing { path: path.clone() },
        Errno::ACCESS => denied(&path),
        Errno::LOOP | Errno::ISDIR | Errno::NXIO => NamedError::NotMemory { path: path.clone() },
        errno => OsError::from_errno("shm_open", errno, name).into(),
    })?;
    let status = rustix::fs::fstat(&descriptor).map_err(|errno| OsError::from_errno("fstat", errno, name))?;
    verify_owner(&status, &path)?;
    Ok(descriptor)
}

/// Take the name away; whoever has the object open or mapped keeps it. A name that does not exist is no
/// error.
///
/// # Errors
/// If the name is invalid or the object is another user's.
pub fn unlink(name: &str) -> Result<(), NamedError> {
    let path = path_of(name)?;
    match rustix::shm::unlink(name) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(Errno::PERM | Errno::ACCESS) => Err(denied(&path)),
        Err(errno) => Err(OsError::from_errno("shm_unlink", errno, name).into()),
    }
}

/// Where an object of this name lies.
///
/// # Errors
/// [`NamedError::InvalidName`].
pub fn path_of(name: &str) -> Result<PathBuf, NamedError> {
    let valid = !name.is_empty() && name.len() <= LONGEST_NAME && !name.starts_with('.');
    if !valid || name.bytes().any(|byte| byte == b'/' || byte == 0) {
        return Err(NamedError::InvalidName { name: name.to_owned() });
    }
    Ok(Path::new("/dev/shm").join(name))
}

fn verify_owner(status: &Stat, path: &Path) -> Result<(), NamedError> {
    let ours = rustix::process::geteuid().as_raw();
    if status.st_uid != ours {
        return Err(NamedError::ForeignOwner { path: path.to_owned(), expected: ours, found: status.st_uid });
    }
    if FileType::from_raw_mode(status.st_mode) != FileType::RegularFile {
        return Err(NamedError::NotMemory { path: path.to_owned() });
    }
    Ok(())
}

/// The system denied access: say whose object it is.
fn denied(path: &Path) -> NamedError {
    match rustix::fs::lstat(path) {
        Ok(status) => match verify_owner(&status, path) {
            Err(error) => error,
            Ok(()) => OsError::new("shm_open", libc::EACCES, path.display().to_string()).into(),
        },
        Err(errno) => OsError::from_errno("lstat", errno, path.display().to_string()).into(),
    }
}

/// A process that has the object open or mapped, of those that we may look into.
fn find_holder(path: &Path) -> Option<u32> {
    let processes = std::fs::read_dir("/proc").ok()?;
    let numbers = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    numbers.into_iter().find(|pid| has_open(*pid, path) || has_mapped(*pid, path))
}

fn has_open(pid: u32, path: &Path) -> bool {
    let Ok(descriptors) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    descriptors.flatten().any(|entry| std::fs::read_link(entry.path()).is_ok_and(|target| target == path))
}

fn has_mapped(pid: u32, path: &Path) -> bool {
    let Ok(ranges) = std::fs::read(format!("/proc/{pid}/maps")) else { return false };
    let wanted = path.as_os_str().as_encoded_bytes();
    ranges.split(|byte| *byte == b'\n').any(|line| line.ends_with(wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A name of this test, taken away again at its end.
    struct Name(String);

    impl Name {
        fn new(what: &str) -> Name {
            Name(format!("unisono-test-{what}-{}", std::process::id()))
        }
    }

    impl Drop for Name {
        fn drop(&mut self) {
            let _ = unlink(&self.0);
        }
    }

    #[test]
    fn a_taken_name_is_refused_and_its_user_is_named() {
        let name = Name::new("taken");
        let first = create_exclusive(&name.0, 4096).unwrap();
        let expected = NamedError::AlreadyExists {
            path: path_of(&name.0).unwrap(),
            holder: Holder { pid: Some(std::process::id()) },
        };
        assert_eq!(create_exclusive(&name.0, 8192).unwrap_err(), expected);
        assert_eq!(rustix::fs::fstat(&first).unwrap().st_size, 4096, "the object was changed");
        drop(first);
        let message = create_exclusive(&name.0, 4096).unwrap_err().to_string();
        assert!(message.ends_with("no process was found that uses it"), "{message}");
    }

    #[test]
    fn an_object_is_its_owners_alone_and_gone_after_unlink() {
        let name = Name::new("mode");
        let created = create_exclusive(&name.0, 4096).unwrap();
        assert_eq!(rustix::fs::fstat(&created).unwrap().st_mode & 0o777, 0o600);
        let opened = open(&name.0).unwrap();
        assert_eq!(rustix::fs::fstat(&opened).unwrap().st_ino, rustix::fs::fstat(&created).unwrap().st_ino);
        unlink(&name.0).unwrap();
        unlink(&name.0).unwrap();
        assert_eq!(open(&name.0).unwrap_err(), NamedError::Missing { path: path_of(&name.0).unwrap() });
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        for name in ["", ".", "..", ".hidden", "a/b", "/a", "a\0b", &"x".repeat(255)] {
            assert_eq!(open(name).unwrap_err(), NamedError::InvalidName { name: name.to_owned() });
            assert!(create_exclusive(name, 1).is_err() && unlink(name).is_err());
        }
        assert_eq!(path_of("queue-1").unwrap(), Path::new("/dev/shm/queue-1"));
    }

    #[test]
    fn a_link_in_its_place_is_not_followed() {
        let name = Name::new("link");
        std::os::unix::fs::symlink("/etc/hostname", path_of(&name.0).unwrap()).unwrap();
        assert!(matches!(open(&name.0), Err(NamedError::NotMemory { .. })));
        assert!(matches!(create_exclusive(&name.0, 1), Err(NamedError::AlreadyExists { .. })));
    }
}
