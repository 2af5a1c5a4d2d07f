//! Kernels, protocol, the operating system's surface, collectives and queue as aarch64 programs, in an emulator.
//!
//! It proves the NEON kernels, the layout of what lies in shared memory, and the system calls of that
//! architecture. It does not prove ordering: the emulator keeps the memory order of the machine it runs on, which
//! is what [`crate::models`] and [`crate::sanitize`] are for.

use anyhow::Result;

use crate::setup::aarch64::{Aarch64, RUNNER, TARGET};
use crate::step::{self, Count};
use crate::workspace::Workspace;

/// What is run: arguments to `cargo test`, and to the test programs after `--`.
const RUNS: [&[&str]; 4] = [
    &["--package", "unisono-kernels", "--package", "unisono-protocol", "--lib", "--tests"],
    &["--package", "unisono-os", "--lib", "--tests"],
    &["--package", "unisono", "--features", "fault-points", "--test", "in_process", "--test", "processes"],
    &["--package", "unisono", "--features", "fault-points", "--test", "queue", "--test", "queue_in_process"],
];

/// Runs the tests; a test that starts itself again finds the emulator in `UNISONO_TEST_RUNNER`.
pub(crate) fn run(workspace: &Workspace, count: &mut Count) -> Result<()> {
    let aarch64 = Aarch64::prepare(workspace)?;
    let mut outcome = Ok(());
    for selection in RUNS {
        let mut command = aarch64.cargo(workspace);
        command
            .env("UNISONO_TEST_RUNNER", RUNNER)
            // The emulator is some twenty times slower than the machine.
            .env("PROPTEST_CASES", "16")
            .env("UNISONO_TEST_QUICK", "1")
            .args(["test", "--no-fail-fast", "--target", TARGET])
            .args(selection);
        outcome = outcome.and(step::run(&mut command, count));
    }
    outcome
}
