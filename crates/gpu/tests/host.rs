//! The host's side on simulated devices: registration, graphs, staging, and what is refused.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on is to end")]

mod common;

use std::slice::from_ref;
use std::time::Duration;

use common::{Options, World, exchange, inputs, sum};
use unisono_gpu::driver::sim::Simulator;
use unisono_gpu::{AllReduce, DType, Driver, Error, META_BYTES, Peers, Staging};
use unisono_ptx_sim::{Awaited, Stopped};

const ELEMENTS: usize = 300;
const BYTES: usize = 4 * ELEMENTS;

/// Reads what every rank has at its address, and compares it with the sum.
fn assert_summed(ranks: &World, outputs: &[u64], contents: &[Vec<u8>]) {
    let expected = sum(contents, DType::F32);
    for (rank, found) in ranks.read(outputs, BYTES).into_iter().enumerate() {
        assert!(found == expected, "rank {rank}");
    }
}

/// Captures one all-reduce of each of the inputs on every rank, then exchanges handles.
fn capture(
    ranks: &mut World,
    inputs: &[Vec<u64>],
    outputs: &[Vec<u64>],
) -> Vec<unisono_gpu::driver::sim::Graph> {
    for rank in &ranks.ranks {
        rank.device.begin_capture();
    }
    for (input, output) in inputs.iter().zip(outputs) {
        ranks.all_reduce(input, output, ELEMENTS, DType::F32, false).unwrap();
    }
    let graphs = ranks.ranks.iter().map(|rank| rank.device.end_capture().unwrap()).collect();
    let buffers: Vec<_> = ranks.ranks.iter().map(|rank| rank.all_reduce.graph_buffers().unwrap()).collect();
    for rank in &mut ranks.ranks {
        rank.all_reduce.register_graph_buffers(&buffers).unwrap();
    }
    graphs
}

#[test]
fn a_captured_graph_reads_its_inputs_wherever_they_are_however_often_it_is_replayed() {
    let world = 3;
    let mut ranks = World::new(world, Options { detects_races: true, ..Options::default() });
    // Two inputs within one allocation, at offsets that differ between the ranks; and one captured twice.
    let base = ranks.private(16 * 4096);
    let at = |offset: usize| {
        base.iter().enumerate().map(|(rank, base)| base + (offset + 64 * rank) as u64).collect()
    };
    let sources: Vec<Vec<u64>> = vec![at(0), at(8192), at(0)];
    let outputs: Vec<Vec<u64>> = (0..3).map(|_| ranks.private(BYTES)).collect();
    let graphs = capture(&mut ranks, &sources, &outputs);
    for round in 0..3 {
        let contents =
            [inputs(world, ELEMENTS, DType::F32, round), inputs(world, ELEMENTS, DType::F32, 90 + round)];
        ranks.write(&sources[0], &contents[0]);
        ranks.write(&sources[1], &contents[1]);
        for (rank, graph) in ranks.ranks.iter().zip(&graphs) {
            rank.device.replay(graph).unwrap();
        }
        ranks.simulator.run(round).unwrap();
        for (output, content) in outputs.iter().zip([&contents[0], &contents[1], &contents[0]]) {
            assert_summed(&ranks, output, content);
        }
    }
    assert_eq!(ranks.simulator.report().races, []);
}

#[test]
fn captures_and_eager_calls_may_alternate() {
    let world = 2;
    let mut ranks = World::new(world, Options::default());
    let (source, output) = (ranks.private(BYTES), ranks.private(BYTES));
    let graphs = capture(&mut ranks, from_ref(&source), from_ref(&output));
    let registered = ranks.registered(BYTES);
    for round in 0..2 {
        let contents = inputs(world, ELEMENTS, DType::F32, round);
        ranks.write(&source, &contents);
        ranks.write(&registered, &contents);
        let eager = ranks.private(BYTES);
        ranks.all_reduce(&registered, &eager, ELEMENTS, DType::F32, false).unwrap();
        for (rank, graph) in ranks.ranks.iter().zip(&graphs) {
            rank.device.replay(graph).unwrap();
        }
        ranks.all_reduce(&source, &source, ELEMENTS, DType::F32, true).unwrap();
        ranks.simulator.run(round).unwrap();
        for found in [&output, &eager, &source] {
            assert_summed(&ranks, found, &contents);
        }
    }
}

#[test]
fn ranks_that_captured_differently_are_told_before_anything_is_filled() {
    let mut ranks = World::new(2, Options::default());
    let source = ranks.private(BYTES);
    let ranks_handle = ranks.ranks[1].device.export(source[1]).unwrap();
    let rank = &mut ranks.ranks[0];
    rank.device.begin_capture();
    rank.all_reduce.all_reduce(source[0], source[0], ELEMENTS, DType::F32, None).unwrap();
    let buffers = rank.all_reduce.graph_buffers().unwrap();
    let refused = rank.all_reduce.register_graph_buffers(&[buffers.clone(), buffers.clone()]);
    assert_eq!(refused, Err(Error::Capturing { what: "registering a graph's buffers" }));
    rank.device.end_capture().unwrap();
    let refused = rank.all_reduce.register_graph_buffers(&[buffers.clone(), Vec::new()]);
    assert_eq!(refused, Err(Error::Count { what: "captured buffers of each rank", expected: 1, found: 0 }));
    let refused = rank.all_reduce.register_graph_buffers(from_ref(&buffers));
    assert_eq!(refused, Err(Error::Count { what: "ranks", expected: 2, found: 1 }));
    let (handle, offset) = buffers[0];
    let peers = vec![(ranks_handle, 1 << 20)];
    let refused = rank.all_reduce.register_graph_buffers(&[buffers.clone(), peers]);
    let what = "what a peer captured lies in an allocation that";
    assert_eq!(refused, Err(Error::TooSmall { what, found: BYTES, needed: (1 << 20) + BYTES }));
    assert_eq!((handle, offset), (rank.device.export(source[0]).unwrap(), 0));
    let wrong = vec![([7; 64], 0)];
    let refused = rank.all_reduce.register_graph_buffers(&[buffers, wrong]);
    assert!(matches!(refused, Err(Error::Driver { call: "open", .. })));
}

#[test]
fn what_cannot_be_done_is_refused_before_anything_is_on_the_stream() {
    let mut ranks = World::new(2, Options { most_bytes: 4096, table_rows: 2, ..Options::default() });
    let buffer = ranks.private(1 << 16);
    let staging = ranks.ranks[0].staging;
    let rank = &mut ranks.ranks[0].all_reduce;
    let at = buffer[0];
    let mut refused = |input, output, elements, staging| {
        rank.all_reduce(input, output, elements, DType::F32, staging).unwrap_err()
    };
    assert_eq!(refused(at + 4, at, 1, None), Error::Misaligned { what: "input", address: at + 4 });
    assert_eq!(refused(at, at + 8, 1, None), Error::Misaligned { what: "output", address: at + 8 });
    assert_eq!(refused(at, at + 16, 5, None), Error::Overlap { input: at, output: at + 16, bytes: 20 });
    assert_eq!(refused(at, at + 16, 4, None), Error::NotRegistered { address: at });
    let needed = 4 * 1025;
    assert_eq!(
        refused(at, at, 1025, Some(staging)),
        Error::TooSmall { what: "the staging buffer", found: 4096, needed }
    );
    let what = "the scratch behind the signals";
    assert_eq!(refused(at, at, 2053, None), Error::TooSmall { what, found: 4096, needed: 16 * 257 });
    assert_eq!(rank.register_buffer(&[at]), Err(Error::Count { what: "addresses", expected: 2, found: 1 }));
    assert_eq!(rank.register_buffer(&[at, at]), Ok(()));
    assert_eq!(rank.register_buffer(&[at, at]), Err(Error::TableFull { rows: 2 }));
    assert_eq!(rank.all_reduce(at, at, 0, DType::F32, None), Ok(()), "nothing is to be done");
}

#[test]
fn buffers_where_the_all_reduce_itself_works_are_refused() {
    const OWN: &str = "the all-reduce's own memory for signals and scratch";
    const STAGING: &str = "the staging buffer";
    let simulator = Simulator::new(2, false);
    let devices: Vec<_> = (0..2).map(|device| simulator.device(device)).collect();
    let (metas, stagings) = (exchange(&devices, META_BYTES + 4096), exchange(&devices, 4096));
    let table = devices[0].allocate(256).unwrap();
    let peers = Peers { meta: &metas[0], rank: 0, are_fully_connected: true };
    let mut all_reduce = AllReduce::new(devices[0].clone(), &peers, table, 256).unwrap();
    all_reduce.register_buffer(&stagings[0]).unwrap();
    let (meta, staging, other) = (metas[0][0], stagings[0][0], devices[0].allocate(4096).unwrap());
    let staged = Some(Staging { address: staging, bytes: 4096 });
    let in_use = |what, address, memory| Err(Error::InUse { what, address, bytes: 256, memory });
    let mut reduce = |input, output, staging| all_reduce.all_reduce(input, output, 64, DType::F32, staging);
    assert_eq!(reduce(other, meta + 128, staged), in_use("output", meta + 128, OWN));
    assert_eq!(reduce(meta + 3200, other, staged), in_use("input", meta + 3200, OWN));
    assert_eq!(reduce(other, staging + 128, staged), in_use("output", staging + 128, STAGING));
    assert_eq!(reduce(staging + 16, other, staged), in_use("input", staging + 16, STAGING));
    // Behind what is used of the staging buffer, and from where it lies already.
    reduce(other, staging + 256, staged).unwrap();
    reduce(staging, other, staged).unwrap();
    // One-shot uses no scratch. Two-shot does, and peers may still be reading it while the next call is under way.
    let scratch = meta + META_BYTES as u64;
    reduce(other, scratch, staged).unwrap();
    reduce(staging, staging, None).unwrap();
    assert_eq!(reduce(other, scratch + 112, staged), in_use("output", scratch + 112, OWN));
    reduce(other, scratch + 128, staged).unwrap();
    let refused = all_reduce.reduce_scatter(other, meta, 32, DType::F32, staged);
    assert_eq!(refused, Err(Error::InUse { what: "output", address: meta, bytes: 128, memory: OWN }));
    let refused = all_reduce.all_gather(other, staging, 32, DType::F32, staged);
    assert_eq!(refused, Err(Error::InUse { what: "output", address: staging, bytes: 256, memory: STAGING }));
}

#[test]
fn memories_and_worlds_that_do_not_fit_are_refused() {
    let simulator = Simulator::new(3, false);
    let devices: Vec<_> = (0..3).map(|device| simulator.device(device)).collect();
    let metas = exchange(&devices, META_BYTES);
    let table = devices[0].allocate(64).unwrap();
    let new = |meta: &[u64], rank, are_fully_connected, bytes| {
        let peers = Peers { meta, rank, are_fully_connected };
        AllReduce::new(devices[0].clone(), &peers, table, bytes).map(|_| ()).unwrap_err()
    };
    assert_eq!(new(&metas[0], 0, false, 64), Error::NotFullyConnected { world: 3 });
    assert_eq!(new(&metas[0], 3, true, 64), Error::Rank { rank: 3, world: 3 });
    assert_eq!(new(&metas[0][..1], 0, true, 64), Error::World { world: 1 });
    let what = "the table of registered buffers";
    assert_eq!(new(&metas[0], 0, true, 128), Error::TooSmall { what, found: 64, needed: 128 });
    let askew = metas[0][0] + 64;
    assert_eq!(new(&[askew, metas[0][1]], 0, true, 64), Error::Meta { address: askew });
    let short = devices[0].allocate(META_BYTES - 128).unwrap();
    assert_eq!(new(&[short, metas[0][1]], 0, true, 64), Error::Meta { address: short });
}

#[test]
fn handles_end_with_what_they_are_of_and_disposal_gives_everything_back() {
    let mut ranks = World::new(2, Options::default());
    let source = ranks.private(BYTES);
    capture(&mut ranks, from_ref(&source), from_ref(&source));
    ranks.simulator.run(0).unwrap();
    let device = ranks.ranks[0].device.clone();
    let handle = device.export(source[0]).unwrap();
    assert!(matches!(device.export(source[0] + 16), Err(Error::Driver { call: "export", .. })));
    device.free(source[0]).unwrap();
    assert!(matches!(ranks.ranks[1].device.open(&handle), Err(Error::Driver { call: "open", .. })));
    for rank in ranks.ranks {
        rank.all_reduce.dispose().unwrap();
    }
    assert!(matches!(device.free(source[0]), Err(Error::Driver { call: "free", .. })));
}

#[test]
fn a_rank_that_never_comes_is_named_by_all_others() {
    let mut ranks = World::new(3, Options::default());
    let source = ranks.registered(BYTES);
    let outputs = ranks.private(BYTES);
    for rank in [0, 2] {
        let all_reduce = &mut ranks.ranks[rank].all_reduce;
        all_reduce.set_patience(Duration::from_millis(5));
        all_reduce.all_reduce(source[rank], outputs[rank], ELEMENTS, DType::F32, None).unwrap();
    }
    ranks.simulator.run(3).unwrap();
    for rank in [0, 2] {
        let Err(Error::Overdue { overdue, .. }) = ranks.ranks[rank].all_reduce.check() else {
            panic!("overdue")
        };
        assert_eq!((overdue.rank, overdue.peer, overdue.block), (rank as u32, 1, 0));
        assert_eq!((overdue.expected, overdue.found), (1, 0));
        // Odd meetings have the second half of the words; block 0, peer 1.
        assert_eq!(overdue.flag, 36 * 8 + 1);
    }
    assert_eq!(ranks.ranks[1].all_reduce.check(), Ok(()));
}

#[test]
fn without_patience_that_ends_the_simulator_says_who_waits_for_which_word() {
    let mut ranks = World::new(2, Options::default());
    let source = ranks.registered(BYTES);
    let output = ranks.private(BYTES);
    ranks.ranks[1].all_reduce.set_patience(Duration::MAX);
    ranks.ranks[1].all_reduce.all_reduce(source[1], output[1], ELEMENTS, DType::F32, None).unwrap();
    let Err(Stopped::Hang(hang)) = ranks.simulator.run(3) else { panic!("a hang") };
    let flag: Vec<_> =
        hang.waiting.iter().filter(|w| matches!(w.for_what, Awaited::Word { value: 0, .. })).collect();
    assert_eq!(flag.len(), 1, "{hang}");
    assert_eq!((flag[0].who.device, flag[0].who.block, flag[0].who.thread), (1, 0, 0));
    let barrier =
        hang.waiting.iter().find(|w| matches!(w.for_what, Awaited::Barrier { arrived: 511, ended: 0 }));
    assert!(barrier.is_some(), "{hang}");
}
