//! Promises 1 and 2, same bits and any order, between real processes: the operations of a communicator against plain
//! loops.

mod harness;

use std::time::Duration;

use harness::Ranks;
use unisono::{Communicator, ReduceOp};

fn meet() {
    let comm = Communicator::from_env().expect("the ranks meet");
    let mut data = [comm.rank() as u64];
    comm.all_reduce(&mut data, ReduceOp::Sum).expect("all add up");
    harness::report("sum", &data[0].to_string());
}

fn ranks_meet_and_add_up() {
    for outcome in Ranks::of("meet", 3).pinned().start().all_succeed(Duration::from_secs(20)) {
        assert_eq!(outcome.reports("sum"), ["3"]);
    }
}

fn main() {
    harness::main(&[("meet", meet)], &[("ranks_meet_and_add_up", ranks_meet_and_add_up)]);
}
