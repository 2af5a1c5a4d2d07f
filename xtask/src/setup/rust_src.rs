//! The source of the standard library, of exactly the running compiler, from Debian's pool.
//!
//! Called while the private toolchain is made. The package `rust-src` is fetched with a package list of our own
//! (the machine's mirror and keys, another suite's name), so the machine's apt configuration stays as it is and
//! root is not needed. The invariant that matters: **a release other than the compiler's is never taken**, and
//! that the pool has moved on ([`CannotRun::SourceGone`]) is told apart from every other failure.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

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
        let apt = PrivateApt::create(&folder.join(suite), &machine, suite)?;
        let mut update = apt.command(workspace, "apt-get");
        // Any list that fails to come is an error here: an empty list must not look like a missing version.
        update.args(["update", "--quiet", "--error-on=any"]);
        step::run(&mut update, &mut Count::default())
            .with_context(|| format!("reading Debian's list of packages for {suite}"))?;
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

/// The mirror this machine takes Debian from, and the key ring it trusts for it.
#[derive(Debug, PartialEq, Eq)]
struct MachineSource {
    mirror: String,
    signed_by: Option<String>,
}

impl MachineSource {
    /// Reads `/etc/apt`: the first source of Debian's main archive, in either of apt's two formats.
    fn read() -> Result<Self> {
        let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
        if let Ok(folder) = fs::read_dir("/etc/apt/sources.list.d") {
            files.extend(folder.filter_map(|entry| Some(entry.ok()?.path())));
        }
        files.sort();
        for file in files {
            let text = fs::read_to_string(&file).unwrap_or_default();
            let found = match file.extension().and_then(|extension| extension.to_str()) {
                Some("sources") => Self::from_stanzas(&text),
                Some("list") => Self::from_lines(&text),
                _ => None,
            };
            if let Some(found) = found {
                return Ok(found);
            }
        }
        bail!("/etc/apt names no source of Debian's main archive (a Debian machine is needed here)")
    }

    /// Stanzas of `Field: value` lines, parted by empty lines.
    fn from_stanzas(text: &str) -> Option<Self> {
        text.split("\n\n").find_map(|stanza| {
            let field = |name: &str| {
                stanza.lines().find_map(|line| line.strip_prefix(name)).map(|value| value.trim().to_owned())
            };
            let mirror = field("URIs:")?.split_whitespace().next()?.to_owned();
            is_main_archive(&mirror).then(|| Self { mirror, signed_by: field("Signed-By:") })
        })
    }

    /// Lines of the form `deb [options] mirror suite components`.
    fn from_lines(text: &str) -> Option<Self> {
        text.lines().find_map(|line| {
            let rest = line.trim().strip_prefix("deb ")?.trim_start();
            let (options, rest) = match rest.strip_prefix('[') {
                Some(bracketed) => bracketed.split_once(']')?,
                None => ("", rest),
            };
            let mirror = rest.split_whitespace().next()?.to_owned();
            let key = options.split_whitespace().find_map(|option| option.strip_prefix("signed-by="));
            is_main_archive(&mirror).then(|| Self { mirror, signed_by: key.map(str::to_owned) })
        })
    }
}

/// Debian's mirrors keep the archive under `/debian`; the security archive and other vendors do not.
fn is_main_archive(mirror: &str) -> bool {
    mirror.trim_end_matches('/').ends_with("/debian")
}

/// apt with lists, caches and sources in a folder of ours.
struct PrivateApt {
    folder: PathBuf,
}

impl PrivateApt {
    fn create(folder: &Path, machine: &MachineSource, suite: &str) -> Result<Self> {
        for name in ["lists/partial", "cache/archives/partial"] {
            let path = folder.join(name);
            fs::create_dir_all(&path).with_context(|| format!("creating {}", path.display()))?;
        }
        let mut source = format!("Types: deb\nURIs: {}\nSuites: {suite}\nComponents: main\n", machine.mirror);
        if let Some(key) = &machine.signed_by {
            source.push_str(&format!("Signed-By: {key}\n"));
        }
        fs::write(folder.join("debian.sources"), source).context("writing a source for apt")?;
        Ok(Self { folder: folder.to_path_buf() })
    }

    fn command(&self, workspace: &Workspace, program: &str) -> Command {
        let mut command = workspace.command(program);
        let folder = self.folder.display();
        for option in [
            "Dir::Etc::SourceList=/dev/null".to_owned(),
            format!("Dir::Etc::SourceParts={folder}"),
            format!("Dir::State::Lists={folder}/lists"),
            format!("Dir::Cache={folder}/cache"),
            // Index files of other kinds (icons, descriptions) are of no use here.
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".to_owned(),
            "Acquire::Languages=none".to_owned(),
            // The sandbox user of apt may not be able to enter our folders.
            "APT::Sandbox::User=".to_owned(),
        ] {
            command.arg("-o").arg(option);
        }
        command
    }
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

    #[test]
    fn the_mirror_is_read_from_stanzas_and_the_security_archive_is_passed_over() {
        let text = "Types: deb\nURIs: http://mirror/debian-security\nSuites: bookworm-security\n\n\
                    Types: deb\n# a remark\nURIs: http://mirror/debian\nSuites: bookworm\nSigned-By: /keys.gpg\n";
        let expected =
            MachineSource { mirror: "http://mirror/debian".into(), signed_by: Some("/keys.gpg".into()) };
        assert_eq!(MachineSource::from_stanzas(text), Some(expected));
    }

    #[test]
    fn the_mirror_is_read_from_lines() {
        let text = "# deb http://old/debian x main\ndeb [arch=amd64 signed-by=/k.gpg] http://mirror/debian/ x main\n";
        let expected =
            MachineSource { mirror: "http://mirror/debian/".into(), signed_by: Some("/k.gpg".into()) };
        assert_eq!(MachineSource::from_lines(text), Some(expected));
    }
}
