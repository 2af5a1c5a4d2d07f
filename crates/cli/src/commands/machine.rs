//! What `unisono doctor` finds on a machine.
//!
//! Facts only, as they are read; what to think of them is in `advice`. The one invariant that matters: looking never
//! fails. What cannot be found out is absent, and the report says so.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use unisono::{DType, Isa, Parameters, ReduceOp};
use unisono_measure::{Distance, Operation, size};
use unisono_os::{cpu, features, memory_limit, process};

use crate::output;
use crate::worker::pool::Pool;
use crate::worker::protocol::{Answer, Request, Subject};

/// Cores whose distance from the first one is measured.
const CORES_MEASURED: usize = 8;
/// World sizes whose parameters are shown.
const WORLD_SIZES: [usize; 3] = [2, 4, 8];

/// Everything that was found.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Machine {
    /// This program's version.
    pub(super) version: &'static str,
    /// The processor architecture it was built for.
    pub(super) architecture: &'static str,
    pub(super) kernel: String,
    pub(super) processor: Option<String>,
    pub(super) cores: Cores,
    pub(super) caches: Vec<Cache>,
    pub(super) numa_nodes: Vec<NumaNode>,
    pub(super) instruction_sets: InstructionSets,
    pub(super) features: Vec<Feature>,
    /// From the first core that may be used to the next ones.
    pub(super) round_trips: Vec<RoundTrip>,
    pub(super) memory: Memory,
    pub(super) user: User,
    /// By world size.
    pub(super) parameters: BTreeMap<usize, Parameters>,
    pub(super) trial: Trial,
}

/// Cores that may be used.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Cores {
    /// By affinity.
    pub(super) allowed: Vec<usize>,
    /// The control group's quota, in cores.
    pub(super) quota: Option<f64>,
    /// What comes of both.
    pub(super) usable: f64,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct Cache {
    pub(super) level: u32,
    pub(super) kind: String,
    pub(super) bytes: usize,
    pub(super) cpus: Vec<usize>,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct NumaNode {
    pub(super) node: usize,
    pub(super) cpus: Vec<usize>,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct InstructionSets {
    /// The one that kernels use; `None` if `UNISONO_ISA` asks for one that is not there.
    pub(super) selected: Option<&'static str>,
    /// Why none could be selected.
    pub(super) problem: Option<String>,
    pub(super) available: Vec<&'static str>,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct Feature {
    pub(super) name: &'static str,
    pub(super) since_kernel: &'static str,
    pub(super) present: bool,
    pub(super) fall_back: &'static str,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct RoundTrip {
    pub(super) cpus: (usize, usize),
    pub(super) ns: u64,
    pub(super) distance: &'static str,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct Memory {
    /// What may still be had.
    pub(super) headroom_bytes: u64,
    pub(super) limited_by: String,
    /// The size of /dev/shm as it was mounted, if it says so. unisono's collectives do not need it.
    pub(super) dev_shm_bytes: Option<u64>,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct User {
    pub(super) uid: u32,
    /// Ranks must share it, or meet in a directory.
    pub(super) network_namespace: Option<u64>,
    pub(super) pid_namespace: Option<String>,
}

/// Two ranks that meet and all-reduce once, in processes of their own.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Trial {
    pub(super) passed: bool,
    /// What went wrong.
    pub(super) problem: Option<String>,
}

impl Machine {
    /// Look at everything.
    pub(super) fn look() -> Machine {
        let allowed = cpu::allowed_cpus();
        let headroom = memory_limit::headroom();
        Machine {
            version: env!("CARGO_PKG_VERSION"),
            architecture: std::env::consts::ARCH,
            kernel: features::kernel_release(),
            processor: cpu::model_name(),
            caches: caches(&allowed),
            numa_nodes: cpu::numa_nodes()
                .into_iter()
                .map(|node| NumaNode { node: node.node, cpus: node.cpus })
                .collect(),
            instruction_sets: instruction_sets(),
            features: kernel_features(),
            round_trips: round_trips(&allowed),
            memory: Memory {
                headroom_bytes: headroom.bytes,
                limited_by: headroom.limited_by,
                dev_shm_bytes: std::fs::read_to_string("/proc/self/mounts").ok().as_deref().and_then(dev_shm),
            },
            user: User {
                uid: process::uid(),
                network_namespace: process::network_namespace_id(),
                pid_namespace: namespace("pid"),
            },
            parameters: WORLD_SIZES.into_iter().map(|ranks| (ranks, Parameters::for_world(ranks))).collect(),
            trial: trial(),
            cores: Cores { allowed, quota: cpu::quota(), usable: cpu::usable_cores() },
        }
    }
}

/// The caches of the cores that may be used.
fn caches(allowed: &[usize]) -> Vec<Cache> {
    let of_ours =
        cpu::caches().into_iter().filter(|cache| cache.cpus.iter().any(|cpu| allowed.contains(cpu)));
    of_ours
        .map(|cache| Cache {
            level: cache.level,
            kind: format!("{:?}", cache.kind).to_lowercase(),
            bytes: cache.bytes,
            cpus: cache.cpus,
        })
        .collect()
}

fn instruction_sets() -> InstructionSets {
    let selected = Isa::selected();
    InstructionSets {
        problem: selected.as_ref().err().map(ToString::to_string),
        selected: selected.ok().map(Isa::name),
        available: Isa::available().into_iter().map(Isa::name).collect(),
    }
}

fn kernel_features() -> Vec<Feature> {
    let probed = features::probe().into_iter();
    probed
        .map(|feature| Feature {
            name: feature.name,
            since_kernel: feature.since_kernel,
            present: feature.present,
            fall_back: feature.fall_back,
        })
        .collect()
}

fn round_trips(allowed: &[usize]) -> Vec<RoundTrip> {
    let Some((first, others)) = allowed.split_first() else { return Vec::new() };
    let pin = |cpu: usize| {
        move || {
            // A core that was taken from us meanwhile shows as a round trip that is far too long.
            let _ = cpu::pin_current_thread(&[cpu]);
        }
    };
    let others = others.iter().take(CORES_MEASURED - 1);
    others
        .map(|other| {
            let time: Duration = unisono_measure::round_trip(pin(*first), pin(*other));
            let ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
            RoundTrip { cpus: (*first, *other), ns, distance: Distance::of(time).name() }
        })
        .collect()
}

/// The size of /dev/shm, from the table of mounts.
fn dev_shm(mounts: &str) -> Option<u64> {
    let options = mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        (fields.next() == Some("/dev/shm")).then(|| fields.nth(1)).flatten()
    })?;
    let bytes = options.split(',').find_map(|option| option.strip_prefix("size="))?;
    size::parse(bytes).ok().map(|bytes| bytes as u64)
}

/// The name of a namespace of this process, such as `pid:[4026531836]`.
fn namespace(kind: &str) -> Option<String> {
    let name = std::fs::read_link(format!("/proc/self/ns/{kind}")).ok()?;
    Some(name.to_string_lossy().into_owned())
}

/// Let two ranks meet and check an all-reduce between them.
fn trial() -> Trial {
    let subject = Subject {
        operation: Operation::AllReduce,
        dtype: DType::F32,
        reduce_op: ReduceOp::Sum,
        root: 0,
        bytes: 64 * 1024,
        out_of_place: false,
        registered: false,
        traffic: false,
    };
    let outcome =
        Pool::start(2).and_then(|mut pool| pool.ask_all(&Request::Check { subject, repetitions: 3 }));
    let problem = match outcome {
        Err(error) => Some(output::chain(&error)),
        Ok(answers) if answers.iter().all(|answer| matches!(answer, Answer::Checked(0))) => None,
        Ok(answers) => Some(format!("an all-reduce between two ranks gave wrong results: {answers:?}")),
    };
    Trial { passed: problem.is_none(), problem }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_of_dev_shm_is_read_from_the_mounts() {
        let mounts = "proc /proc proc rw 0 0\nshm /dev/shm tmpfs rw,nosuid,size=65536k,inode64 0 0\n";
        assert_eq!(dev_shm(mounts), Some(64 << 20));
        assert_eq!(dev_shm("tmpfs /dev/shm tmpfs rw,nosuid 0 0\n"), None);
        assert_eq!(dev_shm("tmpfs /tmp tmpfs rw,size=1k 0 0\n"), None);
    }
}
