//! Publishing, and finding what was published, makes no system call as long as nobody sleeps.
//!
//! One rank publishes all it has before the other looks at any of it, so that neither ever waits; each does its part on
//! a thread that the kernel kills, with its process, at the first system call that a wake-up or a wait is made of.

use unisono::{Communicator, Error};

use crate::faults::{PATIENCE, connect, system};
use crate::harness::{self, Ranks};

/// Fewer steps than a rank may be ahead of the others.
const BROADCASTS: u64 = 2;
/// Fewer messages than fit into a pair's window.
const MESSAGES: u64 = 200;

/// Rank 0's part: it publishes and waits for nobody.
fn publish(comm: &Communicator) {
    for round in 0..BROADCASTS {
        comm.broadcast(&mut [round; 500], 0).expect("nobody is waited for");
    }
    for message in 0..MESSAGES {
        comm.send(&[message; 10], 1).expect("the window has room");
    }
}

/// Rank 1's part: all is there already, and rank 0 does not wait for what it publishes.
fn find(comm: &Communicator) {
    for round in 0..BROADCASTS {
        let mut found = [u64::MAX; 500];
        comm.broadcast(&mut found, 0).expect("rank 0 has published it");
        assert_eq!(found, [round; 500]);
    }
    for message in 0..MESSAGES {
        let mut found = [u64::MAX; 10];
        comm.recv(&mut found, 0).expect("rank 0 has sent it");
        assert_eq!(found, [message; 10]);
    }
}

fn on_a_filtered_thread(part: impl FnOnce() + Send + 'static) {
    let thread = std::thread::spawn(|| {
        system::kill_on_waits_and_wakes();
        part();
    });
    thread.join().expect("the part is done");
}

/// Rank: one part after the other, each on a thread under the filter.
pub(crate) fn talk_without_system_calls() {
    let comm = connect();
    comm.barrier().expect("all are there");
    let part: fn(&Communicator) = if comm.rank() == 0 { publish } else { find };
    if comm.rank() == 1 {
        harness::wait_for_go();
    }
    let shared = comm.clone();
    on_a_filtered_thread(move || part(&shared));
    harness::report("quiet", "yes");
    if comm.rank() == 0 {
        harness::wait_for_go();
    }
    comm.barrier().expect("all are still there");
}

pub(crate) fn publishing_to_peers_that_do_not_sleep_makes_no_system_call() {
    let mut ranks = Ranks::of("talk_without_system_calls", 2).env("UNISONO_TIMEOUT", "30").start();
    for rank in [0, 1] {
        if rank == 1 {
            ranks.go(1);
        }
        ranks.wait_for_report(rank, "quiet", PATIENCE);
    }
    ranks.go(0);
    ranks.all_succeed(PATIENCE);
}

/// Rank: wait for a peer that never comes, under the filter.
pub(crate) fn be_killed_by_the_filter() {
    let comm = Communicator::in_process(2).expect("threads can meet").remove(0);
    on_a_filtered_thread(move || {
        let waited = comm.with_timeout(Some(std::time::Duration::from_secs(1))).barrier();
        assert!(matches!(waited, Err(Error::Timeout { .. })), "{waited:?}");
    });
}

pub(crate) fn the_filter_of_the_test_above_has_teeth() {
    use std::os::unix::process::ExitStatusExt;
    const BAD_SYSTEM_CALL: i32 = 31;
    let outcomes = Ranks::start("be_killed_by_the_filter", 1).wait_all(PATIENCE);
    assert_eq!(outcomes[0].status.signal(), Some(BAD_SYSTEM_CALL), "{}", outcomes[0].output);
}
