//! Where everything is: the repository, its build folder, the cache for what is prepared once, and cargo.
//!
//! Every verb gets a [`Workspace`] and asks it for paths and for commands, so that no other file knows about
//! `CARGO_TARGET_DIR` or about the variables that cargo leaves in our environment. The invariant: a command
//! made here behaves as if a person had typed it in the repository's root.

use std::env;
use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// The repository and the folders beside it.
#[derive(Debug)]
pub(crate) struct Workspace {
    /// The folder of the workspace's `Cargo.toml`.
    pub(crate) root: PathBuf,
    /// Where cargo builds: `target`, or what `CARGO_TARGET_DIR` says.
    pub(crate) target: PathBuf,
    /// Where the verbs keep what they prepare: `target/xtask`.
    pub(crate) cache: PathBuf,
    /// What `cargo metadata` says about the members and their dependencies.
    pub(crate) metadata: Value,
    /// The running compiler: its version and its sysroot.
    pub(crate) compiler: Compiler,
}

/// The compiler that the pinned toolchain runs.
#[derive(Debug)]
pub(crate) struct Compiler {
    /// `1.95.0`
    pub(crate) release: String,
    /// The commit it was built from, shortened: two builds of one release are told apart by it.
    pub(crate) commit: String,
    /// `x86_64-unknown-linux-gnu`
    pub(crate) host: String,
    /// The folder that holds its `bin` and `lib`.
    pub(crate) sysroot: PathBuf,
}

impl Workspace {
    /// Finds the repository from where this program was built, and asks cargo and rustc about the rest.
    pub(crate) fn find() -> Result<Self> {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let root = here.parent().context("the folder of xtask has no parent")?.to_path_buf();
        let listing = output(
            Command::new(cargo()).args(["metadata", "--no-deps", "--format-version=1"]).current_dir(&root),
        )?;
        let metadata: Value = serde_json::from_str(&listing).context("`cargo metadata` printed no JSON")?;
        let target =
            metadata["target_directory"].as_str().context("`cargo metadata` names no target folder")?;
        let target = PathBuf::from(target);
        let cache = target.join("xtask");
        fs::create_dir_all(&cache).with_context(|| format!("creating {}", cache.display()))?;
        Ok(Self { compiler: Compiler::ask(&root)?, root, cache, target, metadata })
    }

    /// A program to run in the repository's root, without what `cargo run` added to our environment.
    pub(crate) fn command(&self, program: impl Into<OsString>) -> Command {
        let mut command = Command::new(program.into());
        command.current_dir(&self.root);
        for (name, _) in env::vars_os() {
            if name.to_str().is_some_and(is_set_by_cargo_run) {
                command.env_remove(name);
            }
        }
        match self.library_path() {
            Some(path) => command.env("LD_LIBRARY_PATH", path),
            None => command.env_remove("LD_LIBRARY_PATH"),
        };
        command
    }

    /// `cargo`, the pinned one, in the repository's root.
    pub(crate) fn cargo(&self) -> Command {
        self.command(cargo())
    }

    /// Holds what the cache has under `name` until the file is dropped, so that two runs at once do not prepare the same
    /// thing; other things may be prepared meanwhile.
    pub(crate) fn lock(&self, name: &str) -> Result<File> {
        let path = self.cache.join(format!("{name}.lock"));
        let file = File::create(&path).with_context(|| format!("creating {}", path.display()))?;
        file.lock().with_context(|| format!("locking {}", path.display()))?;
        Ok(file)
    }

    /// An empty folder in the cache, for something that gets its real name by a rename once it is complete.
    pub(crate) fn empty_folder(&self, name: &str) -> Result<PathBuf> {
        let path = self.cache.join(format!("{name}.incomplete"));
        if path.exists() {
            fs::remove_dir_all(&path).with_context(|| format!("removing {}", path.display()))?;
        }
        fs::create_dir_all(&path).with_context(|| format!("creating {}", path.display()))?;
        Ok(path)
    }

    /// The folder `name` in the cache, filled by `make` if it is not there yet. It has its name only once it is complete.
    pub(crate) fn made_once(&self, name: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
        let folder = self.cache.join(name);
        if !folder.exists() {
            let incomplete = self.empty_folder(name)?;
            make(&incomplete)?;
            fs::rename(&incomplete, &folder).with_context(|| format!("naming {}", folder.display()))?;
        }
        Ok(folder)
    }

    /// The caller's library path without the folders of this build and of its toolchain: with those in front, a
    /// compiler copied elsewhere would load the libraries of the original and take over its sysroot.
    fn library_path(&self) -> Option<OsString> {
        let given = env::var_os("LD_LIBRARY_PATH")?;
        // Links are followed: a toolchain may go by several names.
        let real = |path: &Path| fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
        let (target, sysroot) = (real(&self.target), real(&self.compiler.sysroot));
        let is_kept = |path: &PathBuf| !real(path).starts_with(&target) && !real(path).starts_with(&sysroot);
        let kept: Vec<PathBuf> = env::split_paths(&given).filter(is_kept).collect();
        if kept.is_empty() { None } else { env::join_paths(kept).ok() }
    }
}

impl Compiler {
    fn ask(root: &Path) -> Result<Self> {
        let version = output(Command::new("rustc").arg("-vV").current_dir(root))?;
        let field = |name: &str| {
            version
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .map(|value| value.trim().to_owned())
                .with_context(|| format!("`rustc -vV` has no line `{name}`"))
        };
        let sysroot = output(Command::new("rustc").args(["--print", "sysroot"]).current_dir(root))?;
        Ok(Self {
            release: field("release:")?,
            commit: field("commit-hash:")?.chars().take(9).collect(),
            host: field("host:")?,
            sysroot: PathBuf::from(sysroot.trim()),
        })
    }
}

/// Runs a command to its end and returns what it printed; fails with what it complained about.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("starting {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?} ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    String::from_utf8(output.stdout).with_context(|| format!("{command:?} printed what is not UTF-8"))
}

/// The one file in a folder that something was downloaded to.
pub(crate) fn only_entry(folder: &Path) -> Result<PathBuf> {
    let entries: Vec<_> = fs::read_dir(folder)
        .with_context(|| format!("reading {}", folder.display()))?
        .collect::<Result<_, _>>()
        .with_context(|| format!("reading {}", folder.display()))?;
    match entries.as_slice() {
        [only] => Ok(only.path()),
        others => bail!("one file was expected in {}, {} are there", folder.display(), others.len()),
    }
}

fn cargo() -> OsString {
    env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// Variables that describe the package being run; a build script of another package must not see them.
fn is_set_by_cargo_run(name: &str) -> bool {
    name == "CARGO_MANIFEST_DIR"
        || name == "CARGO_MANIFEST_PATH"
        || name == "CARGO_CRATE_NAME"
        || name == "CARGO_BIN_NAME"
        || name.starts_with("CARGO_PKG_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_of_this_package_are_told_from_settings_of_the_caller() {
        assert!(is_set_by_cargo_run("CARGO_PKG_NAME"));
        assert!(!is_set_by_cargo_run("CARGO_TARGET_DIR"));
        assert!(!is_set_by_cargo_run("CARGO_HOME"));
    }
}
