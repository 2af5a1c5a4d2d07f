//! Ranks meet whatever surrounds them: other network namespaces, a full /dev/shm; and a memory limit is told, not hit.

use std::path::{Path, PathBuf};

use crate::faults::{PATIENCE, Scratch, ended, needs_root};
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

/// A control group that limits memory, gone when dropped.
struct MemoryGroup {
    directory: PathBuf,
}

impl MemoryGroup {
    fn new(limit: u64) -> Self {
        needs_root();
        let name = format!("unisono-test-{}", std::process::id());
        let kinds = [("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")];
        for (root, file) in kinds {
            let directory = Path::new(root).join(&name);
            let made = std::fs::create_dir(&directory).is_ok();
            if made && std::fs::write(directory.join(file), limit.to_string()).is_ok() {
                return MemoryGroup { directory };
            }
            let _ = std::fs::remove_dir(&directory); // There is none, or none that limits memory.
        }
        panic!("no control group that limits memory can be made here, neither version 1 nor 2: {kinds:?}");
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.directory); // A failing test may have left processes in it.
    }
}

pub(crate) fn a_memory_limit_that_is_too_small_is_refused_with_both_numbers() {
    const MIB: u64 = 1 << 20;
    let group = MemoryGroup::new(64 * MIB);
    let script = format!("echo $$ > {}/cgroup.procs && exec \"$0\"", group.directory.display());
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
        assert!(ended.text.contains(&group.directory.display().to_string()), "{}", ended.text);
        outcome.assert_success();
    }
    // Within the limit the same ranks meet.
    let ranks = meeting_of(2, "10").all_wrapped(&["sh", "-c", &script]).start();
    assert!(ranks.all_succeed(PATIENCE).iter().all(|outcome| !outcome.reports("met").is_empty()));
}
