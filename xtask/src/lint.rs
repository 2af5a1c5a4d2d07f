//! `cargo xtask lint`: what can be said about the code without running it.
//!
//! Each check is a small function, named for what must hold; all of them run, so that one look at the output tells
//! everything that is to be mended. The arrows between the crates are those of `ARCHITECTURE.md`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::setup::apt::{self, Needed};
use crate::step::{self, Count};
use crate::workspace::Workspace;

/// The crates that know nothing of one another.
const GROUND_FLOOR: [&str; 5] =
    ["unisono-kernels", "unisono-protocol", "unisono-os", "unisono-measure", "unisono-ptx-sim"];

/// Crates that know of a few below them only.
const ABOVE_FEW: [(&str, &[&str]); 4] = [
    ("unisono-remote", &["unisono-os"]),
    ("unisono-python", &["unisono", "unisono-gpu", "unisono-kernels"]),
    ("unisono-capi", &["unisono"]),
    ("unisono-gpu", &["unisono-os", "unisono-ptx-sim", "unisono-remote"]),
];

/// The crates through which one reaches the operating system, and the only member that may use them.
const SYSTEM_CRATES: [&str; 2] = ["rustix", "libc"];
const SYSTEM_MEMBER: &str = "unisono-os";

/// Longer files have more than one subject.
const LONGEST_FILE: usize = 500;

/// What is written by hand, by the end of its name; shipped artefacts and generated headers (in folders `include`) are not.
const WRITTEN_BY_HAND: [&str; 9] = ["rs", "py", "pyi", "h", "cu", "cuh", "hip", "cpp", "toml"];

type Check = fn(&Workspace) -> Result<()>;

const CHECKS: [(&str, Check); 8] = [
    ("licence files exist", licence_files_exist),
    ("the arrows between the crates hold", arrows_hold),
    ("only unisono-os uses the operating system's crates", only_one_member_uses_system_crates),
    ("no file is too long", no_file_is_too_long),
    ("the code is formatted", is_formatted),
    ("clippy is content", clippy_is_content),
    ("libraries never panic by unwrap or expect", libraries_do_not_unwrap),
    ("the documentation builds without a warning", documentation_builds),
];

/// Runs every check; fails with the names of those that failed.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    // All features are looked at, and libzmq is built for one of them.
    apt::install_missing(workspace, &[Needed { sign: "c++", package: "g++" }])?;
    let mut failed = Vec::new();
    for (name, check) in CHECKS {
        println!("--> {name}");
        if let Err(problem) = check(workspace) {
            println!("NOT SO: {name}: {problem:#}");
            failed.push(name);
        }
    }
    if failed.is_empty() { Ok(()) } else { bail!("not so: {}", failed.join("; ")) }
}

fn licence_files_exist(workspace: &Workspace) -> Result<()> {
    for name in ["LICENSE-APACHE", "LICENSE-MIT"] {
        if !workspace.root.join(name).is_file() {
            bail!("{name} is missing beside the workspace's Cargo.toml");
        }
    }
    Ok(())
}

fn arrows_hold(workspace: &Workspace) -> Result<()> {
    let dependencies = dependencies(&workspace.metadata)?;
    let mut found = arrows_between(&GROUND_FLOOR, &dependencies);
    for (above, below) in ABOVE_FEW {
        let is_allowed = |arrow: &String| below.iter().any(|below| arrow.ends_with(&format!(" {below}")));
        let arrows = arrows_between(&[above], &dependencies);
        found.extend(arrows.into_iter().filter(|arrow| !is_allowed(arrow)));
    }
    nothing_found(found)
}

fn only_one_member_uses_system_crates(workspace: &Workspace) -> Result<()> {
    nothing_found(users_of(&SYSTEM_CRATES, SYSTEM_MEMBER, &dependencies(&workspace.metadata)?))
}

fn no_file_is_too_long(workspace: &Workspace) -> Result<()> {
    let mut found = Vec::new();
    let mut files = files_written_by_hand(&workspace.root.join("crates"))?;
    files.extend(files_written_by_hand(&workspace.root.join("bindings"))?);
    for file in files {
        let text = fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
        let lines = text.lines().count();
        if lines > LONGEST_FILE {
            let name = file.strip_prefix(&workspace.root).unwrap_or(&file).display();
            found.push(format!("{name} has {lines} lines, {LONGEST_FILE} at most"));
        }
    }
    nothing_found(found)
}

fn is_formatted(workspace: &Workspace) -> Result<()> {
    cargo(workspace, &["fmt", "--all", "--check"])
}

/// With all features, and those that have any without them as well: their dependencies alone are compiled twice.
fn clippy_is_content(workspace: &Workspace) -> Result<()> {
    let clippy = ["clippy", "--all-targets"];
    let denying = ["--", "-D", "warnings"];
    let with_features =
        cargo(workspace, &[&clippy[..], &["--workspace", "--all-features"], &denying].concat());
    let optional: Vec<_> = members_with_features(&workspace.metadata)?
        .into_iter()
        .flat_map(|name| ["--package", name])
        .collect();
    let plain = cargo(workspace, &[&clippy[..], &optional, &denying].concat());
    with_features.and(plain)
}

fn members_with_features(metadata: &Value) -> Result<Vec<&str>> {
    let members = metadata["packages"].as_array().context("`cargo metadata` lists no packages")?;
    let has_features = |member: &&Value| member["features"].as_object().is_some_and(|set| !set.is_empty());
    Ok(members.iter().filter(has_features).filter_map(|member| member["name"].as_str()).collect())
}

/// Only library code: a test may unwrap, and a test's build is no part of this run.
fn libraries_do_not_unwrap(workspace: &Workspace) -> Result<()> {
    let lints = ["--", "-D", "clippy::unwrap_used", "-D", "clippy::expect_used"];
    cargo(workspace, &[&["clippy", "--workspace", "--all-features", "--lib"], &lints[..]].concat())
}

fn documentation_builds(workspace: &Workspace) -> Result<()> {
    let mut command = workspace.cargo();
    command
        .env("RUSTDOCFLAGS", "-D warnings")
        // Libraries only, and not C's, whose documentation is its header: the program and C's library are called unisono, too,
        // and would share the library's page.
        .args(["doc", "--workspace", "--exclude", "unisono-capi", "--all-features", "--no-deps", "--lib"]);
    step::run(&mut command, &mut Count::default())
}

fn cargo(workspace: &Workspace, arguments: &[&str]) -> Result<()> {
    step::run(workspace.cargo().args(arguments), &mut Count::default())
}

fn nothing_found(found: Vec<String>) -> Result<()> {
    if found.is_empty() { Ok(()) } else { bail!("{}", found.join("; ")) }
}

/// Who names whom in its manifest, for whatever purpose (normal, build or test).
#[derive(Debug)]
struct Dependency {
    from: String,
    to: String,
}

fn dependencies(metadata: &Value) -> Result<Vec<Dependency>> {
    let members = metadata["packages"].as_array().context("`cargo metadata` lists no packages")?;
    let mut found = Vec::new();
    for member in members {
        let from = member["name"].as_str().context("a package without a name")?;
        let wanted = member["dependencies"].as_array().context("a package without a list of dependencies")?;
        for dependency in wanted {
            let to = dependency["name"].as_str().context("a dependency without a name")?;
            found.push(Dependency { from: from.to_owned(), to: to.to_owned() });
        }
    }
    Ok(found)
}

/// A ground-floor crate may name itself (tests do), but neither another one nor any crate that stands above.
fn arrows_between(ground_floor: &[&str], dependencies: &[Dependency]) -> Vec<String> {
    let is_ground = |name: &str| ground_floor.contains(&name);
    let is_ours = |name: &str| name == "unisono" || name.starts_with("unisono-");
    dependencies
        .iter()
        .filter(|arrow| is_ground(&arrow.from) && is_ours(&arrow.to) && arrow.from != arrow.to)
        .map(|arrow| format!("{} must not depend on {}", arrow.from, arrow.to))
        .collect()
}

fn users_of(crates: &[&str], member: &str, dependencies: &[Dependency]) -> Vec<String> {
    dependencies
        .iter()
        .filter(|arrow| crates.contains(&arrow.to.as_str()) && arrow.from != member)
        .map(|arrow| format!("{} depends on {}, which only {member} may", arrow.from, arrow.to))
        .collect()
}

fn files_written_by_hand(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))? {
            let path = entry?.path();
            if path.is_dir() {
                if path.file_name().is_none_or(|name| name != "target" && name != "include") {
                    folders.push(path);
                }
            } else if path
                .extension()
                .and_then(|end| end.to_str())
                .is_some_and(|end| WRITTEN_BY_HAND.contains(&end))
            {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn metadata() -> Value {
        json!({"packages": [
            {"name": "unisono-kernels", "dependencies": [{"name": "half"}, {"name": "unisono-os", "kind": "dev"}]},
            {"name": "unisono-os", "dependencies": [{"name": "rustix"}, {"name": "libc"}]},
            {"name": "unisono", "dependencies": [{"name": "unisono-os"}, {"name": "libc"}]},
        ]})
    }

    #[test]
    fn members_that_have_features_are_found() {
        let metadata = json!({"packages": [
            {"name": "unisono", "features": {"remote": []}},
            {"name": "unisono-os", "features": {}},
        ]});
        assert_eq!(members_with_features(&metadata).unwrap(), ["unisono"]);
    }

    #[test]
    fn an_arrow_between_ground_floors_is_found_even_in_tests() {
        let found = arrows_between(&GROUND_FLOOR, &dependencies(&metadata()).unwrap());
        assert_eq!(found, ["unisono-kernels must not depend on unisono-os"]);
    }

    #[test]
    fn a_second_user_of_the_system_crates_is_found() {
        let found = users_of(&SYSTEM_CRATES, SYSTEM_MEMBER, &dependencies(&metadata()).unwrap());
        assert_eq!(found, ["unisono depends on libc, which only unisono-os may"]);
    }
}
