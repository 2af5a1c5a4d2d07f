//! Ranks meet whatever surrounds them: other network namespaces, a full /dev/shm; and a memory limit is told, not hit.

use crate::faults::{MemoryGroup, PATIENCE, Scratch, ended, needs_root};
use crate::meeting::meeting_of;

/// Runs its last argument in a network namespace of its own.
const ELSEWHERE: [&str; 2] = ["unshare", "--net"];

pub(crate) fn ranks_in_different_network_namespaces_meet_in_a_given_directory() {
    needs_root();
    let directory = Scratch::new("namespaces");
    for stranger in [0, 1] {
        let ranks =
            meeting_of(3, "15").env("UNISONO_DIR", directory.path()).wrapped(stranger, &ELSEWHERE).start();
        for outcome in ranks.all_succeed(PATIENCE) {
            assert!(!outcome.reports("met").is_empty(), "{}", outcome.output);
        }
        assert_eq!(directory.entries(), [""; 0], "the socket file is gone");
    }
}

pub(crate) fn ranks_in_different_network_namespaces_meet_without_being_told_where() {
    needs_root();
    let ranks = meeting_of(2, "15").wrapped(1, &ELSEWHERE).start();
    for outcome in ranks.all_succeed(PATIENCE) {
        assert!(!outcome.reports("met").is_empty(), "{}", outcome.output);
    }
}

pub(crate) fn a_full_shared_memory_file_system_does_not_matter() {
    needs_root();
    let script = "mount -t tmpfs -o size=64k none /dev/shm && \
                  { head -c 1000000 /dev/zero > /dev/shm/filled 2> /dev/null || true; } && exec \"$0\"";
    let ranks = meeting_of(2, "15").all_wrapped(&["unshare", "--mount", "sh", "-c", script]).start();
    for outcome in ranks.all_succeed(PATIENCE) {
        assert!(!outcome.reports("met").is_empty(), "{}", outcome.output);
    }
}

pub(crate) fn a_memory_limit_that_is_too_small_is_refused_with_both_numbers() {
    const MIB: u64 = 1 << 20;
    let group = MemoryGroup::new(64 * MIB);
    let script = group.enter_and_run();
    // Chunks of 128 MiB are staged in 64 MiB by each of two ranks.
    let ranks =
        meeting_of(2, "10").all_wrapped(&["sh", "-c", &script]).env("UNISONO_CHUNK_BYTES", "128MiB").start();
    let outcomes = ranks.wait_all(PATIENCE);
    for (outcome, kind) in outcomes.iter().zip(["OutOfMemory", "Rendezvous"]) {
        let ended = ended(outcome);
        assert_eq!(ended.kind, kind, "rank {}: {}", outcome.rank, ended.text);
        let number_after = |words: &str| -> u64 {
            let rest = ended
                .text
                .split(words)
                .nth(1)
                .unwrap_or_else(|| panic!("{words:?} is not in: {}", ended.text));
            rest.split(' ').next().and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("{rest}"))
        };
        assert!((128 * MIB..140 * MIB).contains(&number_after("needs ")), "{}", ended.text);
        assert!((1..64 * MIB).contains(&number_after("but only ")), "{}", ended.text);
        assert!(ended.text.contains(&group.path()), "{}", ended.text);
        outcome.assert_success();
    }
    // Within the limit the same ranks meet.
    let ranks = meeting_of(2, "10").all_wrapped(&["sh", "-c", &script]).start();
    assert!(ranks.all_succeed(PATIENCE).iter().all(|outcome| !outcome.reports("met").is_empty()));
}
