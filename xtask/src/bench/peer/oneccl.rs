//! oneCCL: collectives on host memory, over Intel MPI.

use anyhow::Result;

use super::super::caller::Caller;
use super::super::recipe::Recipe;
use super::{Pinned, mpi};
use crate::workspace::Workspace;

pub(super) fn oneccl(workspace: &Workspace) -> Result<Vec<Recipe>> {
    let impi = Pinned::read(workspace, "impi")?.installed(workspace)?;
    let pinned = Pinned::read(workspace, "oneccl")?;
    let prefix = pinned.installed(workspace)?;
    let caller = Caller {
        name: "oneccl",
        source: "oneccl.cpp",
        includes: vec![prefix.join("include"), impi.join("include")],
        library_folders: vec![prefix.join("lib"), impi.join("lib")],
        libraries: &["ccl", "mpi"],
        // What its own libraries need is found when it runs.
        flags: &["-std=c++17", "-w", "-Wl,--allow-shlib-undefined"],
    };
    let caller = caller.build(workspace)?.display().to_string();
    let recipe = mpi::started_by_impi("oneccl", &pinned.version, &impi, &caller)
        .with("CCL_ROOT", prefix.display().to_string())
        .with("CCL_ATL_TRANSPORT", "mpi")
        .with_path(
            "LD_LIBRARY_PATH",
            &[prefix.join("lib"), impi.join("lib"), impi.join("opt/mpi/libfabric/lib")],
        );
    Ok(vec![recipe])
}
