//! `cargo xtask header`: the C header anew from the sources of `unisono-capi`.
//!
//! The test that compares the two writes it when it is told to, so that there is one way to make it.

use anyhow::Result;

use crate::step::{self, Count};
use crate::workspace::Workspace;

/// Writes `crates/capi/include/unisono.h`.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let mut command = workspace.cargo();
    command.env("UNISONO_WRITE_HEADER", "1").args(["test", "--package", "unisono-capi", "--test", "header"]);
    step::run(&mut command, &mut Count::default())
}
