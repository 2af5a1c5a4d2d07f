//! What is published as a Python package: fetched by pip, checked against a digest, laid out, never run.
//!
//! Called by the demo for its model, and by the comparison for the libraries it compares with. The digests lie in
//! requirements files in the repository; pip refuses anything else, so what is laid out is what was looked at when the
//! file was written.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::step::{self, Count};
use crate::workspace::{self, Workspace};

/// The unpacked content of the one wheel that `requirements` names, in the cache under `name`.
pub(crate) fn unpacked_wheel(workspace: &Workspace, requirements: &Path, name: &str) -> Result<PathBuf> {
    let _lock = workspace.lock_cache()?;
    made_once(workspace, name, |incomplete| {
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
    let _lock = workspace.lock_cache()?;
    made_once(workspace, name, |incomplete| {
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

/// The folder `name` in the cache, filled by `make` if it is not there yet. It has its name only once it is complete.
fn made_once(workspace: &Workspace, name: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let folder = workspace.cache.join(name);
    if !folder.exists() {
        let incomplete = workspace.empty_folder(name)?;
        make(&incomplete)?;
        fs::rename(&incomplete, &folder).with_context(|| format!("naming {}", folder.display()))?;
    }
    Ok(folder)
}
