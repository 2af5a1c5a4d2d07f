//! The shipped PTX, executed: every rank's result is that of a plain loop, to the bit.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on is to end")]

mod common;

use common::{Options, World, inputs, sum};
use unisono_gpu::{Algorithm, DType, Plan};

/// The sizes of the tests that the field uses, in elements, down to which a CPU can follow; and such as end in the middle of
/// 16 bytes, or give some rank nothing to reduce.
const SIZES: [usize; 11] = [1, 3, 9, 512, 517, 2560, 4096, 5120, 7680, 8195, 32_768];

/// For the worlds that differ from others in nothing but the number.
const FEW_SIZES: [usize; 4] = [1, 9, 517, 8195];

/// With half as many blocks as there are tiles, each block has two.
const LARGE: usize = 65_536;

fn check(
    world: usize,
    elements: usize,
    dtype: DType,
    is_in_place: bool,
    is_staged: bool,
    most_blocks: usize,
) {
    let bytes = elements * dtype.size();
    let mut ranks = World::new(
        world,
        Options { most_blocks, most_bytes: bytes.next_multiple_of(16), ..Options::default() },
    );
    let sources = if is_staged { ranks.private(bytes) } else { ranks.registered(bytes) };
    let outputs = if is_in_place { sources.clone() } else { ranks.private(bytes) };
    // Twice, unless the interpreter has much to do.
    for round in 0..if elements > 8000 { 1 } else { 2 } {
        let contents = inputs(world, elements, dtype, round);
        ranks.write(&sources, &contents);
        ranks.all_reduce(&sources, &outputs, elements, dtype, is_staged).unwrap();
        ranks.simulator.run(round).unwrap();
        let expected = sum(&contents, dtype);
        for (rank, found) in ranks.read(&outputs, bytes).into_iter().enumerate() {
            let first = found.iter().zip(&expected).position(|(found, expected)| found != expected);
            assert_eq!(first, None, "world {world}, {elements} of {dtype:?}, rank {rank}, round {round}");
            ranks.ranks[rank].all_reduce.check().unwrap();
        }
    }
}

fn check_all(world: usize, is_in_place: bool, is_staged: bool) {
    let sizes: &[usize] = if matches!(world, 5..=7) { &FEW_SIZES } else { &SIZES };
    for dtype in DType::ALL {
        for &elements in sizes {
            check(world, elements, dtype, is_in_place, is_staged, 36);
        }
    }
}

#[test]
fn one_shot_is_a_plain_loop_for_every_world_type_and_size() {
    for world in 2..=8 {
        check_all(world, false, false);
    }
}

#[test]
fn two_shot_in_place_is_a_plain_loop_for_every_world_type_and_size() {
    for world in 2..=8 {
        check_all(world, true, false);
    }
}

#[test]
fn staged_inputs_may_be_in_place_too() {
    check_all(3, true, true);
}

#[test]
fn messages_of_two_tiles_per_block_are_a_plain_loop() {
    for world in [2, 3, 4, 8] {
        for dtype in DType::ALL {
            let blocks = LARGE * dtype.size() / 16 / 512 / 2;
            check(world, LARGE, dtype, false, false, blocks);
            check(world, LARGE, dtype, true, false, blocks);
        }
    }
}

#[test]
fn sizes_and_algorithms_may_follow_one_another_without_a_pause() {
    let world = 3;
    let most_bytes = 4 * 40_000;
    let mut ranks = World::new(world, Options { most_bytes, ..Options::default() });
    let sizes = [40_000, 5, 9000, 1, 40_000, 300];
    let mut expected = Vec::new();
    let mut outputs = Vec::new();
    for (round, elements) in sizes.into_iter().enumerate() {
        let sources = ranks.registered(elements * 4);
        let contents = inputs(world, elements, DType::F32, round as u64);
        ranks.write(&sources, &contents);
        expected.push(sum(&contents, DType::F32));
        // Every other one in place, so that one-shot and two-shot alternate.
        outputs.push(if round % 2 == 0 { sources.clone() } else { ranks.private(elements * 4) });
        ranks.all_reduce(&sources, &outputs[round], elements, DType::F32, false).unwrap();
    }
    ranks.simulator.run(7).unwrap();
    for (round, elements) in sizes.into_iter().enumerate() {
        for found in ranks.read(&outputs[round], elements * 4) {
            assert!(found == expected[round], "round {round}");
        }
    }
}

#[test]
fn the_sizes_meet_both_algorithms() {
    let algorithm = |in_place| Plan::choose(8, LARGE, DType::F16, in_place, 8).algorithm;
    assert_eq!((algorithm(false), algorithm(true)), (Algorithm::OneShot, Algorithm::TwoShot));
}
