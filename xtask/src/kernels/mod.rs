//! `cargo xtask kernels`: from the sources of the GPU kernels to what is shipped, and what can be said about that without a GPU.
//!
//! PTX and AMD's code objects in `crates/gpu/artefacts` are checked in, so that nobody needs a compiler. Here they are built
//! anew, by compilers of exactly the recorded versions, and compared byte for byte. Then the PTX is assembled for several
//! generations of GPUs, none of which may spill registers, and both are read for flags that are not what they must be; and the
//! same source runs on the host under ThreadSanitizer. `--mutants` takes the synchronisation out of the sources, one piece at
//! a time, and shows that the simulator, and ThreadSanitizer, find each out.

mod amd;
mod host;
mod mutants;
mod nvrtc;
mod packets;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::setup::pip;
use crate::step::Count;
use crate::workspace::Workspace;
use nvrtc::{Nvrtc, Source};

/// What to do beside comparing.
#[derive(Debug, Default, Args)]
pub(crate) struct Options {
    /// Write what was built into crates/gpu/artefacts instead of comparing with what is there.
    #[arg(long)]
    refresh: bool,
    /// Also show that kernels without parts of their synchronisation are found out.
    #[arg(long)]
    mutants: bool,
}

/// The version of the wheels of compiler and assembler, as in their requirements files.
const VERSION: &str = "12.9.86";

/// Assembled for each: Ampere, Hopper, and both lines of Blackwell.
const GENERATIONS: [u32; 4] = [80, 90, 100, 120];

/// What a kernel needs unless the end of its file's name says otherwise: `-sm_90`.
const BASELINE: u32 = 80;

/// Where kernels and artefacts are.
const CRATE: &str = "crates/gpu";

/// Builds, compares or writes, assembles, reads; then the mutants if they are wanted.
pub(crate) fn run(workspace: &Workspace, options: &Options, count: &mut Count) -> Result<()> {
    let wheel = pip::unpacked_wheel(
        workspace,
        &workspace.root.join("xtask/nvrtc-requirements.txt"),
        &format!("nvrtc-{VERSION}"),
    )?;
    let nvrtc = Nvrtc::load(&wheel)?;
    let sources = Sources::read(&workspace.root.join(CRATE).join("kernels"))?;
    let ptx = sources.compile(&nvrtc)?;
    let clang = amd::compiler(workspace)?;
    let code_objects = amd::compile(workspace, &sources, &ptx)?;
    let built = [ptx.as_slice(), &code_objects].concat();
    let artefacts = workspace.root.join(CRATE).join("artefacts");
    let record = record(&clang);
    if options.refresh {
        write(&built, &record, &artefacts)?;
    } else {
        compare(&built, &record, &artefacts)?;
    }
    assemble(workspace, &artefacts, &ptx)?;
    ptx.iter().try_for_each(flags_are_at_system_scope)?;
    host::run(workspace, &sources)?;
    if options.mutants {
        mutants::run(workspace, &nvrtc, &sources, count)?;
        packets::run(workspace, &nvrtc, &sources, count)?;
    }
    Ok(())
}

/// What is shipped.
#[derive(Debug, Clone)]
struct Artefact {
    name: String,
    bytes: Vec<u8>,
}

impl Artefact {
    fn text(&self) -> Result<&str> {
        std::str::from_utf8(&self.bytes).with_context(|| format!("{} is no text", self.name))
    }
}

/// The files of kernels: those that are compiled, by target, and those that are included.
#[derive(Debug, Clone, Default)]
struct Sources {
    mains: Vec<Source>,
    hip: Vec<Source>,
    host: Vec<Source>,
    headers: Vec<Source>,
}

impl Sources {
    fn read(folder: &Path) -> Result<Self> {
        let mut found = Self::default();
        for entry in fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
            let path = entry.context("reading the kernels")?.path();
            let name = path.file_name().and_then(|name| name.to_str()).context("a kernel without a name")?;
            let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
            let source = Source { name: name.to_owned(), text };
            match path.extension().and_then(|end| end.to_str()) {
                Some("cu") => found.mains.push(source),
                Some("hip") => found.hip.push(source),
                Some("cpp") => found.host.push(source),
                Some("h") => found.headers.push(source),
                _ => {}
            }
        }
        found.mains.sort_by(|a, b| a.name.cmp(&b.name));
        found.hip.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    /// The PTX of each.
    fn compile(&self, nvrtc: &Nvrtc) -> Result<Vec<Artefact>> {
        let one = |main: &Source| {
            let text = nvrtc.compile(main, &self.headers, capability_of(&main.name))?;
            Ok(Artefact { name: main.name.replace(".cu", ".ptx"), bytes: text.into_bytes() })
        };
        self.mains.iter().map(one).collect()
    }
}

/// The compute capability, times ten, that a file or an artefact is for.
fn capability_of(name: &str) -> u32 {
    let stem = name.split('.').next().unwrap_or_default();
    stem.split_once("-sm_").and_then(|(_, number)| number.parse().ok()).unwrap_or(BASELINE)
}

/// What the artefacts were built with, as it is recorded beside them.
fn record(clang: &str) -> String {
    let listed =
        |options: &[&str]| options.iter().map(|one| format!("\"{one}\"")).collect::<Vec<_>>().join(", ");
    format!(
        "# Written by `cargo xtask kernels --refresh`.\nnvrtc = \"{VERSION}\"\nnvrtc-options = [{}]\nclang = \"{clang}\"\n\
         clang-options = [{}]\n",
        listed(&nvrtc::OPTIONS),
        listed(&amd::OPTIONS)
    )
}

fn write(built: &[Artefact], record: &str, artefacts: &Path) -> Result<()> {
    fs::create_dir_all(artefacts).with_context(|| format!("creating {}", artefacts.display()))?;
    for Artefact { name, bytes } in built {
        println!("writing {CRATE}/artefacts/{name}: {} bytes", bytes.len());
        fs::write(artefacts.join(name), bytes).with_context(|| format!("writing {name}"))?;
    }
    fs::write(artefacts.join("versions.toml"), record).context("writing versions.toml")
}

fn compare(built: &[Artefact], record: &str, artefacts: &Path) -> Result<()> {
    const HOW: &str = "look at what `cargo xtask kernels --refresh` changes, run the tests, and check it in";
    let read = |name: &str| {
        fs::read(artefacts.join(name)).with_context(|| format!("reading {CRATE}/artefacts/{name}"))
    };
    let recorded = String::from_utf8_lossy(&read("versions.toml")?).into_owned();
    if recorded != record {
        bail!("the artefacts were built with\n{recorded}and the compilers at hand are\n{record}{HOW}");
    }
    for Artefact { name, bytes } in built {
        if read(name)? != *bytes {
            bail!("{CRATE}/artefacts/{name} is not what its sources are compiled to: {HOW}");
        }
        println!("{name}: the same bytes as shipped");
    }
    Ok(())
}

/// With NVIDIA's assembler, for every generation; no kernel may keep registers in memory.
fn assemble(workspace: &Workspace, artefacts: &Path, ptx: &[Artefact]) -> Result<()> {
    let wheel = pip::unpacked_wheel(
        workspace,
        &workspace.root.join("xtask/ptxas-requirements.txt"),
        &format!("ptxas-{VERSION}"),
    )?;
    let ptxas = wheel.join("nvidia/cuda_nvcc/bin/ptxas");
    let mut permissions = fs::metadata(&ptxas).context("looking for ptxas")?.permissions();
    permissions.set_mode(0o755);
    fs::set_permissions(&ptxas, permissions).context("making ptxas executable")?;
    for Artefact { name, .. } in ptx {
        for generation in GENERATIONS.into_iter().filter(|generation| *generation >= capability_of(name)) {
            let generation = format!("sm_{generation}");
            let log = assemble_one(workspace, &ptxas, &artefacts.join(name), &generation)?;
            let spilling =
                log.lines().filter(|line| line.contains("spill") && !is_without_spills(line)).count();
            if spilling > 0 {
                bail!("{name} for {generation}: {spilling} kernels spill registers\n{log}");
            }
            println!("{name} for {generation}: {} registers at most, no spills", most_registers(&log));
        }
    }
    Ok(())
}

fn assemble_one(workspace: &Workspace, ptxas: &Path, ptx: &Path, generation: &str) -> Result<String> {
    let to: PathBuf = workspace.cache.join("assembled.cubin");
    let mut command = workspace.command(ptxas);
    command.arg("--verbose").arg(format!("--gpu-name={generation}")).arg(ptx).arg("--output-file").arg(&to);
    let done = command.output().context("starting ptxas")?;
    // What it has to say it says on the error output.
    let log = String::from_utf8_lossy(&done.stderr).into_owned() + &String::from_utf8_lossy(&done.stdout);
    if !done.status.success() {
        bail!("ptxas for {generation}: {}\n{log}", done.status);
    }
    fs::remove_file(&to).context("removing what was assembled")?;
    Ok(log)
}

/// `0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads`
fn is_without_spills(line: &str) -> bool {
    line.contains("0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads")
}

fn most_registers(log: &str) -> u32 {
    let used = |line: &str| line.split("Used ").nth(1)?.split(' ').next()?.parse().ok();
    log.lines().filter_map(used).max().unwrap_or(0)
}

/// Between devices a flag orders data only as a release or an acquire at system scope, and only if nothing else reads it.
fn flags_are_at_system_scope(ptx: &Artefact) -> Result<()> {
    let mut wrong = Vec::new();
    for (number, line) in ptx.text()?.lines().enumerate() {
        if !is_allowed(line) {
            wrong.push(format!("{}, line {}: {}", ptx.name, number + 1, line.trim()));
        }
    }
    if wrong.is_empty() { Ok(()) } else { bail!("not for devices side by side:\n{}", wrong.join("\n")) }
}

/// Loads and stores are data, a release or acquire at system scope, a word of 8 bytes that is its own flag, or, if atomic, at
/// system scope or counting the device's own blocks; nothing is fused, cached apart, or volatile.
/// What a switch adds is loaded at system scope. Lanes meet before they show one another anything.
fn is_allowed(line: &str) -> bool {
    let opcode = line.split_whitespace().find(|word| !word.starts_with('@')).unwrap_or_default();
    let mut words = opcode.split('.');
    let kind = words.next().unwrap_or_default();
    let modifiers: Vec<_> = words.collect();
    match (kind, modifiers.as_slice()) {
        ("ld", ["acquire", "sys", "global", ..]) | ("st", ["release", "sys", "global", ..]) => true,
        ("ld" | "st", ["param" | "global" | "shared", rest @ ..]) => !rest.contains(&"nc"),
        ("ld" | "st", ["relaxed", "sys", "global", "u64"]) => true,
        ("atom", [_, "sys", "global", ..] | ["acq_rel", "gpu", "global", "add", "u32"]) => true,
        ("multimem", ["ld_reduce", "relaxed", "sys", "global", "add", rest @ ..]) => {
            matches!(rest, ["v4", "f32"] | ["acc::f32", "v4", "f16x2" | "bf16x2"])
        }
        ("shfl", ["sync", ..]) => true,
        ("ld" | "st" | "multimem" | "shfl" | "atom" | "red" | "fma" | "membar" | "fence", _) => false,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_of_another_kind_are_found() {
        for good in [
            "\tld.global.v4.u32 \t{%r1}, [%rd1];",
            "@%p1 ld.param.u64 %rd1, [x];",
            "st.release.sys.global.u32 [%rd1], %r1;",
            "ld.acquire.sys.global.u32 %r1, [%rd1];",
            "atom.relaxed.sys.global.cas.b32 %r1, [%rd1], 0, 1;",
            "add.rn.f32 %f1, %f1, %f2;",
            "shfl.sync.bfly.b32 %r1, %r2, 1, 0x1f, 0xffffffff;",
            "st.shared.f32 [%rd1], %f1;",
            "multimem.ld_reduce.relaxed.sys.global.add.acc::f32.v4.bf16x2 {%r1, %r2, %r3, %r4}, [%rd1];",
            "st.relaxed.sys.global.u64 [%rd1], %rd2;",
            "ld.relaxed.sys.global.u64 %rd2, [%rd1];",
            "atom.acq_rel.gpu.global.add.u32 %r1, [%rd1], 1;",
        ] {
            assert!(is_allowed(good), "{good}");
        }
        for bad in [
            "ld.volatile.global.u32 %r1, [%rd1];",
            "ld.relaxed.sys.global.u32 %r1, [%rd1];",
            "st.release.gpu.global.u32 [%rd1], %r1;",
            "ld.relaxed.gpu.global.u64 %rd1, [%rd1];",
            "ld.relaxed.sys.global.v2.u64 {%rd1, %rd2}, [%rd1];",
            "atom.relaxed.gpu.global.add.u32 %r1, [%rd1], 1;",
            "ld.global.nc.u32 %r1, [%rd1];",
            "ld.u32 %r1, [%rd1];",
            "fma.rn.f32 %f1, %f1, %f2, %f3;",
            "membar.sys;",
            "shfl.bfly.b32 %r1, %r2, 1, 0x1f;",
            "multimem.ld_reduce.relaxed.gpu.global.add.v4.f32 {%r1, %r2, %r3, %r4}, [%rd1];",
            "multimem.ld_reduce.relaxed.sys.global.add.v4.bf16x2 {%r1, %r2, %r3, %r4}, [%rd1];",
        ] {
            assert!(!is_allowed(bad), "{bad}");
        }
    }

    #[test]
    fn names_say_for_which_devices_an_artefact_is() {
        assert_eq!(capability_of("one_shot.ptx"), 80);
        assert_eq!(capability_of("multicast_one_shot-sm_90.cu"), 90);
    }

    #[test]
    fn the_assemblers_words_are_understood() {
        let line = "    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads";
        assert!(is_without_spills(line));
        assert!(!is_without_spills("    8 bytes stack frame, 4 bytes spill stores, 4 bytes spill loads"));
        assert_eq!(
            most_registers("x\nptxas info    : Used 32 registers, used 1 barriers\nUsed 84 registers"),
            84
        );
    }

    #[test]
    fn the_requirements_name_the_recorded_version() {
        for file in
            [include_str!("../../nvrtc-requirements.txt"), include_str!("../../ptxas-requirements.txt")]
        {
            assert!(file.contains(&format!("=={VERSION} ")));
        }
    }
}
