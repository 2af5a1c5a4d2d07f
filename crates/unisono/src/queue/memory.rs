//! The memories of a queue: the writer's, which readers map for reading only, and one small memory of each reader.
//!
//! ```text
//!   writer's    0       WriterPage    who it is, how far it has come
//!               4096    death words   one for each seat
//!               header  ring          mapped twice in a row: every record is contiguous
//!
//!   reader's    0       ReaderPage    who it is, how far it has come, the bells
//!               4096    death word    for the writer
//! ```
//!
//! This is the room where positions become pointers. Words become references to atomics, data stays raw pointers. The
//! one invariant that matters: **what lies in the ring is written by its writer alone**: it maps the memory for writing,
//! then seals it against every other such mapping, and only then hands it out.

#![allow(unsafe_code)]

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use unisono_os::mapping::{self, Access, Mapping};
use unisono_os::{memfd, robust};
use unisono_protocol::ring::RECORD_HEAD;
use unisono_protocol::{Bell, Position};

use super::error::{Error, Result};
use crate::marker::Marker;
use crate::memory::Target;
use crate::segment::check_headroom;

const WRITER_MAGIC: u64 = u64::from_le_bytes(*b"uniqueW2");
const READER_MAGIC: u64 = u64::from_le_bytes(*b"uniqueR1");

/// Where death words begin, in both kinds of memory.
const DEATH_WORDS: usize = 4096;
/// Most readers on one machine: as many as a process has death words.
pub(super) const MOST_READERS: usize = robust::MOST_WORDS;
const WORDS: usize = DEATH_WORDS + MOST_READERS * robust::STRIDE;
/// A ring is never longer, so that lengths and positions can be added without a thought.
const LONGEST_RING: u64 = 1 << 40;

/// Bytes of a record that says where a large message lies: its home's number and its length.
pub(super) const ADDRESS_BYTES: u64 = 16;

/// Whose memory it is.
#[derive(Debug, Default)]
#[repr(C, align(128))]
struct Identity {
    magic: AtomicU64,
    nonce: AtomicU64,
    rank: AtomicU64,
}

impl Identity {
    /// The magic number comes last (release): whoever sees it sees the rest.
    fn write(&self, magic: u64, nonce: u64, rank: usize) {
        self.nonce.store(nonce, Ordering::Relaxed);
        self.rank.store(rank as u64, Ordering::Relaxed);
        self.magic.store(magic, Ordering::Release);
    }

    fn is(&self, magic: u64, nonce: u64) -> bool {
        self.magic.load(Ordering::Acquire) == magic && self.nonce.load(Ordering::Relaxed) == nonce
    }
}

/// The writer's cursor, on lines of its own.
#[derive(Debug)]
#[repr(C, align(128))]
pub(super) struct Head {
    pub(super) position: Position,
    /// How many messages lie before it; for people. It is stored a little before the position, which has the line on its way
    /// while the record is still being written.
    pub(super) messages: AtomicU64,
}

/// What says in the writer's memory how things stand.
#[derive(Debug, Default)]
#[repr(C, align(128))]
pub(super) struct Stand {
    ready: AtomicU32,
    closed: AtomicU32,
}

/// The writer's first page. All of it is atomics: any bits are valid, and it may change at any moment.
#[derive(Debug)]
#[repr(C)]
pub(super) struct WriterPage {
    identity: Identity,
    pub(super) head: Head,
    stand: Stand,
}

impl WriterPage {
    /// All readers have come (release).
    pub(super) fn set_ready(&self) {
        self.stand.ready.store(1, Ordering::Release);
    }

    pub(super) fn is_ready(&self) -> bool {
        self.stand.ready.load(Ordering::Acquire) != 0
    }

    /// The writer said goodbye (release: whoever sees it sees all messages).
    pub(super) fn set_closed(&self) {
        self.stand.closed.store(1, Ordering::Release);
    }

    pub(super) fn is_closed(&self) -> bool {
        self.stand.closed.load(Ordering::Acquire) != 0
    }
}

/// A reader's cursor, on lines of its own, and the bell at which the writer waits for it.
#[derive(Debug)]
#[repr(C, align(128))]
pub(super) struct Tail {
    pub(super) position: Position,
    pub(super) messages: AtomicU64,
    /// When it was last moved, on the monotonic clock in nanoseconds; 0: never.
    pub(super) moved_at: AtomicU64,
    pub(super) space: Bell,
}

/// The bell at which the reader waits for messages. Written rarely, read by the writer at every message.
#[derive(Debug, Default)]
#[repr(C, align(128))]
pub(super) struct Doorbell {
    pub(super) bell: Bell,
}

/// A reader's first page, all atomics, too.
#[derive(Debug)]
#[repr(C)]
pub(super) struct ReaderPage {
    identity: Identity,
    pub(super) tail: Tail,
    pub(super) doorbell: Doorbell,
    left: AtomicU32,
}

impl ReaderPage {
    /// The reader says goodbye (release).
    pub(super) fn set_left(&self) {
        self.left.store(1, Ordering::Release);
    }

    pub(super) fn has_left(&self) -> bool {
        self.left.load(Ordering::Acquire) != 0
    }
}

const _: () = assert!(size_of::<WriterPage>() <= DEATH_WORDS && size_of::<ReaderPage>() <= DEATH_WORDS);

/// The atomics of type `T` at `offset` of a mapping.
///
/// # Safety
/// `T` consists of atomics only, for which any bits are valid; it lies inside the mapping, aligned; and if the mapping is
/// read-only nobody stores through the reference.
unsafe fn words<T>(mapping: &Mapping, offset: usize) -> &T {
    debug_assert!(offset + size_of::<T>() <= mapping.len() && offset.is_multiple_of(align_of::<T>()));
    // SAFETY: as the caller promises; the mapping lives as long as the reference.
    unsafe { &*mapping.as_ptr().add(offset).cast::<T>() }
}

fn header_bytes() -> usize {
    WORDS.next_multiple_of(mapping::page_size())
}

/// The memory of a queue's writer, mapped by the writer or by a reader.
#[derive(Debug)]
pub(super) struct WriterMemory {
    header: Mapping,
    ring: Mapping,
    /// A power of two.
    ring_bytes: u64,
}

/// What the writer has when it has made its memory.
pub(super) struct Made {
    pub(super) memory: WriterMemory,
    /// To be handed to readers.
    pub(super) descriptor: OwnedFd,
    /// Holds the death words in it.
    pub(super) marker: Marker,
}

impl WriterMemory {
    /// Make the memory of a new queue, with a ring of at least `ring_bytes` bytes.
    pub(super) fn create(ring_bytes: usize, nonce: u64, rank: usize, readers: usize) -> Result<Made> {
        let bytes = ring_bytes.max(mapping::page_size()).checked_next_power_of_two();
        let bytes = bytes.filter(|bytes| *bytes as u64 <= LONGEST_RING);
        let bytes = bytes.ok_or_else(|| {
            Error::argument("create", format!("a ring of {ring_bytes} bytes: at most {LONGEST_RING}"))
        })?;
        let total = header_bytes() + bytes;
        check_headroom("the ring of a queue", total)?;
        let unsealed = memfd::create_unsealed("unisono-queue", total).map_err(Error::os("making a ring"))?;
        let memory = WriterMemory::map(unsealed.as_fd(), bytes as u64, Access::ReadWrite)?;
        let marker = Marker::start(unsealed.as_fd(), DEATH_WORDS, readers.max(1))?;
        memory.page().identity.write(WRITER_MAGIC, nonce, rank);
        let descriptor = unsealed.seal().map_err(Error::os("sealing a ring"))?;
        Ok(Made { memory, descriptor, marker })
    }

    /// Map the memory of another process's queue for reading.
    pub(super) fn open(memory: BorrowedFd<'_>, ring_bytes: u64, nonce: u64) -> Result<Self, String> {
        let fits = ring_bytes.is_power_of_two() && ring_bytes <= LONGEST_RING;
        let bytes = usize::try_from(ring_bytes)
            .ok()
            .filter(|bytes| fits && bytes.is_multiple_of(mapping::page_size()));
        let bytes = bytes.ok_or_else(|| format!("it offered a ring of {ring_bytes} bytes"))?;
        memfd::verify_sealed(memory, header_bytes() + bytes).map_err(|error| error.to_string())?;
        let memory = Self::map(memory, ring_bytes, Access::ReadOnly).map_err(|error| error.to_string())?;
        match memory.page().identity.is(WRITER_MAGIC, nonce) {
            true => Ok(memory),
            false => Err("the memory it handed over is not this queue's".to_string()),
        }
    }

    fn map(memory: BorrowedFd<'_>, ring_bytes: u64, access: Access) -> Result<Self> {
        let header =
            Mapping::shared(memory, 0, header_bytes(), access).map_err(Error::os("mapping a queue"))?;
        let ring = Mapping::shared_twice(memory, header_bytes() as u64, ring_bytes as usize, access)
            .map_err(Error::os("mapping a ring"))?;
        Ok(WriterMemory { header, ring, ring_bytes })
    }

    #[inline]
    pub(super) fn page(&self) -> &WriterPage {
        // SAFETY: the page is atomics only and lies at the start of the header, which is longer. Only the writer, which has
        // it mapped for writing, calls the methods that store.
        unsafe { words(&self.header, 0) }
    }

    /// The word that the kernel marks for the reader in `seat` when the writer dies. Readers only load it.
    pub(super) fn death_word(&self, seat: usize) -> &AtomicU32 {
        let offset = DEATH_WORDS + seat.min(MOST_READERS - 1) * robust::STRIDE;
        // SAFETY: the seat is bounded, so the word lies inside the header's words, aligned to its stride.
        unsafe { words(&self.header, offset) }
    }

    #[inline]
    pub(super) fn ring_bytes(&self) -> u64 {
        self.ring_bytes
    }

    /// The head of the record at `position`, a multiple of eight. Read once, as an atomic.
    #[inline]
    pub(super) fn record_head(&self, position: u64) -> u64 {
        self.record_word(position).load(Ordering::Relaxed)
    }

    /// Write the head of the record at `position`. Only the writer does, beyond what it has published.
    #[inline]
    pub(super) fn set_record_head(&self, position: u64, head: u64) {
        self.record_word(position).store(head, Ordering::Relaxed);
    }

    /// Where the large message lies of which the record at `position` speaks: its home's number and its length.
    pub(super) fn address(&self, position: u64) -> (u64, u64) {
        let word = |index: u64| {
            self.record_word(position.wrapping_add(RECORD_HEAD + 8 * index)).load(Ordering::Relaxed)
        };
        (word(0), word(1))
    }

    pub(super) fn set_address(&self, position: u64, number: u64, bytes: u64) {
        for (index, value) in [(0, number), (1, bytes)] {
            self.record_word(position + RECORD_HEAD + 8 * index).store(value, Ordering::Relaxed);
        }
    }

    #[inline]
    fn record_word(&self, position: u64) -> &AtomicU64 {
        let offset = (position & (self.ring_bytes - 1)) as usize & !7;
        // SAFETY: the offset is below the ring's length and a multiple of eight, and the mapping is twice as long.
        unsafe { words(&self.ring, offset) }
    }

    /// `bytes` bytes from `position` on; cut off at the length of the ring. Readers only read them.
    #[inline]
    pub(super) fn data(&self, position: u64, bytes: u64) -> Target<'_> {
        let offset = (position & (self.ring_bytes - 1)) as usize;
        let bytes = bytes.min(self.ring_bytes) as usize;
        // SAFETY: the offset is below the ring's length and `bytes` at most that, so the range lies inside the mapping of twice
        // the ring, which lives as long as `self`.
        unsafe { Target::from_raw(self.ring.as_ptr().add(offset), bytes) }
    }
}

/// The memory of a reader, mapped by itself or by its writer, both for writing.
#[derive(Debug)]
pub(super) struct ReaderMemory {
    mapping: Mapping,
}

impl ReaderMemory {
    fn bytes() -> usize {
        (DEATH_WORDS + robust::STRIDE).next_multiple_of(mapping::page_size())
    }

    /// Make the memory of a reader. The marker holds its death word.
    pub(super) fn create(nonce: u64, rank: usize) -> Result<(ReaderMemory, OwnedFd, Marker)> {
        let bytes = Self::bytes();
        check_headroom("a reader of a queue", bytes)?;
        let descriptor =
            memfd::create_sealed("unisono-reader", bytes).map_err(Error::os("making a reader's memory"))?;
        let memory = Self::map(descriptor.as_fd()).map_err(Error::os("mapping a reader's memory"))?;
        memory.page().identity.write(READER_MAGIC, nonce, rank);
        let marker = Marker::start(descriptor.as_fd(), DEATH_WORDS, 1)?;
        Ok((memory, descriptor, marker))
    }

    /// Map the memory that a reader handed over.
    pub(super) fn open(memory: BorrowedFd<'_>, nonce: u64) -> Result<Self, String> {
        memfd::verify_sealed(memory, Self::bytes()).map_err(|error| error.to_string())?;
        let memory = Self::map(memory).map_err(|error| error.to_string())?;
        match memory.page().identity.is(READER_MAGIC, nonce) {
            true => Ok(memory),
            false => Err("the memory it handed over is not a reader's of this queue".to_string()),
        }
    }

    fn map(memory: BorrowedFd<'_>) -> Result<Self, unisono_os::OsError> {
        let mapping = Mapping::shared(memory, 0, Self::bytes(), Access::ReadWrite)?;
        Ok(ReaderMemory { mapping })
    }

    #[inline]
    pub(super) fn page(&self) -> &ReaderPage {
        // SAFETY: the page is atomics only and lies at the start of the mapping, which is longer and writable.
        unsafe { words(&self.mapping, 0) }
    }

    /// The word that the kernel marks for the writer when this reader dies.
    pub(super) fn death_word(&self) -> &AtomicU32 {
        // SAFETY: the mapping reaches beyond the word, which is aligned to its stride.
        unsafe { words(&self.mapping, DEATH_WORDS) }
    }
}

/// The home of large messages: memory of its own, written by the writer alone, as the ring is.
#[derive(Debug)]
pub(super) struct Home {
    mapping: Mapping,
}

impl Home {
    /// Make a home of `bytes` bytes and what readers need to map it.
    pub(super) fn create(bytes: usize) -> Result<(Home, OwnedFd)> {
        check_headroom("a large message", bytes)?;
        let unsealed = memfd::create_unsealed("unisono-message", bytes)
            .map_err(Error::os("making room for a message"))?;
        let mapping = Mapping::shared(unsealed.as_fd(), 0, bytes, Access::ReadWrite)
            .map_err(Error::os("mapping a large message"))?;
        let descriptor = unsealed.seal().map_err(Error::os("sealing a large message"))?;
        Ok((Home { mapping }, descriptor))
    }

    /// Map a home that the writer handed over.
    pub(super) fn open(memory: BorrowedFd<'_>, bytes: u64) -> Result<Self, String> {
        let bytes = usize::try_from(bytes).map_err(|error| error.to_string())?;
        memfd::verify_sealed(memory, bytes).map_err(|error| error.to_string())?;
        let mapping =
            Mapping::shared(memory, 0, bytes, Access::ReadOnly).map_err(|error| error.to_string())?;
        Ok(Home { mapping })
    }

    pub(super) fn bytes(&self) -> u64 {
        self.mapping.len() as u64
    }

    /// The first `bytes` bytes, cut off at the end. Readers only read them.
    #[inline]
    pub(super) fn data(&self, bytes: u64) -> Target<'_> {
        let bytes = bytes.min(self.bytes()) as usize;
        // SAFETY: the range lies inside the mapping, which lives as long as `self`.
        unsafe { Target::from_raw(self.mapping.as_ptr(), bytes) }
    }
}
