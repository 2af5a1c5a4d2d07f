//! Who reserves memory at the same time, and under which limit: for the comparison that comes before.
//!
//! Above a control group's limit the kernel kills instead of failing, so what ranks are about to reserve is summed up per
//! limit and compared with what could be had **before any of them reserved**. Of those who meet rank 0 knows it from their
//! hellos. Sub-groups of one split reserve side by side, each for its own number of ranks, and some are done before others
//! have met: so what all ranks of the parent know of it travels with the split's first exchange.

use unisono_os::memory_limit::{self, Headroom};
use unisono_os::process;

use super::messages::Hello;
use super::name::number_of;

/// The memory limit that a rank is under, at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Limit {
    pub(crate) headroom: Headroom,
    /// In which namespace of control groups its name is meant.
    pub(crate) namespace: Option<u64>,
}

/// One rank that is about to reserve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reserving {
    /// [`Limit::number`] of the limit that it is under.
    pub(crate) limit: u64,
    /// How many ranks it will stage for, itself included.
    pub(crate) world: usize,
}

/// All ranks that reserve in one split.
#[derive(Clone, Debug)]
pub(crate) struct Alongside {
    /// This rank's limit before any of them reserved.
    pub(crate) before: Limit,
    pub(crate) all: Vec<Reserving>,
}

impl Limit {
    pub(crate) fn now() -> Limit {
        Limit { headroom: memory_limit::headroom(), namespace: process::cgroup_namespace_id() }
    }

    /// The same number for all ranks under the same limit.
    pub(crate) fn number(&self) -> u64 {
        number_of_limit(&self.headroom.limited_by, self.namespace)
    }
}

impl Reserving {
    pub(crate) fn of(hello: &Hello) -> Reserving {
        Reserving { limit: number_of_limit(&hello.limited_by, hello.limited_in), world: hello.world }
    }
}

/// Goes by the text up to its numbers, which change from moment to moment.
fn number_of_limit(limited_by: &str, namespace: Option<u64>) -> u64 {
    let limit = limited_by.split(" (").next().unwrap_or_default();
    number_of(&[limit, &format!("{namespace:?}")]) as u64
}
