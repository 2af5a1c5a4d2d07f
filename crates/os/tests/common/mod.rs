//! Roles that child processes play in tests: the test binary is started again and runs one ignored test, the
//! role.

#![allow(dead_code, reason = "each test file uses a part of this")]

use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Tells a role that it is really played, and not run by hand.
const PLAYED: &str = "UNISONO_OS_TEST_ROLE";

/// Start this binary again in a role, with a descriptor as its standard input.
pub(crate) fn play(role: &str, input: Option<OwnedFd>, argument: &str) -> Child {
    let binary = std::env::current_exe().unwrap();
    let runner = std::env::var("UNISONO_TEST_RUNNER").unwrap_or_default();
    let mut words = runner.split_whitespace();
    let mut command = match words.next() {
        Some(program) => {
            let mut command = Command::new(program);
            command.args(words).arg(binary);
            command
        }
        None => Command::new(binary),
    };
    command.args(["--exact", role, "--ignored", "--nocapture", "--test-threads=1"]);
    command.env(PLAYED, argument).stdin(input.map_or_else(Stdio::null, Stdio::from)).stdout(Stdio::null());
    command.spawn().unwrap()
}

/// The argument of the role that this process plays, `None` if it plays none.
pub(crate) fn argument() -> Option<String> {
    std::env::var(PLAYED).ok()
}

/// Standard input, as the descriptor that the test handed to this role.
pub(crate) fn handed_over() -> OwnedFd {
    rustix::io::fcntl_dupfd_cloexec(std::io::stdin(), 3).unwrap()
}

/// Wait for something that must come, and say what did not.
#[track_caller]
pub(crate) fn wait_for(what: &str, mut happened: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !happened() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_micros(200));
    }
}

pub(crate) fn in_seconds(seconds: u64) -> Option<Instant> {
    Some(Instant::now() + Duration::from_secs(seconds))
}

/// Whether this test may change users; says so loudly where it may not.
pub(crate) fn is_root(test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("SKIPPED: {test} needs root, to act as two users");
    }
    root
}

/// Run something as another user, on a thread of its own: only that thread changes sides.
pub(crate) fn as_user<T: Send>(uid: u32, act: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let other = scope.spawn(|| {
            let (real, other) = (rustix::process::getuid(), rustix::process::Uid::from_raw(uid));
            rustix::thread::set_thread_res_uid(real, other, real).unwrap();
            act()
        });
        other.join().unwrap()
    })
}
