//! Kernels without a part of their synchronisation, each of which the simulator has to find out.
//!
//! A mutant is the shipped source with one text replaced. The text must be there: a mutant of what has been rewritten is an
//! error, not a mutant that is silently the original.

use std::fs;

use anyhow::{Context, Result};

use super::nvrtc::{Nvrtc, Source};
use super::{Artefact, Sources, host};
use crate::step::{self, Count};
use crate::workspace::Workspace;

/// One text for another, in one file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mutation {
    pub(super) name: &'static str,
    /// The kernels that it is about: the names of files without their ends.
    pub(super) of: &'static [&'static str],
    pub(super) file: &'static str,
    pub(super) from: &'static str,
    pub(super) to: &'static str,
}

const BOTH: &[&str] = &["one_shot", "two_shot"];
const HALVES: &[&str] = &["reduce_scatter", "all_gather"];
const ALL: &[&str] = &["one_shot", "two_shot", "reduce_scatter", "all_gather"];

/// One of the four that differ in nothing but the codec.
const QUICK: &[&str] = &["quick_int4"];

/// What only CUDA has.
pub(super) const CUDA: &str = "prologue_cuda.h";

/// Mutants that only the host has; the others that are not CUDA's run there, too.
const ON_THE_HOST: [Mutation; 2] = [
    Mutation {
        name: "relaxed-posts",
        of: BOTH,
        file: "prologue_host.h",
        from: "__ATOMIC_RELEASE",
        to: "__ATOMIC_RELAXED",
    },
    Mutation {
        name: "relaxed-waits",
        of: BOTH,
        file: "prologue_host.h",
        from: "__ATOMIC_ACQUIRE",
        to: "__ATOMIC_RELAXED",
    },
];

const MUTATIONS: [Mutation; 14] = [
    Mutation {
        name: "no-start",
        of: BOTH,
        file: "all_reduce.h",
        from: "!meet_at_start<world>(call)",
        to: "false",
    },
    Mutation {
        name: "no-start-of-a-half",
        of: HALVES,
        file: "halves.h",
        from: "!meet_at_start<world>(call)",
        to: "false",
    },
    Mutation {
        name: "no-end-of-a-half",
        of: HALVES,
        file: "halves.h",
        from: "    meet_at_end<world>(call);",
        to: "",
    },
    Mutation {
        name: "no-meeting-between",
        of: &["two_shot"],
        file: "all_reduce.h",
        from: "!meet_between<world>(call)",
        to: "false",
    },
    Mutation {
        name: "no-end",
        of: &["one_shot"],
        file: "all_reduce.h",
        from: "    meet_at_end<world>(call);",
        to: "",
    },
    Mutation { name: "relaxed-posts", of: ALL, file: CUDA, from: "st.release.sys", to: "st.relaxed.sys" },
    Mutation { name: "relaxed-waits", of: ALL, file: CUDA, from: "ld.acquire.sys", to: "ld.relaxed.sys" },
    Mutation { name: "volatile-posts", of: ALL, file: CUDA, from: "st.release.sys", to: "st.volatile" },
    Mutation { name: "volatile-waits", of: ALL, file: CUDA, from: "ld.acquire.sys", to: "ld.volatile" },
    Mutation {
        name: "posts-for-the-device",
        of: ALL,
        file: CUDA,
        from: "st.release.sys",
        to: "st.release.gpu",
    },
    Mutation { name: "no-parity", of: ALL, file: "meeting.h", from: "posted[number % 2]", to: "posted[0]" },
    Mutation {
        name: "no-block-sync-between",
        of: &["two_shot"],
        file: "meeting.h",
        from: "    block_sync();\n    return meet_at_start",
        to: "    return meet_at_start",
    },
    Mutation {
        name: "no-block-sync-at-end",
        of: &["one_shot", "reduce_scatter", "all_gather"],
        file: "meeting.h",
        from: "    block_sync();\n    const u32 peer",
        to: "    const u32 peer",
    },
    Mutation {
        name: "no-block-sync-after-waiting",
        of: ALL,
        file: "meeting.h",
        from: "!block_any(overdue)",
        to: "!overdue",
    },
];

/// Of the quick all-reduce, which has meetings of its own.
const OF_QUICK: [Mutation; 11] = [
    Mutation {
        name: "no-meeting-for-parts",
        of: QUICK,
        file: "quick.h",
        from: "!exchange(call, 0, number)",
        to: "false",
    },
    Mutation {
        name: "no-meeting-for-results",
        of: QUICK,
        file: "quick.h",
        from: "!exchange(call, 1, number)",
        to: "false",
    },
    Mutation { name: "no-number", of: QUICK, file: "quick.h", from: "++number;", to: "number = 1;" },
    Mutation {
        name: "numbers-forgotten",
        of: QUICK,
        file: "quick.h",
        from: "own->tiles[block_index()] = number;",
        to: "own->tiles[block_index()] = 0;",
    },
    Mutation {
        name: "one-word-for-both-phases",
        of: QUICK,
        file: "quick.h",
        from: "posted[phase]",
        to: "posted[0]",
    },
    Mutation {
        name: "no-block-sync-before-posting",
        of: QUICK,
        file: "quick.h",
        from: "    block_sync();\n    const u32 peer",
        to: "    const u32 peer",
    },
    Mutation {
        name: "no-block-sync-after-waiting-quick",
        of: QUICK,
        file: "quick.h",
        from: "!block_any(overdue)",
        to: "!overdue",
    },
    Mutation { name: "relaxed-posts", of: QUICK, file: CUDA, from: "st.release.sys", to: "st.relaxed.sys" },
    Mutation { name: "relaxed-waits", of: QUICK, file: CUDA, from: "ld.acquire.sys", to: "ld.relaxed.sys" },
    Mutation { name: "volatile-waits", of: QUICK, file: CUDA, from: "ld.acquire.sys", to: "ld.volatile" },
    Mutation {
        name: "posts-for-the-device",
        of: QUICK,
        file: CUDA,
        from: "st.release.sys",
        to: "st.release.gpu",
    },
];

/// Compiles all of them and hands them to the tests that run each in many orders.
pub(super) fn run(workspace: &Workspace, nvrtc: &Nvrtc, sources: &Sources, count: &mut Count) -> Result<()> {
    let all = MUTATIONS.iter().chain(&OF_QUICK);
    let on_the_host = all.filter(|mutation| mutation.file != CUDA).chain(&ON_THE_HOST);
    host::catch_all(workspace, &mutants_of(sources, host::MEETING, on_the_host)?)?;
    catch(workspace, nvrtc, sources, &MUTATIONS, "races", count)?;
    catch(workspace, nvrtc, sources, &OF_QUICK, "quick_races", count)
}

/// Compiles the mutants and runs the test that is to find them out.
fn catch(
    workspace: &Workspace,
    nvrtc: &Nvrtc,
    sources: &Sources,
    mutations: &[Mutation],
    test: &str,
    count: &mut Count,
) -> Result<()> {
    let folder = workspace.empty_folder(&format!("mutants-{test}"))?;
    for mutation in mutations {
        let mutated = mutated(sources, mutation)?;
        for Artefact { name, bytes } in mutated.compile(nvrtc)? {
            let path = folder.join(format!("{}-{}.ptx", name.trim_end_matches(".ptx"), mutation.name));
            fs::write(&path, bytes).with_context(|| format!("writing {}", path.display()))?;
        }
    }
    let mut command = workspace.cargo();
    command.env("UNISONO_TEST_MUTANTS", &folder).args([
        "test",
        "--package",
        "unisono-gpu",
        "--features",
        "sim",
        "--test",
        test,
    ]);
    command.args(["--", "mutants_of_the_source_are_caught", "--ignored", "--nocapture"]);
    step::run(&mut command, count)
}

/// What the program of the host's is to find out.
pub(super) fn mutants_of<'a>(
    sources: &Sources,
    program: &'static str,
    mutations: impl Iterator<Item = &'a Mutation>,
) -> Result<Vec<host::Mutant>> {
    let one = |mutation: &Mutation| {
        Ok(host::Mutant { program, name: mutation.name, sources: mutated(sources, mutation)? })
    };
    mutations.map(one).collect()
}

pub(super) fn mutated(sources: &Sources, mutation: &Mutation) -> Result<Sources> {
    let is_meant = |main: &Source| mutation.of.contains(&main.name.trim_end_matches(".cu"));
    let mut mutated = sources.clone();
    mutated.mains.retain(is_meant);
    let file = mutated.headers.iter_mut().find(|header| header.name == mutation.file);
    let file = file.filter(|file| file.text.contains(mutation.from));
    let file =
        file.with_context(|| format!("{}: `{}` is not in {}", mutation.name, mutation.from, mutation.file))?;
    file.text = file.text.replace(mutation.from, mutation.to);
    Ok(mutated)
}
