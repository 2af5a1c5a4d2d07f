//! The quick all-reduce as it is shipped, executed: every rank has the bits of the model, which stays within its bound.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on is to end")]

mod model;
mod world;

use std::time::Duration;

use model::{all_reduce, bounds, given_as};
use unisono_gpu::{
    Arithmetic, DType, Driver, Error, QUICK_BLOCKS, QuantLevel, QuickAllReduce, QuickHow, QuickOptions,
};
use world::{World, how, inputs};

/// Of 32 threads, whose tile is 4 KiB: the same code in an eighth of the time.
const SMALL: QuickOptions = QuickOptions { most_bytes: 1 << 20, most_blocks: 2, threads: 32 };

fn check(world: usize, elements: usize, options: QuickOptions, dtype: DType, how: QuickHow, seed: u64) {
    let ranks = World::new(world, options, false);
    let sources = ranks.buffers(elements);
    let is_in_place = seed % 2 == 1;
    let outputs = if is_in_place { sources.clone() } else { ranks.buffers(elements) };
    let contents = inputs(world, elements, dtype, seed, false);
    ranks.write(&sources, &contents);
    ranks.all_reduce(&sources, &outputs, elements, dtype, how);
    ranks.simulator.run(seed).unwrap();
    let expected = all_reduce(&contents, dtype, how);
    for (rank, found) in ranks.read(&outputs, elements).into_iter().enumerate() {
        let first = found.iter().zip(&expected).position(|(found, expected)| found != expected);
        let both = first.map(|at| (found[at], expected[at]));
        assert_eq!(
            (first, both),
            (None, None),
            "{world} ranks, {elements} of {dtype:?}, {how:?}, rank {rank}"
        );
        ranks.ranks[rank].1.check().unwrap();
    }
}

#[test]
fn every_codec_type_and_world_is_the_model_to_the_bit() {
    for level in QuantLevel::ALL {
        for world in 2..=8 {
            for number in 0..6 {
                let (dtype, how) = how(level, number);
                // Three tiles for two blocks, the last within a pack; the last rows of a second tile; a few values.
                let all = [4400, 3000, 5];
                // The other worlds differ in nothing but the number.
                for elements in if matches!(world, 2 | 3 | 4 | 8) { &all[..] } else { &all[..1] } {
                    check(world, *elements, SMALL, dtype, how, number + *elements as u64);
                }
            }
        }
    }
}

#[test]
fn tiles_of_32_kib_are_the_model_too() {
    let options = QuickOptions { most_bytes: 1 << 20, most_blocks: 2, ..QuickOptions::default() };
    for level in QuantLevel::ALL {
        for (world, number) in [(2, 0), (3, 1), (4, 5), (8, 3)] {
            let (dtype, how) = how(level, number);
            check(world, 16_384 + 2048 + 13, options, dtype, how, number);
        }
    }
}

#[test]
fn two_tiles_of_32_kib_per_block_are_the_model() {
    let options = QuickOptions { most_bytes: 1 << 20, most_blocks: 2, ..QuickOptions::default() };
    for level in QuantLevel::ALL {
        for (world, number) in [(2, 2), (3, 0), (4, 1), (8, 4)] {
            let (dtype, how) = how(level, number);
            check(world, 65_536, options, dtype, how, number);
        }
    }
}

#[test]
fn results_stay_within_the_bound_of_the_exact_sum() {
    for level in QuantLevel::ALL {
        for number in 0..6 {
            let (dtype, how) = how(level, number);
            for world in [2, 3, 4, 8] {
                let given = given_as(dtype);
                let mut nearest = f64::INFINITY;
                for seed in 0..20 {
                    let contents = inputs(world, 2048, dtype, seed, true);
                    let found = all_reduce(&contents, dtype, how);
                    let bounds = bounds(&contents, dtype, how);
                    for (index, bits) in found.iter().enumerate() {
                        let exact: f64 =
                            contents.iter().map(|input| f64::from(given.value(input[index]))).sum();
                        let off = (f64::from(given.value(*bits)) - exact).abs();
                        assert!(off <= bounds[index], "{how:?}, {world} ranks: {off} > {}", bounds[index]);
                        nearest = nearest.min(bounds[index] - off);
                    }
                }
                assert!(nearest < f64::INFINITY);
            }
        }
    }
}

#[test]
fn unquantised_and_wide_is_the_sum_that_every_other_all_reduce_has() {
    let contents = inputs(5, 640, DType::BF16, 3, false);
    let how = QuickHow { level: QuantLevel::Fp, as_f16: false, arithmetic: Arithmetic::Wide };
    let given = given_as(DType::BF16);
    let sum = |index: usize| {
        contents[1..].iter().fold(given.value(contents[0][index]), |s, i| s + given.value(i[index]))
    };
    let plain: Vec<u16> = (0..640).map(|index| given.bits(sum(index))).collect();
    assert_eq!(all_reduce(&contents, DType::BF16, how), plain);
}

#[test]
fn what_went_wrong_is_not_hidden_by_quantisation() {
    let how = QuickHow { level: QuantLevel::Int4, as_f16: false, arithmetic: Arithmetic::Narrow };
    let mut contents = inputs(2, 128, DType::F16, 1, true);
    contents[1][6] = 0x7e00;
    let found = all_reduce(&contents, DType::F16, how);
    // All that shared a scale with the NaN, and nothing else.
    for (index, bits) in found.iter().enumerate() {
        assert_eq!(*bits == 0x7e00, index < 64 && index % 2 == 0, "{index}");
    }
    contents[1][6] = 0x7c00;
    let found = all_reduce(&contents, DType::F16, how);
    assert!(
        given_as(DType::F16).value(found[6]).is_infinite() || given_as(DType::F16).value(found[6]).is_nan()
    );
}

#[test]
fn codecs_types_and_sizes_may_follow_one_another_and_graphs_be_replayed() {
    let world = 3;
    let ranks = World::new(world, SMALL, true);
    let sizes = [4400, 5, 3000, 2100];
    let buffers: Vec<_> = sizes.iter().map(|elements| ranks.buffers(*elements)).collect();
    for (device, _) in &ranks.ranks {
        device.begin_capture();
    }
    for (round, elements) in sizes.into_iter().enumerate() {
        let (dtype, how) = how(QuantLevel::ALL[round], round as u64);
        ranks.all_reduce(&buffers[round], &buffers[round], elements, dtype, how);
    }
    let graphs: Vec<_> = ranks.ranks.iter().map(|(device, _)| device.end_capture().unwrap()).collect();
    for replay in 0..3 {
        let contents: Vec<_> = sizes
            .into_iter()
            .enumerate()
            .map(|(round, elements)| {
                let dtype = how(QuantLevel::ALL[round], round as u64).0;
                let contents = inputs(world, elements, dtype, replay * 10 + round as u64, false);
                ranks.write(&buffers[round], &contents);
                contents
            })
            .collect();
        for ((device, _), graph) in ranks.ranks.iter().zip(&graphs) {
            device.replay(graph).unwrap();
        }
        ranks.simulator.run(replay).unwrap();
        for (round, elements) in sizes.into_iter().enumerate() {
            let (dtype, how) = how(QuantLevel::ALL[round], round as u64);
            let expected = all_reduce(&contents[round], dtype, how);
            for found in ranks.read(&buffers[round], elements) {
                assert!(found == expected, "replay {replay}, round {round}");
            }
        }
    }
    assert_eq!(ranks.simulator.report().races, []);
}

#[test]
fn a_rank_that_never_comes_is_named() {
    let mut ranks = World::new(3, SMALL, false);
    let buffers = ranks.buffers(100);
    let (dtype, how) = how(QuantLevel::Int8, 0);
    for rank in [0, 2] {
        let quick = &mut ranks.ranks[rank].1;
        quick.set_patience(Duration::from_millis(5));
        quick.all_reduce(buffers[rank], buffers[rank], 100, dtype, how).unwrap();
    }
    ranks.simulator.run(1).unwrap();
    let Err(Error::Overdue { overdue, .. }) = ranks.ranks[2].1.check() else { panic!("rank 1 never came") };
    assert_eq!((overdue.rank, overdue.peer, overdue.block, overdue.expected, overdue.found), (2, 1, 0, 1, 0));
    assert_eq!(overdue.flag, 1, "of the first phase, block 0, peer 1");
    assert_eq!(ranks.ranks[1].1.check(), Ok(()));
}

#[test]
fn what_cannot_be_done_is_refused_and_loses_nothing() {
    let ranks = World::new(2, SMALL, false);
    let device = ranks.ranks[0].0.clone();
    let new = |rank, world, options| QuickAllReduce::new(device.clone(), rank, world, options).map(|_| ());
    assert_eq!(new(0, 1, SMALL), Err(Error::World { world: 1 }));
    assert_eq!(new(0, 9, SMALL), Err(Error::World { world: 9 }));
    assert_eq!(new(4, 4, SMALL), Err(Error::Rank { rank: 4, world: 4 }));
    let blocks = QUICK_BLOCKS + 1;
    assert_eq!(
        new(0, 2, QuickOptions { most_blocks: blocks, ..SMALL }),
        Err(Error::Options { blocks, threads: 32 })
    );
    assert_eq!(
        new(0, 2, QuickOptions { threads: 48, ..SMALL }),
        Err(Error::Options { blocks: 2, threads: 48 })
    );
    let buffer = ranks.buffers(1 << 19)[0];
    let (dtype, how) = how(QuantLevel::Int4, 0);
    let quick = &ranks.ranks[0].1;
    let reduce = |input, output, elements, dtype| quick.all_reduce(input, output, elements, dtype, how);
    assert_eq!(
        reduce(buffer, buffer, 8, DType::F32),
        Err(Error::Type { what: "quick all-reduce", dtype: DType::F32 })
    );
    let misaligned = Err(Error::Misaligned { what: "input", address: buffer + 2 });
    assert_eq!(reduce(buffer + 2, buffer, 8, dtype), misaligned);
    let overlap = Err(Error::Overlap { input: buffer, output: buffer + 16, bytes: 32 });
    assert_eq!(reduce(buffer, buffer + 16, 16, dtype), overlap);
    let what = "the largest message of this quick all-reduce";
    let large = Err(Error::TooSmall { what, found: 1 << 20, needed: (1 << 20) + 2 });
    assert_eq!(reduce(buffer, buffer, (1 << 19) + 1, dtype), large);
    assert_eq!(reduce(buffer, buffer, 0, dtype), Ok(()), "nothing is to be done");
    let mut alone = QuickAllReduce::new(device.clone(), 0, 2, SMALL).unwrap();
    let closed = Err(Error::Count { what: "opened handles", expected: 2, found: 0 });
    assert_eq!(alone.all_reduce(buffer, buffer, 8, dtype, how), closed);
    let own = alone.handle().unwrap();
    assert_eq!(alone.open_handles(&[own]), Err(Error::Count { what: "handles", expected: 2, found: 1 }));
    assert!(matches!(alone.open_handles(&[own, [7; 64]]), Err(Error::Driver { call: "open", .. })));
    let other = ranks.ranks[1].0.clone();
    let fewer = QuickAllReduce::new(other, 1, 2, QuickOptions { most_blocks: 1, ..SMALL }).unwrap();
    let refused = alone.open_handles(&[own, fewer.handle().unwrap()]);
    assert!(matches!(refused, Err(Error::TooSmall { what: "a peer's memory for the quick all-reduce", .. })));
    let theirs = ranks.ranks[1].1.handle().unwrap();
    assert_eq!(alone.open_handles(&[own, theirs]), Ok(()));
    assert_eq!(
        alone.open_handles(&[own, theirs]),
        Err(Error::Count { what: "more handles", expected: 0, found: 2 })
    );
    assert_eq!(alone.destroy(), Ok(()));
    assert!(device.export(buffer).is_ok(), "what others own is still there");
}
