//! How the ranks of an implementation are started: a file of recipes, written by `cargo xtask bench` after it has
//! installed and built what was asked for.
//!
//! The one invariant that matters: an implementation that was asked for and cannot be had is in the file too, with
//! the reason, so that its absence is told and not silent.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context;
use serde::Deserialize;

use crate::schedule::Cell;
use crate::wire::Loop;

/// All that can be measured, and what cannot.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Recipes {
    /// For collectives.
    pub(crate) available: Vec<Recipe>,
    /// For queues from one writer to many readers: rank 0 writes.
    #[serde(default)]
    pub(crate) queues: Vec<Recipe>,
    pub(crate) unavailable: Vec<Unavailable>,
}

/// One implementation in one setting.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Recipe {
    /// The name in tables.
    pub(crate) name: String,
    /// What exactly is measured, for the report.
    pub(crate) version: String,
    /// Program and arguments. `{ranks}` stands for the number of ranks, `{cpus}` for the list of cores.
    pub(crate) command: Vec<String>,
    /// Whether the command starts all ranks (`mpirun`), or is started once for each.
    pub(crate) starts_all_ranks: bool,
    pub(crate) environment: BTreeMap<String, String>,
    /// For more ranks than cores, and only for them; or else for no more ranks than cores; or for both.
    pub(crate) when: When,
    /// The loop in which alone it is measured, if it has a meaning in one only.
    #[serde(default)]
    pub(crate) only_loop: Option<Loop>,
}

impl Recipe {
    /// Whether it takes part in a cell.
    pub(crate) fn is_for(&self, cell: &Cell) -> bool {
        self.when.holds(cell.ranks + cell.strangers, cell.cores)
            && self.only_loop.is_none_or(|only| only == cell.around)
    }
}

/// Where a setting is meant for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum When {
    Always,
    OneRankPerCore,
    MoreRanksThanCores,
}

impl When {
    /// Whether this holds for so many ranks on so many cores.
    pub(crate) fn holds(self, ranks: usize, cores: usize) -> bool {
        match self {
            When::Always => true,
            When::OneRankPerCore => ranks <= cores,
            When::MoreRanksThanCores => ranks > cores,
        }
    }
}

/// What was asked for and cannot be had.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Unavailable {
    pub(crate) name: String,
    pub(crate) reason: String,
}

impl Recipes {
    /// Read the file.
    ///
    /// # Errors
    /// When it cannot be read or is no file of recipes.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Recipes> {
        let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("{} holds no recipes", path.display()))
    }
}
