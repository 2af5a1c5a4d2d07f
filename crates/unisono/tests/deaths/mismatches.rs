//! Ranks that make different calls all get `Mismatch`, at that call or the next, with both calls named.

use unisono::{Communicator, Error, ReduceOp, Result};

use crate::faults::{PATIENCE, PROMPT, connect, ended, tell, told};
use crate::harness::{self, Ranks};

type Made = fn(&Communicator) -> Result<()>;

/// What rank 1 calls while the others call something else, by name; and a word of each call that the error has.
const PAIRS: &[(&str, Made, &str, Made, &str)] = &[
    ("kind", |comm| comm.barrier(), "barrier()", |comm| sum(comm, &mut [1.0f32; 4]), "all_reduce(sum"),
    (
        "kind_large",
        |comm| comm.barrier(),
        "barrier()",
        |comm| sum(comm, &mut vec![1.0f32; 100_000]),
        "all_reduce(sum",
    ),
    ("type", |comm| sum(comm, &mut [1.0f32; 4]), "4 x f32", |comm| sum(comm, &mut [1i32; 4]), "4 x i32"),
    ("count", |comm| sum(comm, &mut [1.0f32; 4]), "4 x f32", |comm| sum(comm, &mut [1.0f32; 5]), "5 x f32"),
    (
        "algorithm",
        |comm| sum(comm, &mut [1u8; 64]),
        "packet",
        |comm| sum(comm, &mut vec![1u8; 200_000]),
        "migrate",
    ),
    ("nothing", |comm| sum(comm, &mut [0.0f32; 0]), "0 x f32", |comm| sum(comm, &mut [1.0f32; 1]), "1 x f32"),
    (
        "reduce_op",
        |comm| comm.all_reduce(&mut [1.0f32; 4], ReduceOp::Min),
        "min",
        |comm| comm.all_reduce(&mut [1.0f32; 4], ReduceOp::Max),
        "max",
    ),
    (
        "root",
        |comm| comm.broadcast(&mut [1u8; 4], 0),
        "root 0",
        |comm| comm.broadcast(&mut [1u8; 4], 1),
        "root 1",
    ),
    (
        "reduce_root",
        |comm| comm.reduce(&mut [1.0f32; 9], ReduceOp::Sum, 1),
        "root 1",
        |comm| comm.reduce(&mut [1.0f32; 9], ReduceOp::Sum, 0),
        "root 0",
    ),
    // Each side does the part in which nobody is waited for.
    ("nobody_waits", |comm| comm.broadcast(&mut [1u8; 4], 1), "broadcast", |comm| gather(comm, 1), "gather"),
    ("scatter_gather", |comm| scatter(comm, 1), "scatter", |comm| gather(comm, 1), "gather"),
    (
        "order",
        |comm| comm.barrier().and_then(|()| sum(comm, &mut [1.0f32; 4])),
        "barrier",
        |comm| sum(comm, &mut [1.0f32; 4]).and_then(|()| comm.barrier()),
        "all_reduce",
    ),
    (
        "one_too_many",
        |comm| gather(comm, 1).and_then(|()| gather(comm, 1)),
        "gather",
        |comm| gather(comm, 1),
        "barrier",
    ),
    (
        "all_gather_counts",
        |comm| all_gather_v(comm, &[1, 2, 3]),
        "all_gather_v(6 x u16",
        |comm| all_gather_v(comm, &[1, 3, 2]),
        "all_gather_v(6 x u16",
    ),
    (
        "reduce_scatter_counts",
        |comm| reduce_scatter_v(comm, &[4, 4, 4]),
        "reduce_scatter_v",
        |comm| reduce_scatter_v(comm, &[4, 5, 3]),
        "reduce_scatter_v",
    ),
    ("all_to_all_counts", |comm| all_to_all_v(comm, 3), "3 x u8", |comm| all_to_all_v(comm, 5), "5 x u8"),
    ("gather_counts", |comm| gather_v(comm, 7), "7 x u8", |comm| gather_v(comm, 8), "8 x u8"),
    ("scatter_counts", |comm| scatter_v(comm, 7), "7 x u8", |comm| scatter_v(comm, 8), "8 x u8"),
    (
        "registered_places",
        |comm| sum_registered(comm, 0..900),
        "900 x u64, from element 0 of allocation 1",
        |comm| sum_registered(comm, 100..1000),
        "900 x u64, from element 100 of allocation 1",
    ),
    (
        "registered_lengths",
        |comm| sum_registered(comm, 0..30_000),
        "30000 x u64, from element 0 of allocation 1, by push",
        |comm| sum_registered(comm, 0..29_999),
        "29999 x u64, from element 0 of allocation 1, by push",
    ),
    (
        "registered_or_not",
        |comm| comm.alloc::<u64>(30_000).and_then(|_| sum(comm, &mut [1u64; 900])),
        "900 x u64, by",
        |comm| sum_registered(comm, 0..900),
        "from element 0 of allocation 1",
    ),
    (
        "allocations",
        |comm| sum_registered(comm, 0..9),
        "from element 0 of allocation 1",
        |comm| {
            comm.alloc::<u64>(30_000)?.fill(1)?;
            sum_registered(comm, 0..9)
        },
        "alloc(30000 x u64",
    ),
    (
        "alloc_types",
        |comm| comm.alloc::<u64>(5).map(|_| ()),
        "alloc(5 x u64",
        |comm| comm.alloc::<f64>(5).map(|_| ()),
        "alloc(5 x f64",
    ),
    ("split", |comm| comm.split(Some(1), 0).map(|_| ()), "split", |comm| comm.barrier(), "barrier"),
];

fn sum<T: unisono::Element>(comm: &Communicator, data: &mut [T]) -> Result<()> {
    comm.all_reduce(data, ReduceOp::Sum)
}

/// Every rank allocates 30,000 elements and reduces some of them.
fn sum_registered(comm: &Communicator, part: std::ops::Range<usize>) -> Result<()> {
    let mut data = comm.alloc::<u64>(30_000)?;
    comm.all_reduce_registered(data.slice(part)?, ReduceOp::Sum)
}

fn gather(comm: &Communicator, root: usize) -> Result<()> {
    let mut all = vec![0u8; 10 * comm.world_size()];
    comm.gather(&[1u8; 10], (comm.rank() == root).then_some(&mut all[..]), root)
}

fn scatter(comm: &Communicator, root: usize) -> Result<()> {
    let all = vec![1u8; 10 * comm.world_size()];
    comm.scatter((comm.rank() == root).then_some(&all[..]), &mut [0u8; 10], root)
}

fn all_gather_v(comm: &Communicator, counts: &[usize; 3]) -> Result<()> {
    let mine = vec![1u16; counts[comm.rank()]];
    comm.all_gather_v(&mine, &mut [0u16; 6], counts)
}

fn reduce_scatter_v(comm: &Communicator, counts: &[usize; 3]) -> Result<()> {
    let mut mine = vec![0i32; counts[comm.rank()]];
    comm.reduce_scatter_v(&[1i32; 12], &mut mine, counts, ReduceOp::Sum)
}

/// Every rank believes that all blocks have `each` elements.
fn all_to_all_v(comm: &Communicator, each: usize) -> Result<()> {
    let (counts, mine) = (vec![each; comm.world_size()], vec![1u8; each * comm.world_size()]);
    comm.all_to_all_v(&mine, &counts, &mut vec![0u8; mine.len()], &counts)
}

/// Root 0 expects 8 from everybody.
fn gather_v(comm: &Communicator, mine: usize) -> Result<()> {
    let (mut all, counts) = ([0u8; 24], [8usize; 3]);
    comm.gather_v(&vec![1u8; mine], (comm.rank() == 0).then_some((&mut all[..], &counts[..])), 0)
}

/// Root 0 has 8 for everybody.
fn scatter_v(comm: &Communicator, mine: usize) -> Result<()> {
    let (all, counts) = ([1u8; 24], [8usize; 3]);
    comm.scatter_v((comm.rank() == 0).then_some((&all[..], &counts[..])), &mut vec![0u8; mine], 0)
}

/// Rank: make the call; at the next, a barrier, everybody knows.
pub(crate) fn call_differently() {
    let comm = connect();
    let name = told("PAIR");
    let (_, of_rank_1, _, of_others, _) = PAIRS.iter().find(|pair| pair.0 == name).expect("a known pair");
    for _ in 0..5 {
        sum(&comm, &mut [1.0f32; 4]).expect("so far all is well");
    }
    let made = if comm.rank() == 1 { of_rank_1(&comm) } else { of_others(&comm) };
    tell(&made.and_then(|()| comm.barrier()).expect_err("everybody is told, at the next call at the latest"));
}

pub(crate) fn ranks_that_call_differently_are_all_told_both_calls() {
    for (name, _, mine, _, theirs) in PAIRS {
        let ranks = Ranks::of("call_differently", 3).env("PAIR", name).env("UNISONO_TIMEOUT", "20").start();
        let outcomes = ranks.wait_all(PATIENCE);
        for outcome in &outcomes {
            let ended = ended(outcome);
            assert_eq!(ended.kind, "Mismatch", "{name}, rank {}: {}", outcome.rank, ended.text);
            assert!(ended.text.contains(mine), "{name}: {mine} is not in: {}", ended.text);
            assert!(ended.text.contains(theirs), "{name}: {theirs} is not in: {}", ended.text);
            outcome.assert_success();
            assert!(outcome.elapsed < PATIENCE.min(PROMPT * 5), "{name}: {:?}", outcome.elapsed);
        }
    }
}

/// Rank: write, as both do; and when both have, write again.
pub(crate) fn write_differently() {
    let comm = connect();
    let (rank, other) = (comm.rank(), 1 - comm.rank());
    let write = || match told("WAY").as_str() {
        "broadcast" => comm.broadcast(&mut [1u8; 10], rank),
        "long broadcast" => comm.broadcast(&mut [1u8; 100_000], rank),
        "gather" => gather(&comm, other),
        "reduce" => comm.reduce(&mut [1.0f32; 10], ReduceOp::Sum, other),
        "scatter" => scatter(&comm, rank),
        "broadcast and scatter" if rank == 0 => comm.broadcast(&mut [1u8; 10], 0),
        "broadcast and scatter" => scatter(&comm, 1),
        way => panic!("unknown way {way}"),
    };
    sum(&comm, &mut [1.0f32; 4]).expect("so far all is well");
    if told("WAY") != "long broadcast" {
        write().expect("nobody is waited for");
        harness::report("has", "written");
        harness::wait_for_go();
    }
    tell(&write().expect_err("at the next call everybody is told"));
}

pub(crate) fn ranks_that_only_write_are_told_at_the_next_call() {
    for way in ["broadcast", "gather", "reduce", "scatter", "broadcast and scatter", "long broadcast"] {
        let mut ranks = Ranks::of("write_differently", 2)
            .env("WAY", way)
            .env("UNISONO_BROADCAST_BYTES", "4KiB")
            .env("UNISONO_TIMEOUT", "20")
            .start();
        if way != "long broadcast" {
            (0..2).for_each(|rank| drop(ranks.wait_for_report(rank, "has", PATIENCE)));
            (0..2).for_each(|rank| ranks.go(rank));
        }
        for outcome in ranks.wait_all(PATIENCE) {
            let ended = ended(&outcome);
            assert_eq!(ended.kind, "Mismatch", "{way}, rank {}: {}", outcome.rank, ended.text);
            outcome.assert_success();
        }
    }
}

/// What rank 1 receives while rank 0 sends four `f32`.
pub(crate) fn receive_differently() {
    let comm = connect();
    if comm.rank() == 0 {
        comm.send(&[1.0f32; 4], 1).expect("the window has room");
        tell(&comm.barrier().expect_err("it cannot succeed"));
        return;
    }
    let received = match told("RECEIVE").as_str() {
        "type" => comm.recv(&mut [0i32; 4], 0),
        "more" => comm.recv(&mut [0.0f32; 5], 0),
        "less" => comm.recv(&mut [0.0f32; 3], 0),
        other => panic!("unknown {other}"),
    };
    let failed = received.expect_err("it cannot succeed");
    assert!(matches!(failed, Error::Mismatch { .. }), "{failed}");
    tell(&failed);
}

pub(crate) fn a_recv_that_does_not_fit_the_send_is_a_mismatch_on_both() {
    for (way, expected) in [("type", "4 x i32"), ("more", "5 x f32"), ("less", "3 x f32")] {
        let ranks =
            Ranks::of("receive_differently", 2).env("RECEIVE", way).env("UNISONO_TIMEOUT", "20").start();
        for outcome in ranks.wait_all(PATIENCE) {
            let ended = ended(&outcome);
            assert_eq!(ended.kind, "Mismatch", "{way}, rank {}: {}", outcome.rank, ended.text);
            assert!(ended.text.contains("send(4 x f32"), "{way}: {}", ended.text);
            assert!(ended.text.contains(expected), "{way}: {}", ended.text);
            outcome.assert_success();
        }
    }
}
