//! Promise 2: any mix of operations, sizes and types may follow one another.

use std::time::Duration;

use unisono::{Communicator, DType, ReduceOp};

use super::{Case, Checker, Draws, Form, Kind};

/// The longest cases, in bytes.
pub(crate) const LONGEST: usize = 12_000;

/// How often ranks form sub-groups on the way: once in so many operations.
const OPERATIONS_PER_SPLIT: usize = 400;

/// Random operations, the same on all ranks, each checked; now and then some in a sub-group, and now and then a rank
/// that comes late.
pub(crate) fn random_operations(comm: &Communicator, seed: u64, count: u64) {
    let mut draws = Draws::new(&[seed, 4]);
    let mut delays = Draws::new(&[seed, 5, comm.rank() as u64]);
    let checker = Checker::registering(comm, seed, LONGEST);
    for number in 0..count {
        if delays.below(200) == 0 {
            std::thread::sleep(Duration::from_micros(delays.below(300) as u64));
        }
        if draws.below(OPERATIONS_PER_SPLIT) == 0 {
            operations_in_subgroups(comm, &mut draws, seed ^ number << 20);
        }
        checker.perform(number, random_case(&mut draws, comm.world_size()));
    }
}

/// A case as any: mostly short, sometimes of several chunks.
pub(crate) fn random_case(draws: &mut Draws, world: usize) -> Case {
    let kind = draws.pick(&Kind::ALL);
    let dtype = draws.pick(&DType::ALL);
    let ops: Vec<ReduceOp> = ReduceOp::ALL.into_iter().filter(|op| op.supports(dtype)).collect();
    let bytes = match draws.below(20) {
        0 => LONGEST,
        1..5 => 1500,
        _ => 200,
    };
    let count = draws.below(bytes / dtype.size_bytes());
    Case { kind, dtype, op: draws.pick(&ops), count, root: draws.below(world), form: draws.pick(&Form::ALL) }
}

/// Ranks choose a color, or none, and a key; a few operations in each sub-group, and the parent's in between.
fn operations_in_subgroups(comm: &Communicator, draws: &mut Draws, seed: u64) {
    let choices: Vec<(Option<u64>, i64)> = (0..comm.world_size())
        .map(|_| (draws.pick(&[None, Some(1), Some(1), Some(u64::MAX)]), draws.below(5) as i64 - 2))
        .collect();
    let (color, key) = choices[comm.rank()];
    let group = comm.split(color, key).expect("all ranks split");
    assert_eq!(group.is_some(), color.is_some(), "a rank is in a sub-group if it has a color");
    let parent = Checker::registering(comm, seed, LONGEST);
    let within = group.as_ref().map(|group| Checker::registering(group, seed ^ color.unwrap_or(0), LONGEST));
    for number in 0..6 {
        if let (Some(group), Some(within)) = (&group, &within) {
            let mut inner = Draws::new(&[seed, color.unwrap_or(0), number]);
            let case = random_case(&mut inner, group.world_size());
            within.perform(number, case);
        }
        parent.perform(number, random_case(draws, comm.world_size()));
    }
}
