//! The tests of every crate, on this machine, as users build them: unit, integration and documentation tests.
//!
//! All features are on, so that optional parts are tested too; what a feature changes when it is off is seen by
//! clippy, which checks both. What is for readers in other languages is read by one: that test needs pyzmq.
//! Instructions are counted in released code: what a debug build executes says nothing of what users run.

use std::path::PathBuf;

use anyhow::Result;

use crate::setup::apt::{self, Needed};
use crate::setup::pip;
use crate::step::{self, Count};
use crate::workspace::Workspace;

/// What the tests need of Debian: a C++ compiler for libzmq, and the program that makes machines of network namespaces.
const NEEDED: [Needed; 2] =
    [Needed { sign: "c++", package: "g++" }, Needed { sign: "ip", package: "iproute2" }];

/// All of the workspace, and those that count instructions.
const RUNS: [&[&str]; 2] = [&["--workspace", "--all-features", "--no-fail-fast"], INSTRUCTIONS];

/// The Python package is named so that both are built on the same dependencies, which take a minute; nothing of it is tested here.
const INSTRUCTIONS: &[&str] = &[
    "--release",
    "--package",
    "unisono",
    "--package",
    "unisono-python",
    "--features",
    "unisono/counts",
    "--test",
    "instructions",
];

/// Builds what [`run`] runs, all but the documentation's examples; and C's library, which its tests build as users do.
pub(crate) fn build(workspace: &Workspace) -> Result<()> {
    prepare(workspace)?;
    let build = |arguments: &[&str]| step::run(workspace.cargo().args(arguments), &mut Count::default());
    for run in RUNS {
        build(&[&["test", "--no-run"], run].concat())?;
    }
    build(&["build", "--package", "unisono-capi", "--lib"])
}

/// Runs the tests of the whole workspace; one failing test program does not keep the others from running.
pub(crate) fn run(workspace: &Workspace, count: &mut Count) -> Result<()> {
    let pyzmq = prepare(workspace)?;
    let mut outcome = Ok(());
    for run in RUNS {
        let mut command = workspace.cargo();
        command.env("UNISONO_TEST_PYZMQ", &pyzmq).arg("test").args(run);
        outcome = outcome.and(step::run(&mut command, count));
    }
    outcome
}

/// What the tests need; where pyzmq is.
fn prepare(workspace: &Workspace) -> Result<PathBuf> {
    apt::install_missing(workspace, &NEEDED)?;
    let requirements = workspace.root.join("xtask/pyzmq-requirements.txt");
    pip::unpacked_wheel(workspace, &requirements, "pyzmq-27.3.0")
}
