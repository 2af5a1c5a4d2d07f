//! Where this process stands in the trees of control groups, version 1, version 2 or both at once.
//!
//! Memory and processor limits are looked up here by [`memory_limit`](crate::memory_limit) and
//! [`cpu`](crate::cpu). The one invariant that matters: **every level that can be seen counts**, from the
//! process's own group up to the root of what is mounted, since any of them may hold the tightest limit.
//! All paths are taken below a given root, so that tests can lay out trees of their own.

use std::path::{Path, PathBuf};

/// Which layout a directory of limits has; the file names differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    One,
    Two,
}

/// One level of a tree: a directory with the files of one controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Level {
    pub(crate) directory: PathBuf,
    pub(crate) version: Version,
}

/// One line of `/proc/self/mountinfo` that mounts control groups.
struct Mount {
    /// The group that appears at the mount point.
    group: String,
    point: String,
    version: Version,
    /// For version 1: the controllers, among other options.
    options: String,
}

/// All visible levels for a controller (`memory`, `cpu`), the process's own group first, in each tree.
pub(crate) fn levels(root: &Path, controller: &str) -> Vec<Level> {
    let memberships = read(root, "proc/self/cgroup");
    let mounts = read(root, "proc/self/mountinfo");
    let mut found: Vec<Level> = Vec::new();
    for mount in mounts.lines().filter_map(parse_mount) {
        let Some(group) = membership(&memberships, &mount, controller) else { continue };
        for directory in upwards(&mount, group) {
            let directory = root.join(directory.trim_start_matches('/'));
            if directory.is_dir() && !found.iter().any(|level| level.directory == directory) {
                found.push(Level { directory, version: mount.version });
            }
        }
    }
    found
}

fn read(root: &Path, path: &str) -> String {
    std::fs::read_to_string(root.join(path)).unwrap_or_default()
}

/// Fields: id parent device GROUP POINT options [tags…] - TYPE source OPTIONS.
fn parse_mount(line: &str) -> Option<Mount> {
    let (place, kind) = line.split_once(" - ")?;
    let mut place = place.split(' ').skip(3);
    let (group, point) = (place.next()?, place.next()?);
    let mut kind = kind.split(' ');
    let version = match kind.next()? {
        "cgroup" => Version::One,
        "cgroup2" => Version::Two,
        _ => return None,
    };
    let options = kind.nth(1).unwrap_or_default().to_owned();
    Some(Mount { group: unescape(group), point: unescape(point), version, options })
}

/// Blanks in paths are written as octal numbers in `mountinfo`.
fn unescape(text: &str) -> String {
    text.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\")
}

/// The process's group in the tree of this mount, if the tree has the controller.
/// Lines of `/proc/self/cgroup` read `number:controllers:group`; version 2 has number 0 and no controllers.
fn membership<'a>(memberships: &'a str, mount: &Mount, controller: &str) -> Option<&'a str> {
    let has = |list: &str| list.split(',').any(|name| name == controller);
    if mount.version == Version::One && !has(&mount.options) {
        return None;
    }
    memberships.lines().find_map(|line| {
        let (number, rest) = line.split_once(':')?;
        let (controllers, group) = rest.split_once(':')?;
        let ours = match mount.version {
            Version::One => has(controllers),
            Version::Two => number == "0" && controllers.is_empty(),
        };
        ours.then_some(group)
    })
}

/// The directories from the process's group up to the mount point.
///
/// In a container the mount may show only a part of the tree: then the group is looked for below that part,
/// and if it is not there, the mount point itself stands for it.
fn upwards(mount: &Mount, group: &str) -> Vec<String> {
    let within = match group.strip_prefix(mount.group.trim_end_matches('/')) {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => rest.trim_end_matches('/'),
        _ => "",
    };
    let within = if within.split('/').any(|part| part == "..") { "" } else { within };
    let mut directories = Vec::new();
    let mut rest = within;
    loop {
        directories.push(format!("{}{rest}", mount.point.trim_end_matches('/')));
        match rest.rfind('/') {
            Some(cut) => rest = &rest[..cut],
            None => return directories,
        }
    }
}

/// Trees of files for tests, removed at the end.
#[cfg(test)]
pub(crate) mod fake {
    use std::path::{Path, PathBuf};
    use std::sync::atomic::{AtomicU32, Ordering};

    pub(crate) struct Tree(pub(crate) PathBuf);

    impl Tree {
        pub(crate) fn new(files: &[(&str, &str)]) -> Tree {
            static COUNT: AtomicU32 = AtomicU32::new(0);
            let count = COUNT.fetch_add(1, Ordering::Relaxed);
            let root = std::env::temp_dir().join(format!("unisono-os-tree-{}-{count}", std::process::id()));
            for (path, content) in files {
                let path = root.join(path);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, content).unwrap();
            }
            Tree(root)
        }

        pub(crate) fn path(&self) -> &Path {
            &self.0
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V2: &str = "30 24 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";

    fn directories(tree: &fake::Tree, controller: &str) -> Vec<String> {
        let relative =
            |level: Level| level.directory.strip_prefix(tree.path()).unwrap().display().to_string();
        levels(tree.path(), controller).into_iter().map(relative).collect()
    }

    #[test]
    fn every_level_up_to_the_mount_is_visited() {
        let tree = fake::Tree::new(&[
            ("proc/self/cgroup", "0::/user.slice/app\n"),
            ("proc/self/mountinfo", V2),
            ("sys/fs/cgroup/user.slice/app/memory.max", "max\n"),
        ]);
        let expected = ["sys/fs/cgroup/user.slice/app", "sys/fs/cgroup/user.slice", "sys/fs/cgroup"];
        assert_eq!(directories(&tree, "memory"), expected);
    }

    #[test]
    fn a_container_sees_its_part_of_a_version_1_tree() {
        let mount = "50 40 0:30 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n\
                     51 40 0:31 /docker/abc /sys/fs/cgroup/cpu,cpuacct ro - cgroup cgroup rw,cpu,cpuacct\n";
        let tree = fake::Tree::new(&[
            ("proc/self/cgroup", "5:memory:/docker/abc/inner\n4:cpu,cpuacct:/elsewhere\n"),
            ("proc/self/mountinfo", mount),
            ("sys/fs/cgroup/memory/inner/x", ""),
            ("sys/fs/cgroup/cpu,cpuacct/x", ""),
        ]);
        assert_eq!(directories(&tree, "memory"), ["sys/fs/cgroup/memory/inner", "sys/fs/cgroup/memory"]);
        assert_eq!(directories(&tree, "cpu"), ["sys/fs/cgroup/cpu,cpuacct"]);
    }

    #[test]
    fn both_versions_side_by_side_are_both_seen() {
        let mounts = "40 30 0:30 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                      41 30 0:31 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let tree = fake::Tree::new(&[
            ("proc/self/cgroup", "4:memory:/a\n0::/b\n"),
            ("proc/self/mountinfo", mounts),
            ("sys/fs/cgroup/memory/a/x", ""),
            ("sys/fs/cgroup/unified/b/x", ""),
        ]);
        let found = levels(tree.path(), "memory");
        let versions: Vec<Version> = found.iter().map(|level| level.version).collect();
        assert_eq!(versions, [Version::One, Version::One, Version::Two, Version::Two]);
    }

    #[test]
    fn nonsense_gives_no_levels_and_no_way_out_of_the_root() {
        let tree = fake::Tree::new(&[
            ("proc/self/cgroup", "garbage\n0::/../../etc\n\n"),
            ("proc/self/mountinfo", &format!("a - b\n\n{V2}")),
            ("sys/fs/cgroup/x", ""),
        ]);
        assert_eq!(directories(&tree, "memory"), ["sys/fs/cgroup"]);
        assert!(levels(Path::new("/nonexistent"), "memory").is_empty());
    }
}
