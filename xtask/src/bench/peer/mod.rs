//! The libraries that unisono is compared with: where they come from, how a caller is built, how ranks are started.
//!
//! The settings are those that a careful user of each library would choose on one machine: its shared memory, its own
//! pinning or none (the callers pin themselves), and with more ranks than cores what its manual advises there.

mod gloo;
mod mpi;
mod oneccl;
mod operations;
mod queues;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;

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
    /// oneCCL over Intel MPI, from the Python package index.
    Oneccl,
    /// Gloo, from Debian.
    Gloo,
    /// vLLM's shared-memory operations, built from its source archive.
    Vllm,
    /// DeepSpeed's shared-memory operation, built from its source archive.
    Deepspeed,
    /// SGLang's shared-memory operations.
    Sglang,
    /// iceoryx2's publish-subscribe, for queues, from the Rust package registry.
    Iceoryx2,
    /// ZeroMQ from Python, for queues, from the Python package index.
    Pyzmq,
}

impl Peer {
    /// The name in tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Peer::Impi => "impi",
            Peer::Mpich => "mpich",
            Peer::Openmpi => "openmpi",
            Peer::Oneccl => "oneccl",
            Peer::Gloo => "gloo",
            Peer::Vllm => "vllm",
            Peer::Deepspeed => "deepspeed",
            Peer::Sglang => "sglang",
            Peer::Iceoryx2 => "iceoryx2",
            Peer::Pyzmq => "pyzmq",
        }
    }

    /// Whether it is compared with unisono's queue, and not with its collectives.
    pub(crate) fn is_a_queue(self) -> bool {
        matches!(self, Peer::Iceoryx2 | Peer::Pyzmq)
    }

    /// Makes everything ready; what is there already is not fetched again.
    pub(crate) fn prepare(self, workspace: &Workspace) -> Result<Vec<Recipe>> {
        println!("\n==> {}", self.name());
        let is_for_all = self == Peer::Iceoryx2;
        ensure!(
            is_for_all || cfg!(target_arch = "x86_64"),
            "its packages that are known here are for x86_64 only"
        );
        match self {
            Peer::Impi => mpi::impi(workspace),
            Peer::Mpich => mpi::mpich(workspace),
            Peer::Openmpi => mpi::openmpi(workspace),
            Peer::Oneccl => oneccl::oneccl(workspace),
            Peer::Gloo => gloo::gloo(workspace),
            Peer::Vllm => operations::vllm(workspace),
            Peer::Deepspeed => operations::deepspeed(workspace),
            Peer::Iceoryx2 => queues::iceoryx2(workspace),
            Peer::Pyzmq => queues::pyzmq(workspace),
            Peer::Sglang => bail!(
                "its packages hold no source of the operation, and binaries that need CUDA; deepspeed, from whose \
                 operation it is derived, has the same buffers, states and thresholds"
            ),
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
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let version = lines.flat_map(str::split_whitespace).find_map(|word| word.split_once("=="));
        let (_, version) = version.with_context(|| format!("{} pins no version", requirements.display()))?;
        Ok(Pinned { version: version.to_string(), folder: format!("peers/{name}-{version}"), requirements })
    }

    fn installed(&self, workspace: &Workspace) -> Result<PathBuf> {
        pip::installed_wheels(workspace, &self.requirements, &self.folder)
    }

    fn sources(&self, workspace: &Workspace, pattern: &str) -> Result<PathBuf> {
        pip::source_files(workspace, &self.requirements, pattern, &self.folder)
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| word.to_string()).collect()
}
