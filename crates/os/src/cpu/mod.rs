//! Which processors this process may use, how much of them, and how they hang together.
//!
//! The library asks how many ranks can really run at once (a waiter spins only if its peers can), pins its
//! own threads, and looks at caches and memory nodes to describe a machine. The one invariant that matters:
//! answers speak of **what this process may use**, its affinity and its control groups' quotas, never of what
//! the machine has; only [`caches`], [`numa_nodes`] and [`model_name`] describe the machine.

#![allow(unsafe_code)]

mod quota;
mod topology;

pub use quota::{quota, quota_below};
pub use topology::{
    Cache, CacheKind, NumaNode, caches, caches_below, model_name, numa_nodes, numa_nodes_below,
};

use crate::OsError;

/// Processor sets grow up to this many bytes; the largest kernels are built for 8192 processors (1 KiB).
const LARGEST_SET: usize = 1 << 16;

/// The processors that the calling thread may run on, in order.
///
/// If the system does not say, what the standard library takes for the number of processors counts as
/// processors 0, 1, ….
pub fn allowed_cpus() -> Vec<usize> {
    let mut set = vec![0_u64; 16];
    loop {
        let bytes = size_of_val(set.as_slice());
        // SAFETY: thread 0 means the calling one; the kernel writes at most `bytes` bytes into the set.
        let answer = unsafe { libc::syscall(libc::SYS_sched_getaffinity, 0, bytes, set.as_mut_ptr()) };
        if answer > 0 {
            return members(&set);
        }
        let too_small = std::io::Error::last_os_error().raw_os_error() == Some(libc::EINVAL);
        if !too_small || bytes >= LARGEST_SET {
            let count = std::thread::available_parallelism().map_or(1, usize::from);
            return (0..count).collect();
        }
        set.resize(set.len() * 2, 0);
    }
}

/// Let the calling thread run on these processors only.
///
/// # Errors
/// `EINVAL` if none of them exists or may be used, or the list is empty.
pub fn pin_current_thread(cpus: &[usize]) -> Result<(), OsError> {
    let highest = cpus.iter().copied().max().unwrap_or(0);
    if highest >= LARGEST_SET * 8 {
        return Err(OsError::new("sched_setaffinity", libc::EINVAL, format!("cpu {highest}")));
    }
    let mut set = vec![0_u64; highest / 64 + 1];
    for cpu in cpus {
        set[cpu / 64] |= 1 << (cpu % 64);
    }
    let bytes = size_of_val(set.as_slice());
    // SAFETY: thread 0 means the calling one; the kernel reads `bytes` bytes of the set.
    let answer = unsafe { libc::syscall(libc::SYS_sched_setaffinity, 0, bytes, set.as_ptr()) };
    if answer == 0 { Ok(()) } else { Err(OsError::last("sched_setaffinity", format!("cpus {cpus:?}"))) }
}

/// The processor that the calling thread runs on now: a few nanoseconds, and out of date as soon as it is
/// known, unless the thread is pinned.
#[inline]
pub fn current_cpu() -> usize {
    // SAFETY: takes nothing and writes nothing; the runtime answers from memory that the kernel maintains.
    usize::try_from(unsafe { libc::sched_getcpu() }).unwrap_or(0)
}

/// How many processors the machine has, whoever may use them; at least those that the calling thread may run on.
pub fn online_cpus() -> usize {
    // SAFETY: takes a number and gives one.
    let online = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) };
    usize::try_from(online).unwrap_or(0).max(allowed_cpus().len())
}

/// How many processors' worth of time this process gets: those it may run on, or less if a quota says so.
pub fn usable_cores() -> f64 {
    let allowed = allowed_cpus().len() as f64;
    quota().map_or(allowed, |quota| quota.min(allowed))
}

fn members(set: &[u64]) -> Vec<usize> {
    (0..set.len() * 64).filter(|cpu| set[cpu / 64] >> (cpu % 64) & 1 == 1).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pinned_thread_runs_where_it_was_pinned() {
        for cpu in allowed_cpus() {
            std::thread::spawn(move || {
                pin_current_thread(&[cpu]).unwrap();
                assert_eq!(allowed_cpus(), [cpu]);
                assert_eq!(current_cpu(), cpu);
                assert!(usable_cores() <= 1.0);
            })
            .join()
            .unwrap();
        }
    }

    #[test]
    fn processors_that_do_not_exist_are_refused() {
        assert_eq!(pin_current_thread(&[]).unwrap_err().errno, libc::EINVAL);
        assert!(pin_current_thread(&[8191]).is_err());
        assert_eq!(pin_current_thread(&[usize::MAX]).unwrap_err().errno, libc::EINVAL);
    }

    #[test]
    fn sets_are_read_bit_by_bit() {
        assert_eq!(members(&[0b1011, 0, 1 << 63]), [0, 1, 3, 191]);
    }
}
