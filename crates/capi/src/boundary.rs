//! The way in and out: every function of the header runs in [`guard`], and looks at what it was given with the functions below.
//!
//! The one invariant that matters: **nothing unwinds into the caller**, and no pointer is followed before it was looked at: it is
//! not null, and it is aligned. That it points at what the header says is the caller's word.

#![allow(unsafe_code)]

use std::any::Any;
use std::borrow::Cow;
use std::ffi::{CStr, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use crate::error::remember;
use crate::problem::Problem;
use crate::status::unisono_status;

pub(crate) type Result<T, E = Problem> = std::result::Result<T, E>;

/// Do what a function of the header does: its error is remembered for the calling thread, and so is a panic.
#[inline]
pub(crate) fn guard(operation: &'static str, body: impl FnOnce() -> Result<()>) -> unisono_status {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => unisono_status::Ok,
        Ok(Err(problem)) => tell(problem),
        Err(panic) => tell(Problem::Panic { operation, message: message_of(panic) }),
    }
}

/// As [`guard`], for a function that cannot fail: what it gives if it panicked.
pub(crate) fn guard_or<T>(otherwise: T, body: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|panic| {
        std::mem::forget(panic);
        otherwise
    })
}

#[cold]
fn tell(problem: Problem) -> unisono_status {
    let status = problem.status();
    guard_or(status, || remember(problem));
    status
}

fn message_of(panic: Box<dyn Any + Send>) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    // What was thrown could panic again when it is dropped.
    std::mem::forget(panic);
    text.unwrap_or_else(|| "no message".to_string())
}

pub(crate) fn refused(operation: &'static str, problem: impl Into<String>) -> Problem {
    Problem::Argument { operation, problem: problem.into() }
}

fn check<T>(operation: &'static str, what: &str, pointer: *const T) -> Result<()> {
    if pointer.is_null() {
        return Err(refused(operation, format!("{what} is null")));
    }
    if !pointer.is_aligned() {
        return Err(refused(
            operation,
            format!("{what} ({pointer:p}) is not aligned: it was not made by this library"),
        ));
    }
    Ok(())
}

/// The object behind a handle.
///
/// # Safety
/// The handle is null, or one that this library gave out and that nobody frees meanwhile.
#[inline]
pub(crate) unsafe fn object<'a, T>(operation: &'static str, what: &str, handle: *const T) -> Result<&'a T> {
    check(operation, what, handle)?;
    // SAFETY: it is not null and aligned, and the caller vouches for the rest. Objects are only ever shared.
    Ok(unsafe { &*handle })
}

/// The place where a result is to go; it holds null until then.
///
/// # Safety
/// It is null, or may be written.
pub(crate) unsafe fn place<'a, T>(operation: &'static str, place: *mut *mut T) -> Result<Place<'a, T>> {
    check(operation, "the place for the result", place)?;
    // SAFETY: not null, aligned, and the caller may write there.
    unsafe { place.write(std::ptr::null_mut()) };
    Ok(Place { place, lives: std::marker::PhantomData })
}

/// Where a handle goes that the caller is to free.
pub(crate) struct Place<'a, T> {
    place: *mut *mut T,
    lives: std::marker::PhantomData<&'a mut T>,
}

impl<T> Place<'_, T> {
    pub(crate) fn put(self, object: T) {
        // SAFETY: as in `place`, which alone makes this.
        unsafe { self.place.write(Box::into_raw(Box::new(object))) }
    }
}

/// Take an object back and drop it.
///
/// # Safety
/// The handle is null, or one that this library gave out, that was not freed, and that nobody uses any more.
pub(crate) unsafe fn free<T>(handle: *mut T) {
    guard_or((), || {
        if !handle.is_null() && handle.is_aligned() {
            // SAFETY: it came from `Place::put`, and the caller gives it up.
            drop(unsafe { Box::from_raw(handle) });
        }
    });
}

/// Write a plain value to where the caller wants it.
///
/// # Safety
/// It is null, or may be written.
pub(crate) unsafe fn put<T: Copy>(
    operation: &'static str,
    what: &str,
    place: *mut T,
    value: T,
) -> Result<()> {
    check(operation, what, place)?;
    // SAFETY: not null, aligned, and the caller may write there.
    unsafe { place.write(value) };
    Ok(())
}

/// `length` numbers.
///
/// # Safety
/// The pointer is null, or that many may be read there as long as the slice lives.
pub(crate) unsafe fn array<'a, T: Copy>(
    operation: &'static str,
    what: &str,
    start: *const T,
    length: usize,
) -> Result<&'a [T]> {
    if length == 0 {
        return Ok(&[]);
    }
    check(operation, what, start)?;
    let fits = length.checked_mul(size_of::<T>()).is_some_and(|bytes| isize::try_from(bytes).is_ok());
    if !fits {
        return Err(refused(
            operation,
            format!("{what} of {length} elements does not fit the address space"),
        ));
    }
    // SAFETY: not null, aligned, no longer than memory can be, and the caller vouches for its contents.
    Ok(unsafe { std::slice::from_raw_parts(start, length) })
}

/// Text that ends with a zero byte; null is none, and so is an empty one.
///
/// # Safety
/// It is null, or text that lives as long as what is given.
pub(crate) unsafe fn text<'a>(
    operation: &'static str,
    what: &str,
    text: *const c_char,
) -> Result<Option<&'a str>> {
    if text.is_null() {
        return Ok(None);
    }
    // SAFETY: not null, and the caller vouches for a zero byte at its end.
    let text = unsafe { CStr::from_ptr(text) };
    match text.to_str() {
        Ok(text) => Ok(Some(text).filter(|text| !text.is_empty())),
        Err(error) => Err(refused(operation, format!("{what} is not text in UTF-8: {error}"))),
    }
}

/// A number of the caller's as a rank, a number of threads, …
pub(crate) fn index(operation: &'static str, what: &str, number: i32) -> Result<usize> {
    usize::try_from(number)
        .map_err(|_| refused(operation, format!("{what} is {number}: it cannot be negative")))
}

/// A time of the caller's; `None` is without end.
#[inline]
pub(crate) fn seconds(operation: &'static str, seconds: f64) -> Result<Option<Duration>> {
    if seconds < 0.0 {
        return Ok(None);
    }
    if seconds.is_nan() {
        return Err(refused(operation, "the time-out is not a number of seconds"));
    }
    // What a duration cannot hold is as good as without end.
    Ok(Duration::try_from_secs_f64(seconds).ok())
}

/// Fill a caller's array of characters with text that ends with a zero byte, cut to fit.
pub(crate) fn fill(characters: &mut [c_char], text: &str) {
    let mut end = text.len().min(characters.len().saturating_sub(1));
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    characters.fill(0);
    for (to, from) in characters.iter_mut().zip(&text.as_bytes()[..end]) {
        *to = from.cast_signed();
    }
}

/// Text as C has it: without the zero bytes that would end it too early.
pub(crate) fn c_string(text: &str) -> std::ffi::CString {
    let text: Cow<'_, str> = if text.contains('\0') { text.replace('\0', "?").into() } else { text.into() };
    std::ffi::CString::new(text.as_bytes()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_a_status() {
        let status = guard("test", || panic!("on purpose: {}", 7));
        assert_eq!(status, unisono_status::Panic);
        assert_eq!(guard("test", || Ok(())), unisono_status::Ok);
    }

    #[test]
    fn times_that_make_no_sense_are_refused() {
        assert_eq!(seconds("test", -1.0).unwrap(), None);
        assert_eq!(seconds("test", f64::INFINITY).unwrap(), None);
        assert_eq!(seconds("test", 1e300).unwrap(), None);
        assert_eq!(seconds("test", 0.5).unwrap(), Some(Duration::from_millis(500)));
        assert!(seconds("test", f64::NAN).is_err());
    }

    #[test]
    fn text_is_cut_at_a_whole_character_and_ended() {
        let mut characters = [1 as c_char; 6];
        fill(&mut characters, "abcdé!");
        assert_eq!(characters.map(|character| character as u8), *b"abcd\0\0");
    }

    #[test]
    fn null_and_crooked_pointers_are_refused() {
        // SAFETY: none of these is followed.
        unsafe {
            assert!(object::<u64>("test", "it", std::ptr::null()).is_err());
            assert!(object::<u64>("test", "it", std::ptr::without_provenance(4097)).is_err());
            assert!(array::<usize>("test", "it", std::ptr::null(), 1).is_err());
            assert!(array::<usize>("test", "it", std::ptr::dangling(), usize::MAX).is_err());
            assert!(array::<usize>("test", "it", std::ptr::null(), 0).unwrap().is_empty());
        }
    }
}
