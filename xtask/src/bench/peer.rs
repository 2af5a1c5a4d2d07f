//! The libraries that unisono is compared with: where they come from, how a caller is built, how ranks are started.
//!
//! The settings are those that a careful user of each library would choose on one machine: its shared memory, its own
//! pinning or none (the callers pin themselves), and with more ranks than cores what its manual advises there.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;

use super::caller::Caller;
use super::recipe::Recipe;
use crate::setup::pip;
use crate::workspace::Workspace;

/// A library, or a family of one author's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Peer {
    /// Intel MPI, from the Python package index.
    Impi,
    /// MPICH, from the Python package index.
    Mpich,
    /// OpenMPI, from the Python package index.
    Openmpi,
}

impl Peer {
    /// The name in tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Peer::Impi => "impi",
            Peer::Mpich => "mpich",
            Peer::Openmpi => "openmpi",
        }
    }

    /// Makes everything ready; what is there already is not fetched again.
    pub(crate) fn prepare(self, workspace: &Workspace) -> Result<Vec<Recipe>> {
        ensure!(cfg!(target_arch = "x86_64"), "its packages that are known here are for x86_64 only");
        println!("\n==> {}", self.name());
        match self {
            Peer::Impi => impi(workspace),
            Peer::Mpich => mpich(workspace),
            Peer::Openmpi => openmpi(workspace),
        }
    }
}

/// What `bench/peers/NAME.txt` pins: the file, and the version of the first package in it.
struct Pinned {
    requirements: PathBuf,
    version: String,
    /// The name in the cache.
    folder: String,
}

impl Pinned {
    fn read(workspace: &Workspace, name: &str) -> Result<Pinned> {
        let requirements = workspace.root.join(format!("bench/peers/{name}.txt"));
        let text = fs::read_to_string(&requirements)
            .with_context(|| format!("reading {}", requirements.display()))?;
        let version = text.split_whitespace().find_map(|word| word.split_once("=="));
        let (_, version) = version.with_context(|| format!("{} pins no version", requirements.display()))?;
        Ok(Pinned { version: version.to_string(), folder: format!("peers/{name}-{version}"), requirements })
    }

    fn installed(&self, workspace: &Workspace) -> Result<PathBuf> {
        pip::installed_wheels(workspace, &self.requirements, &self.folder)
    }
}

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

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| word.to_string()).collect()
}

fn impi(workspace: &Workspace) -> Result<Vec<Recipe>> {
    let pinned = Pinned::read(workspace, "impi")?;
    let prefix = pinned.installed(workspace)?;
    let caller = mpi_caller(workspace, "impi", &prefix)?;
    let launcher = prefix.join("bin/mpiexec.hydra").display().to_string();
    let libfabric = prefix.join("opt/mpi/libfabric/lib");
    let default = Recipe::all("impi", &pinned.version, &words(&[&launcher, "-n", "{ranks}", &caller]))
        .with("I_MPI_ROOT", prefix.display().to_string())
        .with_path("LD_LIBRARY_PATH", &[prefix.join("lib"), libfabric.clone()])
        .with_path("PATH", &[prefix.join("bin")])
        .with("FI_PROVIDER_PATH", libfabric.join("prov").display().to_string())
        .with("I_MPI_FABRICS", "shm")
        .with("I_MPI_PIN_PROCESSOR_LIST", "{cpus}");
    let waiting =
        default.clone().with("I_MPI_WAIT_MODE", "1").with("I_MPI_THREAD_YIELD", "2").crowded("impi wait");
    Ok(vec![default, waiting])
}

fn mpich(workspace: &Workspace) -> Result<Vec<Recipe>> {
    let pinned = Pinned::read(workspace, "mpich")?;
    let prefix = pinned.installed(workspace)?;
    let caller = mpi_caller(workspace, "mpich", &prefix)?;
    let launcher = prefix.join("bin/mpiexec.hydra").display().to_string();
    let command = words(&[&launcher, "-n", "{ranks}", &caller]);
    Ok(vec![Recipe::all("mpich", &pinned.version, &command)])
}

fn openmpi(workspace: &Workspace) -> Result<Vec<Recipe>> {
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
