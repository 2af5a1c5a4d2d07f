//! All-reduce by a switch that adds, as it is shipped, executed with a simulated switch, which adds from the last rank to the first.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on is to end")]

mod common;
mod mutate;

use common::{Options, World, inputs, sum};
use mutate::{Ending, all_are_caught, alone, ended};
use unisono_gpu::{DType, Driver, Error, MULTICAST_PTX, Multicast, multicast_kernel};

/// In how many orders of events it is run between two ranks; `UNISONO_TEST_SEEDS` says otherwise.
fn seeds() -> u64 {
    std::env::var("UNISONO_TEST_SEEDS").map_or(200, |seeds| seeds.parse().unwrap())
}

/// Memory of all ranks in one multicast object.
fn object(ranks: &World, bytes: usize) -> Vec<Multicast> {
    let devices = ranks.devices();
    let handle = devices[0].create_multicast(devices.len(), bytes).unwrap();
    devices.iter().for_each(|device| device.join_multicast(&handle).unwrap());
    devices.iter().map(|device| device.bind_multicast(&handle).unwrap()).collect()
}

/// Two launches one after the other, the next input written right after the last.
fn run(
    world: usize,
    elements: usize,
    dtype: DType,
    ptx: Option<&str>,
    seed: u64,
    detects_races: bool,
) -> Ending {
    let bytes = elements * dtype.size();
    let blocks = bytes.div_ceil(2 * 8192).clamp(1, 36);
    let mut ranks = World::new(world, Options { detects_races, most_blocks: blocks, ..Options::default() });
    if let Some(ptx) = ptx {
        ranks.simulator.replace(MULTICAST_PTX, ptx).unwrap();
    }
    let multicast = object(&ranks, bytes);
    let own: Vec<u64> = multicast.iter().map(|of_rank| of_rank.own).collect();
    let outputs = ranks.private(bytes);
    let mut expected = Vec::new();
    for round in 0..2 {
        let mut contents = inputs(world, elements, dtype, seed + round);
        ranks.write(&own, &contents);
        for (index, rank) in ranks.ranks.iter_mut().enumerate() {
            rank.all_reduce.multicast_all_reduce(multicast[index], outputs[index], elements, dtype).unwrap();
        }
        contents.reverse();
        expected = sum(&contents, dtype);
    }
    let is_late = || ranks.ranks.iter().any(|rank| rank.all_reduce.check().is_err());
    let is_right = || ranks.read(&outputs, bytes).iter().all(|found| *found == expected);
    ended(&ranks.simulator, seed, is_late, is_right)
}

#[test]
fn every_rank_gets_what_the_switch_adds() {
    for world in 2..=8 {
        for dtype in DType::ALL {
            for packs in [1, 513] {
                let ending = run(world, packs * 16 / dtype.size(), dtype, None, 1, false);
                assert_eq!(ending, Ending::Right, "{world} ranks, {packs} packs of {dtype:?}");
            }
        }
    }
}

#[test]
fn messages_of_two_tiles_per_block_too() {
    for (world, dtype) in [(2, DType::F32), (3, DType::F16), (4, DType::BF16), (8, DType::F16)] {
        assert_eq!(run(world, 65_536, dtype, None, 1, false), Ending::Right, "{world} ranks of {dtype:?}");
    }
}

#[test]
fn no_race_in_any_order_drawn() {
    for (world, share) in [(2, 1), (3, 4), (4, 4), (8, 8)] {
        for seed in 0..seeds() / share {
            let dtype = DType::ALL[(seed % 3) as usize];
            let ending = run(world, 9 * 16 / dtype.size(), dtype, None, seed, true);
            assert_eq!(ending, Ending::Right, "{world} ranks, {dtype:?}, seed {seed}");
        }
    }
}

#[test]
fn without_any_part_of_its_synchronisation_it_is_caught() {
    for world in [2, 3] {
        let kernel = multicast_kernel(DType::F32, world);
        let text = alone(MULTICAST_PTX, &kernel);
        // Of 520 packs, so that other warps than the one that waits read, too.
        all_are_caught(&kernel, &text, seeds(), |mutant, seed| {
            run(world, 4 * if seed < 20 { 9 } else { 520 }, DType::F32, Some(mutant), seed, true)
        });
    }
}

#[test]
fn what_cannot_be_done_is_refused() {
    let mut ranks = World::new(2, Options::default());
    let multicast = object(&ranks, 1024)[0];
    let output = ranks.private(4096)[0];
    let all_reduce = &mut ranks.ranks[0].all_reduce;
    let mut refused = |multicast, output, elements| {
        all_reduce.multicast_all_reduce(multicast, output, elements, DType::F16).unwrap_err()
    };
    let what = "the multicast memory";
    assert_eq!(refused(multicast, output, 520), Error::TooSmall { what, found: 1024, needed: 1040 });
    let what = "end of the message";
    assert_eq!(refused(multicast, output, 3), Error::Misaligned { what, address: output + 6 });
    for input in [multicast.own, multicast.all] {
        let output = input + 512;
        assert_eq!(refused(multicast, output, 8), Error::Overlap { input, output, bytes: 16 });
    }
    let devices = ranks.devices();
    let handle = devices[0].create_multicast(2, 512).unwrap();
    let is_refused = |done: Result<(), Error>, why: &str| match done {
        Err(Error::Driver { reason, .. }) => assert!(reason.contains(why), "{reason}"),
        other => panic!("{other:?}"),
    };
    is_refused(devices[0].bind_multicast(&handle).map(drop), "has not joined");
    devices[0].join_multicast(&handle).unwrap();
    is_refused(devices[0].join_multicast(&handle), "joined already");
    is_refused(devices[0].bind_multicast(&handle).map(drop), "1 of 2 devices have joined");
    is_refused(devices[1].join_multicast(&[3; 64]), "no multicast object");
    devices[1].join_multicast(&handle).unwrap();
    let of_first = devices[0].bind_multicast(&handle).unwrap();
    is_refused(devices[0].bind_multicast(&handle).map(drop), "bound already");
    devices[0].leave_multicast(&handle).unwrap();
    is_refused(devices[0].leave_multicast(&handle), "has not joined");
    assert!(devices[0].free(of_first.own).is_err(), "given back with the rest");
}
