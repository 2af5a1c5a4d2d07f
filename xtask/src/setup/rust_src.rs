//! The source of the standard library, of exactly the running compiler, from Debian's pool.
//!
//! Called while the private toolchain is made. The package `rust-src` is fetched with a package list of our own
//! (the machine's mirror and keys, another suite's name), so the machine's apt configuration stays as it is and
//! root is not needed. The invariant that matters: **a release other than the compiler's is never taken**, and
//! that the pool has moved on ([`CannotRun::SourceGone`]) is told apart from every other failure.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::private_apt::{MachineSource, PrivateApt};
use crate::step::{self, CannotRun, Count};
use crate::workspace::{self, Workspace};

/// The suites that carry recent compilers, in the order in which they are searched.
const SUITES: [&str; 3] = ["trixie-backports", "forky", "sid"];

/// Fetches and unpacks the source so that `destination/library/std` exists.
pub(crate) fn fetch(workspace: &Workspace, destination: &Path) -> Result<()> {
    let release = &workspace.compiler.release;
    println!("fetching the source of the standard library {release} (Debian package rust-src, 45 MB)");
    let folder = workspace.empty_folder("rust-src")?;
    let (apt, version) = find_version(workspace, &folder)?;
    let download = folder.join("download");
    fs::create_dir_all(&download)?;
    let mut command = apt.command(workspace, "apt-get");
    command.current_dir(&download).arg("download").arg(format!("rust-src={version}"));
    step::run(&mut command, &mut Count::default())?;

    let package = workspace::only_entry(&download)?;
    let unpacked = folder.join("unpacked");
    let mut command = workspace.command("dpkg-deb");
    step::run(command.arg("--extract").arg(&package).arg(&unpacked), &mut Count::default())?;

    let source = unpacked.join("usr/src").join(format!("rustc-{release}"));
    if !source.join("library/std/Cargo.toml").is_file() {
        bail!("the package rust-src {version} holds no usr/src/rustc-{release}/library/std");
    }
    let parent = destination.parent().context("the source needs a folder to lie in")?;
    fs::create_dir_all(parent)?;
    fs::rename(&source, destination)
        .with_context(|| format!("moving the source to {}", destination.display()))?;
    fs::remove_dir_all(&folder).context("removing what was downloaded")
}

/// Searches one suite after the other for the compiler's release.
fn find_version(workspace: &Workspace, folder: &Path) -> Result<(PrivateApt, String)> {
    let release = &workspace.compiler.release;
    let machine = MachineSource::read()?;
    for suite in SUITES {
        let apt = PrivateApt::create(&folder.join(suite), &machine, suite, None)?;
        apt.update(workspace).with_context(|| format!("reading Debian's list of packages for {suite}"))?;
        let listing = workspace::output(apt.command(workspace, "apt-cache").args(["madison", "rust-src"]))?;
        if let Some(version) = version_of(&listing, release) {
            return Ok((apt, version));
        }
        println!("{suite} holds no rust-src {release}");
    }
    Err(CannotRun::SourceGone { release: release.clone(), suites: SUITES.join(", ") }.into())
}

/// The Debian version in a listing by `apt-cache madison` that packages `release`.
fn version_of(listing: &str, release: &str) -> Option<String> {
    let is_release =
        |version: &str| version.strip_prefix(release).is_some_and(|rest| rest.starts_with(['+', '-', '~']));
    listing
        .lines()
        .filter_map(|line| line.split('|').nth(1))
        .map(str::trim)
        .find(|version| is_release(version))
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_compilers_own_release_is_taken() {
        let listing = " rust-src | 1.95.0+dfsg1-1~bpo13+1 | http://mirror/debian trixie-backports/main\n\
                       rust-src | 1.85.0+dfsg3-1 | http://mirror/debian trixie/main\n";
        assert_eq!(version_of(listing, "1.95.0").as_deref(), Some("1.95.0+dfsg1-1~bpo13+1"));
        assert_eq!(version_of(listing, "1.85.0").as_deref(), Some("1.85.0+dfsg3-1"));
        assert_eq!(version_of(listing, "1.95"), None);
        assert_eq!(version_of("", "1.95.0"), None);
    }
}
