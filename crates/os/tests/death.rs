//! Promises about death words, kept between real processes that are really killed.

#![allow(clippy::unwrap_used, reason = "all of this file is tests")]
#![allow(unsafe_code)]

mod common;

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use common::{argument, handed_over, in_seconds, play, wait_for};
use unisono_os::mapping::{Access, Mapping};
use unisono_os::robust::{self, DeathWords, WordState};
use unisono_os::{OsError, features, futex, memfd, pidfd, poll, process};

const BYTES: usize = 4 * 65536;
/// A word by which the role says how far it is.
const PROGRESS: usize = 0;
/// Where the death words begin: not at a page, to show that they need not.
const WORDS: usize = 65536 + 128;
const COUNT: usize = 4;
const HOLDING: u32 = 1;
const RELEASED: u32 = 2;

fn words_of(mapping: &Mapping) -> [&AtomicU32; COUNT] {
    std::array::from_fn(|index| mapping.atomic_u32(WORDS + index * robust::STRIDE).unwrap())
}

fn states(mapping: &Mapping) -> [WordState; COUNT] {
    words_of(mapping).map(|word| robust::state(word.load(Ordering::Acquire)))
}

/// Robust lists cannot be had in some emulators: then `hold` has to say so, and there is nothing more to
/// test.
fn robust_lists_are_there() -> bool {
    let there = features::has(features::Known::RobustList);
    if !there {
        let memory = memfd::create_sealed("unisono-test", BYTES).unwrap();
        let words = DeathWords::map(memory.as_fd(), WORDS as u64, COUNT).unwrap();
        assert!(words.hold().unwrap_err().is_not_supported());
        eprintln!("SKIPPED: no robust lists here");
    }
    there
}

fn shared() -> (std::os::fd::OwnedFd, Mapping) {
    let memory = memfd::create_sealed("unisono-test", BYTES).unwrap();
    let mapping = Mapping::shared(memory.as_fd(), 0, BYTES, Access::ReadWrite).unwrap();
    (memory, mapping)
}

#[test]
#[ignore = "a role: holds its death words and as many MiB as it is told, until it is killed"]
fn role_holder() {
    let Some(mebibytes) = argument() else { return };
    let memory = handed_over();
    let mapping = Mapping::shared(memory.as_fd(), 0, BYTES, Access::ReadWrite).unwrap();
    let bulk = Mapping::anonymous(mebibytes.parse::<usize>().unwrap().max(1) << 20).unwrap();
    bulk.populate().unwrap();
    let words = DeathWords::map(memory.as_fd(), WORDS as u64, COUNT).unwrap();
    let _held = words.hold().unwrap();
    mapping.atomic_u32(PROGRESS).unwrap().store(HOLDING, Ordering::Release);
    loop {
        std::thread::sleep(Duration::from_secs(1000));
    }
}

#[test]
#[ignore = "a role: holds its death words, says goodbye and ends"]
fn role_leaver() {
    if argument().is_none() {
        return;
    }
    let memory = handed_over();
    let mapping = Mapping::shared(memory.as_fd(), 0, BYTES, Access::ReadWrite).unwrap();
    let words = DeathWords::map(memory.as_fd(), WORDS as u64, COUNT).unwrap();
    let held = words.hold().unwrap();
    let progress = mapping.atomic_u32(PROGRESS).unwrap();
    progress.store(HOLDING, Ordering::Release);
    wait_for("the sleeper to sleep", || progress.load(Ordering::Acquire) == RELEASED);
    held.release();
}

fn wait_until_holding(mapping: &Mapping) {
    let progress = mapping.atomic_u32(PROGRESS).unwrap();
    wait_for("the child to hold its words", || progress.load(Ordering::Acquire) == HOLDING);
}

/// Sleep on a word until it is no longer alive, and say when that was.
fn sleep_until_not_alive(word: &AtomicU32) -> Instant {
    loop {
        let value = word.load(Ordering::Acquire);
        if robust::state(value) != WordState::Alive {
            return Instant::now();
        }
        assert_ne!(futex::wait(word, value, Some(Duration::from_secs(30))), futex::Wake::TimedOut);
    }
}

#[test]
fn a_killed_process_is_marked_before_its_memory_is_freed() {
    if !robust_lists_are_there() {
        return;
    }
    let mut fastest = Duration::MAX;
    for _ in 0..3 {
        let (memory, mapping) = shared();
        assert_eq!(states(&mapping), [WordState::NotYet; COUNT]);
        let mut child = play("role_holder", Some(memory), "512");
        wait_until_holding(&mapping);
        assert_eq!(states(&mapping), [WordState::Alive; COUNT]);
        let watched = pidfd::open(child.id()).unwrap();
        let (by_word, by_pidfd, killed) = std::thread::scope(|scope| {
            let sleeper = scope.spawn(|| sleep_until_not_alive(words_of(&mapping)[2]));
            let poller = scope.spawn(|| {
                let found = poll::until_readable(&[watched.as_fd()], in_seconds(30)).unwrap();
                assert!(found[0].readable);
                // By the time the process counts as ended, every word has been marked.
                assert_eq!(states(&mapping), [WordState::Dead; COUNT]);
                Instant::now()
            });
            std::thread::sleep(Duration::from_millis(20));
            let killed = Instant::now();
            child.kill().unwrap();
            (sleeper.join().unwrap(), poller.join().unwrap(), killed)
        });
        child.wait().unwrap();
        println!(
            "killed with 512 MiB: word after {:?}, pidfd after {:?}",
            by_word - killed,
            by_pidfd - killed
        );
        fastest = fastest.min(by_word - killed);
    }
    assert!(fastest < Duration::from_millis(100), "the news took {fastest:?}");
}

#[test]
fn a_goodbye_is_no_death_and_wakes_the_sleeper() {
    if !robust_lists_are_there() {
        return;
    }
    let (memory, mapping) = shared();
    let mut child = play("role_leaver", Some(memory), "");
    wait_until_holding(&mapping);
    std::thread::scope(|scope| {
        let sleeper = scope.spawn(|| sleep_until_not_alive(words_of(&mapping)[0]));
        std::thread::sleep(Duration::from_millis(20));
        mapping.atomic_u32(PROGRESS).unwrap().store(RELEASED, Ordering::Release);
        sleeper.join().unwrap();
    });
    assert!(child.wait().unwrap().success());
    assert_eq!(states(&mapping), [WordState::Left; COUNT], "the end of a process that left is no news");
}

#[test]
fn a_peer_that_spoils_the_shared_page_does_not_stop_the_marking() {
    if !robust_lists_are_there() {
        return;
    }
    let (memory, mapping) = shared();
    let mut child = play("role_holder", Some(memory), "1");
    wait_until_holding(&mapping);
    let last = words_of(&mapping)[COUNT - 1].load(Ordering::Acquire);
    for offset in (65536..131072).step_by(8) {
        mapping.atomic_u64(offset).unwrap().store(u64::MAX, Ordering::Relaxed);
    }
    words_of(&mapping)[COUNT - 1].store(last, Ordering::Release);
    child.kill().unwrap();
    let status = child.wait().unwrap();
    assert_eq!(process::describe_exit(status), "SIGKILL");
    assert_eq!(robust::state(words_of(&mapping)[COUNT - 1].load(Ordering::Acquire)), WordState::Dead);
}

#[test]
fn the_end_of_the_holding_thread_is_marked_too() {
    if !robust_lists_are_there() {
        return;
    }
    let (memory, mapping) = shared();
    let words = DeathWords::map(memory.as_fd(), WORDS as u64, COUNT).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| std::mem::forget(words.hold().unwrap()));
    });
    wait_for("the kernel's mark", || states(&mapping) == [WordState::Dead; COUNT]);
}

#[test]
fn a_watcher_that_unwinds_marks_its_words_itself() {
    if !robust_lists_are_there() {
        return;
    }
    let (memory, mapping) = shared();
    let words = DeathWords::map(memory.as_fd(), WORDS as u64, COUNT).unwrap();
    let held = words.hold().unwrap();
    assert_eq!(words.hold().unwrap_err().errno, libc::EBUSY);
    assert_eq!(states(&mapping), [WordState::Alive; COUNT]);
    drop(held);
    assert_eq!(states(&mapping), [WordState::Dead; COUNT]);
    words.hold().unwrap().release();
    assert_eq!(states(&mapping), [WordState::Left; COUNT]);
}

#[test]
fn releasing_gives_the_thread_its_former_list_back() {
    if !robust_lists_are_there() {
        return;
    }
    let registered = || {
        let (mut head, mut length) = (0_usize, 0_usize);
        // SAFETY: thread 0 means the calling one, and both places are valid for the answers.
        let answer = unsafe { libc::syscall(libc::SYS_get_robust_list, 0, &raw mut head, &raw mut length) };
        assert_eq!(answer, 0);
        (head, length)
    };
    let (memory, _mapping) = shared();
    let words = DeathWords::map(memory.as_fd(), WORDS as u64, COUNT).unwrap();
    let before = registered();
    let held = words.hold().unwrap();
    assert_ne!(registered(), before);
    held.release();
    assert_eq!(registered(), before);
}

#[test]
fn a_forked_child_of_the_holder_neither_marks_nor_says_goodbye() {
    if !robust_lists_are_there() {
        return;
    }
    let (memory, mapping) = shared();
    let words = DeathWords::map(memory.as_fd(), WORDS as u64, COUNT).unwrap();
    let held = words.hold().unwrap();
    // SAFETY: the child makes system calls only, takes no lock and ends by `_exit`.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        let code = i32::from(words.word(0).is_none() && words.hold().is_err());
        held.release();
        drop(words);
        // SAFETY: ends the child without running anything of the test process.
        unsafe { libc::_exit(code) };
    }
    let mut status = 0;
    // SAFETY: `status` is a valid place for the answer and `pid` is our own child.
    assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
    assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 1, "{status:#x}");
    assert_eq!(states(&mapping), [WordState::Alive; COUNT]);
    held.release();
}

#[test]
fn words_that_the_memory_does_not_have_are_refused() {
    let memory = memfd::create_sealed("unisono-test", BYTES).unwrap();
    let map = |offset, count| DeathWords::map(memory.as_fd(), offset, count).map(|_| ());
    let errno = |result: Result<(), OsError>| result.unwrap_err().errno;
    assert_eq!(errno(map(0, 0)), libc::EINVAL);
    assert_eq!(errno(map(0, robust::MOST_WORDS + 1)), libc::EINVAL);
    assert_eq!(errno(map(32, 1)), libc::EINVAL);
    assert_eq!(errno(map(BYTES as u64 - 64, 2)), libc::ENXIO);
    map(BYTES as u64 - 64, 1).unwrap();
    map(0, robust::MOST_WORDS).unwrap();
}

#[test]
fn the_four_states_are_four_values() {
    let thread = unisono_os::thread::thread_id();
    assert_eq!(robust::state(0), WordState::NotYet);
    assert_eq!(robust::state(thread), WordState::Alive);
    assert_eq!(robust::state(thread | libc::FUTEX_WAITERS), WordState::Alive);
    assert_eq!(robust::state(libc::FUTEX_OWNER_DIED), WordState::Dead);
    assert_eq!(robust::state(libc::FUTEX_OWNER_DIED | libc::FUTEX_WAITERS), WordState::Dead);
    assert_eq!(robust::state(libc::FUTEX_WAITERS), WordState::Left);
    assert_eq!(robust::state(u32::MAX), WordState::Dead);
}
