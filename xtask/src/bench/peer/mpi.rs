//! Intel MPI, MPICH and OpenMPI: one caller, built with the headers and the library of each.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::super::caller::Caller;
use super::super::recipe::Recipe;
use super::{Pinned, words};
use crate::workspace::Workspace;

/// The caller for an MPI that lies in `prefix`.
fn mpi_caller(workspace: &Workspace, name: &str, prefix: &Path) -> Result<String> {
    let caller = Caller {
        name,
        source: "mpi.c",
        includes: vec![prefix.join("include")],
        library_folders: vec![prefix.join("lib")],
        libraries: &["mpi"],
        ..Default::default()
    };
    Ok(caller.build(workspace)?.display().to_string())
}

pub(super) fn impi(workspace: &Workspace) -> Result<Vec<Recipe>> {
    let pinned = Pinned::read(workspace, "impi")?;
    let prefix = pinned.installed(workspace)?;
    let caller = mpi_caller(workspace, "impi", &prefix)?;
    let default = started_by_impi("impi", &pinned.version, &prefix, &caller);
    let waiting =
        default.clone().with("I_MPI_WAIT_MODE", "1").with("I_MPI_THREAD_YIELD", "2").crowded("impi wait");
    Ok(vec![default, waiting])
}

pub(super) fn mpich(workspace: &Workspace) -> Result<Vec<Recipe>> {
    let pinned = Pinned::read(workspace, "mpich")?;
    let prefix = pinned.installed(workspace)?;
    let caller = mpi_caller(workspace, "mpich", &prefix)?;
    let launcher = prefix.join("bin/mpiexec.hydra").display().to_string();
    let command = words(&[&launcher, "-n", "{ranks}", &caller]);
    Ok(vec![Recipe::all("mpich", &pinned.version, &command)])
}

pub(super) fn openmpi(workspace: &Workspace) -> Result<Vec<Recipe>> {
    let pinned = Pinned::read(workspace, "openmpi")?;
    let prefix = pinned.installed(workspace)?;
    let caller = mpi_caller(workspace, "openmpi", &prefix)?;
    let launcher = prefix.join("bin/mpirun").display().to_string();
    // Oversubscription makes ranks yield, so it is asked for only where it is needed.
    let plain = words(&[&launcher, "--bind-to", "none", "-n", "{ranks}", &caller]);
    let crowded = words(&[&launcher, "--bind-to", "none", "--oversubscribe", "-n", "{ranks}", &caller]);
    let recipe = |command: &[String]| {
        let prefix = prefix.display().to_string();
        Recipe::all("openmpi", &pinned.version, command)
            .with("OPAL_PREFIX", &prefix)
            .with("PRTE_PREFIX", &prefix)
            .with("PMIX_PREFIX", &prefix)
            .with_path("LD_LIBRARY_PATH", &[PathBuf::from(&prefix).join("lib")])
            .with("OMPI_ALLOW_RUN_AS_ROOT", "1")
            .with("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")
    };
    let plain = Recipe { when: "one_rank_per_core", ..recipe(&plain) };
    Ok(vec![plain, recipe(&crowded).crowded("openmpi")])
}

/// A caller whose ranks Intel MPI starts and pins, talking through memory.
pub(super) fn started_by_impi(name: &str, version: &str, prefix: &Path, caller: &str) -> Recipe {
    let launcher = prefix.join("bin/mpiexec.hydra").display().to_string();
    let libfabric = prefix.join("opt/mpi/libfabric/lib");
    Recipe::all(name, version, &words(&[&launcher, "-n", "{ranks}", caller]))
        .with("I_MPI_ROOT", prefix.display().to_string())
        .with_path("LD_LIBRARY_PATH", &[prefix.join("lib"), libfabric.clone()])
        .with_path("PATH", &[prefix.join("bin")])
        .with("FI_PROVIDER_PATH", libfabric.join("prov").display().to_string())
        .with("I_MPI_FABRICS", "shm")
        .with("I_MPI_PIN_PROCESSOR_LIST", "{cpus}")
}
