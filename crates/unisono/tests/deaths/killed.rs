//! A rank that is killed is named to every survivor: at every step of the protocol, in every kind of operation,
//! whatever it held.

use unisono::{Communicator, ReduceOp, Result};
use unisono_os::process;

use crate::faults::{
    self, PATIENCE, PROMPT, all_ended_with, connect, ended, note, reported, system, tell, told,
};
use crate::harness::{self, Outcome, Ranks};

type Operation = fn(&Communicator) -> Result<()>;

/// Operations by name, each as every rank calls it again and again.
const OPERATIONS: [(&str, Operation); 8] = [
    ("all_reduce_small", |comm| comm.all_reduce(&mut [1.0f32; 16], ReduceOp::Sum)),
    ("all_reduce_large", |comm| comm.all_reduce(&mut vec![1.0f32; 100_000], ReduceOp::Sum)),
    ("broadcast", |comm| comm.broadcast(&mut [comm.rank() as u64; 1000], 0)),
    ("gather", |comm| {
        let mut all = vec![0u64; 100 * comm.world_size()];
        comm.gather(&[7u64; 100], (comm.rank() == 0).then_some(&mut all[..]), 0)
    }),
    ("send_recv", |comm| {
        let (rank, world) = (comm.rank(), comm.world_size());
        comm.send(&[1u8; 100], (rank + 1) % world)?;
        comm.recv(&mut [0u8; 100], (rank + world - 1) % world)
    }),
    ("barrier", Communicator::barrier),
    ("registered", |comm| {
        let mut data = comm.alloc::<f32>(20_000)?;
        data.fill(1.0)?;
        comm.all_reduce_registered(&mut data, ReduceOp::Sum)
    }),
    ("asynchronous", |comm| {
        let started = [0; 3].map(|_| comm.all_reduce_async(vec![1.0f32; 20_000], ReduceOp::Sum));
        let ended = started.map(|pending| pending.wait().map(drop));
        let failed = ended.iter().position(Result::is_err).unwrap_or(ended.len());
        assert!(
            ended[failed..].iter().all(Result::is_err),
            "what comes after a terminal error fails, too: {ended:?}"
        );
        ended.into_iter().collect()
    }),
];

const GIB: usize = 1 << 30;

/// Rank: do the operation until it fails; the victim says when it begins each.
pub(crate) fn repeat_until_error() {
    let comm = connect();
    let (name, victim) = (told("OPERATION"), told("VICTIM").parse() == Ok(comm.rank()));
    let operation = OPERATIONS.iter().find(|(known, _)| *known == name).expect("a known operation").1;
    let _held = victim.then(burden);
    comm.barrier().expect("all are there");
    let delay = std::time::Duration::from_millis(told("DELAY_MS").parse().expect("milliseconds"));
    let failed = loop {
        if victim {
            std::thread::sleep(delay);
            faults::tell_time("enters");
        }
        if let Err(error) = operation(&comm) {
            break error;
        }
    };
    tell(&failed);
    assert_eq!(
        operation(&comm).expect_err("the group has ended").to_string(),
        failed.to_string(),
        "every call returns the first error"
    );
    assert_eq!(comm.barrier().expect_err("the group has ended").to_string(), failed.to_string());
}

/// What makes a death hard to notice: memory that the kernel must free, a child that keeps sockets open.
fn burden() -> Vec<u8> {
    if std::env::var_os("WITH_CHILD").is_some() {
        let child = system::fork_sleeping_child();
        harness::report("child", &child.to_string());
    }
    let mut held = vec![0u8; if std::env::var_os("WITH_MEMORY").is_some() { GIB } else { 0 }];
    held.chunks_mut(4096).for_each(|page| page[0] = 1);
    held
}

/// One death: of `victim`, at the `pass`th passage of `point`.
struct Death<'a> {
    operation: &'a str,
    world: usize,
    victim: usize,
    point: &'a str,
    pass: usize,
    /// The victim comes this late to each operation, so that the others sleep.
    delay_ms: u64,
    /// More variables for all ranks.
    variables: &'a [(&'a str, &'a str)],
}

impl Death<'_> {
    /// Let it happen; see that all survivors name the victim; give how long it took the slowest to say so, in
    /// milliseconds.
    fn happens(&self) -> f64 {
        let Death { operation, world, victim, point, .. } = *self;
        let mut ranks = Ranks::of("repeat_until_error", world)
            .env("OPERATION", operation)
            .env("VICTIM", &victim.to_string())
            .env("DELAY_MS", &self.delay_ms.to_string())
            .env("UNISONO_CHUNK_BYTES", "64KiB")
            .env("UNISONO_TIMEOUT", "20")
            .env_for(victim, "UNISONO_FAULT", &format!("{point}@{}", self.pass));
        for (name, value) in self.variables {
            ranks = ranks.env(name, value);
        }
        let ranks = ranks.start();
        let pid = ranks.pid(victim);
        let outcomes = ranks.wait_all(PATIENCE);
        let what = format!("rank {victim} of {world} killed {point} of {operation}");
        assert!(outcomes[victim].was_killed(), "{what}: it met its end: {:?}", outcomes[victim].status);
        if let Some(child) = reported(&outcomes[victim], "child") {
            // It has outlived its parent, which is the point, and must not outlive the test.
            let child = child.parse().expect("a process number");
            process::kill(child, process::Signal::Kill).expect("the child has outlived its parent");
        }
        all_ended_with(&outcomes, &[victim], "PeerDied", &[victim]);
        let entered: u64 =
            reported(&outcomes[victim], "enters").expect("it began an operation").parse().expect("a time");
        let survivors = outcomes.iter().filter(|outcome| outcome.rank != victim);
        let slowest = survivors.map(|survivor| news_after(survivor, pid, entered)).fold(0.0, f64::max);
        assert!(slowest < PROMPT.as_secs_f64() * 1e3, "{what}: heard of after {slowest:.1} ms");
        slowest
    }
}

/// How long after `entered` a survivor had the news, in milliseconds.
fn news_after(survivor: &Outcome, pid: u32, entered: u64) -> f64 {
    let ended = ended(survivor);
    assert_eq!(ended.pids, [pid], "{}", ended.text);
    assert!(ended.text.contains(&format!("pid {pid}")), "{}", ended.text);
    ended.at.saturating_sub(entered) as f64 / 1e6
}

/// Deaths at all points that the operation passes, in worlds of 2, 3 and 4.
fn killed_at_every_step_of(operation: &str, points: &[(&str, usize, u64)], variables: &[(&str, &str)]) {
    let mut slowest: f64 = 0.0;
    for world in [2, 3, 4] {
        for (index, (point, pass, delay_ms)) in points.iter().enumerate() {
            let victim = (world + index) % world;
            let death =
                Death { operation, world, victim, point, pass: *pass, delay_ms: *delay_ms, variables };
            slowest = slowest.max(death.happens());
        }
    }
    note(&format!(
        "killed in {operation} {variables:?}: news after {slowest:.2} ms at the latest, of {} deaths",
        3 * points.len()
    ));
}

/// Before the rank has arrived, while it arrives, after; and late, while the others sleep.
const STEPS: [(&str, usize, u64); 4] =
    [("before_arrive", 4, 0), ("after_copy_in", 5, 0), ("after_publish", 6, 0), ("before_arrive", 3, 30)];

/// The same where messages are packets: also between the tag and the arrival.
const STEPS_OF_PACKETS: [(&str, usize, u64); 6] = [
    ("before_arrive", 4, 0),
    ("after_tag", 5, 0),
    ("after_tag", 12, 30),
    ("after_copy_in", 5, 0),
    ("after_publish", 6, 0),
    ("before_arrive", 3, 30),
];

pub(crate) fn a_rank_killed_in_a_small_all_reduce_is_named_to_every_survivor() {
    killed_at_every_step_of("all_reduce_small", &STEPS_OF_PACKETS, &[]);
    killed_at_every_step_of("all_reduce_small", &STEPS, &[("UNISONO_ALGORITHM", "swap")]);
}

pub(crate) fn a_rank_killed_in_a_large_all_reduce_is_named_to_every_survivor() {
    // A call takes 14 steps: passes in the middle of the second call.
    let steps = [
        ("before_arrive", 20, 0),
        ("after_copy_in", 21, 0),
        ("after_publish", 22, 0),
        ("before_arrive", 16, 30),
    ];
    for algorithm in ["migrate", "pipeline"] {
        killed_at_every_step_of("all_reduce_large", &steps, &[("UNISONO_ALGORITHM", algorithm)]);
    }
}

pub(crate) fn a_rank_killed_in_a_broadcast_is_named_to_every_survivor() {
    killed_at_every_step_of("broadcast", &STEPS, &[]);
}

pub(crate) fn a_rank_killed_in_a_gather_is_named_to_every_survivor() {
    killed_at_every_step_of("gather", &STEPS, &[]);
}

pub(crate) fn a_rank_killed_in_a_send_is_named_to_every_survivor() {
    // The barrier at the beginning passes each point once, too.
    killed_at_every_step_of(
        "send_recv",
        &[("after_copy_in", 4, 0), ("after_publish", 4, 0), ("after_copy_in", 3, 30)],
        &[],
    );
}

pub(crate) fn a_rank_killed_in_a_barrier_is_named_to_every_survivor() {
    killed_at_every_step_of("barrier", &STEPS_OF_PACKETS, &[]);
}

pub(crate) fn a_rank_killed_while_it_registers_or_pushes_is_named_to_every_survivor() {
    // A call has four steps: two of the allocation, two around the work. Passes in the first and the second call.
    let steps = [
        ("before_register", 2, 0),
        ("before_register", 1, 30),
        ("before_arrive", 3, 0),
        ("before_arrive", 4, 0),
        ("before_arrive", 8, 30),
        ("after_copy_in", 4, 0),
        ("after_publish", 8, 0),
        ("amid_push", 3, 0),
        ("amid_push", 4, 30),
        ("before_arrive", 9, 0),
        ("after_copy_in", 5, 0),
        ("after_publish", 9, 0),
    ];
    killed_at_every_step_of("registered", &steps, &[]);
}

pub(crate) fn a_rank_killed_in_asynchronous_operations_is_named_to_every_survivor() {
    // A call takes two chunks of two steps; three calls are started at once.
    let steps = [
        ("before_arrive", 9, 0),
        ("after_copy_in", 16, 0),
        ("after_publish", 20, 0),
        ("before_arrive", 14, 30),
    ];
    killed_at_every_step_of("asynchronous", &steps, &[]);
}

/// One thread of the victim is in the middle of its share, the others in theirs.
pub(crate) fn a_rank_killed_while_its_threads_share_the_work_is_named_to_every_survivor() {
    for (world, pass) in [(2, 1), (2, 30), (3, 77)] {
        let variables = &[("UNISONO_THREADS", "3"), ("UNISONO_THREAD_BYTES", "1")];
        let (operation, point) = ("all_reduce_large", "amid_share");
        let slowest = Death { operation, world, victim: 1, point, pass, delay_ms: 0, variables }.happens();
        note(&format!("killed in share {pass}, rank 1 of {world}: news after {slowest:.2} ms"));
    }
}

/// The victim waits for a late peer and has gone to sleep when it is killed.
pub(crate) fn a_rank_killed_in_its_sleep_is_named_to_every_survivor() {
    for (operation, world) in [("barrier", 2), ("all_reduce_large", 3)] {
        let ranks = Ranks::of("wait_for_the_late", world)
            .env("OPERATION", operation)
            .env("UNISONO_TIMEOUT", "20")
            .env_for(0, "UNISONO_FAULT", "asleep@1")
            .start();
        let outcomes = ranks.wait_all(PATIENCE);
        assert!(outcomes[0].was_killed(), "{:?}", outcomes[0].status);
        all_ended_with(&outcomes, &[0], "PeerDied", &[0]);
    }
}

/// Rank: come to each operation later the higher one's rank is.
pub(crate) fn wait_for_the_late() {
    let comm = connect();
    let name = told("OPERATION");
    let operation = OPERATIONS.iter().find(|(known, _)| *known == name).expect("a known operation").1;
    loop {
        std::thread::sleep(std::time::Duration::from_millis(20 * comm.rank() as u64));
        if let Err(error) = operation(&comm) {
            return tell(&error);
        }
    }
}

pub(crate) fn a_killed_rank_is_named_in_time_though_it_held_a_gibibyte() {
    for (operation, world) in [("all_reduce_small", 2), ("barrier", 3)] {
        let death = Death {
            operation,
            world,
            victim: world - 1,
            point: "before_arrive",
            pass: 4,
            delay_ms: 20,
            variables: &[("WITH_MEMORY", "1")],
        };
        note(&format!("killed holding 1 GiB, world {world}: news after {:.2} ms", death.happens()));
    }
}

pub(crate) fn a_killed_rank_is_named_though_a_forked_child_of_it_holds_its_sockets() {
    for (victim, world) in [(1, 2), (0, 3)] {
        let death = Death {
            operation: "all_reduce_small",
            world,
            victim,
            point: "after_copy_in",
            pass: 4,
            delay_ms: 20,
            variables: &[("WITH_CHILD", "1"), ("WITH_MEMORY", "1")],
        };
        note(&format!(
            "killed with a living child, rank {victim} of {world}: news after {:.2} ms",
            death.happens()
        ));
    }
}

/// Rank: ranks 0, 1 and 2, 3 form halves. The victim dies in its half while the others wait: its neighbour in the
/// half, the rest in the parent.
pub(crate) fn die_in_a_subgroup() {
    let comm = connect();
    let half = comm.split(Some(comm.rank() as u64 / 2), 0).expect("all split").expect("has a color");
    comm.barrier().expect("all are there");
    if comm.rank() == 3 {
        std::thread::sleep(std::time::Duration::from_millis(50));
        faults::tell_time("enters");
        harness::kill_myself();
    }
    let failed =
        if comm.rank() == 2 { half.barrier() } else { comm.barrier() }.expect_err("it cannot succeed");
    tell(&failed);
    // The half of the dead is over on both levels; the other half goes on.
    let in_half = half.all_reduce(&mut [1.0f32; 8], ReduceOp::Sum);
    assert_eq!(in_half.is_ok(), comm.rank() < 2, "{in_half:?}");
    assert!(comm.barrier().is_err());
}

pub(crate) fn a_rank_killed_in_a_subgroup_is_named_there_and_in_the_parent() {
    let ranks = Ranks::of("die_in_a_subgroup", 4).env("UNISONO_TIMEOUT", "20").start();
    let pid = ranks.pid(3);
    let outcomes = ranks.wait_all(PATIENCE);
    let entered: u64 = reported(&outcomes[3], "enters").expect("it told the time").parse().expect("a time");
    for survivor in &outcomes[..3] {
        let ended = ended(survivor);
        // In the half the victim is rank 1, in the parent rank 3.
        let expected = if survivor.rank == 2 { 1 } else { 3 };
        assert_eq!((ended.kind.as_str(), &ended.ranks[..]), ("PeerDied", &[expected][..]), "{}", ended.text);
        assert!(news_after(survivor, pid, entered) < PROMPT.as_secs_f64() * 1e3);
        survivor.assert_success();
    }
}

/// Rank 1 publishes and dies; rank 0 waits already, or comes after the news.
pub(crate) fn consume_what_was_published() {
    let comm = connect();
    if comm.rank() == 1 {
        std::thread::sleep(std::time::Duration::from_millis(100));
        for message in 0..3u64 {
            comm.send(&[message; 50], 0).expect("the window has room");
        }
        let mut data = [2.0f32; 16];
        let _ = comm.all_reduce(&mut data, ReduceOp::Sum); // Dies here, after it has published.
        unreachable!("the fault point is reached");
    }
    let mut sum = [1.0f32; 16];
    comm.all_reduce(&mut sum, ReduceOp::Sum).expect("rank 1 had published");
    assert_eq!(sum, [3.0; 16]);
    faults::soon("the death is known", || comm.peers().iter().any(|peer| !peer.alive));
    for message in 0..3u64 {
        let mut received = [9u64; 50];
        comm.recv(&mut received, 1).expect("rank 1 had sent it");
        assert_eq!(received, [message; 50]);
    }
    tell(&comm.recv(&mut [0u64; 50], 1).expect_err("it cannot succeed"));
}

pub(crate) fn what_was_published_is_consumed_before_a_death_is_reported() {
    for round in 0..3 {
        let ranks = Ranks::of("consume_what_was_published", 2)
            .env("UNISONO_TIMEOUT", "20")
            .env_for(1, "UNISONO_FAULT", "after_publish@4")
            .start();
        let outcomes = ranks.wait_all(PATIENCE);
        assert!(outcomes[1].was_killed(), "round {round}: {:?}", outcomes[1].status);
        all_ended_with(&outcomes, &[1], "PeerDied", &[1]);
    }
}
