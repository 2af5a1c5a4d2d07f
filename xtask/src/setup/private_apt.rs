//! apt with lists, caches and sources in a folder of our own, from the mirror that the machine takes Debian from.
//!
//! Called where packages are fetched that are not to be installed: of another suite, or of another architecture. The machine's apt
//! configuration stays as it is, and root is not needed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::step::{self, Count};
use crate::workspace::Workspace;

/// The mirror this machine takes Debian from, and the key ring it trusts for it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct MachineSource {
    mirror: String,
    signed_by: Option<String>,
}

impl MachineSource {
    /// Reads `/etc/apt`: the first source of Debian's main archive, in either of apt's two formats.
    pub(super) fn read() -> Result<Self> {
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
#[derive(Debug)]
pub(super) struct PrivateApt {
    folder: PathBuf,
    architecture: Option<&'static str>,
}

impl PrivateApt {
    /// In `folder`, for one suite of the machine's mirror; of another architecture, Debian's name for it.
    pub(super) fn create(
        folder: &Path,
        machine: &MachineSource,
        suite: &str,
        architecture: Option<&'static str>,
    ) -> Result<Self> {
        for name in ["lists/partial", "cache/archives/partial"] {
            let path = folder.join(name);
            fs::create_dir_all(&path).with_context(|| format!("creating {}", path.display()))?;
        }
        let mut source = format!("Types: deb\nURIs: {}\nSuites: {suite}\nComponents: main\n", machine.mirror);
        if let Some(key) = &machine.signed_by {
            source.push_str(&format!("Signed-By: {key}\n"));
        }
        fs::write(folder.join("debian.sources"), source).context("writing a source for apt")?;
        Ok(Self { folder: folder.to_path_buf(), architecture })
    }

    /// Fetch the suite's list of packages. One that fails to come is an error: an empty list must not look like a missing package.
    pub(super) fn update(&self, workspace: &Workspace) -> Result<()> {
        let mut update = self.command(workspace, "apt-get");
        update.args(["update", "--quiet", "--error-on=any"]);
        step::run(&mut update, &mut Count::default())
    }

    /// Where it keeps the packages that it fetched.
    pub(super) fn archives(&self) -> PathBuf {
        self.folder.join("cache/archives")
    }

    /// One of apt's programs, told of all this.
    pub(super) fn command(&self, workspace: &Workspace, program: &str) -> Command {
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
        if let Some(architecture) = self.architecture {
            // What this machine has installed is of no use to that one.
            for option in ["Dir::State::status=/dev/null", "Debug::NoLocking=1"] {
                command.args(["-o", option]);
            }
            for name in ["APT::Architecture", "APT::Architectures::"] {
                command.arg("-o").arg(format!("{name}={architecture}"));
            }
        }
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
