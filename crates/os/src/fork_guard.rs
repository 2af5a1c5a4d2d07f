//! Telling a forked child from its parent, cheaply enough to ask on every call.
//!
//! What this crate maps does not exist in a forked child (`MADV_DONTFORK`), so code that runs there by
//! accident must find out before it touches memory, and destructors must not unmap a range that is somebody
//! else's by now. A private page that the kernel wipes in the child holds a number: in a child it is zero
//! until the child asks for the first time and gets a number of its own.
//!
//! The one invariant that matters: **two processes on the two sides of a fork never hold the same
//! [`ForkMark`] as current**. Things that belong to one process keep the mark of their birth and ask it
//! whether it is still true.

#![allow(unsafe_code)]

use std::ptr::NonNull;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::mm::{Advice, MapFlags, ProtFlags};

use crate::features::{self, Known};

/// Bytes of the wiped area; only the first eight are used, the kernel rounds up to a page.
const AREA: usize = 4096;

/// Numbers given out so far. A child inherits the value, so what it counts up to is new to both.
static NUMBERS: AtomicU64 = AtomicU64::new(0);

/// Says whether this process was forked after the guard had been set up.
#[derive(Debug)]
pub struct ForkGuard {
    method: Method,
    first: ForkMark,
}

/// The process at one moment. See [`ForkMark::crossed_fork`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForkMark(u64);

#[derive(Debug)]
enum Method {
    /// The kernel wipes this word in a child.
    WipedWord(NonNull<AtomicU64>),
    /// Without the feature: the process's number, which is a system call on every question.
    ProcessNumber,
}

// SAFETY: the pointer is to an atomic in memory that is never unmapped; atomics may be shared by threads.
unsafe impl Send for ForkGuard {}
// SAFETY: as above.
unsafe impl Sync for ForkGuard {}

impl ForkGuard {
    /// The guard of this process, set up on the first call.
    ///
    /// It never fails: where the kernel cannot wipe a page, process numbers are compared.
    #[inline]
    pub fn global() -> &'static ForkGuard {
        static GUARD: OnceLock<ForkGuard> = OnceLock::new();
        GUARD.get_or_init(|| {
            let wiped = if features::has(Known::WipeOnFork) { map_wiped_word() } else { None };
            ForkGuard::with(wiped.map_or(Method::ProcessNumber, Method::WipedWord))
        })
    }

    fn with(method: Method) -> ForkGuard {
        let mut guard = ForkGuard { method, first: ForkMark(0) };
        guard.first = guard.mark();
        guard
    }

    /// Whether this process is a child, forked (in one or more steps) from the process that set the guard up.
    #[inline]
    pub fn is_forked_child(&self) -> bool {
        self.mark() != self.first
    }

    /// The mark of this process, to be kept by whatever does not survive a fork.
    #[inline]
    pub fn mark(&self) -> ForkMark {
        match self.method {
            Method::WipedWord(word) => {
                // SAFETY: the word lies at the start of a page that `map_wiped_word` mapped for good.
                mark_in(unsafe { word.as_ref() })
            }
            Method::ProcessNumber => ForkMark(u64::from(std::process::id())),
        }
    }
}

impl ForkMark {
    /// The mark of this process now.
    #[inline]
    pub fn now() -> ForkMark {
        ForkGuard::global().mark()
    }

    /// Whether a fork lies between the moment of this mark and the process that asks.
    #[inline]
    pub fn crossed_fork(self) -> bool {
        self != ForkMark::now()
    }
}

/// The number in the word; a wiped word gets a new one. Threads of a child may race here: one of them wins,
/// and the others take its number.
#[inline]
fn mark_in(word: &AtomicU64) -> ForkMark {
    match word.load(Ordering::Relaxed) {
        0 => {
            let fresh = NUMBERS.fetch_add(1, Ordering::Relaxed) + 1;
            match word.compare_exchange(0, fresh, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => ForkMark(fresh),
                Err(theirs) => ForkMark(theirs),
            }
        }
        number => ForkMark(number),
    }
}

/// A private word that is zero in every child, or `None` where the kernel does not do that.
fn map_wiped_word() -> Option<NonNull<AtomicU64>> {
    // SAFETY: a new private mapping at an address of the kernel's choice touches nothing that exists.
    let area = unsafe {
        rustix::mm::mmap_anonymous(
            std::ptr::null_mut(),
            AREA,
            ProtFlags::READ | ProtFlags::WRITE,
            MapFlags::PRIVATE,
        )
    }
    .ok()?;
    if advise_wipe_on_fork(area) {
        return NonNull::new(area.cast());
    }
    // SAFETY: the area was mapped above and no pointer to it has left this function.
    let _ = unsafe { rustix::mm::munmap(area, AREA) };
    None
}

fn advise_wipe_on_fork(area: *mut libc::c_void) -> bool {
    // SAFETY: the advice changes what a child will see in our own page, not the page.
    unsafe { rustix::mm::madvise(area, AREA, Advice::LinuxWipeOnFork) }.is_ok()
}

/// Whether `MADV_WIPEONFORK` (4.14) is there and meant seriously; asked once, by [`features`].
///
/// Some emulators answer yes to any advice; one that does not exist tells them.
pub(crate) fn probe_wipe_on_fork() -> bool {
    let Some(word) = map_wiped_word() else { return false };
    let area = word.as_ptr().cast::<libc::c_void>();
    // SAFETY: an advice that no kernel knows is refused, and changes nothing, on our own page.
    let honest = unsafe { libc::madvise(area, AREA, -1) } != 0;
    // SAFETY: the area was mapped above and nobody else knows of it.
    let _ = unsafe { rustix::mm::munmap(area, AREA) };
    honest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit_code_of_forked(child: impl FnOnce() -> i32) -> i32 {
        // SAFETY: the child only reads memory, makes system calls and ends by `_exit`; no lock is taken.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            let code = child();
            // SAFETY: ends the child without running anything of the test process.
            unsafe { libc::_exit(code) };
        }
        let mut status = 0;
        // SAFETY: `status` is a valid place for the answer and `pid` is our own child.
        assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
        libc::WEXITSTATUS(status)
    }

    fn a_child_is_told_apart(guard: &ForkGuard) {
        let mark = guard.mark();
        assert!(!guard.is_forked_child());
        let code = exit_code_of_forked(|| {
            let first_look = guard.is_forked_child();
            let own = guard.mark();
            i32::from(first_look && own != mark && own == guard.mark() && guard.is_forked_child())
        });
        assert_eq!(code, 1, "the child took itself for its parent");
        assert!(!guard.is_forked_child() && guard.mark() == mark, "the parent's mark moved");
    }

    #[test]
    fn a_forked_child_knows_itself() {
        a_child_is_told_apart(ForkGuard::global());
    }

    #[test]
    fn a_forked_child_knows_itself_without_the_kernel_feature() {
        a_child_is_told_apart(&ForkGuard::with(Method::ProcessNumber));
    }

    #[test]
    fn a_grandchild_differs_from_the_child() {
        let guard = ForkGuard::global();
        let code = exit_code_of_forked(|| {
            let mark = guard.mark();
            exit_code_of_forked(|| i32::from(mark.crossed_fork() && guard.is_forked_child()))
        });
        assert_eq!(code, 1);
    }
}
