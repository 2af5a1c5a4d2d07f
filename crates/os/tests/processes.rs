//! Promises that take two processes: waking across them, forking, foreign users.

#![allow(clippy::unwrap_used, reason = "all of this file is tests")]
#![allow(unsafe_code)]

mod common;

use std::os::fd::AsFd;
use std::sync::atomic::Ordering;
use std::time::Duration;

use common::{argument, as_user, handed_over, is_root, play, wait_for};
use unisono_os::futex::{self, Wake};
use unisono_os::mapping::{Access, Mapping};
use unisono_os::named::{self, NamedError};
use unisono_os::{features, memfd, process};

const BYTES: usize = 65536;
const GO: usize = 0;
const BACK: usize = 64;
const ROUNDS: u32 = 200;

#[test]
#[ignore = "a role: answers each new value of one word by the same value of another"]
fn role_echo() {
    if argument().is_none() {
        return;
    }
    let memory = handed_over();
    memfd::verify_sealed(memory.as_fd(), BYTES).unwrap();
    let mapping = Mapping::shared(memory.as_fd(), 0, BYTES, Access::ReadWrite).unwrap();
    let (go, back) = (mapping.atomic_u32(GO).unwrap(), mapping.atomic_u32(BACK).unwrap());
    for round in 1..=ROUNDS {
        while go.load(Ordering::Acquire) != round {
            assert_ne!(futex::wait(go, round - 1, Some(Duration::from_secs(30))), Wake::TimedOut);
        }
        back.store(round, Ordering::Release);
        futex::wake_one(back);
    }
}

#[test]
fn two_processes_wake_each_other() {
    let memory = memfd::create_sealed("unisono-test", BYTES).unwrap();
    let mapping = Mapping::shared(memory.as_fd(), 0, BYTES, Access::ReadWrite).unwrap();
    let mut child = play("role_echo", Some(memory), "");
    let (go, back) = (mapping.atomic_u32(GO).unwrap(), mapping.atomic_u32(BACK).unwrap());
    for round in 1..=ROUNDS {
        go.store(round, Ordering::Release);
        futex::wake_all(go);
        while back.load(Ordering::Acquire) != round {
            let ended = if futex::can_wait_any() && round % 2 == 0 {
                let words = [(go, round), (back, round - 1)];
                let ended = futex::wait_any(&words, Some(Duration::from_secs(30))).unwrap();
                assert_ne!(ended, futex::WaitAny::TimedOut);
                continue;
            } else {
                futex::wait(back, round - 1, Some(Duration::from_secs(30)))
            };
            assert_ne!(ended, Wake::TimedOut, "round {round}");
        }
    }
    assert!(child.wait().unwrap().success());
}

/// Whether the byte at this address is mapped.
fn is_mapped(place: *mut u8) -> bool {
    let mut resident = 0_u8;
    // SAFETY: the system only answers about the page; an address that is not mapped is an error.
    unsafe { libc::mincore(place.cast(), 1, (&raw mut resident).cast()) == 0 }
}

#[test]
fn a_forked_child_has_no_mapping_and_dropping_it_unmaps_nothing() {
    let mapping = Mapping::anonymous(BYTES).unwrap();
    let place = mapping.as_ptr();
    // Emulators ignore advice: there the range stays mapped, and is refused all the same.
    let advice_counts = features::has(features::Known::WipeOnFork);
    // SAFETY: the child makes system calls only, takes no lock and ends by `_exit`.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        let absent = !(advice_counts && is_mapped(place)) && mapping.atomic_u32(0).is_none();
        // Somebody else moves into the range that the parent uses.
        // SAFETY: nothing is mapped there in this process, as was just seen.
        let moved_in = unsafe {
            libc::mmap(
                place.cast(),
                BYTES,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED,
                -1,
                0,
            )
        };
        drop(mapping);
        let kept = moved_in == place.cast() && is_mapped(place);
        // SAFETY: ends the child without running anything of the test process.
        unsafe { libc::_exit(i32::from(absent) | i32::from(kept) << 1) };
    }
    let mut status = 0;
    // SAFETY: `status` is a valid place for the answer and `pid` is our own child.
    assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
    assert_eq!((libc::WIFEXITED(status), libc::WEXITSTATUS(status)), (true, 0b11));
    assert!(is_mapped(place));
    drop(mapping);
    assert!(!is_mapped(place));
}

#[test]
fn a_forked_child_may_map_and_unmap_anew() {
    // What is found out once is found out before the fork: another thread might be about to, and the child would wait for it.
    drop(Mapping::anonymous(BYTES).unwrap());
    // SAFETY: the child makes system calls only, takes no lock and ends by `_exit`.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        let unmapped = Mapping::anonymous(BYTES).is_ok_and(|mapping| {
            let place = mapping.as_ptr();
            let there = is_mapped(place) && mapping.atomic_u32(0).is_some();
            drop(mapping);
            there && !is_mapped(place)
        });
        // SAFETY: ends the child without running anything of the test process.
        unsafe { libc::_exit(i32::from(unmapped)) };
    }
    let mut status = 0;
    // SAFETY: `status` is a valid place for the answer and `pid` is our own child.
    assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
    assert_eq!((libc::WIFEXITED(status), libc::WEXITSTATUS(status)), (true, 1));
}

#[test]
fn a_named_object_of_another_user_is_refused_from_both_sides() {
    if !is_root("a_named_object_of_another_user_is_refused_from_both_sides") {
        return;
    }
    let name = format!("unisono-test-foreign-{}", process::pid());
    let path = named::path_of(&name).unwrap();
    let _ours = named::create_exclusive(&name, 4096).unwrap();
    let as_nobody = as_user(65534, || (named::open(&name).unwrap_err(), named::unlink(&name).unwrap_err()));
    let expected = NamedError::ForeignOwner { path: path.clone(), expected: 65534, found: 0 };
    assert_eq!(as_nobody, (expected.clone(), expected));
    named::unlink(&name).unwrap();

    let _theirs = as_user(65534, || named::create_exclusive(&name, 4096)).unwrap();
    // Root could open it, and still does not use it.
    let refused = named::open(&name).unwrap_err();
    named::unlink(&name).unwrap();
    assert_eq!(refused, NamedError::ForeignOwner { path, expected: 0, found: 65534 });
}

#[test]
#[ignore = "a role: creates the named object it is told to and is killed"]
fn role_namer() {
    let Some(name) = argument() else { return };
    let _object = named::create_exclusive(&name, 4096).unwrap();
    loop {
        std::thread::sleep(Duration::from_secs(1000));
    }
}

#[test]
fn the_process_that_has_a_name_is_told_and_after_its_death_nobody() {
    let name = format!("unisono-test-namer-{}", process::pid());
    let path = named::path_of(&name).unwrap();
    let mut child = play("role_namer", None, &name);
    wait_for("the object", || path.exists());
    let Err(NamedError::AlreadyExists { holder, .. }) = named::create_exclusive(&name, 1) else { panic!() };
    assert_eq!(holder.pid, Some(child.id()));
    child.kill().unwrap();
    child.wait().unwrap();
    let Err(NamedError::AlreadyExists { holder, .. }) = named::create_exclusive(&name, 1) else { panic!() };
    assert_eq!(holder.pid, None);
    named::unlink(&name).unwrap();
}

#[test]
#[ignore = "a role: raises its priority and says whether it told the truth about it"]
fn role_hurried() {
    if argument().is_none() {
        return;
    }
    // A session of its own, so that the test's own priority stays as it is.
    process::new_session().unwrap();
    let raised = process::raise_priority();
    assert_eq!(raised.thread, rustix::process::getpriority_process(None).unwrap() == -20, "{raised:?}");
    let group = std::fs::read_to_string("/proc/self/autogroup").unwrap_or_default();
    assert_eq!(raised.session_group, group.trim().ends_with("nice -20"), "{raised:?}, {group}");
}

#[test]
fn what_is_said_about_a_raised_priority_is_so() {
    assert!(play("role_hurried", None, "").wait().unwrap().success());
}
