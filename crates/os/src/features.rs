//! Which newer kernel features are there, each really tried, once.
//!
//! Version numbers lie: distributions port features back, sandboxes forbid calls, emulators lack some. So the
//! modules of this crate ask here, and here the call is made and its answer remembered. `unisono doctor`
//! prints the table. The invariant: **a feature that is absent is never an error for the caller**: the column
//! `fall_back` says what happens instead, behind the same function.

use std::sync::atomic::{AtomicU8, Ordering};

use crate::{fork_guard, futex, mapping, memfd, pidfd, robust};

/// A kernel feature that this crate uses where it can.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// Seals on anonymous memory.
    MemfdSeals,
    /// Anonymous memory that can never be executed.
    NoExecSeal,
    /// A descriptor for a process.
    Pidfd,
    /// Sleeping on many words at once.
    FutexWaitv,
    /// Words that the kernel marks at a thread's death.
    RobustList,
    /// Pages that are wiped in a forked child.
    WipeOnFork,
    /// Allocating pages on request.
    PopulateWrite,
}

/// One line of the table of kernel features.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Feature {
    /// The name under which manual pages speak of it.
    pub name: &'static str,
    /// The first Linux release that has it.
    pub since_kernel: &'static str,
    /// Whether it works here: it was tried.
    pub present: bool,
    /// What is done without it.
    pub fall_back: &'static str,
}

struct Entry {
    known: Known,
    name: &'static str,
    since_kernel: &'static str,
    fall_back: &'static str,
    probe: fn() -> bool,
    answer: AtomicU8,
}

const NOT_ASKED: u8 = 0;
const PRESENT: u8 = 1;
const ABSENT: u8 = 2;

/// In the order of [`Known`], which is the index.
static TABLE: [Entry; 7] = [
    Entry {
        known: Known::MemfdSeals,
        name: "memfd_create with seals",
        since_kernel: "3.17",
        fall_back: "none: shared memory between processes needs it",
        probe: memfd::probe_seals,
        answer: AtomicU8::new(NOT_ASKED),
    },
    Entry {
        known: Known::NoExecSeal,
        name: "MFD_NOEXEC_SEAL",
        since_kernel: "6.3",
        fall_back: "memory is created without the seal against execution",
        probe: memfd::probe_noexec_seal,
        answer: AtomicU8::new(NOT_ASKED),
    },
    Entry {
        known: Known::Pidfd,
        name: "pidfd_open",
        since_kernel: "5.3",
        fall_back: "deaths are learnt from robust lists and closed sockets",
        probe: pidfd::probe,
        answer: AtomicU8::new(NOT_ASKED),
    },
    Entry {
        known: Known::FutexWaitv,
        name: "futex_waitv",
        since_kernel: "5.16",
        fall_back: "words are slept on one at a time, in short slices",
        probe: futex::probe_wait_any,
        answer: AtomicU8::new(NOT_ASKED),
    },
    Entry {
        known: Known::RobustList,
        name: "set_robust_list",
        since_kernel: "2.6.17",
        fall_back: "deaths are learnt from pidfds and closed sockets, after the dead process's memory is freed",
        probe: robust::probe,
        answer: AtomicU8::new(NOT_ASKED),
    },
    Entry {
        known: Known::WipeOnFork,
        name: "MADV_WIPEONFORK",
        since_kernel: "4.14",
        fall_back: "a forked child is recognised by its process number, a system call each time",
        probe: fork_guard::probe_wipe_on_fork,
        answer: AtomicU8::new(NOT_ASKED),
    },
    Entry {
        known: Known::PopulateWrite,
        name: "MADV_POPULATE_WRITE",
        since_kernel: "5.14",
        fall_back: "pages are touched one by one",
        probe: mapping::probe_populate,
        answer: AtomicU8::new(NOT_ASKED),
    },
];

/// Try every feature (or recall what was found before), for a table that a person reads.
pub fn probe() -> Vec<Feature> {
    TABLE
        .iter()
        .map(|entry| Feature {
            name: entry.name,
            since_kernel: entry.since_kernel,
            present: has(entry.known),
            fall_back: entry.fall_back,
        })
        .collect()
}

/// Whether a feature works here; tried on the first question.
pub fn has(known: Known) -> bool {
    #[cfg(test)]
    if pretence::is_absent(known) {
        return false;
    }
    let entry = &TABLE[known as usize];
    match entry.answer.load(Ordering::Relaxed) {
        PRESENT => true,
        ABSENT => false,
        _ => {
            let present = (entry.probe)();
            entry.answer.store(if present { PRESENT } else { ABSENT }, Ordering::Relaxed);
            present
        }
    }
}

/// For tests of the fall-backs: from now on, this process takes the feature for absent.
#[doc(hidden)]
pub fn pretend_absent_in_this_process(known: Known) {
    TABLE[known as usize].answer.store(ABSENT, Ordering::Relaxed);
}

/// The kernel's release, as `uname -r` prints it.
pub fn kernel_release() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

#[cfg(test)]
pub(crate) use pretence::pretend_absent;

/// For tests inside this crate, which run side by side: a pretence on one thread, undone at its end.
#[cfg(test)]
mod pretence {
    use super::Known;
    use std::cell::Cell;

    thread_local! {
        static ABSENT: Cell<Option<Known>> = const { Cell::new(None) };
    }

    pub(crate) struct Pretence;

    pub(crate) fn pretend_absent(known: Known) -> Pretence {
        ABSENT.set(Some(known));
        Pretence
    }

    pub(crate) fn is_absent(known: Known) -> bool {
        ABSENT.get() == Some(known)
    }

    impl Drop for Pretence {
        fn drop(&mut self) {
            ABSENT.set(None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_the_order_of_its_index() {
        for (index, entry) in TABLE.iter().enumerate() {
            assert_eq!(entry.known as usize, index, "{}", entry.name);
        }
    }

    #[test]
    fn every_feature_is_found_that_this_kernel_is_new_enough_for() {
        let version = |text: &str| -> (u32, u32) {
            let mut parts = text.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
            (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
        };
        // Emulators and sandboxes may lack any of them; the kernel itself may not.
        let emulated = std::env::var_os("UNISONO_TEST_RUNNER").is_some();
        for feature in probe() {
            println!("{feature:?}");
            if version(feature.since_kernel) > version(&kernel_release()) {
                assert!(!feature.present, "{} before its time", feature.name);
            } else if !emulated && !feature.present {
                eprintln!("LOUD: {} is missing on {}; a sandbox?", feature.name, kernel_release());
            }
        }
        assert!(has(Known::MemfdSeals), "nothing works without sealed memory");
    }

    #[test]
    fn a_pretence_ends() {
        let before = has(Known::MemfdSeals);
        {
            let _pretence = pretend_absent(Known::MemfdSeals);
            assert!(!has(Known::MemfdSeals));
        }
        assert_eq!(has(Known::MemfdSeals), before);
    }
}
