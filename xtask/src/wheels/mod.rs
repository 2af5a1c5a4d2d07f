//! `cargo xtask wheels`: the Python package as one wheel per architecture, in `target/wheels`, each checked and tried.
//!
//! maturin builds them, with zig as C and C++ compiler and as linker: zig links against the symbols of an old glibc, whatever this machine
//! has, and brings a C++ library that goes into the wheel, so that no wheel needs one of the system's; only stacks are unwound by the
//! system's library ([`unwinder`]). For 64-bit Arm the standard library is that of [`Aarch64`]. The invariant that matters: **a wheel is in `target/wheels` only if it has passed**
//! ([`check`]): built elsewhere, it comes there at the end.

mod check;
mod unwinder;

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};

use crate::setup::aarch64::Aarch64;
use crate::setup::apt::{self, Needed};
use crate::setup::foreign_python::ForeignPython;
use crate::setup::pip;
use crate::step::{self, Count};
use crate::workspace::{self, Workspace};

/// The oldest glibc that the wheels run on: that of the standard library.
const PLATFORM: &str = "manylinux_2_17";

/// What the checks read programs with.
const NEEDED: [Needed; 1] = [Needed { sign: "readelf", package: "binutils" }];

/// Which wheels.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Only for these architectures.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "ARCHITECTURE,…")]
    pub(crate) only: Vec<Architecture>,
}

/// What a wheel is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Architecture {
    /// x86-64.
    #[value(name = "x86_64")]
    X86_64,
    /// 64-bit Arm.
    #[value(name = "aarch64")]
    Aarch64,
}

impl Architecture {
    fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
        }
    }

    fn target(self) -> String {
        format!("{}-unknown-linux-gnu", self.name())
    }

    /// As `readelf` calls the machine.
    fn machine(self) -> &'static str {
        match self {
            Self::X86_64 => "Advanced Micro Devices X86-64",
            Self::Aarch64 => "AArch64",
        }
    }
}

/// Builds, checks and tries them.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    apt::install_missing(workspace, &NEEDED)?;
    let requirements = workspace.root.join("xtask/wheel-requirements.txt");
    let builder = pip::environment(workspace, &requirements, "wheel-builder-maturin-1.16.0")?;
    let destination = workspace.target.join("wheels");
    fs::create_dir_all(&destination).with_context(|| format!("creating {}", destination.display()))?;
    let mut made = Vec::new();
    for architecture in Architecture::value_variants() {
        if !options.only.is_empty() && !options.only.contains(architecture) {
            continue;
        }
        println!("\n==> {}", architecture.name());
        let wheel = build(workspace, &builder, *architecture)?;
        let unpacked = check::check(workspace, &builder, &wheel, *architecture, PLATFORM)?;
        match architecture {
            Architecture::X86_64 => try_installed(workspace, &wheel)?,
            Architecture::Aarch64 => try_emulated(workspace, &unpacked)?,
        }
        let name = wheel.file_name().context("a wheel has a name")?;
        let finished = destination.join(name);
        fs::copy(&wheel, &finished).with_context(|| format!("copying to {}", finished.display()))?;
        made.push(finished);
    }
    for wheel in made {
        let bytes = fs::metadata(&wheel).context("looking at a wheel")?.len();
        println!("{} ({:.1} MB)", wheel.display(), bytes as f64 / 1e6);
    }
    Ok(())
}

/// maturin, with a compiler that can build for the architecture.
fn build(workspace: &Workspace, builder: &Path, architecture: Architecture) -> Result<PathBuf> {
    let out = workspace.empty_folder(&format!("wheel-{}", architecture.name()))?;
    let mut command = workspace.command(builder);
    // Where maturin finds itself, and zig through the interpreter.
    let path = path_with(builder.parent())?;
    command.env("PATH", &path).args(["-m", "maturin", "build", "--release", "--zig", "--target"]);
    command.arg(architecture.target()).arg("--compatibility").arg(PLATFORM);
    command.arg("--manifest-path").arg(workspace.root.join("bindings/python/Cargo.toml"));
    command.env("CARGO_TARGET_DIR", &workspace.target).arg("--out").arg(&out);
    if architecture == Architecture::Aarch64 {
        Aarch64::prepare(workspace)?.lend_to(&mut command, &path)?;
    }
    // For the compiler, and of the package alone.
    let library = unwinder::stand_in(workspace, builder, architecture)?;
    command.args(["--", "-C"]).arg(format!("link-arg={}", library.display()));
    step::run(&mut command, &mut Count::default())
        .with_context(|| format!("building for {}", architecture.name()))?;
    workspace::only_entry(&out)
}

fn path_with(folder: Option<&Path>) -> Result<OsString> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = folder.map(Path::to_path_buf).into_iter().chain(env::split_paths(&path));
    env::join_paths(folders).context("PATH")
}

/// What every wheel must do, and come to its end: a group of two ranks adds up, on memory of Python's own, and a queue's message comes to a reader here and, by
/// ZeroMQ, to one that might be elsewhere.
const TRIAL: &str = "
import array, concurrent.futures, platform, unisono
from unisono import _core, queue
def rank(comm):
    data = array.array('f', [comm.rank + 1.0] * 1000)
    comm.all_reduce(data)
    comm.close()
    return data[0], data[999]
with concurrent.futures.ThreadPoolExecutor(2) as pool:
    sums = list(pool.map(rank, unisono.in_process(2)))
assert sums == [(3.0, 3.0)] * 2, sums
writer = queue.Writer([0], remote_ranks=[1], connect_ip='127.0.0.1')
readers = [queue.Reader(writer.handle, rank, timeout=60) for rank in (0, 1)]
writer.wait_until_ready(60)
writer.send(bytes(range(256)) * 4096, 60)
for reader in readers:
    assert reader.recv_bytes(60) == bytes(range(256)) * 4096, reader.rank
print('unisono', unisono.__version__, 'on', platform.machine(), platform.python_version(), _core.__file__)
";

/// As a user would install it: into a new environment, with what it depends on.
fn try_installed(workspace: &Workspace, wheel: &Path) -> Result<()> {
    let folder = workspace.empty_folder("wheel-trial")?;
    let mut command = workspace.command("python3");
    command.args(["-m", "venv"]).arg(&folder);
    step::run(&mut command, &mut Count::default())?;
    let python = folder.join("bin/python");
    let mut command = workspace.command(&python);
    command
        .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary=:all:"])
        .arg(wheel);
    step::run(&mut command, &mut Count::default()).context("installing the wheel")?;
    let mut command = workspace.command(&python);
    // Not in the package's folder, and nothing of the checkout on the path.
    command.current_dir(&folder).args(["-I", "-W", "error", "-c", TRIAL]);
    step::run(&mut command, &mut Count::default()).context("trying the installed wheel")?;
    fs::remove_dir_all(&folder).context("removing the environment")
}

/// Imported and used by Debian's Python for that architecture, in the emulator.
fn try_emulated(workspace: &Workspace, unpacked: &Path) -> Result<()> {
    let python = ForeignPython::prepare(workspace)?;
    let mut command = python.command(workspace);
    command.env("PYTHONPATH", unpacked).env("PYTHONDONTWRITEBYTECODE", "1").args(["-c", TRIAL]);
    step::run(&mut command, &mut Count::default()).context("trying the wheel in the emulator")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn architectures_are_called_as_in_tags_and_targets() {
        let targets: Vec<_> = Architecture::value_variants().iter().map(|known| known.target()).collect();
        assert_eq!(targets, ["x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"]);
    }
}
