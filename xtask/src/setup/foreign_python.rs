//! A Python for 64-bit Arm, which the emulator runs: Debian's, fetched and unpacked, not installed.
//!
//! Called to try the wheel for that architecture. Everything it needs comes along, down to the C library, so that nothing of it is
//! looked for on this machine.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use super::apt::{self, Needed};
use super::private_apt::{MachineSource, PrivateApt};
use crate::step::{self, Count};
use crate::workspace::Workspace;

const EMULATOR: Needed = Needed { sign: "qemu-aarch64-static", package: "qemu-user-static" };

/// The interpreter, and the folder that is the root of its machine.
#[derive(Debug)]
pub(crate) struct ForeignPython {
    root: PathBuf,
}

impl ForeignPython {
    /// Makes it ready: some 20 MB are fetched the first time.
    pub(crate) fn prepare(workspace: &Workspace) -> Result<Self> {
        apt::install_missing(workspace, &[EMULATOR])?;
        let suite = suite()?;
        let name = format!("python-arm64-{suite}");
        let _lock = workspace.lock(&name)?;
        let folder = workspace.made_once(&name, |incomplete| {
            println!("fetching Debian's python3 for arm64, of {suite} (20 MB); nothing of it is installed");
            let apt =
                PrivateApt::create(&incomplete.join("apt"), &MachineSource::read()?, &suite, Some("arm64"))?;
            apt.update(workspace)?;
            let mut command = apt.command(workspace, "apt-get");
            command.args([
                "install",
                "--yes",
                "--quiet",
                "--no-install-recommends",
                "--download-only",
                "python3",
            ]);
            step::run(&mut command, &mut Count::default())?;
            let root = incomplete.join("root");
            for entry in fs::read_dir(apt.archives()).context("reading what apt fetched")? {
                let archive = entry.context("reading what apt fetched")?.path();
                if archive.extension().is_some_and(|end| end == "deb") {
                    let mut command = workspace.command("dpkg-deb");
                    command.arg("--extract").arg(&archive).arg(&root);
                    step::run(&mut command, &mut Count::default())?;
                }
            }
            if !root.join("lib").exists() {
                // Newer suites have everything in /usr, and leave this link to the installation.
                symlink("usr/lib", root.join("lib")).context("linking lib")?;
            }
            fs::remove_dir_all(incomplete.join("apt")).context("removing the archives")
        })?;
        Ok(Self { root: folder.join("root") })
    }

    /// The interpreter in the emulator, in the repository's root.
    pub(crate) fn command(&self, workspace: &Workspace) -> Command {
        let mut command = workspace.command(EMULATOR.sign);
        command.arg("-L").arg(&self.root).arg(self.root.join("usr/bin/python3"));
        command
    }
}

/// The suite that this machine is of.
fn suite() -> Result<String> {
    let release = fs::read_to_string("/etc/os-release").context("reading /etc/os-release")?;
    let named = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    named.map(|name| name.trim_matches('"').to_owned()).context("/etc/os-release names no suite of Debian's")
}
