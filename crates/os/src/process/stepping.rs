//! Counting the instructions of one thread, by stepping it one at a time.
//!
//! Used by the check of instruction counts. A child asks to be stepped ([`be_stepped`]) and marks where sections begin and
//! end ([`mark`]); its parent follows it and gives the number of instructions of each section ([`count_sections`]). Only the thread
//! that asked is stepped: the child's other threads run as ever. Nothing is needed of the processor (a virtual machine seldom
//! lends its counters) nor of the system beyond `ptrace` on an own child.
//!
//! The invariant: between two marks every instruction of that thread, and no other's, is counted once. What the marks
//! themselves cost is the same for each section: measure an empty one and take it off. Where a processor repeats one instruction
//! (`rep movsb`), each repetition counts.

#![allow(unsafe_code)]

use std::ptr;

use super::{Signal, kill};
use crate::OsError;

/// The signal by which a thread that is stepped marks a section's border. It never reaches the program.
const MARK: i32 = libc::SIGSTOP;

/// Be stepped by the parent from now on: the calling thread, until it ends.
///
/// # Errors
/// Permission denied where a sandbox forbids `ptrace`, or when somebody (a debugger) follows this thread already.
pub fn be_stepped() -> Result<(), OsError> {
    // SAFETY: takes no memory; the request has no other argument.
    if unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) } == -1 {
        return Err(OsError::last("ptrace(PTRACE_TRACEME)", "a thread to be stepped"));
    }
    Ok(())
}

/// Begin a section, or end it. For a thread that is stepped; any other would stop for good.
#[inline(never)]
pub fn mark() {
    // SAFETY: takes numbers only; the signal goes to this very thread, whose follower takes it away.
    unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), libc::gettid(), MARK) };
}

/// Follow the child `pid` until it ends: how it ended, as a shell says it, and the number of instructions of each of
/// its sections.
///
/// # Errors
/// When `pid` is no child of the calling thread that asked to be stepped. The child is ended then.
pub fn count_sections(pid: u32) -> Result<(i32, Vec<u64>), OsError> {
    let child = pid.cast_signed();
    let followed = follow(child);
    if followed.is_err() {
        // It may stand still at a mark, where nobody else can move it.
        let _ = kill(pid, Signal::Kill);
    }
    followed
}

fn follow(child: i32) -> Result<(i32, Vec<u64>), OsError> {
    let mut sections = Vec::new();
    let mut open: Option<u64> = None;
    loop {
        let status = wait(child)?;
        if libc::WIFEXITED(status) {
            return Ok((libc::WEXITSTATUS(status), sections));
        }
        if libc::WIFSIGNALED(status) {
            return Ok((128 + libc::WTERMSIG(status), sections));
        }
        let deliver = match libc::WSTOPSIG(status) {
            libc::SIGTRAP => {
                open = open.map(|count| count + 1);
                0
            }
            MARK => {
                match open.take() {
                    Some(count) => sections.push(count),
                    None => open = Some(0),
                }
                0
            }
            other => other,
        };
        let request = if open.is_some() { libc::PTRACE_SINGLESTEP } else { libc::PTRACE_CONT };
        // SAFETY: the child stands still, as wait() said; the kernel takes numbers only, and no address.
        let moved = unsafe {
            libc::ptrace(
                request,
                child,
                ptr::null_mut::<libc::c_void>(),
                deliver as usize as *mut libc::c_void,
            )
        };
        if moved == -1 {
            return Err(OsError::last("ptrace", format!("moving {child} on")));
        }
    }
}

fn wait(child: i32) -> Result<i32, OsError> {
    let mut status = 0;
    // SAFETY: `status` outlives the call, which writes an int to it.
    while unsafe { libc::waitpid(child, &raw mut status, libc::__WALL) } == -1 {
        let error = OsError::last("waitpid", format!("{child}, to be stepped"));
        if error.errno != libc::EINTR {
            return Err(error);
        }
    }
    Ok(status)
}
