//! Packet kernels without a part of what makes them right, each of which the simulator has to find out, and, where the host has the
//! part, ThreadSanitizer or a result there.

use std::fs;

use anyhow::{Context, Result};

use super::mutants::{CUDA, Mutation, mutants_of, mutated};
use super::nvrtc::Nvrtc;
use super::{Artefact, Sources, host};
use crate::step::{self, Count};
use crate::workspace::Workspace;

const NEAR: &[&str] = &["packet_near"];
const BOTH: &[&str] = &["packet_near", "packet_far"];
const FAR: &[&str] = &["packet_far"];

/// What runs them on the host.
const PROGRAM: &str = "host_packet.cpp";

/// Mutants that only the host has.
const ON_THE_HOST: [Mutation; 2] = [
    Mutation {
        name: "relaxed-count",
        of: BOTH,
        file: "prologue_host.h",
        from: "__ATOMIC_ACQ_REL",
        to: "__ATOMIC_RELAXED",
    },
    Mutation {
        name: "plain-words",
        of: BOTH,
        file: "prologue_host.h",
        from: "__atomic_store_n(word, value, __ATOMIC_RELAXED)",
        to: "*word = value",
    },
];

/// Mutants that the host would hardly ever show: there each thread keeps to its words, and whose result has come has been read. What is
/// left is a word that is written anew with every call (`refresh` in `packet.h`): the simulator's orders bring that up.
const BY_THE_SIMULATOR_ALONE: [&str; 1] = ["no-parity-of-slots"];

const MUTATIONS: [Mutation; 12] = [
    Mutation {
        name: "weak-stores",
        of: BOTH,
        file: CUDA,
        from: "st.relaxed.sys.global.u64",
        to: "st.global.u64",
    },
    Mutation {
        name: "weak-loads",
        of: BOTH,
        file: CUDA,
        from: "ld.relaxed.sys.global.u64",
        to: "ld.global.u64",
    },
    Mutation {
        name: "stores-for-the-device",
        of: BOTH,
        file: CUDA,
        from: "st.relaxed.sys",
        to: "st.relaxed.gpu",
    },
    Mutation {
        name: "loads-for-the-device",
        of: BOTH,
        file: CUDA,
        from: "ld.relaxed.sys",
        to: "ld.relaxed.gpu",
    },
    Mutation {
        name: "relaxed-count",
        of: BOTH,
        file: CUDA,
        from: "atom.acq_rel.gpu",
        to: "atom.relaxed.gpu",
    },
    Mutation {
        name: "count-for-the-block",
        of: BOTH,
        file: CUDA,
        from: "atom.acq_rel.gpu",
        to: "atom.acq_rel.cta",
    },
    Mutation {
        name: "no-block-sync-before-counting",
        of: BOTH,
        file: "packet_words.h",
        from: "    block_sync();\n    if (thread_index() == 0 && arrive",
        to: "    if (thread_index() == 0 && arrive",
    },
    Mutation {
        name: "counted-by-the-first-block",
        of: BOTH,
        file: "packet_words.h",
        from: "arrive(&progress->arrived) == block_count() - 1",
        to: "arrive(&progress->arrived) == 0",
    },
    Mutation {
        name: "no-parity-of-slots",
        of: BOTH,
        file: "packet_words.h",
        from: "(number % 2 * 2 + what)",
        to: "what",
    },
    Mutation {
        name: "no-number-looked-at",
        of: BOTH,
        file: "packet.h",
        from: "is_missing |= number_of(found) != number;",
        to: "",
    },
    Mutation {
        name: "results-not-looked-at",
        of: NEAR,
        file: "packet.h",
        from: "OF_RESULTS, rank, call.local) + index);\n                is_missing |= number_of(found) != number;",
        to: "OF_RESULTS, rank, call.local) + index);",
    },
    Mutation {
        name: "no-parity-of-puts",
        of: FAR,
        file: "packet.h",
        from: "call.outgoing + number % 2 * call.put",
        to: "call.outgoing",
    },
];

/// Compiles all of them and hands them to the test that runs each in many orders.
pub(super) fn run(workspace: &Workspace, nvrtc: &Nvrtc, sources: &Sources, count: &mut Count) -> Result<()> {
    let folder = workspace.empty_folder("packet-mutants")?;
    for mutation in MUTATIONS {
        for Artefact { name, bytes } in mutated(sources, &mutation)?.compile(nvrtc)? {
            let path = folder.join(format!("{}-{}.ptx", name.trim_end_matches(".ptx"), mutation.name));
            fs::write(&path, bytes).with_context(|| format!("writing {}", path.display()))?;
        }
    }
    let is_for_the_host =
        |mutation: &&Mutation| mutation.file != CUDA && !BY_THE_SIMULATOR_ALONE.contains(&mutation.name);
    let on_the_host = MUTATIONS.iter().filter(is_for_the_host).chain(&ON_THE_HOST);
    host::catch_all(workspace, &mutants_of(sources, PROGRAM, on_the_host)?)?;
    let mut command = workspace.cargo();
    command.env("UNISONO_TEST_MUTANTS", &folder);
    command.args(["test", "--package", "unisono-gpu", "--features", "sim,remote", "--test", "packet_races"]);
    command.args(["--", "mutants_of_the_source_are_caught", "--ignored", "--nocapture"]);
    step::run(&mut command, count)
}
