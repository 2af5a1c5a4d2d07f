//! `cargo xtask bench`: unisono and its peers on the same work, side by side.
//!
//! It installs the libraries that unisono is compared with from the package registries into `target/xtask/peers`, builds a
//! caller for each from `bench/callers`, and hands over to the program in `bench/`, which measures and judges. The
//! invariant: a peer that cannot be had does not stop the others, and is named with the reason in the output.

mod caller;
pub(crate) mod peer;
mod recipe;

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, Result};
use clap::ValueEnum;
use serde_json::json;

use crate::step::{self, Count};
use crate::workspace::Workspace;
use peer::Peer;
use recipe::Recipe;

/// What is to be compared. What is not given is as `bench/README.md` says.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Options {
    /// Compare with these only; others are not installed.
    #[arg(long, value_delimiter = ',', value_enum)]
    pub(crate) peers: Vec<Peer>,
    /// Operations: all_reduce, all_gather, queue. All unless given.
    #[arg(long, value_name = "OP,...")]
    ops: Option<String>,
    /// Numbers of ranks.
    #[arg(long, value_name = "N,...")]
    ranks: Option<String>,
    /// Element types: f32, bf16.
    #[arg(long, value_name = "TYPE,...")]
    dtype: Option<String>,
    /// Loops: alone (back to back), traffic (the buffer is written before and read after).
    #[arg(long = "loop", value_name = "LOOP,...")]
    loops: Option<String>,
    /// What each rank contributes, such as 64,16KiB,1MiB.
    #[arg(long, value_name = "BYTES,...")]
    sizes: Option<String>,
    /// Run everything beside so many processes that never yield.
    #[arg(long, value_name = "N")]
    strangers: Option<String>,
    /// Rounds of each cell.
    #[arg(long, value_name = "N")]
    rounds: Option<String>,
    /// How long each implementation works in each round of each cell.
    #[arg(long, value_name = "S")]
    seconds: Option<String>,
    /// Write everything to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draw what was measured back to back into this file.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

impl Options {
    fn peers(&self) -> Vec<Peer> {
        let all = Peer::value_variants().iter().copied();
        let asked = if self.peers.is_empty() { all.collect() } else { self.peers.clone() };
        asked
            .into_iter()
            .filter(|peer| if peer.is_a_queue() { self.queues() } else { self.collectives() })
            .collect()
    }

    /// Whether queues are compared.
    fn queues(&self) -> bool {
        self.ops.as_ref().is_none_or(|ops| ops.split(',').any(|op| op == "queue"))
    }

    /// Whether collectives are.
    fn collectives(&self) -> bool {
        self.ops.as_ref().is_none_or(|ops| ops.split(',').any(|op| op != "queue"))
    }

    /// The options that the measuring program understands.
    fn forwarded(&self) -> Vec<(&'static str, String)> {
        // The program runs in the repository's root, the person who names a file need not.
        let absolute = |path: &Option<PathBuf>| {
            let path = std::path::absolute(path.as_ref()?).ok()?;
            Some(path.display().to_string())
        };
        let (json, svg) = (absolute(&self.json), absolute(&self.svg));
        let given = [
            ("--ops", &self.ops),
            ("--ranks", &self.ranks),
            ("--dtype", &self.dtype),
            ("--loop", &self.loops),
            ("--sizes", &self.sizes),
            ("--strangers", &self.strangers),
            ("--rounds", &self.rounds),
            ("--seconds", &self.seconds),
            ("--json", &json),
            ("--svg", &svg),
        ];
        given.into_iter().filter_map(|(name, value)| Some((name, value.clone()?))).collect()
    }
}

/// Compares; returns whether every target was met.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<bool> {
    let program = build(workspace)?;
    let folder = workspace.cache.join("bench");
    fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    let (mut available, mut unavailable) = (Recipe::unisono(workspace, &program).to_vec(), Vec::new());
    let mut queues = vec![Recipe::unisono_queue(workspace, &program)];
    for peer in options.peers() {
        match peer.prepare(workspace) {
            Ok(recipes) if peer.is_a_queue() => queues.extend(recipes),
            Ok(recipes) => available.extend(recipes),
            Err(problem) => {
                unavailable.push(json!({"name": peer.name(), "reason": format!("{problem:#}")}));
            }
        }
    }
    let recipes = folder.join("recipes.json");
    let as_json = |recipes: &[Recipe]| recipes.iter().map(Recipe::as_json).collect::<Vec<_>>();
    let all = json!({
        "available": as_json(&available),
        "queues": as_json(&queues),
        "unavailable": unavailable,
    });
    let text = format!("{all:#}\n");
    fs::write(&recipes, text).with_context(|| format!("writing {}", recipes.display()))?;

    let mut command = workspace.command(&program);
    command.arg("compare").arg("--recipes").arg(&recipes).arg("--logs").arg(&folder).stdin(Stdio::null());
    for (name, value) in options.forwarded() {
        command.arg(name).arg(value);
    }
    // The screen is its own: it shows a bar while it measures.
    let status = command.status().with_context(|| format!("starting {}", program.display()))?;
    Ok(status.success())
}

fn build(workspace: &Workspace) -> Result<PathBuf> {
    let mut command = workspace.cargo();
    command.args(["build", "--release", "--package", "unisono-bench"]);
    step::run(&mut command, &mut Count::default())?;
    Ok(workspace.target.join("release/unisono-bench"))
}
