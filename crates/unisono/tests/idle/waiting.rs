//! A rank that waits sleeps in the kernel, with all of its threads, until it is woken.
//!
//! What is asserted of a rank that waits five seconds for a late peer: all threads of its process together use less
//! than 10 ms of processor time; they go to sleep fewer than 20 times between them (each system call that waits is one
//! voluntary context switch); and whenever the test looks, every thread is inside of the same system call as before, so
//! that there is no loop of short waits.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use unisono::ReduceOp;

use crate::faults::{PATIENCE, connect, note, told};
use crate::harness::{self, Ranks};

/// How long the last rank keeps the others waiting.
const LATE: Duration = Duration::from_secs(5);

/// Rank: all but the last wait for it, in the way that the test says.
pub(crate) fn wait_for_one_that_is_late() {
    let comm = connect();
    let (rank, last) = (comm.rank(), comm.world_size() - 1);
    // Threads of a team that have worked go to sleep again.
    comm.all_reduce(&mut vec![1.0f32; 100_000], ReduceOp::Sum).expect("all are there");
    harness::report("waits", "now");
    if rank == last {
        harness::wait_for_go();
    }
    let done = match told("WAY").as_str() {
        "barrier" => comm.barrier(),
        "asynchronous" => comm.barrier_async().wait(),
        "all_reduce" => comm.all_reduce(&mut vec![1.0f32; 100_000], ReduceOp::Sum),
        "recv" if rank == last => (0..last).try_for_each(|to| comm.send(&[1u8], to)),
        "recv" => comm.recv(&mut [0u8], last),
        other => panic!("unknown way {other}"),
    };
    done.expect("the last rank comes in the end");
}

/// What the threads of a process have used and where they are.
#[derive(Debug, Default)]
struct Threads {
    /// Nanoseconds on a processor.
    processor: u64,
    /// How often they went to sleep.
    sleeps: u64,
    /// Per thread: its system call and the arguments, or that it runs.
    calls: BTreeMap<String, String>,
}

impl Threads {
    fn of(pid: u32) -> Threads {
        let mut threads = Threads::default();
        for entry in std::fs::read_dir(format!("/proc/{pid}/task")).expect("it lives").filter_map(Result::ok)
        {
            let read = |file: &str| {
                std::fs::read_to_string(entry.path().join(file))
                    .unwrap_or_else(|error| panic!("{file}: {error}"))
            };
            let first =
                |text: &str| text.split_whitespace().next().and_then(|number| number.parse::<u64>().ok());
            threads.processor += first(&read("schedstat")).expect("the kernel counts processor time");
            let status = read("status");
            let switches = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
            threads.sleeps += first(switches.expect("the kernel counts switches")).expect("a number");
            threads
                .calls
                .insert(entry.file_name().to_string_lossy().into_owned(), read("syscall").trim().to_string());
        }
        threads
    }
}

/// What the processes have used when all of their threads have gone to sleep. On a machine with nothing else to do they
/// need 50 µs; where others want the processors, too, a thread that offers its own gets it back only later.
fn once_asleep(processes: &[u32]) -> Vec<Threads> {
    let until = Instant::now() + PATIENCE;
    loop {
        let [before, now] = [0, 100].map(|pause| {
            std::thread::sleep(Duration::from_millis(pause));
            processes.iter().map(|pid| Threads::of(*pid)).collect::<Vec<_>>()
        });
        let calm = |(before, now): (&Threads, &Threads)| {
            before.calls == now.calls
                && before.sleeps == now.sleeps
                && now.calls.values().all(|call| call != "running")
        };
        if before.iter().zip(&now).all(calm) {
            return now;
        }
        assert!(Instant::now() < until, "they never go to sleep: {now:?}");
    }
}

fn wait_in(way: &str, world: usize) {
    let ranks = Ranks::of("wait_for_one_that_is_late", world).env("WAY", way).env("UNISONO_TIMEOUT", "30");
    // More threads than processors, here and there.
    let ranks =
        if world == 3 { ranks.env("UNISONO_THREADS", "4") } else { ranks.env("UNISONO_THREADS", "2") };
    let mut ranks = ranks.start();
    (0..world).for_each(|rank| drop(ranks.wait_for_report(rank, "waits", PATIENCE)));
    let waiting: Vec<u32> = (0..world - 1).map(|rank| ranks.pid(rank)).collect();
    assert_asleep(way, &waiting);
    ranks.go(world - 1);
    ranks.all_succeed(PATIENCE);
}

/// See that all threads of these processes stay asleep for as long as somebody may be late.
pub(crate) fn assert_asleep(way: &str, waiting: &[u32]) {
    let before = once_asleep(waiting);
    let (start, mut looks) = (Instant::now(), 0);
    while start.elapsed() < LATE {
        for (pid, before) in waiting.iter().zip(&before) {
            assert_eq!(Threads::of(*pid).calls, before.calls, "{way}: a thread has moved");
        }
        looks += 1;
        std::thread::sleep(Duration::from_millis(25));
    }
    let mut costs = Vec::new();
    for (pid, before) in waiting.iter().zip(&before) {
        let after = Threads::of(*pid);
        let processor = Duration::from_nanos(after.processor - before.processor);
        let sleeps = after.sleeps - before.sleeps;
        assert!(processor < Duration::from_millis(10), "{way}: {processor:?} of processor time");
        assert!(sleeps < 20, "{way}: went to sleep {sleeps} times");
        costs.push(format!("{processor:?}, {sleeps} sleeps"));
    }
    note(&format!("{LATE:?} in {way}, looked at {looks} times: {}", costs.join("; ")));
}

pub(crate) fn a_waiting_rank_uses_no_processor_and_stays_in_the_kernel() {
    // They sleep anyway: all at once.
    std::thread::scope(|scope| {
        let waits = [("barrier", 2), ("all_reduce", 3), ("recv", 2), ("asynchronous", 2)]
            .map(|(way, world)| scope.spawn(move || wait_in(way, world)));
        for wait in waits {
            wait.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
    });
}
