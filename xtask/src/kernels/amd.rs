//! The kernels for AMD: code objects by Debian's clang, and what their assembly says about flags.
//!
//! No simulator runs them. That the source is right is shown on the host and as PTX; here it is read in the assembly that each
//! flag is written and read as CDNA's memory model demands of system scope.

use std::fs;

use anyhow::{Context, Result, bail};

use super::{Artefact, Sources};
use crate::setup::apt::{self, Needed};
use crate::workspace::{self, Workspace};

/// How the kernels are compiled. Contraction would change the sums; without the last the file's path would be in the result.
pub(super) const OPTIONS: [&str; 9] = [
    "--offload-device-only",
    "--no-gpu-bundle-output",
    "-nogpulib",
    "-nogpuinc",
    "-O3",
    "-std=c++17",
    "-ffp-contract=off",
    "-fuse-cuid=none",
    "-Wno-unknown-pragmas",
];

/// What a generation's assembly has around a flag.
#[derive(Debug, Clone, Copy)]
struct Generation {
    name: &'static str,
    /// Before a release store: what the device's cache holds back is written to memory.
    before_release: &'static str,
    /// After an acquire load: what the device's cache still has is forgotten.
    after_acquire: &'static str,
    /// What a load at system scope says.
    load: &'static str,
    /// What a store there says, if anything.
    store: &'static str,
}

const GENERATIONS: [Generation; 2] = [
    Generation {
        name: "gfx90a",
        before_release: "buffer_wbl2",
        after_acquire: "buffer_invl2",
        load: " glc",
        store: "",
    },
    Generation {
        name: "gfx942",
        before_release: "buffer_wbl2 sc0 sc1",
        after_acquire: "buffer_inv sc0 sc1",
        load: " sc0 sc1",
        store: " sc0 sc1",
    },
];

/// What the compiler calls itself.
pub(super) fn compiler(workspace: &Workspace) -> Result<String> {
    let needed =
        [Needed { sign: "clang-19", package: "clang-19" }, Needed { sign: "ld.lld-19", package: "lld-19" }];
    apt::install_missing(workspace, &needed)?;
    let said = workspace::output(workspace.command("clang-19").arg("--version"))?;
    Ok(said.lines().next().unwrap_or_default().to_owned())
}

/// Code objects for all generations; their flags are in order.
pub(super) fn compile(workspace: &Workspace, sources: &Sources, ptx: &[Artefact]) -> Result<Vec<Artefact>> {
    let folder = workspace.empty_folder("amd-kernels")?;
    for source in sources.headers.iter().chain(&sources.hip) {
        fs::write(folder.join(&source.name), &source.text)
            .with_context(|| format!("writing {}", source.name))?;
    }
    let mut found = Vec::new();
    for main in &sources.hip {
        let stem = main.name.trim_end_matches(".hip");
        let ptx = ptx.iter().find(|artefact| artefact.name == format!("{stem}.ptx"));
        let ptx =
            String::from_utf8_lossy(&ptx.context("every kernel exists as PTX, too")?.bytes).into_owned();
        for generation in GENERATIONS {
            let build = |more: &[&str]| {
                let to = folder.join("built");
                let mut command = workspace.command("clang-19");
                command.current_dir(&folder).args(["-x", "hip"]).args(OPTIONS).args(more);
                command.arg(format!("--offload-arch={}", generation.name));
                command.arg(&main.name).arg("-o").arg(&to);
                workspace::output(&mut command)?;
                fs::read(&to).context("reading what clang built")
            };
            let assembly = String::from_utf8(build(&["-S"])?).context("clang's assembly is no text")?;
            flags_are_in_order(&assembly, &ptx, generation)
                .with_context(|| format!("{stem} for {}", generation.name))?;
            let name = format!("{stem}-{}.hsaco", generation.name);
            println!("{name}: as many releases and acquires as the PTX has, no private memory");
            found.push(Artefact { name, bytes: build(&[])? });
        }
    }
    Ok(found)
}

/// As many flags as the PTX has, each with what belongs to it in the lines beside it; no registers in memory.
fn flags_are_in_order(assembly: &str, ptx: &str, generation: Generation) -> Result<()> {
    let lines: Vec<&str> = assembly.lines().map(str::trim).collect();
    let opens = |line: &str, word: &str| line == word || line.starts_with(&format!("{word} "));
    let places = |word: &str| (0..lines.len()).filter(|at| opens(lines[*at], word)).collect::<Vec<_>>();
    let (releases, acquires) = (places(generation.before_release), places(generation.after_acquire));
    let expected = (ptx.matches("st.release.sys").count(), ptx.matches("ld.acquire.sys").count());
    // Of packets only the record for the host is released, and that a compiler may write in more places or fewer.
    let packets = ptx.matches("ld.relaxed.sys.global.u64").count();
    packets_are_in_order(assembly, packets, generation)?;
    let is_as_many = releases.len() == expected.0 || (packets > 0 && !releases.is_empty());
    if !is_as_many || acquires.len() != expected.1 {
        bail!("{} releases and {} acquires, the PTX has {expected:?}", releases.len(), acquires.len());
    }
    for at in releases {
        // Between wait and store an address may be calculated, and nothing else touch memory.
        let after = lines.get(at + 1..).unwrap_or_default();
        let waits = after.first().is_some_and(|wait| waits_for_memory(wait));
        let next = after.iter().skip(1).find(|line| touches_memory(line));
        if !waits || !next.is_some_and(|store| store.contains("_store_dword ")) {
            bail!("line {}: no wait and store behind `{}`", at + 1, lines[at]);
        }
    }
    for at in acquires {
        let before = lines.get(at.saturating_sub(2)..at).unwrap_or_default();
        if !matches!(before, [load, wait] if load.contains("_load_dword ") && waits_for_memory(wait)) {
            bail!("line {}: no load and wait before `{}`", at + 1, lines[at]);
        }
    }
    match lines.iter().find(|line| uses_memory_of_its_own(line)) {
        Some(line) => bail!("a kernel keeps what belongs into registers in memory: {line}"),
        None => Ok(()),
    }
}

fn touches_memory(line: &str) -> bool {
    ["global_", "flat_", "buffer_", "scratch_", "ds_", "s_barrier"]
        .iter()
        .any(|start| line.starts_with(start))
}

/// Whether a line of a kernel's record says that its threads have memory of their own: for registers that were spilled, or for what
/// never became registers. (Scalar registers that are kept in lanes of vector registers are in no memory.)
fn uses_memory_of_its_own(line: &str) -> bool {
    let is_record =
        [".private_segment_fixed_size:", ".vgpr_spill_count:"].iter().any(|sign| line.contains(sign));
    is_record && !line.ends_with(" 0")
}

/// As many whole words are loaded at system scope as in the PTX, and each kernel stores some: the own slices' inputs and results, and
/// those that are written anew.
fn packets_are_in_order(assembly: &str, packets: usize, generation: Generation) -> Result<()> {
    if packets == 0 {
        return Ok(());
    }
    let at_system_scope = |sign: &str, scope: &str| {
        assembly.lines().filter(|line| line.contains(sign) && line.trim_end().ends_with(scope)).count()
    };
    let loads = at_system_scope("global_load_dwordx2", generation.load);
    let stores = at_system_scope("global_store_dwordx2", generation.store);
    let kernels = assembly.matches(".amdhsa_kernel ").count();
    if loads != packets || kernels == 0 || stores < 4 * kernels {
        bail!("{kernels} kernels load {loads} words at system scope, the PTX {packets}, and store {stores}");
    }
    Ok(())
}

fn waits_for_memory(line: &str) -> bool {
    line.starts_with("s_waitcnt") && line.contains("vmcnt(0)")
}

#[cfg(test)]
mod tests {
    use super::*;

    const PTX: &str = "st.release.sys.global.u32 x\nld.acquire.sys.global.u32 y\n";
    const RELEASE: &str =
        "\tbuffer_wbl2 sc0 sc1\n\ts_waitcnt vmcnt(0)\n\tglobal_store_dword v[0:1], v2, off sc0 sc1\n";
    const ACQUIRE: &str =
        "\tglobal_load_dword v2, v[0:1], off sc0 sc1\n\ts_waitcnt vmcnt(0)\n\tbuffer_inv sc0 sc1\n";

    #[test]
    fn words_that_are_not_at_system_scope_are_found() {
        let ptx = format!("{PTX}ld.relaxed.sys.global.u64 z\n");
        let load = "\tglobal_load_dwordx2 v[0:1], v[2:3], off sc0 sc1\n";
        let stores = "\tglobal_store_dwordx2 v[0:1], v[2:3], off sc0 sc1\n".repeat(4);
        let check = |words: &str| {
            let assembly = format!("\t.amdhsa_kernel k\n{RELEASE}{ACQUIRE}{words}");
            flags_are_in_order(&assembly, &ptx, GENERATIONS[1]).is_ok()
        };
        assert!(check(&format!("{load}{stores}")));
        assert!(!check(&stores));
        assert!(!check(&format!("{}{stores}", load.replace(" sc0 sc1", " sc0"))));
        assert!(!check(&format!("{load}{}", stores.replace(" sc0 sc1", ""))));
    }

    #[test]
    fn flags_that_miss_a_part_are_found() {
        let check = |assembly: String| flags_are_in_order(&assembly, PTX, GENERATIONS[1]).is_ok();
        assert!(check(format!("{RELEASE}{ACQUIRE}\t.vgpr_spill_count: 0\n")));
        assert!(!check(format!("{RELEASE}{ACQUIRE}\t.vgpr_spill_count: 3\n")));
        let lanes = "\t.private_segment_fixed_size: 0\n\t.sgpr_spill_count: 3\n";
        assert!(check(format!("{RELEASE}{ACQUIRE}{lanes}")));
        assert!(!check(format!("{RELEASE}{ACQUIRE}{}", lanes.replace("size: 0", "size: 48"))));
        assert!(!check(RELEASE.to_owned()));
        assert!(!check(format!("{RELEASE}{}", ACQUIRE.replace("buffer_inv sc0 sc1", "buffer_inv sc1"))));
        assert!(!check(format!("{}{ACQUIRE}", RELEASE.replace("s_waitcnt vmcnt(0)", "s_nop 0"))));
        let wait = "s_waitcnt vmcnt(0)";
        assert!(check(format!(
            "{}{ACQUIRE}",
            RELEASE.replace(wait, &format!("{wait}\n\tv_mov_b32_e32 v2, 1"))
        )));
        let load = format!("{wait}\n\tglobal_load_dword v2, v[0:1], off");
        assert!(!check(format!("{}{ACQUIRE}", RELEASE.replace(wait, &load))));
        assert!(!check(format!(
            "{RELEASE}{}",
            ACQUIRE.replace("s_waitcnt vmcnt(0)", "s_waitcnt lgkmcnt(0)")
        )));
    }
}
