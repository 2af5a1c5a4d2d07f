//! What is published as a Python package: fetched by pip, checked against a digest, laid out, never run.
//!
//! Called by the demo for its model, and by the comparison for the libraries that it compares with. The digests lie in
//! requirements files in the repository; pip refuses anything else, so what is laid out is what was looked at when the
//! file was written.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::step::{self, Count};
use crate::workspace::{self, Workspace};

/// The unpacked content of the one wheel that `requirements` names, in the cache under `name`.
pub(crate) fn unpacked_wheel(workspace: &Workspace, requirements: &Path, name: &str) -> Result<PathBuf> {
    let _lock = workspace.lock(name)?;
    workspace.made_once(name, |incomplete| {
        println!("fetching {name} with pip");
        let download = workspace.empty_folder(&format!("{name}.wheel"))?;
        let mut command = workspace.command("python3");
        command
            .args([
                "-m",
                "pip",
                "download",
                "--quiet",
                "--no-deps",
                "--only-binary=:all:",
                "--require-hashes",
            ])
            .arg("--dest")
            .arg(&download)
            .arg("--requirement")
            .arg(requirements);
        step::run(&mut command, &mut Count::default())?;

        let wheel = workspace::only_entry(&download)?;
        let mut command = workspace.command("python3");
        command.args(["-m", "zipfile", "--extract"]).arg(&wheel).arg(incomplete);
        step::run(&mut command, &mut Count::default())?;
        fs::remove_dir_all(&download).context("removing the wheel")
    })
}

/// The wheels that `requirements` names, laid out as pip lays them out (`bin`, `lib`, `include`), in the cache under
/// `name`. Nothing outside of it is touched.
pub(crate) fn installed_wheels(workspace: &Workspace, requirements: &Path, name: &str) -> Result<PathBuf> {
    let _lock = workspace.lock(name)?;
    workspace.made_once(name, |incomplete| {
        println!("fetching {name} with pip");
        let mut command = workspace.command("python3");
        command
            .args(["-m", "pip", "install", "--quiet", "--no-deps", "--only-binary=:all:", "--require-hashes"])
            .args(["--ignore-installed", "--no-compile", "--no-warn-script-location"])
            .args(["--root-user-action=ignore", "--progress-bar=on"])
            .arg("--prefix")
            .arg(incomplete)
            .arg("--requirement")
            .arg(requirements);
        step::run(&mut command, &mut Count::default())
    })
}

/// A virtual environment with the wheels that `requirements` names, in the cache under `name`; its interpreter. Nothing outside
/// of it is touched.
pub(crate) fn environment(workspace: &Workspace, requirements: &Path, name: &str) -> Result<PathBuf> {
    let _lock = workspace.lock(name)?;
    // Programs in an environment name its folder in their first line, so they are run as modules: `python -m pytest`.
    let folder = workspace.made_once(name, |incomplete| {
        println!("making a Python environment: {name}");
        let mut command = workspace.command("python3");
        command.args(["-m", "venv"]).arg(incomplete);
        step::run(&mut command, &mut Count::default())?;
        let mut command = workspace.command(incomplete.join("bin/python"));
        command
            .args(["-m", "pip", "install", "--quiet", "--no-deps", "--only-binary=:all:", "--require-hashes"])
            .args(["--no-compile", "--progress-bar=off", "--disable-pip-version-check", "--requirement"])
            .arg(requirements);
        step::run(&mut command, &mut Count::default())
    })?;
    Ok(folder.join("bin/python"))
}

/// The wheels that `requirements` names, for `python`, as a folder to be put on its path, in the cache under `name`.
pub(crate) fn packages(
    workspace: &Workspace,
    python: &Path,
    requirements: &Path,
    name: &str,
) -> Result<PathBuf> {
    let _lock = workspace.lock(name)?;
    workspace.made_once(name, |incomplete| {
        println!("fetching {name} with pip");
        let mut command = workspace.command(python);
        command
            .args(["-m", "pip", "install", "--quiet", "--no-deps", "--only-binary=:all:", "--require-hashes"])
            .args(["--no-compile", "--progress-bar=off", "--disable-pip-version-check", "--target"])
            .arg(incomplete)
            .arg("--requirement")
            .arg(requirements);
        step::run(&mut command, &mut Count::default())
    })
}

/// Of the one source archive that `requirements` names the files that match `pattern`, in the cache under `name`. No
/// code of the package is run: pip's questions to its build system are answered by `archive_only.py`.
pub(crate) fn source_files(
    workspace: &Workspace,
    requirements: &Path,
    pattern: &str,
    name: &str,
) -> Result<PathBuf> {
    let _lock = workspace.lock(name)?;
    workspace.made_once(name, |incomplete| {
        println!("fetching the source of {name} with pip");
        let build_system = workspace.empty_folder(&format!("{name}.build"))?;
        let stand_in = build_system.join("setuptools");
        fs::create_dir(&stand_in).with_context(|| format!("creating {}", stand_in.display()))?;
        for (file, text) in [("__init__.py", ""), ("build_meta.py", include_str!("archive_only.py"))] {
            fs::write(stand_in.join(file), text).with_context(|| format!("writing {file}"))?;
        }
        let download = workspace.empty_folder(&format!("{name}.archive"))?;
        let mut command = workspace.command("python3");
        command
            .env("PYTHONPATH", &build_system)
            .args(["-m", "pip", "download", "--quiet", "--no-deps", "--no-binary=:all:", "--require-hashes"])
            .args(["--no-build-isolation", "--progress-bar=on", "--dest"])
            .arg(&download)
            .arg("--requirement")
            .arg(requirements);
        step::run(&mut command, &mut Count::default())?;

        let archive = workspace::only_entry(&download)?;
        let mut command = workspace.command("tar");
        command.arg("--extract").arg("--file").arg(&archive).arg("--directory").arg(incomplete);
        command.args(["--strip-components=1", "--wildcards", pattern]);
        step::run(&mut command, &mut Count::default())?;
        for folder in [build_system, download] {
            fs::remove_dir_all(&folder).with_context(|| format!("removing {}", folder.display()))?;
        }
        Ok(())
    })
}
