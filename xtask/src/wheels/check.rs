//! What must hold of a wheel before anybody may have it.
//!
//! Its tag promises where it runs; so what is looked at is what the compiled part asks of a machine: which libraries, which
//! versions of glibc's symbols, and which functions of Python's, of which only those of the stable ABI are the same in every
//! version. auditwheel is asked as well, which knows each platform's list.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::{Architecture, unwinder};
use crate::step::{self, Count};
use crate::workspace::{self, Workspace};

/// The compiled part.
const CORE: &str = "unisono/_core.abi3.so";

/// What every machine with the platform's glibc has. No C++ library is among them.
const LIBRARIES: [&str; 8] = [
    "libc.so.6",
    "libm.so.6",
    "libdl.so.2",
    "librt.so.1",
    "libpthread.so.0",
    "libgcc_s.so.1",
    "ld-linux-x86-64.so.2",
    "ld-linux-aarch64.so.1",
];

/// Checks everything, and gives the folder in which the wheel lies unpacked.
pub(super) fn check(
    workspace: &Workspace,
    builder: &Path,
    wheel: &Path,
    architecture: Architecture,
    platform: &str,
) -> Result<PathBuf> {
    let name = wheel.file_name().and_then(|name| name.to_str()).context("a wheel's name is text")?;
    let tag = format!("{platform}_{}", architecture.name());
    ensure!(name.contains("-cp311-abi3-"), "{name} is not for the stable ABI from CPython 3.11 on");
    ensure!(tags_of(name).any(|found| found == tag), "{name} is not tagged {tag}");

    let folder = workspace.empty_folder(&format!("wheel-{}-unpacked", architecture.name()))?;
    let mut command = workspace.command(builder);
    command.args(["-m", "zipfile", "--extract"]).arg(wheel).arg(&folder);
    step::run(&mut command, &mut Count::default())?;
    contents_are_whole(&workspace.root.join("bindings/python/python"), &folder)?;
    licences_go_along(workspace, &folder)?;
    tags_agree(&folder, name)?;

    let core = folder.join(CORE);
    let header = readelf(workspace, "--file-header", &core)?;
    ensure!(header.contains(architecture.machine()), "{CORE} is not for {}:\n{header}", architecture.name());
    let dynamic = readelf(workspace, "--dynamic", &core)?;
    for library in libraries_of(&dynamic) {
        ensure!(LIBRARIES.contains(&library), "{CORE} needs {library}, which not every machine has");
    }
    let most = glibc_of(platform).with_context(|| format!("{platform} names no glibc"))?;
    let newest = newest_glibc(&readelf(workspace, "--version-info", &core)?);
    ensure!(newest <= most, "{CORE} needs glibc {newest:?}, and {platform} has {most:?}");
    let symbols = readelf(workspace, "--dyn-syms", &core)?;
    let exported: Vec<_> =
        symbols_of(&symbols).filter(|(_, defined)| *defined).map(|(name, _)| name).collect();
    ensure!(
        exported == ["PyInit__core"],
        "{CORE} exports {exported:?}, and should export PyInit__core alone"
    );
    uses_the_stable_abi_alone(workspace, builder, &symbols)?;
    is_unwound_by_the_system(&dynamic, &symbols)?;

    let mut command = workspace.command(builder);
    let verdict = workspace::output(command.args(["-m", "auditwheel", "show"]).arg(wheel))?;
    // It breaks lines where they are long.
    let verdict = verdict.split_whitespace().collect::<Vec<_>>().join(" ");
    ensure!(
        verdict.contains(&format!("\"{tag}\"")),
        "auditwheel does not find {name} to be {tag}: {verdict}"
    );
    println!(
        "{name}: glibc {}.{} at most, {}",
        newest.0,
        newest.1,
        libraries_of(&dynamic).collect::<Vec<_>>().join(", ")
    );
    Ok(folder)
}

/// Prints the names of Python's that are not in the stable ABI of the given version, or came later.
const STABLE_ABI: &str = "
import sys
from abi3info import DATAS, FUNCTIONS
from abi3info.models import PyVersion, Symbol
version, names = PyVersion(3, 11), sys.argv[1:]
known = {symbol.name: entry.added for table in (FUNCTIONS, DATAS) for symbol, entry in table.items()}
print(*[name for name in names if name not in known or known[name] > version])
";

/// What it takes of Python has been there, and will be, in every version from 3.11 on.
fn uses_the_stable_abi_alone(workspace: &Workspace, builder: &Path, symbols: &str) -> Result<()> {
    let pythons: Vec<_> = symbols_of(symbols)
        .filter(|(name, defined)| !defined && (name.starts_with("Py") || name.starts_with("_Py")))
        .map(|(name, _)| name)
        .collect();
    ensure!(pythons.len() > 20, "{CORE} takes only {pythons:?} of Python");
    let others = workspace::output(workspace.command(builder).args(["-c", STABLE_ABI]).args(&pythons))?;
    ensure!(others.trim().is_empty(), "{CORE} uses what is not in the stable ABI of CPython 3.11: {others}");
    Ok(())
}

/// Stacks are unwound by the system's library: what it needs of one is asked of that.
fn is_unwound_by_the_system(dynamic: &str, symbols: &str) -> Result<()> {
    ensure!(
        libraries_of(dynamic).any(|library| library == unwinder::LIBRARY),
        "{CORE} does not need {}: it has an unwinder of its own, which the system's frames do not fit",
        unwinder::LIBRARY
    );
    for wanted in unwinder::NEEDED {
        let is_asked_for = symbols_of(symbols).any(|(name, defined)| name == wanted && !defined);
        ensure!(is_asked_for, "{CORE} does not take {wanted} from {}: it has another", unwinder::LIBRARY);
    }
    Ok(())
}

/// The platforms in a wheel's name, which are its last part, with dots between them.
fn tags_of(name: &str) -> impl Iterator<Item = &str> {
    name.trim_end_matches(".whl").rsplit('-').next().unwrap_or_default().split('.')
}

/// Every file of the package's Python half is there, and what makes it typed, and the compiled half.
fn contents_are_whole(source: &Path, unpacked: &Path) -> Result<()> {
    let mut folders = vec![source.to_path_buf()];
    let mut count = 0;
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))? {
            let path = entry?.path();
            let is_made = path.file_name().is_some_and(|name| name == "__pycache__");
            if path.is_dir() && !is_made {
                folders.push(path);
            } else if path
                .extension()
                .is_some_and(|end| ["py", "pyi", "typed"].iter().any(|known| end == *known))
            {
                let inside = path.strip_prefix(source).context("a file of the package")?;
                let packed = fs::read(unpacked.join(inside))
                    .with_context(|| format!("{} is not in the wheel", inside.display()))?;
                ensure!(packed == fs::read(&path)?, "{} is another in the wheel", inside.display());
                count += 1;
            }
        }
    }
    ensure!(count > 5, "only {count} files of Python were found in {}", source.display());
    for name in [CORE, "unisono/py.typed", "unisono/_core.pyi"] {
        ensure!(unpacked.join(name).is_file(), "{name} is not in the wheel");
    }
    Ok(())
}

/// Where the wheel speaks of itself.
fn metadata_of(unpacked: &Path) -> Result<PathBuf> {
    let mut entries = fs::read_dir(unpacked)?.filter_map(|entry| Some(entry.ok()?.path()));
    let metadata = entries.find(|path| path.extension().is_some_and(|end| end == "dist-info"));
    metadata.with_context(|| format!("no dist-info in {}", unpacked.display()))
}

/// Both licences ask that their text goes along, and so does that of libzmq, which is linked in.
fn licences_go_along(workspace: &Workspace, unpacked: &Path) -> Result<()> {
    let (source, folder) = (workspace.root.join("bindings/python"), metadata_of(unpacked)?.join("licenses"));
    for name in ["LICENSE-APACHE", "LICENSE-MIT", "LICENSE-LIBZMQ"] {
        let packed = fs::read(folder.join(name)).with_context(|| format!("the wheel has no {name}"))?;
        ensure!(packed == fs::read(source.join(name))?, "{name} is another in the wheel");
    }
    Ok(())
}

/// What the wheel says inside is what its name says.
fn tags_agree(unpacked: &Path, name: &str) -> Result<()> {
    let metadata = metadata_of(unpacked)?;
    let inside = fs::read_to_string(metadata.join("WHEEL")).context("reading WHEEL")?;
    for platform in tags_of(name) {
        let tag = format!("Tag: cp311-abi3-{platform}");
        ensure!(
            inside.lines().any(|line| line == tag),
            "{name} is not tagged so inside: {tag} is not in\n{inside}"
        );
    }
    Ok(())
}

fn readelf(workspace: &Workspace, question: &str, file: &Path) -> Result<String> {
    workspace::output(workspace.command("readelf").args(["--wide", question]).arg(file))
}

/// `0x1 (NEEDED)  Shared library: [libc.so.6]`
fn libraries_of(dynamic: &str) -> impl Iterator<Item = &str> {
    dynamic
        .lines()
        .filter(|line| line.contains("(NEEDED)"))
        .filter_map(|line| line.split_once('[')?.1.split_once(']').map(|(name, _)| name))
}

/// `manylinux_2_17` is glibc 2.17.
fn glibc_of(platform: &str) -> Option<(u32, u32)> {
    let (major, minor) = platform.strip_prefix("manylinux_")?.split_once('_')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// The newest of the versions `GLIBC_2.17` that are asked for.
fn newest_glibc(versions: &str) -> (u32, u32) {
    let version = |word: &str| {
        let (major, rest) = word.strip_prefix("GLIBC_")?.split_once('.')?;
        let minor = rest.split('.').next()?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    };
    versions.split_whitespace().filter_map(version).max().unwrap_or_default()
}

/// The names in `readelf --dyn-syms`, without versions, and whether they are defined.
fn symbols_of(symbols: &str) -> impl Iterator<Item = (&str, bool)> {
    // Num: Value Size Type Bind Vis Ndx Name
    symbols.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        words.next()?.strip_suffix(':')?.parse::<u32>().ok()?;
        let section = words.nth(5)?;
        let name = words.next()?.split('@').next()?;
        Some((name, section != "UND"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wheels_name_holds_its_platforms() {
        let name = "unisono-0.1.0-cp311-abi3-manylinux_2_17_x86_64.manylinux2014_x86_64.whl";
        assert_eq!(tags_of(name).collect::<Vec<_>>(), ["manylinux_2_17_x86_64", "manylinux2014_x86_64"]);
        assert_eq!(glibc_of("manylinux_2_17"), Some((2, 17)));
        assert_eq!(glibc_of("linux"), None);
    }

    #[test]
    fn what_a_library_asks_for_is_read() {
        let dynamic = " 0x1 (NEEDED)  Shared library: [libc.so.6]\n 0xe (SONAME)  Library soname: [x.so]\n";
        assert_eq!(libraries_of(dynamic).collect::<Vec<_>>(), ["libc.so.6"]);
        let versions =
            "  0x0010: Name: GLIBC_2.17  Flags: none\n  0x0020: Name: GLIBC_2.2.5\n  Name: GCC_3.0";
        assert_eq!(newest_glibc(versions), (2, 17));
        assert_eq!(newest_glibc("Name: GLIBC_2.9 Name: GLIBC_2.34"), (2, 34));
    }

    #[test]
    fn exported_symbols_are_told_from_imported_ones() {
        let symbols = "Symbol table '.dynsym' contains 3 entries:\n   Num:    Value  Size Type    Bind   Vis      Ndx Name\n     \
                       1: 0000000000000000     0 FUNC    GLOBAL DEFAULT  UND memcpy@GLIBC_2.14 (2)\n    \
                       12: 0000000000001234    96 FUNC    GLOBAL DEFAULT   13 PyInit__core\n";
        assert_eq!(symbols_of(symbols).collect::<Vec<_>>(), [("memcpy", false), ("PyInit__core", true)]);
    }
}
