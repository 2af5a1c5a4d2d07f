//! A private copy of the running toolchain that also holds the standard library's source.
//!
//! Called by the sanitizer and by the aarch64 tests: cargo builds a standard library only from the folder
//! `lib/rustlib/src/rust` of its own toolchain, and the developer's toolchain is not ours to change. The copy is
//! made of hard links where it can be, takes seconds, and is keyed by the compiler's release and commit.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::rust_src;
use crate::workspace::Workspace;

/// The copy, complete.
#[derive(Debug)]
pub(crate) struct Toolchain {
    root: PathBuf,
}

impl Toolchain {
    /// Finds the copy in the cache or makes it.
    ///
    /// Fails with [`crate::step::CannotRun::SourceGone`] when the source of this release is no longer offered.
    pub(crate) fn prepare(workspace: &Workspace) -> Result<Self> {
        let compiler = &workspace.compiler;
        let name = format!("toolchain-{}-{}", compiler.release, compiler.commit);
        let _lock = workspace.lock(&name)?;
        let root = workspace.cache.join(&name);
        if !root.exists() {
            println!("copying the toolchain {} to {}", compiler.release, root.display());
            let incomplete = workspace.empty_folder(&name)?;
            copy_toolchain(&compiler.sysroot, &incomplete)?;
            let source = incomplete.join("lib/rustlib/src/rust");
            if !source.join("library/std/Cargo.toml").is_file() {
                rust_src::fetch(workspace, &source)?;
            }
            fs::rename(&incomplete, &root).with_context(|| format!("naming {}", root.display()))?;
        }
        Ok(Self { root })
    }

    /// The folder of its programs.
    pub(crate) fn programs(&self) -> PathBuf {
        self.root.join("bin")
    }

    /// The copy's cargo, told to use the copy's compiler, in the repository's root.
    pub(crate) fn cargo(&self, workspace: &Workspace) -> Command {
        let mut command = workspace.command(self.root.join("bin/cargo"));
        command.env("RUSTC", self.root.join("bin/rustc")).env("RUSTDOC", self.root.join("bin/rustdoc"));
        command
    }

    /// As [`Toolchain::cargo`], and the options that a stable toolchain keeps for itself are open: building the
    /// standard library, and sanitizers.
    pub(crate) fn cargo_with_unstable_options(&self, workspace: &Workspace) -> Command {
        let mut command = self.cargo(workspace);
        command.env("RUSTC_BOOTSTRAP", "1");
        command
    }

    /// Where the libraries of a target live; the folder exists when the target can be built for.
    pub(crate) fn target_folder(&self, target: &str) -> PathBuf {
        self.root.join("lib/rustlib").join(target)
    }
}

/// Copies what compiling takes: the three programs, the compiler's libraries, and the targets' libraries.
fn copy_toolchain(from: &Path, to: &Path) -> Result<()> {
    for program in ["cargo", "rustc", "rustdoc"] {
        let file = Path::new("bin").join(program);
        copy_tree(&from.join(&file), &to.join(&file))?;
    }
    for entry in fs::read_dir(from.join("lib")).context("reading the toolchain's lib folder")? {
        let name = entry?.file_name();
        let is_needed = name.to_str().is_some_and(|name| {
            name == "rustlib" || name.starts_with("librustc_driver") || name.starts_with("libLLVM")
        });
        if is_needed {
            copy_tree(&from.join("lib").join(&name), &to.join("lib").join(&name))?;
        }
    }
    Ok(())
}

/// Copies a file or a folder; links its files where both ends lie on one file system.
fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    let problem = || format!("copying {} to {}", from.display(), to.display());
    let kind = fs::symlink_metadata(from).with_context(problem)?.file_type();
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent).with_context(problem)?;
    }
    if kind.is_dir() {
        fs::create_dir_all(to).with_context(problem)?;
        for entry in fs::read_dir(from).with_context(problem)? {
            let name = entry?.file_name();
            copy_tree(&from.join(&name), &to.join(&name))?;
        }
        Ok(())
    } else {
        link_or_copy(&fs::canonicalize(from).with_context(problem)?, to).with_context(problem)
    }
}

fn link_or_copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::hard_link(from, to).or_else(|_| fs::copy(from, to).map(drop))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copied_tree_holds_the_same_files() {
        let folder = std::env::temp_dir().join(format!("xtask-copy-{}", std::process::id()));
        let (from, to) = (folder.join("from"), folder.join("to"));
        fs::create_dir_all(from.join("a/b")).unwrap();
        fs::write(from.join("a/b/file"), "text").unwrap();
        std::os::unix::fs::symlink("b/file", from.join("a/link")).unwrap();
        copy_tree(&from, &to).unwrap();
        assert_eq!(fs::read_to_string(to.join("a/b/file")).unwrap(), "text");
        assert_eq!(fs::read_to_string(to.join("a/link")).unwrap(), "text");
        fs::remove_dir_all(&folder).unwrap();
    }
}
