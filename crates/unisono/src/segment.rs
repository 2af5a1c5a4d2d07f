//! A piece of memory that processes share: named, for whoever knows the name, or anonymous, for whoever is handed it.
//!
//! Named segments are what the shared-memory code of inference engines is used to (`shared_create`, `shared_open`), done
//! safely: created exclusively, and opened only if magic number, version, size and owner are right. They stay until they are
//! unlinked. Anonymous ones are sealed memfds: no name, gone with their last user.
//!
//! The one invariant that matters: **no reference to the contents is ever made**, because others may write them at any
//! moment. Contents are copied in and out; who can promise that nobody writes may ask for a slice.

#![allow(unsafe_code)]

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use unisono_os::fork_guard::ForkMark;
use unisono_os::mapping::{Access, Mapping};
use unisono_os::{memfd, named};

use crate::error::{Error, Result};

const MAGIC: u64 = u64::from_le_bytes(*b"unisoseg");
const VERSION: u64 = 1;
/// The header of a named segment has a page of its own, so that the contents are aligned to one.
const HEADER_BYTES: usize = 4096;
/// How long a segment that is just being created is waited for.
const CREATION_TAKES: Duration = Duration::from_millis(200);

/// Memory shared between processes.
///
/// ```
/// use unisono::segment::Segment;
///
/// let name = format!("unisono-doc-{}", std::process::id());
/// let ours = Segment::create_named(&name, b"hello")?;
/// let theirs = Segment::open_named(&name)?; // in another process
/// let mut found = [0; 5];
/// theirs.read(0, &mut found)?;
/// assert_eq!(&found, b"hello");
/// ours.unlink()?;
/// # Ok::<_, unisono::Error>(())
/// ```
#[derive(Debug)]
pub struct Segment {
    name: String,
    memory: OwnedFd,
    mapping: Mapping,
    /// Where the contents begin.
    start: usize,
    bytes: usize,
    born: ForkMark,
}

impl Segment {
    /// Create a named segment with these contents, for this user alone (mode 0600).
    ///
    /// # Errors
    /// [`Error::Segment`] if the name exists already (naming its creator, where that can be known) or cannot be one;
    /// [`Error::OutOfMemory`] if there is too little memory.
    pub fn create_named(name: &str, contents: &[u8]) -> Result<Segment> {
        let segment = Segment::create_unpublished(name, contents.len())?;
        segment.write(0, contents)?;
        segment.publish();
        Ok(segment)
    }

    /// Create a named segment of `bytes` zero bytes, for this user alone (mode 0600).
    ///
    /// # Errors
    /// As [`Segment::create_named`].
    pub fn create_named_zeroed(name: &str, bytes: usize) -> Result<Segment> {
        let segment = Segment::create_unpublished(name, bytes)?;
        segment.publish();
        Ok(segment)
    }

    /// Create a named segment of `bytes` zero bytes and leave it unpublished until the contents are there.
    fn create_unpublished(name: &str, bytes: usize) -> Result<Segment> {
        let total =
            bytes.checked_add(HEADER_BYTES).ok_or_else(|| problem(name, "its size does not fit memory"))?;
        check_headroom(&format!("segment {name}"), total)?;
        let memory = named::create_exclusive(name, total).map_err(|error| problem(name, error))?;
        let made = Segment::map(name, memory, HEADER_BYTES, bytes).and_then(|segment| {
            match segment.mapping.populate() {
                Ok(()) => Ok(segment),
                Err(error) => Err(Error::os("reserving a segment")(error)),
            }
        });
        if made.is_err() {
            let _ = named::unlink(name); // The name was ours a moment ago; a failure to remove it changes no verdict.
        }
        made
    }

    /// Open a named segment that was made by [`Segment::create_named`].
    ///
    /// # Errors
    /// [`Error::Segment`] says what is wrong with it: missing, of another user, not a segment of this version, or of
    /// another size than its header says.
    pub fn open_named(name: &str) -> Result<Segment> {
        let deadline = Instant::now() + CREATION_TAKES;
        loop {
            let memory = named::open(name).map_err(|error| problem(name, error))?;
            let size = size_of_file(&memory, name)?;
            let verdict: std::result::Result<(), String> = match size.checked_sub(HEADER_BYTES) {
                None => Err(format!("{size} bytes are too few for a segment")),
                Some(bytes) => {
                    let segment = Segment::map(name, memory, HEADER_BYTES, bytes)?;
                    match segment.check_header() {
                        Ok(()) => return Ok(segment),
                        Err(found) => Err(found),
                    }
                }
            };
            // It may just be being created: size and header come a moment after the name.
            match verdict {
                Err(found) if Instant::now() >= deadline => return Err(problem(name, found)),
                _ => std::thread::sleep(Duration::from_millis(1)),
            }
        }
    }

    /// Create an anonymous segment of zero bytes: a sealed memfd, to be handed to others as a descriptor.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] or [`Error::Os`] if there is no memory or no descriptor.
    pub fn create_anonymous(bytes: usize) -> Result<Segment> {
        check_headroom("an anonymous segment", bytes)?;
        let memory =
            memfd::create_sealed("unisono-segment", bytes).map_err(Error::os("making shared memory"))?;
        Segment::map("anonymous", memory, 0, bytes)
    }

    /// Map an anonymous segment that another process made and handed over.
    ///
    /// # Errors
    /// [`Error::Segment`] if it is not a memfd of exactly this size, sealed against shrinking and growing.
    pub fn from_descriptor(memory: OwnedFd, bytes: usize) -> Result<Segment> {
        memfd::verify_sealed(memory.as_fd(), bytes.max(1)).map_err(|error| problem("handed over", error))?;
        Segment::map("handed over", memory, 0, bytes)
    }

    fn map(name: &str, memory: OwnedFd, start: usize, bytes: usize) -> Result<Segment> {
        let total = (start + bytes).max(1);
        let mapping = Mapping::shared(memory.as_fd(), 0, total, Access::ReadWrite)
            .map_err(Error::os("mapping a segment"))?;
        Ok(Segment { name: name.to_string(), memory, mapping, start, bytes, born: ForkMark::now() })
    }

    fn header(&self, index: usize) -> Option<&AtomicU64> {
        self.mapping.atomic_u64(index * size_of::<u64>())
    }

    /// Magic number last (release): whoever sees it (acquire, in `check_header`) sees contents, version and size.
    fn publish(&self) {
        for (index, value) in [(1, VERSION), (2, self.bytes as u64)] {
            if let Some(word) = self.header(index) {
                word.store(value, Ordering::Relaxed);
            }
        }
        if let Some(magic) = self.header(0) {
            magic.store(MAGIC, Ordering::Release);
        }
    }

    fn check_header(&self) -> std::result::Result<(), String> {
        let read = |index| self.header(index).map_or(0, |word| word.load(Ordering::Acquire));
        let (magic, version, bytes) = (read(0), read(1), read(2));
        if magic != MAGIC {
            return Err(format!(
                "expected the magic number {MAGIC:#018x}, found {magic:#018x}: it is no segment"
            ));
        }
        if version != VERSION {
            return Err(format!("expected version {VERSION}, found {version}"));
        }
        if bytes != self.bytes as u64 {
            return Err(format!("its header says {bytes} bytes, but it has {}", self.bytes));
        }
        Ok(())
    }

    /// Its size in bytes.
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Its name; a description, if it has none.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The descriptor, to hand an anonymous segment to another process.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.memory.as_fd()
    }

    /// Where the contents begin in this process. Others may write them at any moment.
    pub fn as_ptr(&self) -> *mut u8 {
        // SAFETY: `start` lies inside the mapping, or at its end where there are no contents.
        unsafe { self.mapping.as_ptr().add(self.start) }
    }

    /// Copy `into.len()` bytes from `offset` out of the segment.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if they reach outside; [`Error::Segment`] in a forked child.
    pub fn read(&self, offset: usize, into: &mut [u8]) -> Result<()> {
        self.check_range("read", offset, into.len())?;
        // SAFETY: the range lies inside the mapping (just checked), and `into` is memory of this process alone.
        unsafe { unisono_kernels::copy(into.as_mut_ptr(), self.as_ptr().add(offset), into.len()) }
        Ok(())
    }

    /// Copy `from` into the segment at `offset`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if it reaches outside; [`Error::Segment`] in a forked child.
    pub fn write(&self, offset: usize, from: &[u8]) -> Result<()> {
        self.check_range("write", offset, from.len())?;
        // SAFETY: the range lies inside the mapping (just checked), which is mapped for writing.
        unsafe { unisono_kernels::copy(self.as_ptr().add(offset), from.as_ptr(), from.len()) }
        Ok(())
    }

    /// The contents as a slice, without copying.
    ///
    /// # Safety
    /// Nobody, in this process or another, writes the segment as long as the slice lives, and this process is not a
    /// forked child of the one that opened it, in which it is not mapped.
    pub unsafe fn as_slice(&self) -> &[u8] {
        // SAFETY: the mapping holds `bytes` bytes from `start` on and lives as long as the slice; the caller
        // promises that nobody writes them.
        unsafe { std::slice::from_raw_parts(self.as_ptr(), self.bytes) }
    }

    /// Remove the name. Who has the segment open keeps it; the memory goes with the last of them.
    ///
    /// # Errors
    /// [`Error::Segment`] if the name is gone already, or there never was one.
    pub fn unlink(&self) -> Result<()> {
        if self.start == 0 {
            return Err(problem(&self.name, "an anonymous segment has no name to remove"));
        }
        named::unlink(&self.name).map_err(|error| problem(&self.name, error))
    }

    fn check_range(&self, operation: &'static str, offset: usize, bytes: usize) -> Result<()> {
        if self.born.crossed_fork() {
            return Err(problem(&self.name, "is not mapped in a forked child: open it again there"));
        }
        if offset.checked_add(bytes).is_some_and(|end| end <= self.bytes) {
            return Ok(());
        }
        let found = format!("{bytes} bytes from {offset} reach outside the segment of {} bytes", self.bytes);
        Err(Error::argument(operation, found))
    }
}

fn problem(name: &str, problem: impl ToString) -> Error {
    Error::Segment { name: name.to_string(), problem: problem.to_string() }
}

fn size_of_file(memory: &OwnedFd, name: &str) -> Result<usize> {
    let file = std::fs::File::from(memory.try_clone().map_err(|error| problem(name, error))?);
    let size = file.metadata().map_err(|error| problem(name, error))?.len();
    usize::try_from(size).map_err(|error| problem(name, error))
}

/// See that `bytes` more bytes may be had for `what`: above a cgroup's limit the kernel kills instead of failing, so compare first.
///
/// # Errors
/// [`Error::OutOfMemory`] with both numbers, and what sets the limit.
pub fn check_headroom(what: &str, bytes: usize) -> Result<()> {
    let headroom = unisono_os::memory_limit::headroom();
    if bytes as u64 <= headroom.bytes {
        return Ok(());
    }
    Err(Error::OutOfMemory {
        what: what.to_string(),
        needed: bytes as u64,
        available: headroom.bytes,
        limited_by: headroom.limited_by,
        advice: "raise the limit or ask for less",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fresh_name(what: &str) -> String {
        format!("unisono-test-{what}-{}", std::process::id())
    }

    #[test]
    fn a_named_segment_is_exclusive_and_carries_its_contents() {
        let name = fresh_name("exclusive");
        let created = Segment::create_named(&name, b"initial bytes").unwrap();
        let second = Segment::create_named(&name, b"other").unwrap_err();
        assert!(matches!(second, Error::Segment { .. }), "{second}");
        let opened = Segment::open_named(&name).unwrap();
        let mut found = [0; 13];
        opened.read(0, &mut found).unwrap();
        assert_eq!(&found, b"initial bytes");
        created.write(8, b"words").unwrap();
        opened.read(0, &mut found).unwrap();
        assert_eq!(&found, b"initial words");
        created.unlink().unwrap();
        assert!(Segment::open_named(&name).is_err());
    }

    #[test]
    fn what_is_no_segment_is_refused() {
        let name = fresh_name("garbage");
        let path = named::path_of(&name).unwrap();
        for garbage in [vec![], vec![7u8; 100], vec![0xff; HEADER_BYTES + 10]] {
            std::fs::write(&path, &garbage).unwrap();
            let error = Segment::open_named(&name).unwrap_err();
            assert!(matches!(error, Error::Segment { .. }), "{error}");
        }
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_truncated_segment_is_refused() {
        let name = fresh_name("truncated");
        let created = Segment::create_named(&name, &[1; 10_000]).unwrap();
        let file = std::fs::OpenOptions::new().write(true).open(named::path_of(&name).unwrap()).unwrap();
        file.set_len(9_000).unwrap();
        let error = Segment::open_named(&name).unwrap_err().to_string();
        assert!(error.contains("10000 bytes"), "{error}");
        created.unlink().unwrap();
    }

    #[test]
    fn nothing_reaches_outside() {
        let segment = Segment::create_anonymous(100).unwrap();
        assert!(segment.write(90, &[0; 11]).is_err());
        assert!(segment.read(usize::MAX, &mut [0; 2]).is_err());
        assert!(segment.write(100, &[]).is_ok());
        let other =
            Segment::from_descriptor(segment.descriptor().try_clone_to_owned().unwrap(), 100).unwrap();
        other.write(0, b"shared").unwrap();
        let mut found = [0; 6];
        segment.read(0, &mut found).unwrap();
        assert_eq!(&found, b"shared");
        assert!(Segment::from_descriptor(segment.descriptor().try_clone_to_owned().unwrap(), 99).is_err());
    }
}
