//! Ranks meet whatever surrounds them: other network namespaces, a full /dev/shm; and a memory limit is told, not hit.

use crate::faults::{MemoryGroup, PATIENCE, Scratch, ended, needs_root};
use crate::harness::Ranks;
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

const MIB: u64 = 1 << 20;

fn number_after(words: &str, text: &str) -> u64 {
    let rest = text.split(words).nth(1).unwrap_or_else(|| panic!("{words:?} is not in: {text}"));
    rest.split(' ').next().and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("{rest}"))
}

pub(crate) fn a_memory_limit_that_is_too_small_is_refused_with_both_numbers() {
    let group = MemoryGroup::new(64 * MIB);
    let script = group.enter_and_run();
    // Chunks of 128 MiB are staged in 64 MiB by each of two ranks.
    let ranks =
        meeting_of(2, "10").all_wrapped(&["sh", "-c", &script]).env("UNISONO_CHUNK_BYTES", "128MiB").start();
    let outcomes = ranks.wait_all(PATIENCE);
    for (outcome, kind) in outcomes.iter().zip(["OutOfMemory", "Rendezvous"]) {
        let ended = ended(outcome);
        assert_eq!(ended.kind, kind, "rank {}: {}", outcome.rank, ended.text);
        assert!((128 * MIB..140 * MIB).contains(&number_after("needs ", &ended.text)), "{}", ended.text);
        assert!((1..64 * MIB).contains(&number_after("but only ", &ended.text)), "{}", ended.text);
        assert!(ended.text.contains(&group.path()), "{}", ended.text);
        outcome.assert_success();
    }
    // Within the limit the same ranks meet.
    let ranks = meeting_of(2, "10").all_wrapped(&["sh", "-c", &script]).start();
    assert!(ranks.all_succeed(PATIENCE).iter().all(|outcome| !outcome.reports("met").is_empty()));
}

pub(crate) fn an_allocation_beyond_the_memory_limit_is_refused_on_all_ranks_and_harms_nobody() {
    let group = MemoryGroup::new(96 * MIB);
    let script = group.enter_and_run();
    // Each of three ranks has room for as much, but not all of them.
    let ranks = Ranks::of("meet_and_register", 3)
        .all_wrapped(&["sh", "-c", &script])
        .env("TOO_MANY", &(40 * MIB).to_string())
        .env("UNISONO_TIMEOUT", "20")
        .start();
    let outcomes = ranks.wait_all(PATIENCE);
    for (outcome, kind) in outcomes.iter().zip(["OutOfMemory", "Rendezvous", "Rendezvous"]) {
        let ended = ended(outcome);
        assert_eq!(ended.kind, kind, "rank {}: {}", outcome.rank, ended.text);
        assert!((120 * MIB..121 * MIB).contains(&number_after("needs ", &ended.text)), "{}", ended.text);
        assert!((1..96 * MIB).contains(&number_after("but only ", &ended.text)), "{}", ended.text);
        assert!(ended.text.contains(&group.path()), "{}", ended.text);
        outcome.assert_success();
    }
}

pub(crate) fn subgroups_of_different_sizes_are_compared_with_the_limit_by_their_sum() {
    let group = MemoryGroup::new(4096 * MIB);
    let script = group.enter_and_run();
    // Five ranks split into three and two, having so much left under their limit once they have met.
    let split_with = |left: u64| {
        group.set_limit(4096 * MIB).expect("a limit that is far away");
        let mut ranks = Ranks::of("meet_and_split", 5)
            .all_wrapped(&["sh", "-c", &script])
            .env("UNISONO_CHUNK_BYTES", "96MiB")
            .env("UNISONO_TIMEOUT", "20")
            .start();
        (0..5).for_each(|rank| drop(ranks.wait_for_report(rank, "met", PATIENCE)));
        group.set_limit(group.usage() + left).expect("a limit above what is in use");
        (0..5).for_each(|rank| ranks.go(rank));
        ranks
    };
    let outcomes = split_with(64 * MIB).wait_all(PATIENCE);
    outcomes.iter().for_each(|outcome| outcome.assert_success());
    let refusals: Vec<_> = outcomes.iter().map(ended).filter(|ended| ended.kind == "OutOfMemory").collect();
    let text = &refusals.first().expect("a sub-group's first rank says why").text;
    let needed = number_after("needs ", text);
    // Of a chunk three ranks stage a third for each peer, two ranks a half.
    let staging = 96 * MIB * 2 + 96 * MIB;
    assert!((staging..staging + 10 * MIB).contains(&needed), "{text}");
    assert!(text.contains("the staging of 5 ranks"), "{text}");
    assert!(refusals.iter().all(|other| number_after("needs ", &other.text) == needed), "{refusals:?}");
    // With so much left, and some for their own data, all find room, whichever sub-group is first.
    let outcomes = split_with(needed + 80 * MIB).all_succeed(PATIENCE);
    assert!(outcomes.iter().all(|outcome| !outcome.reports("split").is_empty()));
}
