//! Every wait ends: in a deadline that names who is missing, or in an abort.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use unisono::{Error, ReduceOp};

use crate::faults::{self, PATIENCE, all_ended_with, connect, ended, soon, tell, told};
use crate::harness::{self, Ranks};

/// Rank: all-reduce until somebody stops. What came first stays.
pub(crate) fn all_reduce_until_error() {
    let comm = connect();
    let mut data = vec![1.0f32; told("COUNT").parse().expect("a number")];
    let failed = loop {
        if let Err(error) = comm.all_reduce(&mut data, ReduceOp::Max) {
            break error;
        }
    };
    tell(&failed);
    for _ in 0..3 {
        assert_eq!(
            comm.all_reduce(&mut data, ReduceOp::Max).expect_err("the group has ended").to_string(),
            failed.to_string()
        );
        assert_eq!(
            comm.recv(&mut [0u8], 0).expect_err("the group has ended").to_string(),
            failed.to_string()
        );
    }
}

pub(crate) fn a_stopped_rank_is_named_in_a_timeout_on_every_other_rank() {
    for (world, stopped, count, point) in [
        (2, 1, 10, "before_arrive"),
        (3, 0, 10, "after_copy_in"),
        (3, 2, 100_000, "before_arrive"),
        (4, 1, 100_000, "after_publish"),
    ] {
        let mut ranks = Ranks::of("all_reduce_until_error", world)
            .env("COUNT", &count.to_string())
            .env("UNISONO_CHUNK_BYTES", "64KiB")
            .env("UNISONO_TIMEOUT", "1.2")
            .env_for(stopped, "UNISONO_FAULT", &format!("{point}@20:stop"))
            .start();
        let pid = ranks.pid(stopped);
        ranks.wait_others(&[stopped], PATIENCE);
        // It wakes up to find that the others have given up on it.
        ranks.resume(stopped);
        let outcomes = ranks.wait_all(PATIENCE);
        all_ended_with(&outcomes, &[], "Timeout", &[stopped]);
        for outcome in outcomes.iter().filter(|outcome| outcome.rank != stopped) {
            let ended = ended(outcome);
            assert_eq!(ended.pids, [pid], "{}", ended.text);
            for part in [&format!("rank {stopped} (pid {pid}, alive, "), "inside #", "all_reduce(max"] {
                assert!(ended.text.contains(part), "{part:?} is not in: {}", ended.text);
            }
        }
    }
}

/// Rank 0 waits with several patiences for a rank 1 that comes late.
pub(crate) fn wait_with_several_patiences() {
    let comm = connect();
    if comm.rank() == 1 {
        comm.barrier().expect("all are there");
        std::thread::sleep(Duration::from_millis(900));
        comm.barrier().expect("rank 0 waits without a limit");
        comm.send(&[7u32], 0).expect("sent");
        comm.barrier().expect("both");
        std::thread::sleep(Duration::from_millis(600));
        return;
    }
    assert_eq!(comm.timeout(), Some(Duration::from_millis(400)), "as the environment says");
    comm.barrier().expect("all are there");
    // A limit of one's own for a call, and none; the p2p time-out leaves everything as it was.
    for patience in [50, 150] {
        let patience = Duration::from_millis(patience);
        let start = Instant::now();
        let late = comm.with_timeout(Some(patience)).recv(&mut [0u32], 1).expect_err("it cannot succeed");
        assert!(matches!(late, Error::Timeout { ref peers, .. } if peers[0].rank == 1), "{late}");
        assert!(!late.is_terminal(), "nothing had moved");
        assert!(
            (patience..patience * 10).contains(&start.elapsed()),
            "{:?} for {patience:?}",
            start.elapsed()
        );
    }
    comm.with_timeout(None).barrier().expect("rank 1 comes in the end");
    let mut received = [0u32];
    comm.recv(&mut received, 1).expect("the same pair works again");
    assert_eq!(received, [7]);
    comm.barrier().expect("both");
    let start = Instant::now();
    let late = comm.barrier().expect_err("it cannot succeed");
    assert!((0.4..3.0).contains(&start.elapsed().as_secs_f64()), "{:?}", start.elapsed());
    assert!(late.is_terminal());
    tell(&late);
}

pub(crate) fn deadlines_hold_per_communicator_and_per_call_and_can_be_none() {
    let outcomes = Ranks::of("wait_with_several_patiences", 2)
        .env_for(0, "UNISONO_TIMEOUT", "0.4")
        .start()
        .wait_all(PATIENCE);
    outcomes.iter().for_each(|outcome| outcome.assert_success());
    all_ended_with(&outcomes, &[1], "Timeout", &[1]);
}

/// Rank: wait; rank 1 has a second thread that aborts when the test says so.
pub(crate) fn wait_for_an_abort() {
    let comm = connect();
    comm.barrier().expect("all are there");
    let aborter = (comm.rank() == 1).then(|| {
        let other = comm.clone();
        std::thread::spawn(move || {
            harness::report("ready", "yes");
            harness::wait_for_go();
            faults::tell_time("aborts");
            other.abort();
        })
    });
    // Rank 2 never comes to the barrier: it waits for a message.
    let failed = if comm.rank() == 2 { comm.recv(&mut [0u8; 10], 0) } else { comm.barrier() }
        .expect_err("it cannot succeed");
    tell(&failed);
    assert_eq!(comm.barrier().expect_err("the group has ended").to_string(), failed.to_string());
    // A process that ends while a handle is still held has not left, but died.
    aborter.into_iter().for_each(|thread| thread.join().expect("it does not panic"));
}

pub(crate) fn an_abort_from_another_thread_ends_the_waits_of_all_ranks() {
    let mut ranks = Ranks::of("wait_for_an_abort", 3).env("UNISONO_TIMEOUT", "20").start();
    ranks.wait_for_report(1, "ready", PATIENCE);
    std::thread::sleep(Duration::from_millis(50));
    ranks.go(1);
    let outcomes = ranks.wait_all(PATIENCE);
    all_ended_with(&outcomes, &[], "Aborted", &[1]);
    let aborted: u64 = faults::reported(&outcomes[1], "aborts").expect("it aborted").parse().expect("a time");
    for outcome in &outcomes {
        assert!(ended(outcome).at.saturating_sub(aborted) < faults::PROMPT.as_nanos() as u64);
    }
}

/// Rank: fork; the child finds out that the communicator is not its own, the parent goes on.
pub(crate) fn fork_and_go_on() {
    let comm = connect();
    comm.all_reduce(&mut [1.0f32; 10], ReduceOp::Sum).expect("before the fork");
    let mut registered = comm.alloc::<u16>(100).expect("before the fork");
    comm.set_threads(2).expect("threads can be started");
    comm.set_thread_bytes(1).expect("nobody uses the communicator");
    // Under way, or just over: both may be.
    let mut pending = Some(comm.all_reduce_async(vec![1.0f32; 100_000], ReduceOp::Sum));
    let child = faults::system::fork_child(|| {
        let mut failed = 0;
        let mut expect_forked = |result: unisono::Result<()>| {
            failed += i32::from(
                !matches!(result, Err(Error::Forked { parent, .. }) if parent != std::process::id()),
            );
        };
        expect_forked(comm.barrier());
        expect_forked(comm.all_reduce(&mut [1.0f32; 10], ReduceOp::Sum));
        expect_forked(comm.send(&[1u8], 0));
        expect_forked(comm.recv(&mut [1u8], 0));
        expect_forked(comm.split(Some(0), 0).map(|_| ()));
        expect_forked(registered.get(0).map(|_| ()));
        expect_forked(registered.fill(1));
        expect_forked(comm.all_reduce_registered(&mut registered, ReduceOp::Sum));
        expect_forked(comm.alloc::<u8>(1).map(|_| ()));
        expect_forked(pending.take().map_or(Ok(()), |pending| pending.wait().map(drop)));
        expect_forked(comm.barrier_async().wait());
        expect_forked(comm.scope(|scope| drop(scope.barrier())));
        expect_forked(comm.set_thread_bytes(2));
        expect_forked(comm.close(Duration::from_millis(10)));
        comm.abort(); // Nobody hears it.
        failed += i32::from(comm.threads() != 1);
        failed + i32::from(comm.peers().len() != 2 || comm.peers().iter().any(|peer| peer.last.is_some()))
    });
    assert_eq!(faults::system::exit_code_of(child), Some(0), "uses in the child that were no Forked error");
    assert_eq!(registered.get(0).expect("the parent has it"), 0);
    let sum = pending.take().expect("the child took a copy").wait().expect("the parent goes on");
    assert!(sum.iter().all(|sum| *sum == 2.0));
    comm.barrier_async().wait().expect("the thread lives here");
    // A child that drops its copy on its way out, while the parent is inside of operations.
    let copy = comm.clone();
    let second = faults::system::fork_child(move || {
        drop(copy);
        0
    });
    for _ in 0..200 {
        comm.all_reduce(&mut [1.0f32; 10], ReduceOp::Sum).expect("the parent is unharmed");
    }
    assert_eq!(faults::system::exit_code_of(second), Some(0));
    comm.barrier().expect("the child's end harms nobody");
    assert!(comm.peers().iter().all(|peer| peer.alive));
}

pub(crate) fn a_forked_child_is_told_and_its_parent_goes_on() {
    let outcomes = Ranks::of("fork_and_go_on", 2).env("UNISONO_TIMEOUT", "10").start().wait_all(PATIENCE);
    outcomes.iter().for_each(|outcome| outcome.assert_success());
}

/// Rank: allocate, where one rank has only so many descriptors left.
pub(crate) fn register_without_descriptors() {
    let comm = connect();
    comm.barrier().expect("all are there");
    let is_short = told("SHORT") == comm.rank().to_string();
    let taken = is_short.then(|| faults::system::take_descriptors(told("SPARE").parse().expect("a number")));
    let start = Instant::now();
    let failed = comm.alloc::<u8>(1000).expect_err("a rank cannot take part");
    assert!(start.elapsed() < faults::PROMPT, "{:?}: {failed}", start.elapsed());
    assert!(comm.barrier().expect_err("the group was stopped").is_terminal());
    drop(taken);
    tell(&failed);
}

pub(crate) fn nobody_waits_for_a_rank_that_has_no_descriptor_left_for_an_allocation() {
    // One descriptor is enough for rank 0 to listen, but not to let anybody in.
    for (short, spare) in [(1, "0"), (0, "0"), (0, "1")] {
        let ranks = Ranks::of("register_without_descriptors", 3)
            .env("SHORT", &short.to_string())
            .env("SPARE", spare)
            .env("UNISONO_TIMEOUT", "20")
            .start();
        let outcomes = ranks.wait_all(PATIENCE);
        all_ended_with(&outcomes, &[short], "Aborted", &[short]);
        let own = ended(&outcomes[short]);
        assert_eq!(own.kind, "Rendezvous", "{}", own.text);
        assert!(own.text.contains("os error 24") || own.text.contains("Too many open files"), "{}", own.text);
    }
}

/// Rank: two threads; while one waits for ever, the other's patience ends.
pub(crate) fn wait_behind_another_thread() {
    let comm = connect();
    comm.barrier().expect("all are there");
    if comm.rank() == 1 {
        harness::wait_for_go();
        comm.barrier().expect("rank 0's thread still waits");
        return;
    }
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| comm.barrier());
        soon("the thread is inside", || {
            comm.peers()[0].last.as_ref().is_some_and(|last| last.number == 2 && !last.finished)
        });
        let busy =
            comm.with_timeout(Some(Duration::from_millis(50))).barrier().expect_err("it cannot succeed");
        tell(&busy);
        assert!(!busy.is_terminal());
        waiting.join().expect("no panic").expect("rank 1 comes");
    });
}

pub(crate) fn a_thread_that_waits_for_another_has_a_deadline_too() {
    let mut ranks = Ranks::of("wait_behind_another_thread", 2).env("UNISONO_TIMEOUT", "20").start();
    ranks.wait_for_report(0, "ended", PATIENCE);
    ranks.go(1);
    let outcomes = ranks.wait_all(PATIENCE);
    outcomes.iter().for_each(|outcome| outcome.assert_success());
    all_ended_with(&outcomes, &[1], "Busy", &[]);
}

/// Ranks share one processor with two loops that never yield, in rank 1's process; rank 0 waits for what never comes.
pub(crate) fn wait_beside_strangers() {
    let processor = unisono_os::cpu::allowed_cpus()[0];
    unisono_os::cpu::pin_current_thread(&[processor]).expect("the processor is allowed");
    let comm = connect();
    comm.barrier().expect("all are there");
    if comm.rank() == 1 {
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        std::hint::spin_loop();
                    }
                });
            }
            comm.barrier().expect("rank 0 comes when it has measured");
            done.store(true, Ordering::Relaxed);
        });
        return;
    }
    for patience in [10, 30, 100] {
        let patience = Duration::from_millis(patience);
        for _ in 0..5 {
            let start = Instant::now();
            let late = comm.with_timeout(Some(patience)).recv(&mut [0u32], 1).expect_err("it cannot succeed");
            let late_by = start.elapsed().checked_sub(patience).expect("not before the deadline");
            assert!(matches!(late, Error::Timeout { .. }), "{late}");
            harness::report("late", &late_by.as_micros().to_string());
            // What the machine makes of whoever sleeps here, whatever else it does.
            let start = Instant::now();
            std::thread::sleep(patience);
            let late_by = start.elapsed().saturating_sub(patience);
            harness::report("sleeper", &late_by.as_micros().to_string());
        }
    }
    comm.barrier().expect("rank 1 still waits");
}

pub(crate) fn a_deadline_is_kept_beside_strangers_that_never_yield() {
    let outcomes =
        Ranks::of("wait_beside_strangers", 2).env("UNISONO_TIMEOUT", "20").start().all_succeed(PATIENCE);
    let median = |what: &str| {
        let reports = outcomes[0].reports(what);
        let mut late: Vec<u64> = reports.iter().map(|late| late.parse().expect("microseconds")).collect();
        late.sort_unstable();
        faults::note(&format!("beside two busy loops, {what}: {late:?} us"));
        // Not each of them: other tests want this processor as well.
        Duration::from_micros(late[late.len() / 2])
    };
    let (late, sleeper) = (median("late"), median("sleeper"));
    assert!(late < Duration::from_millis(60) + 2 * sleeper, "{late:?} late, any sleeper {sleeper:?}");
}
