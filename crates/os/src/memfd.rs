//! Anonymous memory that has no name, cannot change its size, and can be handed to another process.
//!
//! The owner of a segment creates one and sends its descriptor over a socket; the receiver verifies before it
//! maps. The one invariant that matters: **a mapping of a verified descriptor can never fault because the
//! memory behind it was cut off**, whatever the sender does afterwards. Three seals make it so: SHRINK and
//! GROW fix the size, SEAL fixes the seals. The memory is gone with its last descriptor and mapping.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::Errno;

use crate::OsError;
use crate::features::{self, Known};

/// The type that the kernel reports for its memory file system, on which every ordinary memfd lives.
const MEMORY_FILE_SYSTEM: i64 = 0x0102_1994;

/// Why received memory is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The descriptor is no anonymous memory: a file, a socket, huge-page memory. The sender is broken or
    /// hostile.
    #[error("expected sealed anonymous memory, found a descriptor of another kind ({found})")]
    NotMemory {
        /// What the system says about it.
        found: String,
    },
    /// The sender could still change the size under our feet. It must seal before it sends.
    #[error("the memory lacks the seals {missing}: its owner could cut it off while it is in use")]
    NotSealed {
        /// The seals that are missing, by name.
        missing: String,
    },
    /// The memory has another size than both sides agreed on.
    #[error("expected {expected} bytes of sealed memory, found {found}")]
    WrongSize {
        /// The bytes asked for.
        expected: u64,
        /// The bytes found.
        found: u64,
    },
    /// The system could not say.
    #[error(transparent)]
    Os(#[from] OsError),
}

/// Create anonymous memory of exactly `bytes` bytes, zero, sealed against any change of its size.
///
/// `name` is shown in `/proc/*/maps` and means nothing else. No page is allocated yet: see
/// [`Mapping::populate`](crate::mapping::Mapping::populate), and ask [`memory_limit`](crate::memory_limit)
/// before, since above a cgroup's limit the kernel kills instead of failing.
///
/// # Errors
/// If descriptors or memory run out, or `name` is longer than 249 bytes or holds a zero byte.
pub fn create_sealed(name: &str, bytes: usize) -> Result<OwnedFd, OsError> {
    let descriptor = create(name)?;
    rustix::fs::ftruncate(&descriptor, bytes as u64)
        .map_err(|errno| OsError::from_errno("ftruncate", errno, format!("{name}, {bytes} bytes")))?;
    rustix::fs::fcntl_add_seals(&descriptor, required_seals())
        .map_err(|errno| OsError::from_errno("fcntl(F_ADD_SEALS)", errno, name))?;
    Ok(descriptor)
}

/// Anonymous memory whose size is not fixed yet: map it for writing first, then [`seal`](Unsealed::seal) it.
#[derive(Debug)]
pub struct Unsealed {
    descriptor: OwnedFd,
    name: String,
}

/// Create anonymous memory of exactly `bytes` bytes, zero, to be sealed once its owner has mapped it.
///
/// # Errors
/// As [`create_sealed`].
pub fn create_unsealed(name: &str, bytes: usize) -> Result<Unsealed, OsError> {
    let descriptor = create(name)?;
    rustix::fs::ftruncate(&descriptor, bytes as u64)
        .map_err(|errno| OsError::from_errno("ftruncate", errno, format!("{name}, {bytes} bytes")))?;
    Ok(Unsealed { descriptor, name: name.to_owned() })
}

impl Unsealed {
    /// Seal it against any change of its size and, where the kernel can (5.1), against being mapped for writing by anybody
    /// from now on: those who have it mapped for writing stay the only writers.
    ///
    /// # Errors
    /// If the system refuses to fix the size.
    pub fn seal(self) -> Result<OwnedFd, OsError> {
        // An older kernel does not know the seal; then readers are trusted not to write what is not theirs.
        let _ = rustix::fs::fcntl_add_seals(&self.descriptor, SealFlags::FUTURE_WRITE);
        rustix::fs::fcntl_add_seals(&self.descriptor, required_seals())
            .map_err(|errno| OsError::from_errno("fcntl(F_ADD_SEALS)", errno, self.name))?;
        Ok(self.descriptor)
    }
}

impl AsFd for Unsealed {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// Check that a received descriptor is memory of exactly `bytes` bytes whose size can never change.
///
/// # Errors
/// What was found instead; the descriptor must then not be mapped.
pub fn verify_sealed(descriptor: BorrowedFd<'_>, bytes: usize) -> Result<(), SealError> {
    let seals = rustix::fs::fcntl_get_seals(descriptor).map_err(|errno| match errno {
        Errno::INVAL => SealError::NotMemory { found: "it cannot be sealed".to_owned() },
        errno => OsError::from_errno("fcntl(F_GET_SEALS)", errno, "").into(),
    })?;
    let missing = required_seals() - seals;
    if !missing.is_empty() {
        return Err(SealError::NotSealed { missing: names(missing) });
    }
    verify_ordinary_pages(descriptor)?;
    let status = rustix::fs::fstat(descriptor)
        .map_err(|errno| OsError::from_errno("fstat", errno, "received memory"))?;
    let found = u64::try_from(status.st_size).unwrap_or(0);
    if found != bytes as u64 {
        return Err(SealError::WrongSize { expected: bytes as u64, found });
    }
    Ok(())
}

/// Huge-page memory is refused: where no huge page is left, touching it is a fatal signal, not an error.
fn verify_ordinary_pages(descriptor: BorrowedFd<'_>) -> Result<(), SealError> {
    let file_system = rustix::fs::fstatfs(descriptor)
        .map_err(|errno| OsError::from_errno("fstatfs", errno, "received memory"))?;
    if file_system.f_type != MEMORY_FILE_SYSTEM {
        return Err(SealError::NotMemory { found: format!("file system type {:#x}", file_system.f_type) });
    }
    Ok(())
}

fn create(name: &str) -> Result<OwnedFd, OsError> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let flags = if features::has(Known::NoExecSeal) { flags | MemfdFlags::NOEXEC_SEAL } else { flags };
    rustix::fs::memfd_create(name, flags).map_err(|errno| OsError::from_errno("memfd_create", errno, name))
}

/// Whether the kernel knows `MFD_NOEXEC_SEAL` (6.3); asked once, by [`features`].
pub(crate) fn probe_noexec_seal() -> bool {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING | MemfdFlags::NOEXEC_SEAL;
    rustix::fs::memfd_create("unisono-probe", flags).is_ok()
}

/// Whether the kernel knows sealing at all (3.17); asked once, by [`features`].
pub(crate) fn probe_seals() -> bool {
    create_sealed("unisono-probe", 1).is_ok()
}

fn required_seals() -> SealFlags {
    SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL
}

fn names(seals: SealFlags) -> String {
    let all = [(SealFlags::SHRINK, "SHRINK"), (SealFlags::GROW, "GROW"), (SealFlags::SEAL, "SEAL")];
    let named: Vec<&str> =
        all.iter().filter(|(seal, _)| seals.contains(*seal)).map(|(_, name)| *name).collect();
    named.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mapping::{Access, Mapping};

    #[test]
    fn sealed_memory_keeps_its_writer_and_admits_no_other() {
        let memory = create_unsealed("unisono-test", 8192).unwrap();
        let ours = Mapping::shared(memory.as_fd(), 0, 8192, Access::ReadWrite).unwrap();
        let memory = memory.seal().unwrap();
        verify_sealed(memory.as_fd(), 8192).unwrap();
        let theirs = Mapping::shared(memory.as_fd(), 0, 8192, Access::ReadOnly).unwrap();
        ours.atomic_u32(64).unwrap().store(7, std::sync::atomic::Ordering::Release);
        assert!(theirs.atomic_u32(64).is_none(), "a read-only word cannot be written");
        if rustix::fs::fcntl_get_seals(&memory).unwrap().contains(SealFlags::FUTURE_WRITE) {
            let refused = Mapping::shared(memory.as_fd(), 0, 8192, Access::ReadWrite).unwrap_err();
            assert!(refused.is_permission_denied(), "{refused}");
        } else {
            eprintln!("SKIPPED: this kernel has no F_SEAL_FUTURE_WRITE");
        }
    }

    #[test]
    fn sealed_memory_can_neither_shrink_nor_grow_nor_be_resealed() {
        let memory = create_sealed("unisono-test", 8192).unwrap();
        assert_eq!(rustix::fs::ftruncate(&memory, 4096), Err(Errno::PERM));
        assert_eq!(rustix::fs::ftruncate(&memory, 16384), Err(Errno::PERM));
        assert_eq!(rustix::fs::fcntl_add_seals(&memory, SealFlags::WRITE), Err(Errno::PERM));
        verify_sealed(memory.as_fd(), 8192).unwrap();
    }

    #[test]
    fn memory_of_another_size_is_refused_with_both_numbers() {
        let memory = create_sealed("unisono-test", 8192).unwrap();
        let error = verify_sealed(memory.as_fd(), 4096).unwrap_err();
        assert_eq!(error, SealError::WrongSize { expected: 4096, found: 8192 });
    }

    #[test]
    fn unsealed_memory_is_refused_and_the_missing_seals_are_named() {
        let memory = rustix::fs::memfd_create("x", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
        rustix::fs::ftruncate(&memory, 4096).unwrap();
        rustix::fs::fcntl_add_seals(&memory, SealFlags::GROW).unwrap();
        let error = verify_sealed(memory.as_fd(), 4096).unwrap_err();
        assert_eq!(error, SealError::NotSealed { missing: "SHRINK, SEAL".to_owned() });
    }

    #[test]
    fn a_file_a_pipe_and_a_socket_are_no_memory() {
        let file = std::fs::File::open("/proc/self/exe").unwrap();
        assert!(matches!(verify_sealed(file.as_fd(), 1), Err(SealError::NotMemory { .. })));
        let (reader, _writer) = rustix::pipe::pipe().unwrap();
        assert!(matches!(verify_sealed(reader.as_fd(), 1), Err(SealError::NotMemory { .. })));
        let (one, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        assert!(matches!(verify_sealed(one.as_fd(), 1), Err(SealError::NotMemory { .. })));
    }

    #[test]
    fn memory_is_created_without_the_newer_seal_too() {
        let _pretence = features::pretend_absent(Known::NoExecSeal);
        let memory = create_sealed("unisono-test", 4096).unwrap();
        verify_sealed(memory.as_fd(), 4096).unwrap();
        assert!(!rustix::fs::fcntl_get_seals(&memory).unwrap().contains(SealFlags::EXEC));
    }

    #[test]
    fn descriptors_do_not_survive_exec() {
        let memory = create_sealed("unisono-test", 4096).unwrap();
        assert!(rustix::io::fcntl_getfd(&memory).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
    }
}
