//! Stacks of loom's threads, used again.
//!
//! Loom runs a model hundreds of thousands of times, and in each run gives each of its threads a stack that is mapped, protected,
//! touched and unmapped: two thirds of a model's time. So what loom asks of the C library here finds these two functions first,
//! which keep a few stacks that are given back for the next who asks for one of that length. All else goes to the kernel.
//!
//! The invariant that matters: **what is handed out nobody else has**, and it is as the caller protects it; that it is not zero
//! is what stacks never are after their first use. Each thread of the operating system, that is each model, has its own.

use std::cell::Cell;
use std::ffi::{c_int, c_long, c_void};
use std::ptr;

/// The flags with which stacks are mapped, and nothing else is: private, anonymous, stack.
const OF_STACKS: c_int = 0x2 | 0x20 | 0x20000;

/// Loom's threads have stacks of this many bytes, and a page that is protected.
const LENGTHS: std::ops::RangeInclusive<usize> = 0x8000..=0x20000;

/// As many as a model has threads.
const KEPT: usize = 8;

#[cfg(target_arch = "x86_64")]
const UNMAP: c_long = 11;
#[cfg(target_arch = "aarch64")]
const UNMAP: c_long = 215;

unsafe extern "C" {
    /// The C library's other name for `mmap` where addresses have 64 bits.
    fn mmap64(
        at: *mut c_void,
        length: usize,
        protection: c_int,
        flags: c_int,
        file: c_int,
        from: i64,
    ) -> *mut c_void;
    fn syscall(number: c_long, ...) -> c_long;
}

/// A stack, by address and length, or none.
type Stack = (*mut c_void, usize);
const NONE: Stack = (ptr::null_mut(), 0);

thread_local! {
    /// Mapped and handed out: only what is one of these is kept when it comes back.
    static LENT: Cell<[Stack; KEPT]> = const { Cell::new([NONE; KEPT]) };
    static FREE: Cell<[Stack; KEPT]> = const { Cell::new([NONE; KEPT]) };
}

fn put(place: &Cell<[Stack; KEPT]>, stack: Stack) -> bool {
    let mut all = place.get();
    let room = all.iter_mut().find(|one| **one == NONE);
    let found = room.map(|room| *room = stack).is_some();
    place.set(all);
    found
}

fn take(place: &Cell<[Stack; KEPT]>, is_wanted: impl Fn(Stack) -> bool) -> Option<Stack> {
    let mut all = place.get();
    let one = all.iter_mut().find(|one| **one != NONE && is_wanted(**one))?;
    let stack = std::mem::replace(one, NONE);
    place.set(all);
    Some(stack)
}

/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
unsafe extern "C" fn mmap(
    at: *mut c_void,
    length: usize,
    protection: c_int,
    flags: c_int,
    file: c_int,
    from: i64,
) -> *mut c_void {
    let is_stack = at.is_null() && flags == OF_STACKS && LENGTHS.contains(&length);
    let kept = is_stack.then(|| FREE.with(|free| take(free, |stack| stack.1 == length))).flatten();
    // SAFETY: the caller's promise.
    let found =
        kept.map_or_else(|| unsafe { mmap64(at, length, protection, flags, file, from) }, |stack| stack.0);
    if is_stack && found.addr() != usize::MAX {
        LENT.with(|lent| put(lent, (found, length)));
    }
    found
}

/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
unsafe extern "C" fn munmap(at: *mut c_void, length: usize) -> c_int {
    let lent = LENT.with(|lent| take(lent, |stack| stack == (at, length)));
    if lent.is_some_and(|stack| FREE.with(|free| put(free, stack))) {
        return 0;
    }
    // SAFETY: the caller's promise; the number is that of `munmap`, which takes these two.
    let ended = unsafe { syscall(UNMAP, at, length) };
    c_int::from(ended == 0) - 1
}
