//! The library that unwinds stacks: the system's, `libgcc_s.so.1`, and no other.
//!
//! zig has an unwinder of its own, which would be linked in. But it is the system's that unwinds through the package's frames when torch
//! catches what an operator threw, or when Python ends a thread that waits in here; and what those frames then ask their
//! own unwinder about, the other one's state, it cannot read: the process dies. So the package is linked with a library that
//! has the names of the system's, and nothing in them: it is there only while the wheel is built.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::Architecture;
use crate::step::{self, Count};
use crate::workspace::Workspace;

/// What the library is called where the wheel is used.
pub(super) const LIBRARY: &str = "libgcc_s.so.1";

/// All that compilers of Rust and C++ ask of it. What is missing here would be taken from zig's.
const FUNCTIONS: [&str; 17] = [
    "_Unwind_Backtrace",
    "_Unwind_DeleteException",
    "_Unwind_FindEnclosingFunction",
    "_Unwind_ForcedUnwind",
    "_Unwind_GetCFA",
    "_Unwind_GetDataRelBase",
    "_Unwind_GetGR",
    "_Unwind_GetIP",
    "_Unwind_GetIPInfo",
    "_Unwind_GetLanguageSpecificData",
    "_Unwind_GetRegionStart",
    "_Unwind_GetTextRelBase",
    "_Unwind_RaiseException",
    "_Unwind_Resume",
    "_Unwind_Resume_or_Rethrow",
    "_Unwind_SetGR",
    "_Unwind_SetIP",
];

/// Those that every build has in use: if they come from elsewhere, the others do not.
pub(super) const NEEDED: [&str; 3] =
    ["_Unwind_GetLanguageSpecificData", "_Unwind_RaiseException", "_Unwind_Resume"];

/// Builds the library that the wheel is linked with.
pub(super) fn stand_in(workspace: &Workspace, builder: &Path, architecture: Architecture) -> Result<PathBuf> {
    let folder = workspace.empty_folder(&format!("unwinder-{}", architecture.name()))?;
    let source = folder.join("unwinder.c");
    let functions: String = FUNCTIONS.iter().map(|name| format!("void {name}(void) {{}}\n")).collect();
    fs::write(&source, functions).with_context(|| format!("writing {}", source.display()))?;
    let library = folder.join(LIBRARY);
    let mut command = workspace.command(builder);
    command.args(["-m", "ziglang", "cc", "-shared", "-nostdlib", "-target"]);
    command.arg(format!("{}-linux-gnu", architecture.name())).arg(format!("-Wl,-soname,{LIBRARY}"));
    command.arg("-o").arg(&library).arg(&source);
    step::run(&mut command, &mut Count::default()).context("building a library with the unwinder's names")?;
    Ok(library)
}
