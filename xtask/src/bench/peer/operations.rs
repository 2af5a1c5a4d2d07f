//! The shared-memory operations of inference engines, built from their source archives without PyTorch.
//!
//! The invariant: their files are compiled as they are, with the flags of their own builds; what they want of PyTorch is in
//! `bench/callers/shim`. They get no OpenMP: a rank has one core here, and without it small messages are faster.

use anyhow::Result;

use super::super::caller::Caller;
use super::super::recipe::Recipe;
use super::Pinned;
use crate::workspace::Workspace;

pub(super) fn vllm(workspace: &Workspace) -> Result<Vec<Recipe>> {
    built(workspace, "vllm", "vllm.cpp", &["", "csrc"])
}

pub(super) fn deepspeed(workspace: &Workspace) -> Result<Vec<Recipe>> {
    built(workspace, "deepspeed", "deepspeed.cpp", &[""])
}

fn built(workspace: &Workspace, name: &str, source: &str, includes: &[&str]) -> Result<Vec<Recipe>> {
    let pinned = Pinned::read(workspace, name)?;
    let sources = pinned.sources(workspace, "*/csrc/cpu/*")?;
    let mut folders = vec![workspace.root.join("bench/callers/shim")];
    folders.extend(includes.iter().map(|folder| sources.join(folder)));
    let caller = Caller {
        name,
        source,
        includes: folders,
        flags: &["-std=c++17", "-march=native", "-w"],
        ..Default::default()
    };
    let command = [caller.build(workspace)?.display().to_string()];
    Ok(vec![Recipe::each(name, &pinned.version, &command)])
}
