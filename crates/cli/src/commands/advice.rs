//! What `unisono doctor` thinks of a machine, in plain words.
//!
//! A pure function of the facts. The one invariant that matters: advice says what was found, what it means for ranks and
//! what to do about it; what is fine is not mentioned.

use serde::Serialize;
use unisono_measure::{Distance, size};

use super::machine::Machine;

/// Less memory than this is soon used up by buffers beside unisono's own.
const LITTLE_MEMORY: u64 = 256 << 20;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    /// Good to know.
    Note,
    /// It costs speed, or will be trouble later.
    Warning,
    /// Nothing works until it is put right.
    Error,
}

/// One piece of advice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Advice {
    pub(super) level: Level,
    pub(super) text: String,
}

/// All that is to be said, the worst first.
pub(super) fn on(machine: &Machine) -> Vec<Advice> {
    let mut all = Vec::new();
    let mut say = |level, text: String| all.push(Advice { level, text });
    if let Some(problem) = &machine.trial.problem {
        say(Level::Error, format!("two ranks could not work together: {problem}"));
    }
    if let Some(problem) = &machine.instruction_sets.problem {
        say(Level::Error, format!("{problem}; unset UNISONO_ISA to use the best one there is"));
    }
    on_cores(machine, &mut say);
    on_distance(machine, &mut say);
    on_memory(machine, &mut say);
    for feature in machine.features.iter().filter(|feature| !feature.present) {
        say(
            Level::Note,
            format!(
                "kernel {} has no {} (Linux {} has): {}",
                machine.kernel, feature.name, feature.since_kernel, feature.fall_back
            ),
        );
    }
    all.sort_by_key(|advice| std::cmp::Reverse(advice.level));
    all
}

fn on_cores(machine: &Machine, say: &mut impl FnMut(Level, String)) {
    let cores = &machine.cores;
    let allowed = cores.allowed.len();
    if cores.usable < 2.0 {
        say(
            Level::Warning,
            format!(
                "{} of processor time for all ranks: they take turns, and every operation costs a turn of the scheduler; \
                 give this process two cores at least",
                if cores.usable == 1.0 {
                    "one core".to_string()
                } else {
                    format!("{:.1} cores", cores.usable)
                }
            ),
        );
    }
    if let Some(quota) = cores.quota.filter(|quota| *quota < allowed as f64) {
        say(
            Level::Warning,
            format!(
                "a control group allows {quota:.1} cores' worth of time on {allowed} cores: with more than {} ranks the \
                 kernel stops all of them for a part of each period; start no more, or raise the quota",
                (quota as usize).max(1)
            ),
        );
    }
    say(
        Level::Note,
        format!(
            "up to {} ranks have a core each; with more, ranks share cores and operations take several times longer",
            (cores.usable as usize).max(1)
        ),
    );
    let nodes: Vec<usize> = machine
        .numa_nodes
        .iter()
        .filter(|node| node.cpus.iter().any(|cpu| cores.allowed.contains(cpu)))
        .map(|node| node.node)
        .collect();
    if nodes.len() > 1 {
        say(
            Level::Note,
            format!(
                "the cores lie on {} NUMA nodes: `unisono run --pin` keeps each rank near its memory",
                nodes.len()
            ),
        );
    }
}

fn on_distance(machine: &Machine, say: &mut impl FnMut(Level, String)) {
    let of = |distance: Distance| machine.round_trips.iter().filter(move |r| r.distance == distance.name());
    let far = of(Distance::Far).count();
    if far > 0 && of(Distance::Near).count() > 0 {
        say(
            Level::Note,
            "some cores are near one another and some far apart: small operations are several times faster between \
             near ones; with few ranks, choose near cores (taskset -c)"
                .to_string(),
        );
    } else if far > 0 {
        say(
            Level::Note,
            "the cores do not share a cache, at least not now: expect several times the near latency for small operations. \
             On a virtual machine this changes with where the hypervisor puts it"
                .to_string(),
        );
    }
    if let Some(disturbed) = of(Distance::Disturbed).next() {
        let (one, other) = disturbed.cpus;
        say(
            Level::Warning,
            format!(
                "cores {one} and {other} did not run at the same time while they were measured: other work is on them, and \
                 ranks there will wait for it"
            ),
        );
    }
}

fn on_memory(machine: &Machine, say: &mut impl FnMut(Level, String)) {
    let memory = &machine.memory;
    if memory.headroom_bytes < LITTLE_MEMORY {
        say(
            Level::Warning,
            format!(
                "only {} of memory may still be had ({}): beyond it the kernel kills instead of failing",
                size::about(memory.headroom_bytes),
                memory.limited_by
            ),
        );
    }
    if let Some(bytes) = memory.dev_shm_bytes.filter(|bytes| *bytes < LITTLE_MEMORY) {
        say(
            Level::Note,
            format!(
                "/dev/shm holds {} only; unisono's collectives do not use it, but torch's data loaders and message queues \
                 of other libraries do",
                size::about(bytes)
            ),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::machine::{
        Cores, Feature, InstructionSets, Memory, NumaNode, RoundTrip, Trial, User,
    };

    fn healthy() -> Machine {
        Machine {
            version: "0",
            architecture: "x86_64",
            kernel: "6.18.0".to_string(),
            processor: None,
            cores: Cores { allowed: vec![0, 1, 2, 3], quota: None, usable: 4.0 },
            caches: Vec::new(),
            numa_nodes: vec![NumaNode { node: 0, cpus: vec![0, 1, 2, 3] }],
            instruction_sets: InstructionSets {
                selected: Some("avx2"),
                problem: None,
                available: vec!["avx2"],
            },
            features: Vec::new(),
            round_trips: vec![RoundTrip { cpus: (0, 1), ns: 100, distance: "near" }],
            memory: Memory { headroom_bytes: 1 << 34, limited_by: String::new(), dev_shm_bytes: None },
            user: User { uid: 0, network_namespace: None, pid_namespace: None },
            parameters: Default::default(),
            trial: Trial { passed: true, problem: None },
        }
    }

    /// The advice beyond what is said of every machine.
    fn special(machine: &Machine) -> Vec<(Level, String)> {
        let usual = on(&healthy());
        on(machine)
            .into_iter()
            .filter(|advice| !usual.contains(advice))
            .map(|advice| (advice.level, advice.text))
            .collect()
    }

    #[test]
    fn a_healthy_machine_is_told_how_many_ranks_it_carries_and_nothing_else() {
        let advice = on(&healthy());
        assert_eq!(advice.len(), 1, "{advice:?}");
        assert!(advice[0].text.contains("up to 4 ranks"), "{advice:?}");
    }

    #[test]
    fn a_quota_below_the_cores_is_a_warning_with_the_number_of_ranks_it_allows() {
        let mut machine = healthy();
        machine.cores = Cores { quota: Some(2.5), usable: 2.5, ..machine.cores };
        let advice = special(&machine);
        assert_eq!(advice[0].0, Level::Warning);
        assert!(advice[0].1.contains("2.5 cores") && advice[0].1.contains("more than 2 ranks"), "{advice:?}");
    }

    #[test]
    fn one_core_and_disturbed_cores_are_warnings() {
        let mut machine = healthy();
        machine.cores = Cores { allowed: vec![3], quota: None, usable: 1.0 };
        assert!(special(&machine)[0].1.starts_with("one core"));
        let mut machine = healthy();
        machine.round_trips[0] = RoundTrip { cpus: (0, 1), ns: 4_000_000, distance: "disturbed" };
        assert_eq!(special(&machine)[0].0, Level::Warning);
    }

    #[test]
    fn a_missing_kernel_feature_comes_with_what_is_done_without_it() {
        let mut machine = healthy();
        machine.features.push(Feature {
            name: "futex_waitv",
            since_kernel: "5.16",
            present: false,
            fall_back: "ranks poll",
        });
        let advice = special(&machine);
        assert!(advice[0].1.contains("futex_waitv (Linux 5.16 has): ranks poll"), "{advice:?}");
    }

    #[test]
    fn a_failed_trial_is_an_error_with_its_reason() {
        let mut machine = healthy();
        machine.trial = Trial { passed: false, problem: Some("memfd_create: not permitted".to_string()) };
        let advice = special(&machine);
        assert_eq!(advice[0].0, Level::Error);
        assert!(advice[0].1.contains("not permitted"));
    }

    #[test]
    fn little_memory_and_far_cores_are_told() {
        let mut machine = healthy();
        machine.memory = Memory {
            headroom_bytes: 1 << 20,
            limited_by: "memory.max of /job".to_string(),
            dev_shm_bytes: Some(64 << 20),
        };
        machine.round_trips.push(RoundTrip { cpus: (0, 2), ns: 400, distance: "far" });
        let texts: Vec<String> = special(&machine).into_iter().map(|advice| advice.1).collect();
        for expected in ["memory.max of /job", "/dev/shm holds 64.0 MiB", "near cores (taskset -c)"] {
            assert!(texts.iter().any(|text| text.contains(expected)), "{expected}: {texts:?}");
        }
    }
}
