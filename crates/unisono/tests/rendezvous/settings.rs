//! What one rank's environment says alone never breaks the group, and nonsense is named.

use std::path::Path;

use crate::faults::{PATIENCE, Scratch, ended};
use crate::meeting::meeting_of;

/// Variables that a rank may have on its own, each with values that make sense.
const HARMLESS: [(&str, &[&str]); 15] = [
    ("UNISONO_ALGORITHM", &["auto", "packet", "swap", "migrate", "pipeline"]),
    ("UNISONO_PACKET_BYTES", &["0", "1MiB"]),
    ("UNISONO_SMALL_BYTES", &["0", "1MiB"]),
    ("UNISONO_CHUNK_BYTES", &["64", "16MiB"]),
    ("UNISONO_PIPELINE_BYTES", &["64", "16MiB"]),
    ("UNISONO_SWAP_BYTES", &["64", "4MiB"]),
    ("UNISONO_BROADCAST_BYTES", &["64", "4MiB"]),
    ("UNISONO_WINDOW_BYTES", &["128", "4MiB"]),
    ("UNISONO_PUSH_BYTES", &["0", "1GiB"]),
    ("UNISONO_THREADS", &["1", "3"]),
    ("UNISONO_THREAD_BYTES", &["0", "1GiB"]),
    ("UNISONO_ISA", &["portable"]),
    ("UNISONO_TIMEOUT", &["9.5", "none"]),
    ("UNISONO_RENDEZVOUS_TIMEOUT", &["9", "none"]),
    ("UNISONO_SUPERVISOR", &["unisono-supervisor/nobody", "", "\u{1f980}"]),
];

/// Variables that say where to meet.
const NAMING: [&str; 3] = ["UNISONO_GROUP", "UNISONO_RUN_ID", "UNISONO_DIR"];

/// Variables of tests, not of users.
const OF_TESTS: [&str; 2] = ["UNISONO_FAULT", "UNISONO_TEST_RUNNER"];

/// Names of variables in a source file.
fn names_in(text: &str) -> Vec<String> {
    let name = |start: &str| {
        start.split(|c: char| !c.is_ascii_uppercase() && c != '_').next().unwrap_or("").to_string()
    };
    text.split("UNISONO_").skip(1).map(|rest| format!("UNISONO_{}", name(rest))).collect()
}

fn names_below(directory: &Path, names: &mut Vec<String>) {
    for entry in std::fs::read_dir(directory).expect("the sources are there").filter_map(Result::ok) {
        if entry.path().is_dir() {
            names_below(&entry.path(), names);
        } else {
            names.extend(names_in(&std::fs::read_to_string(entry.path()).unwrap_or_default()));
        }
    }
}

pub(crate) fn every_variable_of_the_sources_is_tried_here() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut names = Vec::new();
    for sources in ["src", "../kernels/src", "../os/src", "../protocol/src"] {
        names_below(&here.join(sources), &mut names);
    }
    assert!(names.len() > 10, "{names:?}");
    let known = HARMLESS.iter().map(|(name, _)| *name).chain(NAMING).chain(OF_TESTS);
    let known: Vec<&str> = known.collect();
    // Not a variable but the family of them.
    names.retain(|name| name != "UNISONO_" && !known.contains(&name.as_str()));
    assert_eq!(names, [""; 0], "variables that this file does not know");
}

pub(crate) fn a_variable_set_on_one_rank_only_never_breaks_the_group() {
    let directory = Scratch::new("alone");
    let directories = [directory.path()];
    let harmless = HARMLESS.iter().copied().chain([("UNISONO_DIR", &directories[..])]);
    for (name, values) in harmless {
        for (value, rank) in values.iter().flat_map(|value| [(value, 0), (value, 1)]) {
            let outcomes = meeting_of(2, "10").env_for(rank, name, value).start().all_succeed(PATIENCE);
            let parameters: Vec<_> = outcomes.iter().map(|outcome| outcome.reports("met")).collect();
            assert!(parameters[0].len() == 1, "{name}={value} on rank {rank}: {}", outcomes[0].output);
            assert_eq!(parameters[0], parameters[1], "{name}={value} on rank {rank}");
        }
    }
}

pub(crate) fn ranks_that_are_told_different_names_do_not_meet_and_say_so() {
    for name in ["UNISONO_GROUP", "UNISONO_RUN_ID", "MASTER_PORT", "MASTER_ADDR"] {
        for rank in [0, 1] {
            let outcomes = meeting_of(2, "0.7").env_for(rank, name, "29501").start().wait_all(PATIENCE);
            for (outcome, missing) in outcomes.iter().zip([1, 0]) {
                let ended = ended(outcome);
                assert_eq!(
                    (ended.kind.as_str(), &ended.ranks[..]),
                    ("Rendezvous", &[missing][..]),
                    "{}",
                    ended.text
                );
                let told = outcome.rank == rank;
                assert_eq!(ended.text.contains("29501"), told, "it says what it was told: {}", ended.text);
            }
        }
    }
}

pub(crate) fn a_value_that_makes_no_sense_is_named() {
    let nonsense: &[(&str, &[&str])] = &[
        ("UNISONO_ALGORITHM", &["", "fast", "shared"]),
        ("UNISONO_PACKET_BYTES", &["many"]),
        ("UNISONO_PIPELINE_BYTES", &["1"]),
        ("UNISONO_SMALL_BYTES", &["12parsecs", "-1", "2GiB"]),
        ("UNISONO_CHUNK_BYTES", &["", "0", "99999999999999999999"]),
        ("UNISONO_SWAP_BYTES", &["1.5MiB"]),
        ("UNISONO_BROADCAST_BYTES", &["63"]),
        ("UNISONO_WINDOW_BYTES", &["64"]),
        ("UNISONO_THREADS", &["0", "33", "many"]),
        ("UNISONO_THREAD_BYTES", &["-1"]),
        ("UNISONO_ISA", &["abacus"]),
        ("UNISONO_TIMEOUT", &["soon", "-1", "0", "NaN", "inf"]),
        ("UNISONO_RENDEZVOUS_TIMEOUT", &["later"]),
        ("RANK", &["first", "-1", "2"]),
        ("WORLD_SIZE", &["0", "65", "two"]),
        ("LOCAL_WORLD_SIZE", &["1"]),
        ("MASTER_PORT", &["70000", "http"]),
    ];
    for (name, value) in
        nonsense.iter().flat_map(|(name, values)| values.iter().map(move |value| (*name, *value)))
    {
        let mut setup = meeting_of(2, "0.5").without(0).env_for(1, name, value);
        if name == "WORLD_SIZE" {
            setup = setup.env_for(1, "LOCAL_WORLD_SIZE", value);
        }
        let outcomes = setup.start().wait_all(PATIENCE);
        let ended = ended(&outcomes[1]);
        assert_eq!(ended.kind, "Setting", "{name}={value}: {}", ended.text);
        let word = name.trim_start_matches("UNISONO_").to_lowercase();
        assert!(ended.text.to_lowercase().contains(&word), "{name}={value}: {}", ended.text);
        outcomes[1].assert_success();
    }
    // A directory that is not there, on the rank that is to listen in it.
    let outcomes = meeting_of(1, "5").env("UNISONO_DIR", "/nowhere/at/all").start().wait_all(PATIENCE);
    let ended = ended(&outcomes[0]);
    assert!(ended.text.contains("/nowhere/at/all"), "{}", ended.text);
}
