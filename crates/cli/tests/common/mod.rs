//! What the tests of the program share: starting it, waiting for something with a deadline, a folder that goes away.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on is to end")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// The program under test.
pub(crate) fn unisono(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_unisono"));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// What came out of it, as text: exit code, standard output, standard error.
pub(crate) fn outcome(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// Run it to its end.
pub(crate) fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    outcome(&unisono(arguments).output().unwrap())
}

/// Wait until `condition` gives a value.
#[allow(dead_code, reason = "each test program uses its part of this module")]
pub(crate) fn wait_for<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(begin.elapsed() < Duration::from_secs(20), "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A folder of this test's own, removed at its end.
#[allow(dead_code, reason = "each test program uses its part of this module")]
pub(crate) struct Folder(PathBuf);

#[allow(dead_code, reason = "each test program uses its part of this module")]
impl Folder {
    /// A new, empty folder.
    pub(crate) fn new() -> Folder {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("unisono-test-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// The process numbers in files of these names, once all are there.
    pub(crate) fn pids(&self, names: &[&str]) -> Vec<u32> {
        let read = |name: &&str| {
            let text = std::fs::read_to_string(self.0.join(name)).ok()?;
            // Without its line end it is still being written.
            text.strip_suffix('\n')?.trim().parse().ok()
        };
        wait_for("the ranks' process numbers", || names.iter().map(read).collect())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Whether a process is there and has not ended.
#[allow(dead_code, reason = "each test program uses its part of this module")]
pub(crate) fn is_alive(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z')))
}
