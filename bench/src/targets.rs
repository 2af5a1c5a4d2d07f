//! The targets, as data: `bench/targets.toml`.
//!
//! The one invariant that matters: no number that is judged by stands anywhere else.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, bail};
use serde::{Deserialize, Deserializer, de};
use unisono_measure::{Operation, size};

use crate::cell::Placement;
use crate::queue::cell::Kind;
use crate::schedule::Cell;
use crate::wire::Loop;

const FILE: &str = include_str!("../targets.toml");

/// All targets.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Targets {
    near_up_to_ns: u64,
    allowance: BTreeMap<String, f64>,
    #[serde(rename = "target")]
    pub(crate) list: Vec<Target>,
    #[serde(rename = "queue")]
    pub(crate) queues: Vec<QueueTarget>,
}

/// What is to be reached for queues.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct QueueTarget {
    pub(crate) kind: Kind,
    #[serde(deserialize_with = "from_size")]
    pub(crate) bytes: usize,
    pub(crate) readers: usize,
    near: f64,
    far: f64,
}

impl QueueTarget {
    /// The ratio to reach in a placement.
    pub(crate) fn ratio(&self, placement: Placement) -> Option<f64> {
        by_placement(placement, self.near, self.far)
    }
}

/// Processes that share one core have no targets.
fn by_placement(placement: Placement, near: f64, far: f64) -> Option<f64> {
    match placement {
        Placement::Near => Some(near),
        Placement::Far => Some(far),
        Placement::OneCore => None,
    }
}

/// What is to be reached for a range of sizes.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Target {
    #[serde(deserialize_with = "from_name")]
    pub(crate) operation: Operation,
    #[serde(rename = "loop", deserialize_with = "from_name")]
    pub(crate) around: Loop,
    #[serde(default = "unisono")]
    pub(crate) implementation: String,
    #[serde(default)]
    pub(crate) more_ranks_than_cores: bool,
    #[serde(deserialize_with = "from_size")]
    pub(crate) from: usize,
    #[serde(deserialize_with = "from_size")]
    pub(crate) to: usize,
    near: f64,
    far: f64,
}

/// The name of what is judged where a target names nothing else.
fn unisono() -> String {
    "unisono".to_string()
}

impl Targets {
    /// Read the targets that this program was built with.
    ///
    /// # Errors
    /// When the file is not as it should be.
    pub(crate) fn read() -> anyhow::Result<Targets> {
        let targets: Targets = toml::from_str(FILE).context("bench/targets.toml")?;
        if let Some(empty) = targets.list.iter().find(|target| target.from > target.to) {
            bail!("bench/targets.toml: no size is from {} to {}", empty.from, empty.to);
        }
        Ok(targets)
    }

    /// The longest round trip of near cores.
    pub(crate) fn near_up_to(&self) -> Duration {
        Duration::from_nanos(self.near_up_to_ns)
    }

    /// By how much a type may be worse.
    pub(crate) fn allowance(&self, dtype: &str) -> f64 {
        self.allowance.get(dtype).copied().unwrap_or(1.0)
    }
}

impl Target {
    /// Whether the target is about this cell.
    pub(crate) fn covers(&self, cell: &Cell) -> bool {
        self.operation == cell.work.operation
            && self.around == cell.around
            && cell.strangers == 0
            && self.more_ranks_than_cores == (cell.ranks > cell.cores)
            && (self.from..=self.to).contains(&cell.work.bytes())
    }

    /// The sizes in words.
    pub(crate) fn sizes(&self) -> String {
        let [from, to] = [self.from, self.to].map(|bytes| size::display(bytes as u64));
        if from == to { from } else { format!("{from} to {to}") }
    }

    /// The ratio to reach in a placement; ranks that share one core have no targets.
    pub(crate) fn ratio(&self, placement: Placement) -> Option<f64> {
        by_placement(placement, self.near, self.far)
    }
}

fn from_name<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: std::str::FromStr<Err: std::fmt::Display>,
    D: Deserializer<'de>,
{
    String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
}

fn from_size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    size::parse(&String::deserialize(deserializer)?).map_err(de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_reads_and_every_ratio_is_one() {
        let targets = Targets::read().unwrap();
        assert!(targets.list.len() >= 10);
        assert!(targets.list.iter().all(|target| (0.1..=1.0).contains(&target.near)));
        assert!(targets.list.iter().all(|target| (0.1..=1.0).contains(&target.far)));
        assert!(targets.allowance("bf16") > targets.allowance("f32"));
    }

    #[test]
    fn no_two_targets_are_about_the_same() {
        let targets = Targets::read().unwrap().list;
        for (index, one) in targets.iter().enumerate() {
            for other in &targets[index + 1..] {
                let same_kind = one.operation == other.operation
                    && one.around == other.around
                    && one.more_ranks_than_cores == other.more_ranks_than_cores;
                assert!(!(same_kind && one.from <= other.to && other.from <= one.to), "{one:?} {other:?}");
            }
        }
    }
}
