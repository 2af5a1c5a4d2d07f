//! Debian packages: which program needs which, and how they come onto the machine.
//!
//! Called by the parts that need programs cargo does not bring. What is there is left alone; what is missing is
//! named before anything is installed, and without root nothing is tried at all.

use std::env;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::step::{self, CannotRun, Count};
use crate::workspace::Workspace;

/// Something that must be on the machine, and the Debian package that brings it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Needed {
    /// A program's name, looked for on `PATH`, or an absolute path that must exist.
    pub(crate) sign: &'static str,
    /// The package that holds it.
    pub(crate) package: &'static str,
}

/// Installs the packages whose sign is missing.
///
/// Fails with [`CannotRun::NeedsRoot`] when something is missing and we may not install it.
pub(crate) fn install_missing(workspace: &Workspace, needed: &[Needed]) -> Result<()> {
    // Debian's own lock refuses the second who comes; ours lets it wait, and then nothing may be missing any more.
    let _lock = workspace.lock("debian")?;
    let missing: Vec<&str> =
        needed.iter().filter(|item| !is_present(item.sign)).map(|item| item.package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let install = ["apt-get", "install", "--yes", "--no-install-recommends"];
    if !is_root()? {
        let command = format!("sudo {} {}", install.join(" "), missing.join(" "));
        return Err(CannotRun::NeedsRoot { command }.into());
    }
    println!("installing Debian packages: {}", missing.join(" "));
    renew_lists(workspace);
    let mut command = workspace.command(install[0]);
    command.env("DEBIAN_FRONTEND", "noninteractive").args(&install[1..]).arg("--quiet").args(&missing);
    step::run(&mut command, &mut Count::default())
}

/// A package, and those it needs that this machine lacks, unpacked in the cache under `name`; nothing is installed. The
/// archives stay beside it in `archives`.
pub(crate) fn unpacked(workspace: &Workspace, package: &str, name: &str) -> Result<PathBuf> {
    let _lock = workspace.lock(name)?;
    workspace.made_once(name, |incomplete| {
        println!("fetching Debian's {package}");
        // Held over the download, too: what is installed meanwhile changes what is needed.
        let _lock = workspace.lock("debian")?;
        if is_root()? {
            renew_lists(workspace);
        }
        let archives = incomplete.join("archives");
        fs::create_dir_all(archives.join("partial")).context("making a folder for archives")?;
        let mut command = workspace.command("apt-get");
        command
            .args([
                "install",
                "--yes",
                "--quiet",
                "--no-install-recommends",
                "--download-only",
                "--reinstall",
            ])
            .args(["-o", "Debug::NoLocking=1", "-o", "APT::Sandbox::User=root", "-o"])
            .arg(format!("Dir::Cache::archives={}", archives.display()))
            .arg(package);
        step::run(&mut command, &mut Count::default())?;
        for entry in fs::read_dir(&archives).context("reading the archives")? {
            let archive = entry.context("reading the archives")?.path();
            if archive.extension().is_some_and(|end| end == "deb") {
                let mut command = workspace.command("dpkg-deb");
                command.arg("--extract").arg(&archive).arg(incomplete);
                step::run(&mut command, &mut Count::default())?;
            }
        }
        Ok(())
    })
}

/// Asks Debian what it offers now.
fn renew_lists(workspace: &Workspace) {
    let mut update = workspace.command("apt-get");
    update.args(["update", "--quiet"]);
    if let Err(problem) = step::run(&mut update, &mut Count::default()) {
        // A source that is down need not be the one that holds our packages: the installation decides.
        println!("the lists of packages could not all be renewed: {problem:#}");
    }
}

/// Whether a program is on `PATH`, or an absolute path exists.
fn is_present(sign: &str) -> bool {
    if sign.starts_with('/') {
        return Path::new(sign).exists();
    }
    let folders = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&folders).any(|folder| folder.join(sign).is_file())
}

/// The owner of our entry in `/proc` is the user we act as.
fn is_root() -> Result<bool> {
    Ok(fs::metadata("/proc/self").context("reading /proc/self")?.uid() == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sign_is_a_program_or_a_path() {
        assert!(is_present("sh"));
        assert!(is_present("/proc/self"));
        assert!(!is_present("no-program-has-this-name"));
        assert!(!is_present("/no/such/path"));
    }
}
