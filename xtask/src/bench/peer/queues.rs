//! The libraries that unisono's queue is compared with.

use std::path::Path;

use anyhow::{Context, Result, bail};

use super::Pinned;
use crate::bench::recipe::Recipe;
use crate::step::{self, Count};
use crate::workspace::Workspace;

/// iceoryx2 is built by its own package, `bench/iceoryx2`, so that nothing else depends on what it needs.
pub(super) fn iceoryx2(workspace: &Workspace) -> Result<Vec<Recipe>> {
    let folder = workspace.root.join("bench/iceoryx2");
    let target = workspace.cache.join("peers/iceoryx2");
    let mut command = workspace.cargo();
    command.args(["build", "--release", "--locked", "--manifest-path"]).arg(folder.join("Cargo.toml"));
    command.arg("--target-dir").arg(&target);
    step::run(&mut command, &mut Count::default())?;
    let program = target.join("release/unisono-bench-iceoryx2").display().to_string();
    Ok(vec![Recipe::each("iceoryx2", &version_of(&folder.join("Cargo.toml"))?, &[program])])
}

/// The version that a manifest pins.
fn version_of(manifest: &Path) -> Result<String> {
    let text =
        std::fs::read_to_string(manifest).with_context(|| format!("reading {}", manifest.display()))?;
    let pinned = text.lines().find_map(|line| line.strip_prefix("iceoryx2 = \"=")?.strip_suffix('"'));
    Ok(pinned.with_context(|| format!("{} pins no iceoryx2", manifest.display()))?.to_string())
}

/// ZeroMQ as Python programs have it, and vLLM's and SGLang's queues under them.
pub(super) fn pyzmq(workspace: &Workspace) -> Result<Vec<Recipe>> {
    let pinned = Pinned::read(workspace, "pyzmq")?;
    let library = python_library(&pinned.installed(workspace)?)?;
    let caller = workspace.root.join("bench/callers/queue.py").display().to_string();
    let recipe = Recipe::each("pyzmq", &pinned.version, &["python3".to_string(), caller]);
    Ok(vec![recipe.with("PYTHONPATH", library)])
}

/// Where pip has put the packages: `lib/pythonX.Y/site-packages`, or on Debian `local/lib/pythonX.Y/dist-packages`.
fn python_library(installed: &Path) -> Result<String> {
    for lib in ["lib", "local/lib", "lib64"] {
        let Ok(versions) = std::fs::read_dir(installed.join(lib)) else { continue };
        for version in versions.filter_map(std::result::Result::ok) {
            for packages in ["site-packages", "dist-packages"] {
                let folder = version.path().join(packages);
                if folder.join("zmq").is_dir() {
                    return Ok(folder.display().to_string());
                }
            }
        }
    }
    bail!("pip has put no zmq into {}", installed.display())
}
