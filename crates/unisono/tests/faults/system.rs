//! The few calls of the system that only the fault tests make: fork with a body, changing the user, a filter on
//! system calls.
//!
//! They are declared here by hand, because the crates that wrap them belong to the floor below. The invariant: each
//! is safe from the outside; what must hold for the call is shown to hold in front of it.

#![allow(unsafe_code)]

use std::ffi::{c_char, c_int, c_long, c_uint, c_ulong};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

unsafe extern "C" {
    safe fn fork() -> c_int;
    safe fn _exit(code: c_int) -> !;
    safe fn close(descriptor: c_int) -> c_int;
    safe fn setuid(user: u32) -> c_int;
    safe fn alarm(seconds: u32) -> u32;
    fn memfd_create(name: *const c_char, flags: c_uint) -> c_int;
    fn waitpid(process: c_int, status: *mut c_int, options: c_int) -> c_int;
    fn prctl(option: c_int, ...) -> c_int;
    fn setrlimit(resource: c_int, limit: *const [u64; 2]) -> c_int;
    fn syscall(number: c_long, ...) -> c_long;
    fn setsockopt(socket: c_int, level: c_int, option: c_int, value: *const [c_int; 2], length: u32)
    -> c_int;
}

/// Close a connection as a machine does that knows nothing of it any more: by a reset, and nothing that is under way arrives.
pub(crate) fn reset(connection: std::net::TcpStream) {
    const SOCKET: c_int = 1;
    const LINGER: c_int = 13;
    let at_once = [1, 0];
    // SAFETY: the descriptor is open, and `at_once` has the two fields of the option, which the kernel only reads.
    let set = unsafe { setsockopt(connection.as_raw_fd(), SOCKET, LINGER, &raw const at_once, 8) };
    assert_eq!(set, 0, "a connection may be reset");
}

/// Run `body` in a forked child of this process, which then ends with the code that it returns, 20 seconds later at
/// the latest. Returns the child's number.
///
/// The child has one thread, the caller's copy: `body` must not wait for other threads of this process.
pub(crate) fn fork_child(body: impl FnOnce() -> i32) -> u32 {
    match fork() {
        0 => {
            alarm(20);
            _exit(body())
        }
        child => u32::try_from(child).expect("fork works"),
    }
}

/// Leave this process only `spare` descriptors to open, as long as the result lives.
pub(crate) fn take_descriptors(spare: usize) -> Vec<std::fs::File> {
    const RLIMIT_NOFILE: c_int = 7;
    let few = [256u64; 2];
    // SAFETY: `few` has the two fields of a limit, which the kernel only reads.
    let lowered = unsafe { setrlimit(RLIMIT_NOFILE, &raw const few) };
    assert_eq!(lowered, 0, "a limit can be lowered");
    let mut taken: Vec<_> = std::iter::from_fn(|| std::fs::File::open("/dev/null").ok()).collect();
    taken.truncate(taken.len() - spare);
    taken
}

/// Fork a child that keeps all sockets of this process open and sleeps, for 20 seconds at most. Its standard streams
/// are closed, so that nobody waits for their end because of it.
pub(crate) fn fork_sleeping_child() -> u32 {
    fork_child(|| {
        for descriptor in 0..3 {
            close(descriptor);
        }
        std::thread::sleep(Duration::from_secs(60));
        0
    })
}

/// Wait for a child's end and give its exit code; `None` if a signal ended it.
pub(crate) fn exit_code_of(child: u32) -> Option<i32> {
    let mut status = 0;
    // SAFETY: `status` is a valid place for the answer.
    let waited = unsafe { waitpid(child.cast_signed(), &raw mut status, 0) };
    assert_eq!(waited, child.cast_signed(), "the child can be waited for");
    (status & 0x7f == 0).then_some(status >> 8 & 0xff)
}

/// Become another user for good.
pub(crate) fn become_user(user: u32) {
    assert_eq!(setuid(user), 0, "changing the user needs root: run these tests as root");
}

/// Anonymous memory that can still be cut off: sealing is allowed, and was not done.
pub(crate) fn memory_without_seals() -> OwnedFd {
    const ALLOW_SEALING: c_uint = 2;
    // SAFETY: the name is a string that ends in a zero byte.
    let descriptor = unsafe { memfd_create(c"unsealed".as_ptr(), ALLOW_SEALING) };
    assert!(descriptor >= 0, "anonymous memory can be made");
    // SAFETY: the descriptor was made above and belongs to nobody else.
    unsafe { OwnedFd::from_raw_fd(descriptor) }
}

/// One instruction of a filter on system calls, as the kernel lays it out.
#[repr(C)]
struct Instruction {
    code: u16,
    if_true: u8,
    if_false: u8,
    operand: u32,
}

#[repr(C)]
struct Program {
    length: u16,
    instructions: *const Instruction,
}

/// Calls by which a thread waits, offers its processor to others or wakes somebody: `futex`, `futex_waitv`,
/// `sched_yield`, `nanosleep`, `clock_nanosleep`, `poll`, `ppoll`, `epoll_wait`, `epoll_pwait`, `recvmsg`, `sendmsg`.
#[cfg(target_arch = "x86_64")]
const WAITS_AND_WAKES: [u32; 11] = [202, 449, 24, 35, 230, 7, 271, 232, 281, 47, 46];
/// The same, where some have been left out of the newer architectures.
#[cfg(target_arch = "aarch64")]
const WAITS_AND_WAKES: [u32; 8] = [98, 449, 124, 101, 115, 73, 22, 212];

/// `exit_group`, by which a process ends.
#[cfg(target_arch = "x86_64")]
const END: u32 = 231;
#[cfg(target_arch = "aarch64")]
const END: u32 = 94;

/// End this process at once, with this code.
pub(crate) fn end(code: i32) -> ! {
    _exit(code)
}

/// What a filter does with a system call.
const ALLOW: u32 = 0x7fff_0000;
const KILL_PROCESS: u32 = 0x8000_0000;

/// From now on the calling thread is killed, with its process, when it makes a system call that waits for somebody or
/// wakes somebody. There is no way back.
pub(crate) fn kill_on_waits_and_wakes() {
    install_filter(&WAITS_AND_WAKES, KILL_PROCESS, ALLOW);
}

/// From now on the calling thread is killed, with its process, at any system call but the one that [`end`] makes.
pub(crate) fn kill_on_any_call_but_the_end() {
    install_filter(&[END], ALLOW, KILL_PROCESS);
}

fn install_filter(calls: &[u32], of_these: u32, of_others: u32) {
    const NO_NEW_PRIVILEGES: c_int = 38;
    const LOAD_NUMBER: u16 = 0x20; // the word at an offset of the call's description; its number lies at 0
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    const SET_FILTER: c_long = 1;
    #[cfg(target_arch = "x86_64")]
    const SECCOMP: c_long = 317;
    #[cfg(target_arch = "aarch64")]
    const SECCOMP: c_long = 277;
    let step = |code, operand| Instruction { code, if_true: 0, if_false: 0, operand };
    let mut filter = vec![step(LOAD_NUMBER, 0)];
    for (index, number) in calls.iter().enumerate() {
        // Over the calls that are left and over the instruction for others.
        let to_the_end = (calls.len() - index) as u8;
        filter.push(Instruction { if_true: to_the_end, ..step(JUMP_IF_EQUAL, *number) });
    }
    filter.extend([step(RETURN, of_others), step(RETURN, of_these)]);
    let program = Program { length: filter.len() as u16, instructions: filter.as_ptr() };
    // SAFETY: takes numbers only.
    let prepared =
        unsafe { prctl(NO_NEW_PRIVILEGES, 1 as c_ulong, 0 as c_ulong, 0 as c_ulong, 0 as c_ulong) };
    // SAFETY: `program` describes `filter`, both of which live until the call has copied them.
    let installed = unsafe { syscall(SECCOMP, SET_FILTER, 0 as c_long, &raw const program) };
    assert_eq!((prepared, installed), (0, 0), "a filter on system calls can be installed");
}
