//! A lock and its condition, on which a thread may sleep while another one forks.
//!
//! The standard library's locks are words that sleepers wait at in the kernel: a forked child, which has none of the threads that
//! slept, finds nothing of them. (A lock that keeps its sleepers in a table of the process, as `parking_lot`'s does, leaves the child
//! with a table of threads that do not exist, whose memory its own threads will use again.) So whatever a thread may wait at
//! for long is one of these. The invariant: a lock is taken whatever happened to who held it before; nothing is left half changed
//! by a panic where these are used.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Take the lock.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Give the lock back and sleep until the condition is notified, or until then; take the lock again. It may return early.
pub fn wait_until<'m, T>(
    condition: &Condvar,
    guard: MutexGuard<'m, T>,
    until: Option<Instant>,
) -> MutexGuard<'m, T> {
    match until {
        None => condition.wait(guard).unwrap_or_else(PoisonError::into_inner),
        Some(until) => {
            let left = until.saturating_duration_since(Instant::now());
            condition.wait_timeout(guard, left).unwrap_or_else(PoisonError::into_inner).0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_change_wakes_who_waits_and_time_does() {
        let (mutex, condition) = (Mutex::new(false), Condvar::new());
        let start = Instant::now();
        let guard = wait_until(&condition, lock(&mutex), Some(start + Duration::from_millis(20)));
        assert!(!*guard);
        drop(guard);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                *lock(&mutex) = true;
                condition.notify_all();
            });
            let mut guard = lock(&mutex);
            while !*guard {
                guard = wait_until(&condition, guard, None);
            }
        });
    }

    #[test]
    fn a_lock_whose_holder_panicked_can_be_taken() {
        let mutex = Mutex::new(1);
        let _ = std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    let _guard = lock(&mutex);
                    panic!("while it holds the lock");
                })
                .join()
        });
        assert_eq!(*lock(&mutex), 1);
    }
}
