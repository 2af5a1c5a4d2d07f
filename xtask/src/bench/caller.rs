//! Building a caller: a C or C++ file of `bench/callers` with the headers and libraries of one peer.
//!
//! The invariant: the loop and what stands around an operation are compiled with the same flags for every peer; only a
//! peer's own code gets the flags that it needs.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result};

use crate::step::{self, Count};
use crate::workspace::Workspace;

/// What to build.
#[derive(Debug, Default)]
pub(crate) struct Caller<'a> {
    /// The name of the program.
    pub(crate) name: &'a str,
    /// The file in `bench/callers`.
    pub(crate) source: &'a str,
    pub(crate) includes: Vec<PathBuf>,
    /// Folders of libraries, where they are found when the program runs, too.
    pub(crate) library_folders: Vec<PathBuf>,
    pub(crate) libraries: &'a [&'a str],
    pub(crate) flags: &'a [&'a str],
}

impl Caller<'_> {
    /// Builds the program, unless it is newer than all that it is built from.
    pub(crate) fn build(&self, workspace: &Workspace) -> Result<PathBuf> {
        let folder = workspace.cache.join("peers/callers");
        fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
        let program = folder.join(self.name);
        let sources = workspace.root.join("bench/callers");
        if is_newer_than(&program, &sources) {
            return Ok(program);
        }
        let traffic = folder.join(format!("{}.traffic.o", self.name));
        let mut command = workspace.command("cc");
        command.args(["-O3", "-c"]).arg(sources.join("traffic.c")).arg("-o").arg(&traffic);
        step::run(&mut command, &mut Count::default()).context("needs a C compiler, cc")?;

        let is_c = self.source.ends_with(".c");
        let mut command = workspace.command(if is_c { "cc" } else { "c++" });
        command.arg("-O3").arg("-I").arg(&sources);
        for include in &self.includes {
            command.arg("-I").arg(include);
        }
        command.args(self.flags).arg(sources.join(self.source)).arg(&traffic);
        for folder in &self.library_folders {
            command.arg("-L").arg(folder).arg(format!("-Wl,-rpath,{}", folder.display()));
        }
        command.args(self.libraries.iter().map(|library| format!("-l{library}")));
        command.arg("-o").arg(&program);
        step::run(&mut command, &mut Count::default())
            .with_context(|| format!("building bench/callers/{}", self.source))?;
        Ok(program)
    }
}

/// Whether a file is there and was written after every file of a folder.
fn is_newer_than(file: &Path, folder: &Path) -> bool {
    let written = |path: &Path| fs::metadata(path).and_then(|about| about.modified()).ok();
    let newest = |folder: &Path| -> Option<SystemTime> {
        let mut folders = vec![folder.to_path_buf()];
        let mut newest = None;
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).ok()? {
                let path = entry.ok()?.path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    newest = newest.max(written(&path));
                }
            }
        }
        newest
    };
    written(file).zip(newest(folder)).is_some_and(|(file, sources)| file > sources)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_not_there_is_not_newer() {
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/bench");
        assert!(!is_newer_than(&sources.join("nothing"), &sources));
        assert!(!is_newer_than(&sources.join("mod.rs"), &sources), "a file is not newer than itself");
    }
}
