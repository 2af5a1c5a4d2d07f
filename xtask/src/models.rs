//! The protocol's models: each tries every order of events that the memory model allows between a few threads.
//!
//! The models are the test targets of `unisono-protocol` whose names begin with `loom`. The whole crate graph is
//! built with `--cfg loom`, so it has a build folder of its own, and a profile of its own:
//! the models and loom are optimised, the rest is not.

use anyhow::Result;

use crate::step::{self, Count};
use crate::workspace::Workspace;

/// Runs all models.
pub(crate) fn run(workspace: &Workspace, count: &mut Count) -> Result<()> {
    let mut command = workspace.cargo();
    command
        .env("RUSTFLAGS", "--cfg loom")
        .args([
            "test",
            "--profile",
            "models",
            "--package",
            "unisono-protocol",
            "--test",
            "loom*",
            "--no-fail-fast",
        ])
        .arg("--target-dir")
        .arg(workspace.cache.join("models"));
    step::run(&mut command, count)
}
