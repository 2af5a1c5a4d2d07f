//! How the processors of this machine hang together: caches, memory nodes, model.
//!
//! Read from the kernel's files in `/sys`; for reports and for choosing neighbours. The invariant: what the
//! kernel does not tell is left out, never guessed.

use std::path::Path;

/// What a cache holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CacheKind {
    /// Data only.
    Data,
    /// Instructions only.
    Instruction,
    /// Both.
    Unified,
}

/// One cache of the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cache {
    /// 1 is nearest to the core.
    pub level: u32,
    /// What it holds.
    pub kind: CacheKind,
    /// Its size in bytes.
    pub bytes: usize,
    /// The processors that share it, in order.
    pub cpus: Vec<usize>,
}

/// Processors that are equally near to one part of the memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NumaNode {
    /// The kernel's number of the node.
    pub node: usize,
    /// Its processors, in order; empty for memory without processors.
    pub cpus: Vec<usize>,
}

/// Every cache of the machine once, by level, kind and first processor.
pub fn caches() -> Vec<Cache> {
    caches_below(Path::new("/"))
}

/// The same, for a tree of files below `root` instead of the system's.
pub fn caches_below(root: &Path) -> Vec<Cache> {
    let mut found: Vec<Cache> = Vec::new();
    for cpu in numbered(&root.join("sys/devices/system/cpu"), "cpu") {
        let directory = root.join(format!("sys/devices/system/cpu/cpu{cpu}/cache"));
        for index in numbered(&directory, "index") {
            let cache = read_cache(&directory.join(format!("index{index}")));
            found.extend(cache.filter(|cache| !found.contains(cache)));
        }
    }
    found.sort_by(|a, b| (a.level, a.kind, &a.cpus).cmp(&(b.level, b.kind, &b.cpus)));
    found
}

/// The machine's memory nodes, in order; empty where the kernel knows of none.
pub fn numa_nodes() -> Vec<NumaNode> {
    numa_nodes_below(Path::new("/"))
}

/// The same, for a tree of files below `root` instead of the system's.
pub fn numa_nodes_below(root: &Path) -> Vec<NumaNode> {
    let directory = root.join("sys/devices/system/node");
    let read = |node: usize| std::fs::read_to_string(directory.join(format!("node{node}/cpulist"))).ok();
    numbered(&directory, "node")
        .into_iter()
        .filter_map(|node| Some(NumaNode { node, cpus: cpu_list(&read(node)?) }))
        .collect()
}

/// What the processor calls itself; on Arm, where it has no name, its implementer's and part's numbers.
pub fn model_name() -> Option<String> {
    model_in(&std::fs::read_to_string("/proc/cpuinfo").ok()?)
}

fn model_in(facts: &str) -> Option<String> {
    let field = |name: &str| {
        facts.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            (key.trim() == name).then(|| value.trim().to_owned())
        })
    };
    field("model name").or_else(|| {
        Some(format!("Arm implementer {} part {}", field("CPU implementer")?, field("CPU part")?))
    })
}

fn read_cache(directory: &Path) -> Option<Cache> {
    let read =
        |file: &str| std::fs::read_to_string(directory.join(file)).ok().map(|text| text.trim().to_owned());
    let kind = match read("type")?.as_str() {
        "Data" => CacheKind::Data,
        "Instruction" => CacheKind::Instruction,
        "Unified" => CacheKind::Unified,
        _ => return None,
    };
    Some(Cache {
        level: read("level")?.parse().ok()?,
        kind,
        bytes: bytes_of(&read("size")?)?,
        cpus: cpu_list(&read("shared_cpu_list")?),
    })
}

/// `32K`, `1024K`, `2M`.
fn bytes_of(text: &str) -> Option<usize> {
    let (digits, unit) = match text.strip_suffix('K') {
        Some(digits) => (digits, 1 << 10),
        None => text.strip_suffix('M').map_or((text, 1), |digits| (digits, 1 << 20)),
    };
    digits.parse::<usize>().ok()?.checked_mul(unit)
}

/// `0-3,8,10-11`; parts that are no such thing are left out.
fn cpu_list(text: &str) -> Vec<usize> {
    /// No kernel has more processors; a broken file must not make us count for ever.
    const HIGHEST: usize = 1 << 16;
    let mut cpus = Vec::new();
    for part in text.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.parse::<usize>(), last.parse::<usize>()) {
            cpus.extend(first..=last.min(HIGHEST));
        }
    }
    cpus.sort_unstable();
    cpus.dedup();
    cpus
}

/// The numbers N of the entries called `<prefix>N`, in order.
fn numbered(directory: &Path, prefix: &str) -> Vec<usize> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let mut numbers: Vec<usize> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.strip_prefix(prefix)?.parse().ok())
        .collect();
    numbers.sort_unstable();
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::fake::Tree;

    #[test]
    fn lists_of_processors_are_read() {
        assert_eq!(cpu_list("0-2,8,10-11\n"), [0, 1, 2, 8, 10, 11]);
        assert_eq!(cpu_list("\n"), [] as [usize; 0]);
        assert_eq!(cpu_list("3-1,x,5"), [5]);
        assert!(cpu_list("0-99999999999").len() < 100_000);
    }

    #[test]
    fn shared_caches_appear_once() {
        let cpu = "sys/devices/system/cpu";
        let mut files = Vec::new();
        for core in 0..2 {
            for (index, level, kind, size, shared) in
                [(0, "1", "Data", "32K", None), (3, "3", "Unified", "32M", Some("0-1"))]
            {
                let directory = format!("{cpu}/cpu{core}/cache/index{index}");
                let shared = shared.map_or(core.to_string(), str::to_owned);
                files.push((format!("{directory}/level"), level.to_owned()));
                files.push((format!("{directory}/type"), kind.to_owned()));
                files.push((format!("{directory}/size"), size.to_owned()));
                files.push((format!("{directory}/shared_cpu_list"), shared));
            }
        }
        let files: Vec<(&str, &str)> =
            files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
        let tree = Tree::new(&files);
        let first =
            |cpus: &[usize]| Cache { level: 1, kind: CacheKind::Data, bytes: 32 << 10, cpus: cpus.to_vec() };
        let last = Cache { level: 3, kind: CacheKind::Unified, bytes: 32 << 20, cpus: vec![0, 1] };
        assert_eq!(caches_below(tree.path()), [first(&[0]), first(&[1]), last]);
    }

    #[test]
    fn memory_nodes_are_listed_in_order() {
        let tree = Tree::new(&[
            ("sys/devices/system/node/node10/cpulist", "\n"),
            ("sys/devices/system/node/node0/cpulist", "0-1\n"),
            ("sys/devices/system/node/possible", "0-10\n"),
        ]);
        let expected = [NumaNode { node: 0, cpus: vec![0, 1] }, NumaNode { node: 10, cpus: vec![] }];
        assert_eq!(numa_nodes_below(tree.path()), expected);
        assert!(numa_nodes_below(Path::new("/nonexistent")).is_empty());
    }

    #[test]
    fn a_processor_has_a_name_or_numbers() {
        assert_eq!(
            model_in("processor\t: 0\nmodel name\t: Some CPU @ 2: GHz\n").unwrap(),
            "Some CPU @ 2: GHz"
        );
        let arm = "processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd0c\n";
        assert_eq!(model_in(arm).unwrap(), "Arm implementer 0x41 part 0xd0c");
        assert_eq!(model_in(""), None);
    }
}
