//! `cargo xtask test --python`: the Python package as a user installs it, on torch and numpy.
//!
//! `pip install` builds the package from the checkout into an environment of its own, in which mypy looks at its types and
//! pytest runs its tests. torch is the build that the package index has, which needs NVIDIA's libraries to be imported, and
//! no GPU: about 4 GB, fetched once.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::ValueEnum;

use crate::setup::pip;
use crate::step::{self, Count};
use crate::workspace::Workspace;

/// Where the package is.
const PACKAGE: &str = "bindings/python";

/// The torch that the tests run on. Each is 4 to 5 GB on disk, so that one of them is run at a time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Torch {
    /// What vLLM needs; with torch's own tests of backends.
    #[default]
    Pinned,
    /// The newest; without torch's own tests, some of which no backend in Python passes there.
    Newest,
}

impl Torch {
    /// The file that names it, below `xtask`, and its environment's name.
    fn environment(self) -> (&'static str, &'static str) {
        match self {
            Torch::Pinned => ("python-requirements.txt", "python-torch-2.13.0"),
            Torch::Newest => ("python-newest-requirements.txt", "python-torch-2.15.0"),
        }
    }
}

/// The environment, with the package in it, and what the tests read beside it.
pub(crate) fn build(workspace: &Workspace, torch: Torch) -> Result<()> {
    let fetched = Fetched::prepare(workspace, torch)?;
    install(workspace, &fetched.python, &workspace.root.join(PACKAGE))
}

/// Runs the tests of what was built.
pub(crate) fn run(workspace: &Workspace, torch: Torch, count: &mut Count) -> Result<()> {
    let fetched = Fetched::prepare(workspace, torch)?;
    let package = workspace.root.join(PACKAGE);
    let mut command = workspace.command(&fetched.python);
    // Not in the package's folder, where its uncompiled half would be imported.
    command
        .env("UNISONO_VLLM_SOURCE", fetched.vllm)
        .env("UNISONO_VLLM_PACKAGES", fetched.vllm_packages)
        .env("UNISONO_SGLANG_SOURCE", fetched.sglang)
        .args(["-m", "pytest", "-p", "no:cacheprovider", "--rootdir"])
        .arg(&package)
        .arg(package.join("tests"));
    if torch == Torch::Newest {
        command.arg("--ignore").arg(package.join("tests/test_conformance.py"));
    }
    step::run(&mut command, count).context("the tests of the Python package")
}

/// What comes from the package index, once.
struct Fetched {
    python: PathBuf,
    sglang: PathBuf,
    vllm: PathBuf,
    vllm_packages: PathBuf,
}

impl Fetched {
    fn prepare(workspace: &Workspace, torch: Torch) -> Result<Self> {
        let (requirements, name) = torch.environment();
        let python = pip::environment(workspace, &workspace.root.join("xtask").join(requirements), name)?;
        let sglang = workspace.root.join("xtask/sglang-requirements.txt");
        let sglang = pip::unpacked_wheel(workspace, &sglang, "sglang-0.5.23")?;
        let (vllm, vllm_packages) = vllm(workspace, &python)?;
        Ok(Self { python, sglang, vllm, vllm_packages })
    }
}

/// vLLM's Python source, of which tests of the queue run, unmodified, and the packages that it needs to be imported: no engine, no GPU.
fn vllm(workspace: &Workspace, python: &Path) -> Result<(PathBuf, PathBuf)> {
    let archive = workspace.root.join("bench/peers/vllm.txt");
    let source = pip::source_files(workspace, &archive, "*.py", "vllm-0.33.0-python")?;
    let requirements = workspace.root.join("xtask/vllm-requirements.txt");
    let packages = pip::packages(workspace, python, &requirements, "vllm-0.33.0-packages")?;
    Ok((source, packages))
}

/// As a user would, but for the build system, which the environment holds.
pub(crate) fn install(workspace: &Workspace, python: &Path, package: &Path) -> Result<()> {
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
