//! The calling thread: its signals, its number, its name.
//!
//! Called by the watcher and by worker threads of the library, which must never run a handler of the program
//! they live in. The invariant: nothing here touches another thread.

#![allow(unsafe_code)]

use std::ffi::CString;

/// Signals that speak of a fault of the thread itself. They stay open: masked, they would kill the process
/// without the report that the runtime prints.
const FAULTS: [libc::c_int; 5] = [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGTRAP];

/// From now on no signal is delivered to the calling thread, but those that speak of a fault of its own.
/// The program's handlers run on its other threads, as they would without us.
pub fn mask_all_signals() {
    // SAFETY: `sigset_t` is plain data for which all bits zero is valid; it is filled by `sigfillset`.
    let mut all: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: `all` is a valid signal set for every call, and the signal numbers are valid; the last call
    // changes only this thread's mask and writes no former mask.
    unsafe {
        libc::sigfillset(&raw mut all);
        for fault in FAULTS {
            libc::sigdelset(&raw mut all, fault);
        }
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const all, std::ptr::null_mut());
    }
}

/// The kernel's number of the calling thread, in its process namespace.
pub fn thread_id() -> u32 {
    rustix::thread::gettid().as_raw_nonzero().get().cast_unsigned()
}

/// Name the calling thread, as `ps -T` and debuggers show it; cut after 15 bytes.
pub fn set_name(name: &str) {
    let cut: Vec<u8> = name.bytes().filter(|byte| *byte != 0).take(15).collect();
    if let Ok(name) = CString::new(cut) {
        let _ = rustix::thread::set_name(&name); // A name is a courtesy; no caller waits for it.
    }
}

/// Let another thread of this processor run, if there is one that may.
#[inline]
pub fn yield_now() {
    rustix::thread::sched_yield();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status_field(name: &str) -> String {
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line[name.len() + 1..].trim().to_owned()
    }

    #[test]
    fn all_signals_but_faults_are_masked_on_this_thread_alone() {
        let before = status_field("SigBlk");
        std::thread::spawn(|| {
            mask_all_signals();
            let masked = u64::from_str_radix(&status_field("SigBlk"), 16).unwrap();
            for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGCHLD, libc::SIGUSR1, libc::SIGPROF] {
                assert_ne!(masked & (1 << (signal - 1)), 0, "signal {signal} is open");
            }
            assert_eq!(masked & (1 << (libc::SIGSEGV - 1)), 0);
        })
        .join()
        .unwrap();
        assert_eq!(status_field("SigBlk"), before);
    }

    #[test]
    fn a_thread_has_a_number_and_a_name() {
        std::thread::spawn(|| {
            set_name("a name that is too long");
            assert_eq!(status_field("Name"), "a name that is");
            assert_eq!(status_field("Pid"), thread_id().to_string());
        })
        .join()
        .unwrap();
    }
}
