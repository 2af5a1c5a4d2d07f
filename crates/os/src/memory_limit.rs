//! How much memory may still be had before the kernel kills instead of failing.
//!
//! Above the limit of a control group there is no error: touching a page ends the process. So whoever
//! reserves memory asks here first, and refuses with both numbers if it does not fit. The one invariant that
//! matters: the answer is **the least over everything that is visible**: every level of every tree of control
//! groups, and what the machine itself has available. File cache that the kernel would give back counts as
//! free.

use std::path::Path;

use crate::cgroup::{self, Level, Version};

/// Limits from here on mean "none": version 1 writes the largest multiple of a page that it can count.
const NO_LIMIT: u64 = 1 << 62;

/// What may still be had, and what bounds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Headroom {
    /// Bytes; `u64::MAX` if nothing is known to bound them.
    pub bytes: u64,
    /// The tightest bound, for a message: which group, its limit and use.
    pub limited_by: String,
}

/// What may still be had now. It is a moment's answer: others may take it meanwhile.
pub fn headroom() -> Headroom {
    headroom_below(Path::new("/"))
}

/// The same, for a tree of files below `root` instead of the system's.
pub fn headroom_below(root: &Path) -> Headroom {
    let groups = cgroup::levels(root, "memory").into_iter().filter_map(|level| of_group(&level));
    let unknown = Headroom { bytes: u64::MAX, limited_by: "nothing that could be found".to_owned() };
    groups.chain(of_machine(root)).min_by_key(|headroom| headroom.bytes).unwrap_or(unknown)
}

/// What the machine has available, by the kernel's own estimate.
fn of_machine(root: &Path) -> Option<Headroom> {
    let facts = std::fs::read_to_string(root.join("proc/meminfo")).ok()?;
    let available = facts.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kibibytes: u64 = available.trim().trim_end_matches("kB").trim().parse().ok()?;
    let bytes = kibibytes.saturating_mul(1024);
    Some(Headroom { bytes, limited_by: format!("the machine's available memory ({})", size(bytes)) })
}

/// What one control group leaves, if it has a limit.
fn of_group(level: &Level) -> Option<Headroom> {
    let (limit_file, usage_file) = match level.version {
        Version::One => ("memory.limit_in_bytes", "memory.usage_in_bytes"),
        Version::Two => ("memory.max", "memory.current"),
    };
    let statistics = std::fs::read_to_string(level.directory.join("memory.stat")).unwrap_or_default();
    let limit = tightest(&[number(level, limit_file), invisible_limit(level, &statistics)])?;
    let usage = number(level, usage_file).unwrap_or(0);
    let reclaimable = reclaimable_cache(level, &statistics).min(usage);
    Some(Headroom {
        bytes: limit.saturating_sub(usage - reclaimable),
        limited_by: format!(
            "memory control group {} (limit {}, in use {}, of which {} reclaimable cache)",
            level.directory.display(),
            size(limit),
            size(usage),
            size(reclaimable)
        ),
    })
}

fn tightest(limits: &[Option<u64>]) -> Option<u64> {
    limits.iter().flatten().copied().min().filter(|limit| *limit < NO_LIMIT)
}

/// Version 1 tells each group the tightest limit above it, even of levels that a container cannot see.
fn invisible_limit(level: &Level, statistics: &str) -> Option<u64> {
    match level.version {
        Version::One => statistic(statistics, "hierarchical_memory_limit"),
        Version::Two => None,
    }
}

/// File pages that the kernel takes back under pressure. Shared memory is not among them.
/// Version 1 counts a group alone and, under the names with `total_`, with all below it, as the usage does.
fn reclaimable_cache(level: &Level, statistics: &str) -> u64 {
    let of = |name: &str| match level.version {
        Version::One => {
            statistic(statistics, &format!("total_{name}")).or_else(|| statistic(statistics, name))
        }
        Version::Two => statistic(statistics, name),
    };
    of("inactive_file").unwrap_or(0).saturating_add(of("active_file").unwrap_or(0))
}

fn statistic(statistics: &str, name: &str) -> Option<u64> {
    statistics.lines().find_map(|line| {
        let (key, value) = line.split_once(' ')?;
        if key == name { value.trim().parse().ok() } else { None }
    })
}

/// The number in a file of the group; `None` for `max`, for what is no number and for a missing file.
fn number(level: &Level, file: &str) -> Option<u64> {
    let text = std::fs::read_to_string(level.directory.join(file)).ok()?;
    text.trim().parse().ok()
}

/// Bytes for people: whole mebibytes from one on.
fn size(bytes: u64) -> String {
    if bytes >= 1 << 20 { format!("{} MiB", bytes >> 20) } else { format!("{bytes} bytes") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::fake::Tree;

    const MIB: u64 = 1 << 20;
    const V1_UNLIMITED: &str = "9223372036854771712\n";
    const MEMINFO: &str = "MemTotal:       8388608 kB\nMemFree:  1 kB\nMemAvailable:   4194304 kB\n";
    const V1: &str = "40 30 0:30 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";
    const V2: &str = "41 30 0:31 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";

    #[test]
    fn version_2_takes_the_tightest_level_and_counts_cache_as_free() {
        let tree = Tree::new(&[
            ("proc/meminfo", MEMINFO),
            ("proc/self/cgroup", "0::/outer/inner\n"),
            ("proc/self/mountinfo", V2),
            ("sys/fs/cgroup/outer/inner/memory.max", "max\n"),
            ("sys/fs/cgroup/outer/inner/memory.current", "1048576\n"),
            ("sys/fs/cgroup/outer/memory.max", &format!("{}\n", 512 * MIB)),
            ("sys/fs/cgroup/outer/memory.current", &format!("{}\n", 300 * MIB)),
            (
                "sys/fs/cgroup/outer/memory.stat",
                "anon 5\nfile 209715200\nshmem 104857600\ninactive_file 62914560\nactive_file 41943040\n",
            ),
        ]);
        let headroom = headroom_below(tree.path());
        assert_eq!(headroom.bytes, (512 - 300 + 60 + 40) * MIB);
        assert!(
            headroom.limited_by.ends_with(
                "/sys/fs/cgroup/outer (limit 512 MiB, in use 300 MiB, of which 100 MiB reclaimable cache)"
            ),
            "{headroom:?}"
        );
    }

    #[test]
    fn version_1_without_limits_leaves_what_the_machine_has() {
        let tree = Tree::new(&[
            ("proc/meminfo", MEMINFO),
            ("proc/self/cgroup", "4:memory:/a\n"),
            ("proc/self/mountinfo", V1),
            ("sys/fs/cgroup/memory/a/memory.limit_in_bytes", V1_UNLIMITED),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", V1_UNLIMITED),
        ]);
        let headroom = headroom_below(tree.path());
        assert_eq!(headroom.bytes, 4096 * MIB);
        assert_eq!(headroom.limited_by, "the machine's available memory (4096 MiB)");
    }

    #[test]
    fn version_1_counts_the_groups_below_and_knows_limits_it_cannot_see() {
        let tree = Tree::new(&[
            ("proc/self/cgroup", "4:memory:/a\n"),
            ("proc/self/mountinfo", V1),
            ("sys/fs/cgroup/memory/a/memory.limit_in_bytes", V1_UNLIMITED),
            ("sys/fs/cgroup/memory/a/memory.usage_in_bytes", &format!("{}", 50 * MIB)),
            (
                "sys/fs/cgroup/memory/a/memory.stat",
                "inactive_file 1\ntotal_inactive_file 10485760\ntotal_active_file 0\n\
                 hierarchical_memory_limit 104857600\n",
            ),
        ]);
        assert_eq!(headroom_below(tree.path()).bytes, (100 - 50 + 10) * MIB);
    }

    #[test]
    fn of_two_trees_the_tighter_counts() {
        let both = "40 30 0:30 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                    41 30 0:31 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        for (v1, v2, expected) in [(64 * MIB, 128 * MIB, 64 * MIB), (128 * MIB, 32 * MIB, 32 * MIB)] {
            let tree = Tree::new(&[
                ("proc/meminfo", MEMINFO),
                ("proc/self/cgroup", "4:memory:/\n0::/\n"),
                ("proc/self/mountinfo", both),
                ("sys/fs/cgroup/memory/memory.limit_in_bytes", &v1.to_string()),
                ("sys/fs/cgroup/unified/memory.max", &v2.to_string()),
            ]);
            assert_eq!(headroom_below(tree.path()).bytes, expected);
        }
    }

    #[test]
    fn nothing_is_left_above_the_limit_and_nonsense_bounds_nothing() {
        let group = |limit: &str, usage: &str| {
            let tree = Tree::new(&[
                ("proc/self/cgroup", "0::/\n"),
                ("proc/self/mountinfo", V2),
                ("sys/fs/cgroup/memory.max", limit),
                ("sys/fs/cgroup/memory.current", usage),
                ("sys/fs/cgroup/memory.stat", "inactive_file 18446744073709551615\nactive_file 7\n"),
            ]);
            headroom_below(tree.path()).bytes
        };
        assert_eq!(group("100", "18446744073709551615"), 100, "all of the use is cache");
        assert_eq!(group("99999999999999999999999", "1"), u64::MAX);
        assert_eq!(group("", "1"), u64::MAX);
        assert_eq!(group("-1", "1"), u64::MAX);
        let bare = Tree::new(&[("proc/self/cgroup", "")]);
        assert_eq!(headroom_below(bare.path()).bytes, u64::MAX);
    }

    #[test]
    fn use_beyond_the_limit_leaves_nothing() {
        let tree = Tree::new(&[
            ("proc/self/cgroup", "0::/\n"),
            ("proc/self/mountinfo", V2),
            ("sys/fs/cgroup/memory.max", "4096"),
            ("sys/fs/cgroup/memory.current", "8192"),
        ]);
        assert_eq!(headroom_below(tree.path()).bytes, 0);
    }

    #[test]
    fn this_machine_has_some_memory_left() {
        let headroom = headroom();
        println!("{headroom:?}");
        assert!(headroom.bytes > MIB && headroom.bytes < u64::MAX, "{headroom:?}");
    }
}
