//! Sleeping on a word of shared memory, and waking who sleeps on it.
//!
//! A waiter that has spun long enough sleeps here until the word is no longer what it saw; a publisher wakes
//! it. The one invariant that matters: **the kernel compares the word with the expected value and goes to
//! sleep as one step**, so a change made before the sleep is never slept through. All words here are keyed by
//! the memory behind them, not by address, so that processes that map the same memory at different places
//! meet.

use std::sync::atomic::AtomicU32;
use std::time::Duration;

use rustix::io::Errno;
use rustix::thread::futex as system;
use rustix::time::{ClockId, Timespec};

use crate::OsError;
use crate::features::{self, Known};

/// The most words that [`wait_any`] takes.
pub const MOST_WORDS: usize = 128;

/// How a wait on one word ended. In every case the caller looks at the word again: a wake-up is a hint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// Somebody woke us.
    Woken,
    /// The word was not the expected value, so there was no sleep.
    ValueChanged,
    /// The time ran out.
    TimedOut,
    /// A signal came, or the system cut the wait short for a reason of its own.
    Interrupted,
}

/// How a wait on several words ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitAny {
    /// Somebody woke us through the word with this index; others may have been woken too.
    Woken(usize),
    /// One of the words was not the expected value, so there was no sleep.
    ValueChanged,
    /// The time ran out.
    TimedOut,
    /// A signal came.
    Interrupted,
}

/// Sleep while `word` is `expected`, for at most `timeout` (`None`: without end).
pub fn wait(word: &AtomicU32, expected: u32, timeout: Option<Duration>) -> Wake {
    let timeout = timeout.and_then(timespec);
    match system::wait(word, system::Flags::empty(), expected, timeout.as_ref()) {
        Ok(()) => Wake::Woken,
        Err(Errno::AGAIN) => Wake::ValueChanged,
        Err(Errno::TIMEDOUT) => Wake::TimedOut,
        Err(_) => Wake::Interrupted,
    }
}

/// Wake all who sleep on `word`, in whatever process; one system call. Change the word first.
pub fn wake_all(word: &AtomicU32) {
    wake(word, i32::MAX.cast_unsigned());
}

/// Wake one of those who sleep on `word`. Change the word first.
pub fn wake_one(word: &AtomicU32) {
    wake(word, 1);
}

fn wake(word: &AtomicU32, sleepers: u32) {
    // The only answers that are errors speak of an invalid address, and a reference is a valid one.
    let _ = system::wake(word, system::Flags::empty(), sleepers);
}

/// Sleep while every word is what is expected of it, for at most `timeout` (`None`: without end).
///
/// # Errors
/// [`is_not_supported`](OsError::is_not_supported) where the kernel cannot (before 5.16, or forbidden in a
/// sandbox): wait for one word at a time, in slices. `EINVAL` for no word at all or more than [`MOST_WORDS`].
pub fn wait_any(words: &[(&AtomicU32, u32)], timeout: Option<Duration>) -> Result<WaitAny, OsError> {
    let context = || format!("{} words", words.len());
    if words.is_empty() || words.len() > MOST_WORDS {
        return Err(OsError::new("futex_waitv", libc::EINVAL, context()));
    }
    if !can_wait_any() {
        return Err(OsError::new("futex_waitv", libc::ENOSYS, context()));
    }
    let mut waiters = [system::Wait::new(); MOST_WORDS];
    for (waiter, (word, expected)) in waiters.iter_mut().zip(words) {
        waiter.val = u64::from(*expected);
        waiter.uaddr = system::WaitPtr::new(word.as_ptr().cast());
        waiter.flags = system::WaitFlags::SIZE_U32;
    }
    let until = timeout.and_then(absolute);
    match wait_for(&waiters[..words.len()], until.as_ref()) {
        Ok(index) => Ok(WaitAny::Woken(index)),
        Err(Errno::AGAIN) => Ok(WaitAny::ValueChanged),
        Err(Errno::TIMEDOUT) => Ok(WaitAny::TimedOut),
        Err(Errno::INTR) => Ok(WaitAny::Interrupted),
        Err(errno) => Err(OsError::from_errno("futex_waitv", errno, context())),
    }
}

/// Whether [`wait_any`] works here; asked of the kernel once.
pub fn can_wait_any() -> bool {
    features::has(Known::FutexWaitv)
}

fn wait_for(waiters: &[system::Wait], until: Option<&Timespec>) -> Result<usize, Errno> {
    system::waitv(waiters, system::WaitvFlags::empty(), until, ClockId::Monotonic)
}

/// Whether `futex_waitv` (5.16) is there; asked once, by [`features`].
///
/// A word that is not what is expected must be answered by "try again"; anything else is a kernel, an
/// emulator or a sandbox without it.
pub(crate) fn probe_wait_any() -> bool {
    let word = AtomicU32::new(0);
    let mut waiter = system::Wait::new();
    waiter.val = 1;
    waiter.uaddr = system::WaitPtr::new(word.as_ptr().cast());
    waiter.flags = system::WaitFlags::SIZE_U32;
    wait_for(&[waiter], None) == Err(Errno::AGAIN)
}

/// A span as the kernel wants it; `None`, which is without end, if it is longer than the kernel can count.
fn timespec(span: Duration) -> Option<Timespec> {
    Some(Timespec { tv_sec: i64::try_from(span.as_secs()).ok()?, tv_nsec: span.subsec_nanos().into() })
}

/// The moment on the monotonic clock that lies `span` from now; `None` if that is beyond all counting.
fn absolute(span: Duration) -> Option<Timespec> {
    let now = rustix::time::clock_gettime(ClockId::Monotonic);
    let since_start = Duration::new(u64::try_from(now.tv_sec).ok()?, u32::try_from(now.tv_nsec).ok()?);
    timespec(since_start.checked_add(span)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering;
    use std::time::Instant;

    #[test]
    fn a_changed_word_is_not_slept_on() {
        let word = AtomicU32::new(5);
        assert_eq!(wait(&word, 4, None), Wake::ValueChanged);
        assert_eq!(wait(&word, 4, Some(Duration::MAX)), Wake::ValueChanged);
    }

    #[test]
    fn a_wait_ends_with_its_time() {
        let word = AtomicU32::new(5);
        let start = Instant::now();
        assert_eq!(wait(&word, 5, Some(Duration::from_millis(30))), Wake::TimedOut);
        assert!(start.elapsed() >= Duration::from_millis(30));
    }

    #[test]
    fn a_sleeper_is_woken() {
        let word = AtomicU32::new(0);
        std::thread::scope(|scope| {
            let sleeper = scope.spawn(|| {
                while word.load(Ordering::Acquire) == 0 {
                    assert_ne!(wait(&word, 0, Some(Duration::from_secs(20))), Wake::TimedOut);
                }
            });
            std::thread::sleep(Duration::from_millis(20));
            word.store(1, Ordering::Release);
            wake_all(&word);
            sleeper.join().unwrap();
        });
    }

    #[test]
    fn one_of_many_words_wakes_and_is_named() {
        if !can_wait_any() {
            eprintln!("SKIPPED: this kernel has no futex_waitv");
            return;
        }
        let words: Vec<AtomicU32> = (0..MOST_WORDS).map(|_| AtomicU32::new(0)).collect();
        std::thread::scope(|scope| {
            let sleeper = scope.spawn(|| {
                let all: Vec<(&AtomicU32, u32)> = words.iter().map(|word| (word, 0)).collect();
                wait_any(&all, Some(Duration::from_secs(20))).unwrap()
            });
            std::thread::sleep(Duration::from_millis(50));
            words[77].store(1, Ordering::Release);
            wake_one(&words[77]);
            let ended = sleeper.join().unwrap();
            assert!(matches!(ended, WaitAny::Woken(77) | WaitAny::ValueChanged), "{ended:?}");
        });
    }

    #[test]
    fn waiting_for_any_ends_with_its_time_or_a_changed_word() {
        if !can_wait_any() {
            eprintln!("SKIPPED: this kernel has no futex_waitv");
            return;
        }
        let words = [AtomicU32::new(1), AtomicU32::new(2)];
        let both = |second| [(&words[0], 1), (&words[1], second)];
        let start = Instant::now();
        assert_eq!(wait_any(&both(2), Some(Duration::from_millis(30))), Ok(WaitAny::TimedOut));
        assert!(start.elapsed() >= Duration::from_millis(30));
        assert_eq!(wait_any(&both(3), None), Ok(WaitAny::ValueChanged));
        assert_eq!(wait_any(&both(3), Some(Duration::MAX)), Ok(WaitAny::ValueChanged));
    }

    #[test]
    fn no_words_and_too_many_words_are_errors() {
        let word = AtomicU32::new(0);
        assert_eq!(wait_any(&[], None).unwrap_err().errno, libc::EINVAL);
        assert_eq!(wait_any(&[(&word, 0); MOST_WORDS + 1], None).unwrap_err().errno, libc::EINVAL);
    }

    #[test]
    fn a_kernel_without_it_says_so() {
        let _pretence = features::pretend_absent(Known::FutexWaitv);
        let word = AtomicU32::new(0);
        assert!(wait_any(&[(&word, 1)], None).unwrap_err().is_not_supported());
    }
}
