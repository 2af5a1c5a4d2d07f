//! A process that has let go of its communicators is as it was before: no descriptor, no mapping, no thread.

use std::time::{Duration, Instant};

use unisono::{Communicator, ReduceOp};

use crate::faults::{fresh_name, note, reported, soon, told};
use crate::harness::{self, Ranks};

/// How many communicators one process makes in a row.
const MANY: usize = 200;

/// What a process holds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Holdings {
    descriptors: Vec<String>,
    shared_memories: usize,
    threads: usize,
}

impl Holdings {
    pub(crate) fn now() -> Holdings {
        let entries = |directory: &str| {
            std::fs::read_dir(directory).expect("a process sees itself").filter_map(Result::ok)
        };
        // The descriptor that lists them is gone by the time it is looked at.
        let mut descriptors: Vec<String> = entries("/proc/self/fd")
            .filter_map(|entry| Some(format!("{}", std::fs::read_link(entry.path()).ok()?.display())))
            .filter(|target| !target.starts_with("/proc/"))
            .collect();
        descriptors.sort_unstable();
        let maps = std::fs::read_to_string("/proc/self/maps").expect("a process sees itself");
        let shared_memories = maps.lines().filter(|line| line.contains("memfd:")).count();
        Holdings { descriptors, shared_memories, threads: entries("/proc/self/task").count() }
    }
}

fn meet(run: &str, round: usize) -> Communicator {
    let number = |name| told(name).parse().expect("a number");
    Communicator::builder()
        .rank(number("RANK"))
        .world_size(number("WORLD_SIZE"))
        .run_id(&format!("{run}-{round}"))
        .rendezvous_timeout(Duration::from_secs(30))
        .timeout(Some(Duration::from_secs(20)))
        .connect()
        .expect("the ranks meet")
}

/// Rank: make communicators and let go of them in every way, and be left with nothing.
pub(crate) fn meet_and_leave_many_times() {
    let run = told("RUN");
    // What is made once for the whole process is made by the first.
    drop(meet(&run, 0));
    let before = Holdings::now();
    let start = Instant::now();
    for round in 1..=MANY {
        let comm = meet(&run, round);
        comm.all_reduce(&mut [1.0f32; 10], ReduceOp::Sum).expect("all take part");
        match round % 20 {
            0 => {
                let part = comm.split(Some(0), 0).expect("all split").expect("has a color");
                drop(comm); // The sub-group outlives its parent.
                part.barrier().expect("all are there");
            }
            1 => comm.close(Duration::from_secs(20)).expect("all close"),
            2 => {
                comm.barrier().expect("all are there");
                comm.abort();
                assert!(comm.barrier().is_err());
            }
            3 => drop((comm.clone(), comm)),
            4 => {
                let mut registered = comm.alloc::<f32>(40_000).expect("all allocate");
                comm.all_reduce_registered(&mut registered, ReduceOp::Sum).expect("all take part");
                if round % 40 == 4 {
                    drop(comm); // The memory outlives its communicator.
                }
            }
            5 => {
                comm.set_threads(3).expect("threads can be started");
                comm.set_thread_bytes(1).expect("nobody uses the communicator");
                drop(comm.all_reduce_async(vec![1.0f32; 1000], ReduceOp::Sum));
                let part = comm.split(Some(0), 0).expect("all split").expect("has a color");
                drop(comm); // Its threads serve the sub-group.
                part.barrier_async().wait().expect("all are there");
            }
            _ => {}
        }
    }
    harness::report("took", &format!("{:?}", start.elapsed()));
    // A thread that has been joined may still be listed for a moment.
    soon(&format!("back to {before:?}; now {:?}", Holdings::now()), || Holdings::now() == before);
}

pub(crate) fn a_communicator_that_is_gone_leaves_nothing_in_its_process() {
    let outcomes = Ranks::of("meet_and_leave_many_times", 2)
        .env("RUN", &fresh_name("many"))
        .start()
        .all_succeed(Duration::from_secs(90));
    let took = reported(&outcomes[0], "took").expect("it says how long it took");
    note(&format!("{MANY} communicators made and dropped in {took}"));
}
