//! Gloo, from Debian: the same library that PyTorch carries, called without Python.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::super::caller::Caller;
use super::super::recipe::Recipe;
use crate::setup::apt;
use crate::workspace::Workspace;

const PACKAGE: &str = "libgloo-dev";

pub(super) fn gloo(workspace: &Workspace) -> Result<Vec<Recipe>> {
    let prefix = apt::unpacked(workspace, PACKAGE, "peers/gloo")?;
    let folders = library_folders(&prefix)?;
    let sources = workspace.root.join("bench/callers");
    let caller = Caller {
        name: "gloo",
        source: "gloo.cpp",
        includes: vec![sources.join("shim"), prefix.join("usr/include")],
        library_folders: folders.clone(),
        libraries: &["gloo"],
        flags: &["-std=c++17", "-w", "-Wl,--allow-shlib-undefined"],
    };
    let command = [caller.build(workspace)?.display().to_string()];
    let version = version_of(&prefix).unwrap_or_else(|| "of Debian".to_string());
    Ok(vec![Recipe::each("gloo", &version, &command).with_path("LD_LIBRARY_PATH", &folders)])
}

/// The folders of the unpacked packages that hold libraries.
fn library_folders(prefix: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for folder in ["usr/lib", "lib"].map(|folder| prefix.join(folder)) {
        if !folder.is_dir() {
            continue;
        }
        let inside = fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))?;
        found.extend(inside.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.is_dir()));
        found.push(folder);
    }
    Ok(found)
}

/// As the archive's name has it: `libgloo-dev_VERSION_amd64.deb`.
fn version_of(prefix: &Path) -> Option<String> {
    let archives = fs::read_dir(prefix.join("archives")).ok()?;
    let names = archives.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let version = |name: String| Some(name.strip_prefix(PACKAGE)?.split('_').nth(1)?.to_string());
    names.filter_map(version).next()
}
