//! Death words: words of shared memory that the kernel marks when a process dies, before it frees its memory.
//!
//! A killed process that held gigabytes closes its sockets only after the kernel has freed them, tens of
//! milliseconds per gigabyte later. But first of all the kernel walks the *robust list* of each dying thread,
//! a list made for locks whose holder may die, and marks each word on it. So one thread of a process, its
//! watcher, puts one word for each peer on its list; a peer that spins looks at its word, a peer that sleeps
//! is woken by the kernel through it.
//!
//! ```text
//!  private memory                                  │ shared memory (other processes may write it)
//!  node 0 ─► node 1 ─► … ─► node n-1 ─► head ─► 0  │ word 0   word 1   …   word n-1
//!  base      base + 64                             │ each at its node's address + distance, 64 bytes apart
//! ```
//!
//! The one invariant that matters: **what the kernel walks lies in private memory**; only the words it marks
//! are shared. A hostile peer can spoil the words, never the list. That is why both halves are mapped side by
//! side: the kernel knows only one distance from a node to its word.

#![allow(unsafe_code)]

use std::marker::PhantomData;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use rustix::mm::{Advice, MapFlags, ProtFlags};

use crate::fork_guard::ForkMark;
use crate::mapping::verify_within;
use crate::{OsError, futex, thread};

/// Bytes from one death word to the next: a cache line, so that peers do not disturb each other.
pub const STRIDE: usize = 64;

/// The most words that one process holds.
pub const MOST_WORDS: usize = 64;

/// The word of somebody who was there and said goodbye: no owner, and not the zero of fresh memory.
/// The kernel never writes it, since a mark of death always carries its own bit.
const LEFT: u32 = libc::FUTEX_WAITERS;

/// What a death word says about the process that holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WordState {
    /// It has not taken part yet (fresh memory), or its kernel has no robust lists.
    NotYet,
    /// It held the word when last seen; the kernel will mark it at its death.
    Alive,
    /// It died without a goodbye.
    Dead,
    /// It said goodbye.
    Left,
}

/// Read the value of a death word.
pub fn state(word: u32) -> WordState {
    if word & libc::FUTEX_OWNER_DIED != 0 {
        WordState::Dead
    } else if word & libc::FUTEX_TID_MASK != 0 {
        WordState::Alive
    } else if word == LEFT {
        WordState::Left
    } else {
        WordState::NotYet
    }
}

/// The kernel's view of a list: the next entry, from inside the head or a node.
#[repr(C)]
struct Link {
    next: *mut Link,
}

/// The kernel's `struct robust_list_head`.
#[repr(C)]
struct Head {
    first: Link,
    /// From each node to its word.
    word_offset: libc::c_long,
    /// An entry being added or taken off; never, here.
    pending: *mut Link,
}

/// The words of this process, mapped beside their private list. See [`DeathWords::hold`].
#[derive(Debug)]
pub struct DeathWords {
    region: Arc<Region>,
}

#[derive(Debug)]
struct Region {
    base: NonNull<u8>,
    /// Bytes of the private half: the nodes, then the head.
    private_bytes: usize,
    /// Bytes of both halves.
    total_bytes: usize,
    /// Where word 0 lies in the shared half, if its offset was not a multiple of this machine's page size.
    first_word: usize,
    count: usize,
    held: AtomicBool,
    born: ForkMark,
}

// SAFETY: the region is an address range that lives until drop; nodes and head are written by `hold` alone,
// which `held` admits one at a time, and the words are atomics.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

/// The calling thread holds the words: as long as this lives, its death marks them.
///
/// It belongs to its thread and cannot be sent to another. Dropped without [`release`](Held::release), by an
/// unwinding watcher for instance, it marks the words itself: nobody watches for this process any more.
#[derive(Debug)]
pub struct Held {
    region: Arc<Region>,
    /// What to give back to the thread; taken when the words have got their last value.
    former: Option<RegisteredList>,
    /// Not `Send`: the list belongs to this thread.
    thread: PhantomData<*const ()>,
}

/// What `get_robust_list` says about the calling thread.
#[derive(Clone, Copy, Debug)]
struct RegisteredList {
    head: *mut libc::c_void,
    length: usize,
}

impl DeathWords {
    /// Map `count` words (at most [`MOST_WORDS`]) that lie [`STRIDE`] bytes apart from `offset` on in
    /// `memory`, the sealed memory of this process.
    ///
    /// # Errors
    /// `EINVAL` if `offset` is no multiple of [`STRIDE`], or `count` is zero or too large; `ENXIO` if the
    /// memory ends before the last word; else what the system says to the mapping.
    pub fn map(memory: BorrowedFd<'_>, offset: u64, count: usize) -> Result<DeathWords, OsError> {
        if count == 0 || count > MOST_WORDS || !offset.is_multiple_of(STRIDE as u64) {
            let context = format!("{count} death words from offset {offset}");
            return Err(OsError::new("set_robust_list", libc::EINVAL, context));
        }
        verify_within(memory, offset, count * STRIDE)?;
        let region = Region::map(memory, offset, count)?;
        Ok(DeathWords { region: Arc::new(region) })
    }

    /// The word with this index, or `None` beyond the count and in a forked child.
    pub fn word(&self, index: usize) -> Option<&AtomicU32> {
        self.region.word(index)
    }

    /// Let the calling thread hold all words: [`WordState::Alive`] until it releases them or dies.
    ///
    /// Call it on the thread that lives as long as the process takes part. It replaces that thread's list of
    /// robust mutexes until the release, so the thread must not hold or take any.
    ///
    /// # Errors
    /// [`is_not_supported`](OsError::is_not_supported) where there are no robust lists (some emulators):
    /// learn of deaths by [`pidfd`](crate::pidfd) alone. `EBUSY` if the words are held already. `EFAULT` in a
    /// forked child.
    pub fn hold(&self) -> Result<Held, OsError> {
        let error = |errno, why: &str| Err(OsError::new("set_robust_list", errno, why));
        if self.region.born.crossed_fork() {
            return error(libc::EFAULT, "death words do not survive a fork");
        }
        let former = registered_list()?;
        if self.region.held.swap(true, Ordering::Acquire) {
            return error(libc::EBUSY, "the words are held already");
        }
        // The list first, the words after: a word that says Alive is one that the kernel knows.
        let head = self.region.link();
        if let Err(failure) = register(RegisteredList { head, length: size_of::<Head>() }) {
            self.region.held.store(false, Ordering::Release);
            return Err(failure);
        }
        self.region.set_all(thread::thread_id() | libc::FUTEX_WAITERS);
        Ok(Held { region: Arc::clone(&self.region), former: Some(former), thread: PhantomData })
    }
}

impl Held {
    /// Say goodbye: the words become [`WordState::Left`], who sleeps on them is woken, and the thread gets
    /// its former list back.
    pub fn release(mut self) {
        self.end_with(LEFT);
    }

    fn end_with(&mut self, last_word: u32) {
        let Some(former) = self.former.take() else { return };
        if self.region.born.crossed_fork() {
            return; // The parent holds them; a child has neither the memory nor the list.
        }
        self.region.set_all(last_word);
        // It was accepted once, so it is accepted again; were it not, the list would stay valid, since the
        // region is then leaked.
        if register(former).is_err() {
            std::mem::forget(Arc::clone(&self.region));
        }
        self.region.held.store(false, Ordering::Release);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.end_with(libc::FUTEX_OWNER_DIED | libc::FUTEX_WAITERS);
    }
}

impl Region {
    /// Map the private half and, right behind it, the pages that hold the words.
    fn map(memory: BorrowedFd<'_>, offset: u64, count: usize) -> Result<Region, OsError> {
        let page = rustix::param::page_size();
        let first_word = usize::try_from(offset % page as u64).unwrap_or(0);
        let private_bytes = (count * STRIDE + size_of::<Head>()).next_multiple_of(page);
        let shared_bytes = (first_word + count * STRIDE).next_multiple_of(page);
        let total_bytes = private_bytes + shared_bytes;
        let context = || format!("{count} death words");
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
        let base = unsafe {
            rustix::mm::mmap_anonymous(
                std::ptr::null_mut(),
                total_bytes,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE,
            )
        }
        .map_err(|errno| OsError::from_errno("mmap", errno, context()))?;
        let base = NonNull::new(base.cast::<u8>())
            .ok_or_else(|| OsError::new("mmap", libc::ENOMEM, "address zero"))?;
        let held = AtomicBool::new(false);
        let born = ForkMark::now();
        // From here on, drop unmaps.
        let region = Region { base, private_bytes, total_bytes, first_word, count, held, born };
        // SAFETY: the range lies in the mapping made above, which nobody else knows of yet, and stays
        // reserved by this replacement: both are unmapped together.
        unsafe {
            rustix::mm::mmap(
                base.as_ptr().add(private_bytes).cast(),
                shared_bytes,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED | MapFlags::FIXED,
                memory,
                offset - first_word as u64,
            )
        }
        .map_err(|errno| OsError::from_errno("mmap", errno, context()))?;
        // SAFETY: the advice is about children; the range is exactly our mapping.
        unsafe { rustix::mm::madvise(base.as_ptr().cast(), total_bytes, Advice::LinuxDontFork) }
            .map_err(|errno| OsError::from_errno("madvise(MADV_DONTFORK)", errno, context()))?;
        Ok(region)
    }

    /// Chain the nodes, let the last one lead back to the head, and give the head's address.
    fn link(&self) -> *mut libc::c_void {
        let distance = self.private_bytes + self.first_word;
        // SAFETY: nodes (count * STRIDE bytes) and head lie in the private half, which has room for them by
        // its size in `map` and is aligned to a page, so each is aligned to 8. Only the thread that has just
        // set `held` gets here, and the kernel reads them only once they are registered.
        unsafe {
            let node = |index: usize| self.base.as_ptr().add(index * STRIDE).cast::<Link>();
            let head = self.base.as_ptr().add(self.count * STRIDE).cast::<Head>();
            let end = (&raw mut (*head).first).cast::<Link>();
            for index in 0..self.count {
                let next = if index + 1 < self.count { node(index + 1) } else { end };
                node(index).write(Link { next });
            }
            head.write(Head {
                first: Link { next: node(0) },
                word_offset: distance.cast_signed() as libc::c_long,
                pending: std::ptr::null_mut(),
            });
            head.cast()
        }
    }

    fn word(&self, index: usize) -> Option<&AtomicU32> {
        let usable = index < self.count && !self.born.crossed_fork();
        usable.then(|| {
            let offset = self.private_bytes + self.first_word + index * STRIDE;
            // SAFETY: the word lies in the shared half, whose size was computed from `first_word` and `count`
            // and whose memory reaches that far (checked in `DeathWords::map`, and sealed); `first_word` is a
            // multiple of STRIDE, so it is aligned; atomics may be written by other processes.
            unsafe { self.base.add(offset).cast::<AtomicU32>().as_ref() }
        })
    }

    /// Write all words and wake who sleeps on them.
    fn set_all(&self, value: u32) {
        for word in (0..self.count).filter_map(|index| self.word(index)) {
            // Release: who sees us gone sees what we published before.
            word.store(value, Ordering::Release);
            futex::wake_all(word);
        }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        if self.born.crossed_fork() {
            return; // The range does not exist here, or is by now somebody else's.
        }
        // SAFETY: the range was mapped by `Region::map` in this process and is owned by this value; a list
        // registered from it keeps it alive through `Held`.
        let _ = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.total_bytes) };
    }
}

/// The list that the calling thread has registered.
fn registered_list() -> Result<RegisteredList, OsError> {
    let mut list = RegisteredList { head: std::ptr::null_mut(), length: 0 };
    // SAFETY: thread 0 means the calling one, and both places are valid for the answers.
    let answer =
        unsafe { libc::syscall(libc::SYS_get_robust_list, 0, &raw mut list.head, &raw mut list.length) };
    if answer == 0 { Ok(list) } else { Err(OsError::last("get_robust_list", "this thread")) }
}

/// Register a list for the calling thread.
fn register(list: RegisteredList) -> Result<(), OsError> {
    // SAFETY: the kernel only notes the address. It reads the list at this thread's end: it is either the one
    // that the thread's runtime had registered itself, or one that `Held` keeps alive until it is taken off.
    let answer = unsafe { libc::syscall(libc::SYS_set_robust_list, list.head, list.length) };
    if answer == 0 { Ok(()) } else { Err(OsError::last("set_robust_list", "this thread")) }
}

/// Whether robust lists are there; asked once, by [`features`](crate::features).
pub(crate) fn probe() -> bool {
    registered_list().and_then(|list| register(RegisteredList { length: size_of::<Head>(), ..list })).is_ok()
}
