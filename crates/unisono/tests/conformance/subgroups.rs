//! Promise 2 in sub-groups: they have an order of their own, beside the parent's, and outlive it.

use unisono::{Communicator, ReduceOp};

use super::stream::{LONGEST, random_case};
use super::{Checker, Draws};

/// Random cases in a group.
fn use_group(comm: &Communicator, seed: u64, cases: u64) {
    let mut draws = Draws::new(&[seed, 8]);
    let checker = Checker::registering(comm, seed, LONGEST);
    for number in 0..cases {
        checker.perform(number, random_case(&mut draws, comm.world_size()));
    }
}

/// Which ranks of the parent are in a group, in its order.
fn members(group: &Communicator, parent: &Communicator) -> Vec<usize> {
    let mut all = vec![0u64; group.world_size()];
    group.all_gather(&[parent.rank() as u64], &mut all).expect("all members take part");
    all.into_iter().map(|rank| rank as usize).collect()
}

/// By color, by key, and without.
pub(crate) fn subgroups_have_the_ranks_that_named_their_color(comm: &Communicator) {
    let (rank, world) = (comm.rank(), comm.world_size());
    let parity = comm.split(Some(rank as u64 % 2), 0).expect("all split").expect("all have a color");
    assert_eq!(members(&parity, comm), (rank % 2..world).step_by(2).collect::<Vec<_>>());
    use_group(&parity, 20 + rank as u64 % 2, 12);

    let reversed = comm.split(Some(u64::MAX), -(rank as i64)).expect("all split").expect("all have a color");
    assert_eq!(members(&reversed, comm), (0..world).rev().collect::<Vec<_>>());
    assert_eq!(reversed.rank(), world - 1 - rank);
    use_group(&reversed, 22, 12);

    let color = (rank > 0).then_some(0);
    let without_first = comm.split(color, i64::MIN).expect("all split");
    assert_eq!(without_first.is_some(), rank > 0);
    if let Some(group) = &without_first {
        assert_eq!(members(group, comm), (1..world).collect::<Vec<_>>());
        use_group(group, 23, 12);
    }

    let alone = comm.split(Some(rank as u64), 0).expect("all split").expect("all have a color");
    assert_eq!((alone.rank(), alone.world_size()), (0, 1));
    use_group(&alone, 24, 6);
}

/// Parent, sub-group and a sub-group of that in turn, in an order that differs between the sub-groups.
pub(crate) fn subgroups_and_parents_are_used_in_turn(comm: &Communicator) {
    let rank = comm.rank();
    let half = comm.split(Some(rank as u64 % 2), 0).expect("all split").expect("has a color");
    let quarter = half.split(Some(half.rank() as u64 % 2), -1).expect("all split").expect("has a color");
    for round in 0..12u64 {
        let seed = 30 + 10 * round;
        let mut groups = [(&half, 1 + rank as u64 % 2), (&quarter, 3 + rank as u64 % 4)];
        if rank.is_multiple_of(2) == round.is_multiple_of(2) && half.world_size() > 1 {
            groups.reverse();
        }
        for (group, which) in groups {
            use_group(group, seed * 100 + which, 2);
        }
        use_group(comm, seed * 100, 2);
    }
}

/// The parent is dropped on all ranks, on some early; its sub-groups go on.
pub(crate) fn a_subgroup_outlives_its_parent(comm: Communicator) {
    let rank = comm.rank() as u64;
    let half = comm.split(Some(rank % 2), 0).expect("all split").expect("has a color");
    if rank > 0 {
        drop(comm);
        use_group(&half, 50 + rank % 2, 10);
    } else {
        use_group(&half, 50 + rank % 2, 10);
        drop(comm);
    }
    let quarter = half.split(Some(half.rank() as u64 % 2), 0).expect("all split").expect("has a color");
    drop(half);
    let mut sum = [1u32];
    quarter.all_reduce(&mut sum, ReduceOp::Sum).expect("it stands alone");
    assert_eq!(sum, [quarter.world_size() as u32]);
}
