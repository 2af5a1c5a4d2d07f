//! Building and running tests for 64-bit Arm on an x86-64 machine.
//!
//! Called by `cargo xtask cross`. The linker and the emulator come from Debian; the standard library is built once
//! from source into the private toolchain ([`super::toolchain`]), after which plain `cargo test --target` works.
//! The invariant that matters: the target's folder appears in the toolchain by one rename, so cargo finds either
//! no standard library or a whole one.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::iter;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::apt::{self, Needed};
use super::toolchain::Toolchain;
use crate::step::{self, Count};
use crate::workspace::Workspace;

/// The target's name.
pub(crate) const TARGET: &str = "aarch64-unknown-linux-gnu";

/// Put in front of an aarch64 program, it runs on this machine.
pub(crate) const RUNNER: &str = "qemu-aarch64-static -L /usr/aarch64-linux-gnu";

const LINKER: &str = "aarch64-linux-gnu-gcc";
const COMPILER: &str = "aarch64-linux-gnu-g++";
const ARCHIVER: &str = "aarch64-linux-gnu-ar";

const NEEDED: [Needed; 4] = [
    Needed { sign: LINKER, package: "gcc-aarch64-linux-gnu" },
    Needed { sign: COMPILER, package: "g++-aarch64-linux-gnu" },
    Needed { sign: "/usr/aarch64-linux-gnu/lib/libc.so.6", package: "libc6-dev-arm64-cross" },
    Needed { sign: "qemu-aarch64-static", package: "qemu-user-static" },
];

/// A toolchain that builds for aarch64, and the programs that link and run what it builds.
#[derive(Debug)]
pub(crate) struct Aarch64 {
    toolchain: Toolchain,
}

impl Aarch64 {
    /// Makes everything ready; a minute and a half the first time, nothing after that.
    pub(crate) fn prepare(workspace: &Workspace) -> Result<Self> {
        let toolchain = Toolchain::prepare(workspace)?;
        apt::install_missing(workspace, &NEEDED)?;
        let _lock = workspace.lock("aarch64-std")?;
        let folder = toolchain.target_folder(TARGET);
        if !folder.exists() {
            build_standard_library(workspace, &toolchain, &folder)?;
        }
        Ok(Self { toolchain })
    }

    /// Let a program that calls cargo and rustc by name, and builds for aarch64, find those that can.
    pub(crate) fn lend_to(&self, command: &mut Command, path: &OsStr) -> Result<()> {
        let folders = iter::once(self.toolchain.programs()).chain(env::split_paths(path));
        command.env("PATH", env::join_paths(folders).context("PATH")?);
        for (name, program) in [("CARGO", "cargo"), ("RUSTC", "rustc"), ("RUSTDOC", "rustdoc")] {
            command.env(name, self.toolchain.programs().join(program));
        }
        Ok(())
    }

    /// cargo that links for aarch64 and runs tests in the emulator.
    pub(crate) fn cargo(&self, workspace: &Workspace) -> Command {
        let mut command = self.toolchain.cargo(workspace);
        command
            .env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", LINKER)
            .env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER", RUNNER)
            // For what is written in C and C++: libzmq, with the feature `remote`.
            .env("CC_aarch64_unknown_linux_gnu", LINKER)
            .env("CXX_aarch64_unknown_linux_gnu", COMPILER)
            .env("AR_aarch64_unknown_linux_gnu", ARCHIVER);
        command
    }
}

/// Builds the standard library as the dependency of an empty crate, and takes the dependencies.
fn build_standard_library(workspace: &Workspace, toolchain: &Toolchain, folder: &Path) -> Result<()> {
    println!("building the standard library for {TARGET}, once");
    let work = workspace.empty_folder("aarch64-std")?;
    let empty = work.join("empty");
    fs::create_dir_all(empty.join("src"))?;
    // The crate is a workspace of its own: it lies inside the repository's folder but is no member.
    let manifest = "[package]\nname = \"empty\"\nedition = \"2024\"\n[workspace]\n";
    fs::write(empty.join("Cargo.toml"), manifest).context("writing the empty crate")?;
    fs::write(empty.join("src/lib.rs"), "").context("writing the empty crate")?;

    let target = work.join("target");
    let mut build = toolchain.cargo_with_unstable_options(workspace);
    build
        .current_dir(&empty)
        .env_remove("RUSTFLAGS")
        .args(["build", "--release", "-Zbuild-std=std,panic_abort,test,proc_macro", "--target", TARGET])
        .arg("--target-dir")
        .arg(&target);
    step::run(&mut build, &mut Count::default())?;

    let libraries = work.join("libraries");
    let count = take_libraries(&target.join(TARGET).join("release/deps"), &libraries.join("lib"))?;
    if count < 10 {
        bail!("the build left only {count} libraries: a whole standard library has some twenty");
    }
    fs::rename(&libraries, folder).with_context(|| format!("naming {}", folder.display()))?;
    fs::remove_dir_all(&work).context("removing the build of the standard library")
}

/// Copies the libraries among the build's dependencies, all but the empty crate's own; returns how many.
fn take_libraries(from: &Path, to: &Path) -> Result<usize> {
    fs::create_dir_all(to).with_context(|| format!("creating {}", to.display()))?;
    let mut count = 0;
    for entry in fs::read_dir(from).with_context(|| format!("reading {}", from.display()))? {
        let name = entry?.file_name();
        let is_library =
            name.to_str().is_some_and(|name| name.ends_with(".rlib") && !name.starts_with("libempty-"));
        if is_library {
            fs::copy(from.join(&name), to.join(&name)).with_context(|| format!("copying {name:?}"))?;
            count += 1;
        }
    }
    Ok(count)
}
