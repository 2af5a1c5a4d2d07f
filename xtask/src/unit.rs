//! The tests of every crate, on this machine, as users build them: unit, integration and documentation tests.
//!
//! All features are on, so that optional parts are tested too; what a feature changes when it is off is seen by
//! clippy, which checks both.

use anyhow::Result;

use crate::step::{self, Count};
use crate::workspace::Workspace;

/// Runs the tests of the whole workspace; one failing test program does not keep the others from running.
pub(crate) fn run(workspace: &Workspace, count: &mut Count) -> Result<()> {
    let mut command = workspace.cargo();
    command.args(["test", "--workspace", "--all-features", "--no-fail-fast"]);
    step::run(&mut command, count)
}
