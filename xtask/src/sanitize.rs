//! The protocol, and groups and queues between threads, under ThreadSanitizer.
//!
//! It sees a read or write that no release and acquire orders, which x86 would have forgiven. It cannot see across
//! processes, hence the threads. The standard library is built along, from source: without its
//! instrumentation every channel and every join inside it would look like a race.

use anyhow::Result;

use crate::setup::toolchain::Toolchain;
use crate::step::{self, Count};
use crate::workspace::Workspace;

/// The sanitizer, and system calls through the C library: one that maps memory behind the sanitizer's back at a place where
/// memory had been before would look like a race with whoever used that.
const FLAGS: &str = "-Zsanitizer=thread --cfg=rustix_use_libc";

/// What is run: arguments to `cargo test`. No documentation tests, they would be linked without the sanitizer.
const RUNS: [&[&str]; 2] = [
    &["--package", "unisono-protocol", "--lib", "--tests"],
    &["--package", "unisono", "--test", "in_process", "--test", "queue_in_process"],
];

/// Runs the tests; a race that is found makes its test program, and so this part, fail.
pub(crate) fn run(workspace: &Workspace, count: &mut Count) -> Result<()> {
    let toolchain = Toolchain::prepare(workspace)?;
    let mut outcome = Ok(());
    for selection in RUNS {
        let mut command = toolchain.cargo_with_unstable_options(workspace);
        command
            .env("RUSTFLAGS", FLAGS)
            // Instrumented code is some ten times slower: fewer random cases say as much about races.
            .env("PROPTEST_CASES", "16")
            .env("UNISONO_TEST_QUICK", "1")
            .args(["test", "-Zbuild-std", "--profile", "sanitize", "--no-fail-fast"])
            .args(["--target", &workspace.compiler.host])
            .arg("--target-dir")
            .arg(workspace.cache.join("sanitize"))
            .args(selection);
        outcome = outcome.and(step::run(&mut command, count));
    }
    outcome
}
