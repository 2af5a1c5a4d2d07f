//! How much processor time the control groups of this process allow.
//!
//! A container limited to half a processor still sees all of them; ranks that spin there burn their quota and
//! are then stopped for tens of milliseconds. The invariant: the tightest of all visible levels is the
//! answer.

use std::path::Path;

use crate::cgroup::{self, Level, Version};

/// The processors' worth of time that the control groups allow, `None` if they set no limit.
pub fn quota() -> Option<f64> {
    quota_below(Path::new("/"))
}

/// The same, for a tree of files below `root` instead of the system's.
pub fn quota_below(root: &Path) -> Option<f64> {
    cgroup::levels(root, "cpu").iter().filter_map(of_group).min_by(f64::total_cmp)
}

fn of_group(level: &Level) -> Option<f64> {
    let read = |file: &str| std::fs::read_to_string(level.directory.join(file)).ok();
    match level.version {
        Version::One => ratio(&read("cpu.cfs_quota_us")?, &read("cpu.cfs_period_us")?),
        Version::Two => {
            let text = read("cpu.max")?;
            let (quota, period) = text.trim().split_once(' ')?;
            ratio(quota, period)
        }
    }
}

/// Quota over period; no limit is written as `-1` in version 1 and `max` in version 2.
fn ratio(quota: &str, period: &str) -> Option<f64> {
    let quota: u64 = quota.trim().parse().ok()?;
    let period: u64 = period.trim().parse().ok()?;
    if period == 0 { None } else { Some(quota as f64 / period as f64) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::fake::Tree;

    #[test]
    fn version_2_takes_the_tightest_level() {
        let tree = Tree::new(&[
            ("proc/self/cgroup", "0::/a/b\n"),
            ("proc/self/mountinfo", "41 30 0:31 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"),
            ("sys/fs/cgroup/a/b/cpu.max", "max 100000\n"),
            ("sys/fs/cgroup/a/cpu.max", "150000 100000\n"),
        ]);
        assert_eq!(quota_below(tree.path()), Some(1.5));
    }

    #[test]
    fn version_1_reads_quota_and_period() {
        let tree = |quota: &str| {
            let tree = Tree::new(&[
                ("proc/self/cgroup", "4:cpu,cpuacct:/a\n"),
                (
                    "proc/self/mountinfo",
                    "40 30 0:30 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n",
                ),
                ("sys/fs/cgroup/cpu/a/cpu.cfs_quota_us", quota),
                ("sys/fs/cgroup/cpu/a/cpu.cfs_period_us", "50000\n"),
                ("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n"),
                ("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n"),
            ]);
            quota_below(tree.path())
        };
        assert_eq!(tree("25000\n"), Some(0.5));
        assert_eq!(tree("-1\n"), None);
        assert_eq!(tree("nonsense\n"), None);
    }

    #[test]
    fn a_zero_period_and_a_missing_tree_mean_no_limit() {
        assert_eq!(ratio("1", "0"), None);
        assert_eq!(quota_below(Path::new("/nonexistent")), None);
    }
}
