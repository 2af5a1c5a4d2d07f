//! `cargo xtask test --python`: the Python package as a user installs it, on torch and numpy.
//!
//! `pip install` builds the package from the checkout into an environment of its own, in which mypy looks at its types and
//! pytest runs its tests. torch is the build that the package index has, which needs NVIDIA's libraries to be imported, and
//! no GPU: about 4 GB, fetched once.

use std::env;
use std::path::Path;

use anyhow::{Context, Result};

use crate::setup::pip;
use crate::step::{self, Count};
use crate::workspace::Workspace;

/// Builds, installs, and runs all tests of the package.
pub(crate) fn run(workspace: &Workspace, count: &mut Count) -> Result<()> {
    let requirements = workspace.root.join("xtask/python-requirements.txt");
    let python = pip::environment(workspace, &requirements, "python-torch-2.13.0")?;
    let sglang = workspace.root.join("xtask/sglang-requirements.txt");
    let sglang = pip::unpacked_wheel(workspace, &sglang, "sglang-0.5.23")?;
    let package = workspace.root.join("bindings/python");
    install(workspace, &python, &package)?;
    let mut command = workspace.command(&python);
    // Not in the package's folder, where its uncompiled half would be imported.
    command
        .env("UNISONO_SGLANG_SOURCE", sglang)
        .args(["-m", "pytest", "-p", "no:cacheprovider", "--rootdir"])
        .arg(&package)
        .arg(package.join("tests"));
    step::run(&mut command, count).context("the tests of the Python package")
}

/// As a user would, but for the build system, which the environment holds.
fn install(workspace: &Workspace, python: &Path, package: &Path) -> Result<()> {
    let mut command = workspace.command(python);
    // The build system is a program beside the interpreter.
    let programs = python.parent().map(Path::to_path_buf);
    let path = env::var_os("PATH").unwrap_or_default();
    let path = env::join_paths(programs.into_iter().chain(env::split_paths(&path))).context("PATH")?;
    command
        .env("PATH", path)
        .args(["-m", "pip", "install", "--no-deps", "--no-build-isolation", "--force-reinstall"])
        .arg("--disable-pip-version-check")
        .arg(package);
    step::run(&mut command, &mut Count::default()).context("building the Python package")
}
