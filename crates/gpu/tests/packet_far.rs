//! All-reduce by packets between two nodes: kernels on simulated devices, carriers' threads, and between them tcp over the loopback.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on is to end")]

mod common;
#[path = "common/packets.rs"]
mod packets;

use std::time::{Duration, Instant};

use common::inputs;
use packets::{Group, Options, connect, threads_and_scissors};
use unisono_gpu::driver::sim::Simulator;
use unisono_gpu::packet::{PacketError, RemoteListener, Sum, Wire};
use unisono_gpu::{DType, Error};

/// A wire of `unisono-remote` for every rank.
fn remote(ranks_per_node: usize) -> Vec<Box<dyn Wire>> {
    let world = 2 * ranks_per_node;
    let opposite = |rank: usize| (rank + ranks_per_node) % world;
    let listen = |rank| RemoteListener::new([127, 0, 0, 1].into(), [7; 32], rank, opposite(rank)).unwrap();
    let listeners: Vec<_> = (0..world).map(listen).collect();
    let addresses: Vec<_> = listeners.iter().map(RemoteListener::address).collect();
    let deadline = Instant::now() + Duration::from_secs(60);
    let join = |(rank, listener): (usize, RemoteListener)| {
        let wire = listener.join(opposite(rank), addresses[opposite(rank)], deadline).unwrap();
        Box::new(wire) as Box<dyn Wire>
    };
    listeners.into_iter().enumerate().map(join).collect()
}

/// Several calls in a row, of several sizes, in place.
fn check(group: &mut Group, dtype: DType, sizes: &[usize]) {
    let world = group.ranks.len();
    let mut launched = Vec::new();
    for (round, &elements) in sizes.iter().enumerate() {
        let buffers = group.buffers(elements * dtype.size());
        let contents = inputs(world, elements, dtype, round as u64);
        group.write(&buffers, &contents);
        group.all_reduce(&buffers, &buffers, elements, dtype);
        let expected = group.expected(&contents, dtype);
        launched.push((buffers, expected));
    }
    group.simulator.run(1).unwrap();
    for (round, (buffers, expected)) in launched.into_iter().enumerate() {
        for (rank, found) in group.read(&buffers, expected.len()).into_iter().enumerate() {
            assert!(
                found == expected,
                "{world} ranks, {dtype:?}, {:?}, round {round}, rank {rank}",
                group.sum
            );
        }
    }
    for rank in &mut group.ranks {
        rank.context.check().unwrap();
    }
}

#[test]
fn two_nodes_over_tcp_are_a_plain_loop() {
    for (ranks_per_node, dtype) in [(2, DType::BF16), (3, DType::F16), (4, DType::F32)] {
        let world = 2 * ranks_per_node;
        let simulator = Simulator::new(world, true);
        let options = Options { most_bytes: 1 << 14, detects_races: true, ..Options::default() };
        let ranks = connect(&simulator, world, ranks_per_node, options, remote(ranks_per_node)).unwrap();
        let mut group = Group { simulator, ranks, sum: options.sum };
        check(&mut group, dtype, &[517, 1, 1000]);
        assert_eq!(group.simulator.report().races, []);
        for rank in group.ranks {
            rank.context.dispose().unwrap();
        }
    }
}

#[test]
fn messages_of_several_parts_cross_in_order() {
    let simulator = Simulator::new(4, false);
    let options = Options { most_bytes: 2 * 65_536, ..Options::default() };
    let ranks = connect(&simulator, 4, 2, options, remote(2)).unwrap();
    let mut group = Group { simulator, ranks, sum: options.sum };
    check(&mut group, DType::BF16, &[65_536]);
}

#[test]
fn every_number_of_ranks_per_node_and_type_is_a_plain_loop() {
    for ranks_per_node in 1..=8 {
        for dtype in DType::ALL {
            check(&mut Group::far(ranks_per_node, Options::default()), dtype, &[9, 130, 1]);
        }
    }
}

#[test]
fn sums_by_node_and_in_16_bits_are_what_is_specified() {
    for sum in [Sum::ByNode, Sum::In16Bits] {
        for ranks_per_node in [1, 2, 3] {
            for dtype in DType::ALL {
                let options = Options { sum, ..Options::default() };
                check(&mut Group::far(ranks_per_node, options), dtype, &[9, 130, 1]);
            }
        }
    }
}

#[test]
fn the_number_of_a_call_may_wrap_around() {
    let options = Options { first_call: u32::MAX - 1, ..Options::default() };
    check(&mut Group::far(2, options), DType::F16, &[100, 7, 100, 3, 100]);
}

#[test]
fn a_captured_launch_may_be_replayed() {
    let mut group = Group::far(1, Options::default());
    let buffers = group.buffers(400);
    group.ranks.iter().for_each(|rank| rank.device.begin_capture());
    group.all_reduce(&buffers, &buffers, 100, DType::F32);
    let graphs: Vec<_> = group.ranks.iter().map(|rank| rank.device.end_capture().unwrap()).collect();
    for round in 0..3 {
        let contents = inputs(2, 100, DType::F32, round);
        group.write(&buffers, &contents);
        for (rank, graph) in group.ranks.iter().zip(&graphs) {
            rank.device.replay(graph).unwrap();
        }
        group.simulator.run(round).unwrap();
        let expected = group.expected(&contents, DType::F32);
        assert!(group.read(&buffers, 400).iter().all(|found| *found == expected), "round {round}");
    }
}

#[test]
fn a_link_that_is_lost_ends_the_launch_and_is_the_error_of_every_further_call() {
    let simulator = Simulator::new(4, false);
    let (wires, scissors) = threads_and_scissors(2);
    let ranks = connect(&simulator, 4, 2, Options::default(), wires).unwrap();
    let mut group = Group { simulator, ranks, sum: Sum::InRankOrder };
    check(&mut group, DType::F32, &[10]);
    scissors.iter().for_each(packets::Scissors::cut);
    let buffers = group.buffers(64);
    // Some may have heard of it already: that is their error, now.
    for (rank, at) in group.ranks.iter_mut().zip(&buffers) {
        match rank.context.all_reduce(*at, *at, 16, DType::F32, None) {
            Ok(()) | Err(Error::Packet(PacketError::Link { .. })) => {}
            other => panic!("{other:?}"),
        }
    }
    group.simulator.set_outside_patience(Duration::from_millis(100));
    group.simulator.run(1).unwrap();
    for (rank, at) in group.ranks.iter_mut().zip(&buffers) {
        let failure = rank.context.check().unwrap_err();
        let opposite = rank.context.shape().opposite().unwrap();
        let is_link = matches!(&failure, Error::Packet(PacketError::Link { rank, .. }) if *rank == opposite);
        assert!(is_link || matches!(failure, Error::Overdue { .. }), "{failure}");
        assert_eq!(rank.context.all_reduce(*at, *at, 16, DType::F32, None), Err(failure));
    }
}

#[test]
fn a_rank_that_has_left_is_news_to_its_opposite() {
    let mut group = Group::far(1, Options::default());
    check(&mut group, DType::F32, &[10]);
    let last = group.ranks.pop().unwrap();
    last.context.dispose().unwrap();
    let buffers = group.buffers(64);
    let context = &mut group.ranks[0].context;
    let deadline = Instant::now() + Duration::from_secs(30);
    let failure = loop {
        match context.check() {
            Err(failure) => break failure,
            Ok(()) => assert!(Instant::now() < deadline, "nobody said that it left"),
        }
    };
    assert_eq!(failure.to_string(), "the link to rank 1 on the other node: it has left");
    assert_eq!(context.all_reduce(buffers[0], buffers[0], 16, DType::F32, None), Err(failure));
}

#[test]
fn a_node_that_never_launches_is_named() {
    let mut group = Group::far(1, Options { patience: Duration::from_millis(50), ..Options::default() });
    let buffers = group.buffers(64);
    group.simulator.set_outside_patience(Duration::from_millis(50));
    group.ranks[0].context.all_reduce(buffers[0], buffers[0], 16, DType::F32, None).unwrap();
    group.simulator.run(1).unwrap();
    let Err(Error::Overdue { overdue, .. }) = group.ranks[0].context.check() else { panic!("overdue") };
    assert_eq!((overdue.rank, overdue.peer, overdue.expected, overdue.found), (0, 1, 1, 0));
}
