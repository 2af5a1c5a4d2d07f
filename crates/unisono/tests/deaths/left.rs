//! Who leaves in good order is not dead, and who exits without a word is.

use std::time::Duration;

use unisono::{Communicator, Error, ReduceOp};

use crate::faults::{self, PATIENCE, all_ended_with, connect, tell, told};
use crate::harness::Ranks;

/// Rank 1 leaves as it was told, its process living on; the others still need it.
pub(crate) fn go_as_told() {
    let comm = connect();
    comm.barrier().expect("all are there");
    if comm.rank() != 1 {
        let failed = comm.all_reduce(&mut [1.0f32; 100], ReduceOp::Sum).expect_err("it cannot succeed");
        tell(&failed);
        assert_eq!(comm.barrier().expect_err("the group has ended").to_string(), failed.to_string());
        return;
    }
    // Late, so that the others wait already.
    std::thread::sleep(Duration::from_millis(30));
    match told("WAY").as_str() {
        "drop" => drop(comm),
        "drop_and_live" => {
            drop(comm);
            std::thread::sleep(Duration::from_millis(500));
        }
        "close" => {
            // The others don't close, so this is the leaving after a mismatch or a time-out.
            let alone = comm.close(Duration::from_millis(100)).expect_err("it cannot succeed");
            assert!(matches!(alone, Error::Mismatch { .. }), "{alone}");
        }
        "exit" => std::process::exit(0),
        "panic" => panic_quietly(comm),
        way => panic!("unknown way {way}"),
    }
}

/// The unwinding drops the communicator.
fn panic_quietly(comm: Communicator) {
    let failed = std::thread::spawn(move || {
        assert!(comm.world_size() == 0, "a panic on purpose");
    });
    assert!(failed.join().is_err());
}

fn all_others_meet(way: &str, kind: &str) {
    for world in [2, 3] {
        let outcomes = Ranks::of("go_as_told", world)
            .env("WAY", way)
            .env("UNISONO_TIMEOUT", "20")
            .start()
            .wait_all(PATIENCE);
        all_ended_with(&outcomes, &[1], kind, &[1]);
        outcomes[1].assert_success();
    }
}

pub(crate) fn a_rank_that_drops_its_communicator_has_left_and_is_not_dead() {
    all_others_meet("drop", "PeerLeft");
    all_others_meet("drop_and_live", "PeerLeft");
}

pub(crate) fn a_rank_whose_thread_panics_has_left() {
    all_others_meet("panic", "PeerLeft");
}

pub(crate) fn a_rank_that_exits_without_leaving_is_dead() {
    all_others_meet("exit", "PeerDied");
}

pub(crate) fn closing_where_others_do_not_is_a_mismatch_on_all() {
    let outcomes = Ranks::of("go_as_told", 3)
        .env("WAY", "close")
        .env("UNISONO_TIMEOUT", "20")
        .start()
        .wait_all(PATIENCE);
    for outcome in &outcomes {
        outcome.assert_success();
    }
    for outcome in outcomes.iter().filter(|outcome| outcome.rank != 1) {
        let ended = faults::ended(outcome);
        assert_eq!(ended.kind, "Mismatch", "{}", ended.text);
        assert!(ended.text.contains("close") && ended.text.contains("all_reduce"), "{}", ended.text);
    }
}

/// Nobody needs a rank that has done its part: the others finish with its data, whatever became of it.
pub(crate) fn leave_after_the_last_operation() {
    let comm = connect();
    let mut sum = [comm.rank() as f32 + 1.0; 1000];
    comm.all_reduce(&mut sum, ReduceOp::Sum).expect("all ranks take part");
    assert_eq!(sum, [6.0; 1000]);
    let mut data = [comm.rank() as u64; 10];
    comm.broadcast(&mut data, 0).expect("rank 0 publishes before it leaves");
    assert_eq!(data, [0; 10]);
    if comm.rank() == 1 {
        comm.send(&[5u8; 10], 2).expect("the window has room");
    } else if comm.rank() == 2 {
        std::thread::sleep(Duration::from_millis(100)); // By then the others have left.
        let mut received = [0u8; 10];
        comm.recv(&mut received, 1).expect("it was sent before its sender left");
        assert_eq!(received, [5; 10]);
        tell(&comm.recv(&mut received, 1).expect_err("it cannot succeed"));
    }
}

pub(crate) fn leaving_after_the_last_operation_harms_nobody() {
    for _ in 0..3 {
        let outcomes = Ranks::of("leave_after_the_last_operation", 3)
            .env("UNISONO_TIMEOUT", "20")
            .start()
            .wait_all(PATIENCE);
        outcomes.iter().for_each(|outcome| outcome.assert_success());
        all_ended_with(&outcomes, &[0, 1], "PeerLeft", &[1]);
    }
}

/// Rank 1 needs both others: rank 0, which is late, and rank 2, which leaves.
pub(crate) fn wait_for_one_who_left_and_one_who_is_late() {
    let comm = connect();
    comm.barrier().expect("all are there");
    match comm.rank() {
        0 => std::thread::sleep(Duration::from_secs(3)),
        1 => {
            let began = std::time::Instant::now();
            tell(&comm.barrier().expect_err("rank 2 never comes"));
            assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
        }
        _ => std::thread::sleep(Duration::from_millis(300)), // By then rank 1 sleeps.
    }
}

pub(crate) fn a_rank_that_left_is_named_though_another_is_late() {
    let ranks = Ranks::of("wait_for_one_who_left_and_one_who_is_late", 3).env("UNISONO_TIMEOUT", "20");
    let outcomes = ranks.start().wait_all(PATIENCE);
    outcomes.iter().for_each(|outcome| outcome.assert_success());
    all_ended_with(&outcomes, &[0, 2], "PeerLeft", &[2]);
}

/// All leave together, and whoever uses the communicator afterwards is told.
pub(crate) fn close_together() {
    let comm = connect();
    std::thread::sleep(Duration::from_millis(20 * comm.rank() as u64));
    comm.close(Duration::from_secs(10)).expect("all close");
    tell(&comm.barrier().expect_err("it cannot succeed"));
}

pub(crate) fn after_closing_together_every_call_says_closed() {
    let outcomes = Ranks::of("close_together", 3).start().wait_all(PATIENCE);
    all_ended_with(&outcomes, &[], "Closed", &[]);
}
