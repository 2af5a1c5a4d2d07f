//! All-reduce by packets on one node, executed as shipped PTX: every rank's result is that of a plain loop, to the bit.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on is to end")]

mod common;
#[path = "common/packets.rs"]
mod packets;

use std::time::Duration;

use common::inputs;
use packets::{Group, Options, connect};
use unisono_gpu::driver::sim::Simulator;
use unisono_gpu::packet::{PacketConfig, PacketError, Prepared, Shape, Sum};
use unisono_gpu::{DType, Driver, Error};

/// In elements: some ranks have nothing to reduce, ends within a word, within a slice, and none.
const SIZES: [usize; 6] = [1, 2, 9, 512, 517, 2049];

/// Twice in place or not, so that both halves of the slots are used.
fn check(world: usize, elements: usize, dtype: DType, sum: Sum, is_in_place: bool) {
    let bytes = elements * dtype.size();
    let mut group = Group::near(world, Options { most_bytes: bytes, sum, ..Options::default() });
    let sources = group.buffers(bytes);
    let outputs = if is_in_place { sources.clone() } else { group.buffers(bytes) };
    for round in 0..if elements > 8000 { 1 } else { 2 } {
        let contents = inputs(world, elements, dtype, round);
        group.write(&sources, &contents);
        group.all_reduce(&sources, &outputs, elements, dtype);
        group.simulator.run(round).unwrap();
        let expected = group.expected(&contents, dtype);
        for (rank, found) in group.read(&outputs, bytes).into_iter().enumerate() {
            let first = found.iter().zip(&expected).position(|(found, expected)| found != expected);
            assert_eq!(first, None, "world {world}, {elements} of {dtype:?}, {sum:?}, rank {rank}, {round}");
            group.ranks[rank].context.check().unwrap();
        }
    }
}

#[test]
fn packets_are_a_plain_loop_for_every_world_type_and_size() {
    for world in 2..=8 {
        for dtype in DType::ALL {
            for elements in SIZES {
                check(world, elements, dtype, Sum::InRankOrder, elements % 2 == 0);
            }
        }
    }
}

#[test]
fn long_messages_of_several_words_per_thread_are_a_plain_loop() {
    for (world, dtype) in [(2, DType::F32), (3, DType::F16), (4, DType::BF16), (8, DType::BF16)] {
        check(world, 65_536, dtype, Sum::InRankOrder, true);
    }
}

#[test]
fn sums_in_16_bits_are_the_peers_in_order_and_then_the_own() {
    for world in [2, 3, 5, 8] {
        for dtype in DType::ALL {
            check(world, 517, dtype, Sum::In16Bits, world % 2 == 0);
        }
    }
}

#[test]
fn sizes_types_and_blocks_may_follow_one_another_without_a_pause_and_differ_between_ranks() {
    let world = 3;
    let mut group = Group::near(world, Options { most_bytes: 1 << 14, ..Options::default() });
    let mut launched = Vec::new();
    for (round, elements) in [3000, 5, 1000, 1, 4000, 0, 300].into_iter().enumerate() {
        let dtype = DType::ALL[round % 3];
        let buffers = group.buffers((elements * dtype.size()).max(1));
        let contents = inputs(world, elements, dtype, round as u64);
        group.write(&buffers, &contents);
        for (rank, at) in group.ranks.iter_mut().zip(&buffers) {
            // 1, 2 or 3 blocks of 512.
            let blocks = 1 + (round + *at as usize / 512) % 3;
            rank.context.all_reduce(*at, *at, elements, dtype, Some((512, blocks))).unwrap();
        }
        let expected = group.expected(&contents, dtype);
        launched.push((buffers, expected));
    }
    group.simulator.run(7).unwrap();
    for (round, (buffers, expected)) in launched.into_iter().enumerate() {
        for found in group.read(&buffers, expected.len()) {
            assert!(found == expected, "round {round}");
        }
    }
}

#[test]
fn the_number_of_a_call_may_wrap_around() {
    let options = Options { first_call: u32::MAX - 1, ..Options::default() };
    let mut group = Group::near(2, options);
    let buffers = group.buffers(400);
    for round in 0..5 {
        let contents = inputs(2, 100, DType::F32, round);
        group.write(&buffers, &contents);
        group.all_reduce(&buffers, &buffers, 100, DType::F32);
        group.simulator.run(round).unwrap();
        let expected = group.expected(&contents, DType::F32);
        assert!(group.read(&buffers, 400).iter().all(|found| *found == expected), "round {round}");
    }
}

#[test]
fn no_word_keeps_an_old_number_for_ever() {
    let world = 3;
    let options = Options { most_bytes: 60, ..Options::default() };
    let mut group = Group::near(world, options);
    let buffers = group.buffers(60);
    let scratch_bytes = Shape::new(0, world, world).unwrap().scratch_bytes(60);
    // Two that reach every word, then so many short ones as there are words in the slots of both halves.
    for call in 0..2 + 2 * 5 {
        let elements = if call < 2 { 15 } else { 1 };
        group.all_reduce(&buffers, &buffers, elements, DType::F32);
    }
    group.simulator.run(1).unwrap();
    let addresses: Vec<_> = group.ranks.iter().map(|rank| rank.scratch).collect();
    for scratch in group.read(&addresses, scratch_bytes) {
        let numbers = scratch.chunks_exact(8).map(|word| u32::from_le_bytes(word[4..].try_into().unwrap()));
        assert!(numbers.clone().all(|number| number > 2), "{:?}", numbers.collect::<Vec<_>>());
    }
}

#[test]
fn contexts_side_by_side_count_for_themselves() {
    let world = 2;
    let simulator = Simulator::new(world, true);
    let connected = |first_call| {
        let options = Options { first_call, ..Options::default() };
        let ranks = connect(&simulator, world, world, options, Vec::new()).unwrap();
        Group { simulator: simulator.clone(), ranks, sum: options.sum }
    };
    let mut groups = [connected(1), connected(1), connected(7)];
    let mut launched = Vec::new();
    for round in 0..9_usize {
        // The first twice as often as the others.
        let group = &mut groups[[0, 1, 0, 2][round % 4]];
        let buffers = group.buffers(200);
        let contents = inputs(world, 50, DType::F32, round as u64);
        group.write(&buffers, &contents);
        group.all_reduce(&buffers, &buffers, 50, DType::F32);
        launched.push((buffers, group.expected(&contents, DType::F32)));
    }
    simulator.run(5).unwrap();
    for (buffers, expected) in launched {
        assert!(groups[0].read(&buffers, 200).iter().all(|found| *found == expected));
    }
    assert_eq!(simulator.report().races, []);
}

#[test]
fn a_captured_launch_may_be_replayed_among_others() {
    let world = 2;
    let mut group = Group::near(world, Options::default());
    let buffers = group.buffers(400);
    group.ranks.iter().for_each(|rank| rank.device.begin_capture());
    group.all_reduce(&buffers, &buffers, 100, DType::F32);
    let graphs: Vec<_> = group.ranks.iter().map(|rank| rank.device.end_capture().unwrap()).collect();
    for round in 0..3 {
        let contents = inputs(world, 100, DType::F32, round);
        group.write(&buffers, &contents);
        for (rank, graph) in group.ranks.iter().zip(&graphs) {
            rank.device.replay(graph).unwrap();
        }
        let once = group.expected(&contents, DType::F32);
        group.all_reduce(&buffers, &buffers, 100, DType::F32);
        group.simulator.run(round).unwrap();
        let twice = group.expected(&[once.clone(), once], DType::F32);
        assert!(group.read(&buffers, 400).iter().all(|found| *found == twice), "round {round}");
    }
}

#[test]
fn a_rank_that_never_comes_is_named_and_the_context_is_of_no_further_use() {
    let mut group = Group::near(3, Options { patience: Duration::from_millis(5), ..Options::default() });
    let buffers = group.buffers(64);
    for rank in [0, 2] {
        group.ranks[rank].context.all_reduce(buffers[rank], buffers[rank], 16, DType::F32, None).unwrap();
    }
    group.simulator.run(3).unwrap();
    let mut named = Vec::new();
    for rank in [0, 2] {
        let context = &mut group.ranks[rank].context;
        let failure = context.check().unwrap_err();
        let Error::Overdue { overdue, .. } = &failure else { panic!("{failure}") };
        assert_eq!((overdue.rank, overdue.block), (rank as u32, 0));
        assert_ne!(overdue.peer, rank as u32);
        named.push(overdue.peer);
        assert_eq!((overdue.expected, overdue.found), (1, 0));
        assert_eq!(context.all_reduce(buffers[rank], buffers[rank], 16, DType::F32, None), Err(failure));
    }
    // One of the two may be waiting for the other's result, which in turn waits for the rank that never came.
    assert!(named.contains(&1), "{named:?}");
    assert_eq!(group.ranks[1].context.check(), Ok(()));
}

#[test]
fn what_cannot_be_done_is_refused_before_anything_is_on_the_stream() {
    let mut group = Group::near(2, Options { most_bytes: 64, ..Options::default() });
    let at = group.buffers(1 << 12)[0];
    let context = &mut group.ranks[0].context;
    let mut refused = |input, output, elements, launch| {
        context.all_reduce(input, output, elements, DType::F16, launch).unwrap_err()
    };
    assert_eq!(refused(at + 4, at, 1, None), Error::Misaligned { what: "input", address: at + 4 });
    assert_eq!(refused(at, at + 16, 16, None), Error::Overlap { input: at, output: at + 16, bytes: 32 });
    let launch = |threads, blocks| Error::Packet(PacketError::Launch { threads, blocks });
    assert_eq!(refused(at, at, 16, Some((2048, 1))), launch(2048, 1));
    assert_eq!(refused(at, at, 16, Some((512, 0))), launch(512, 0));
    let Error::Packet(PacketError::TooLong { bytes, most, found, needed, .. }) = refused(at, at, 33, None)
    else {
        panic!("too long")
    };
    assert_eq!((bytes, most, found, needed), (66, 64, 256, 288));
    assert_eq!(context.all_reduce(at, at, 32, DType::F16, Some((64, 1))), Ok(()));
}

#[test]
fn memories_and_offers_that_do_not_fit_are_refused() {
    let simulator = Simulator::new(2, false);
    let prepare = |rank: usize, sum, bytes| {
        let device = simulator.device(rank);
        let scratch = device.allocate(256)?;
        let config = PacketConfig::new(Shape::new(rank, 2, 2)?, scratch, bytes, 0);
        Prepared::new(device, PacketConfig { sum, ..config })
    };
    let what = "the scratch for packets";
    assert_eq!(prepare(0, Sum::ByNode, 257).unwrap_err(), Error::TooSmall { what, found: 256, needed: 257 });
    let (one, other) = (prepare(0, Sum::ByNode, 256).unwrap(), prepare(1, Sum::In16Bits, 256).unwrap());
    simulator.run(0).unwrap();
    let (ours, theirs) = (one.offer().unwrap(), other.offer().unwrap());
    let differs = PacketError::Differs { what: "way of forming sums", rank: 1, ours: 1, theirs: 2 };
    assert_eq!(one.connect(&[ours.clone(), theirs]).unwrap_err(), Error::Packet(differs));
    let again = prepare(0, Sum::ByNode, 256).unwrap();
    let expected = Error::Count { what: "offers", expected: 2, found: 1 };
    assert_eq!(again.connect(std::slice::from_ref(&ours)).unwrap_err(), expected);
    // A peer that says that its scratch begins further behind than it is long.
    let mut hostile = ours.clone();
    hostile[64] = 64;
    let again = prepare(1, Sum::ByNode, 256).unwrap();
    assert!(matches!(again.connect(&[hostile, ours]), Err(Error::TooSmall { found: 256, needed: 320, .. })));
}

#[test]
fn what_was_opened_and_allocated_is_given_back() {
    let group = Group::near(2, Options::default());
    for rank in group.ranks {
        let device = rank.device.clone();
        assert_eq!(rank.context.dispose(), Ok(()));
        assert!(device.free(rank.scratch - 8).is_ok());
    }
}
