//! Reduce-scatter and all-gather, executed: every rank's result is that of a plain loop, to the bit.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on is to end")]

mod common;

use common::{Case, Options, World, inputs};
use unisono_gpu::{Algorithm, DType, Driver, Error};

/// Elements of a portion: ending within 16 bytes, so that the portions behind begin at odd addresses, and not; one block and two.
const SIZES: [usize; 6] = [1, 7, 64, 513, 2048, 5000];

fn check(case: Case) {
    let (given, got) = (case.given() * case.dtype.size(), case.got() * case.dtype.size());
    let most_bytes = given.next_multiple_of(16);
    let mut ranks = World::new(case.world, Options { most_bytes, ..Options::default() });
    let sources = if case.is_staged { ranks.private(given) } else { ranks.registered(given) };
    let outputs = case.outputs(&ranks, &sources);
    for round in 0..2 {
        let contents = inputs(case.world, case.given(), case.dtype, round);
        ranks.write(&sources, &contents);
        case.enqueue(&mut ranks, &sources, &outputs);
        ranks.simulator.run(round).unwrap();
        assert!(ranks.read(&outputs, got) == case.expected(&contents), "{case:?}, round {round}");
    }
}

fn check_all(algorithm: Algorithm, is_in_place: bool, is_staged: bool) {
    for world in 2..=8 {
        for dtype in DType::ALL {
            for elements in SIZES {
                check(Case { algorithm, world, elements, dtype, is_in_place, is_staged });
            }
        }
    }
}

#[test]
fn reduce_scatter_is_a_plain_loop_also_in_place() {
    check_all(Algorithm::ReduceScatter, false, false);
    check_all(Algorithm::ReduceScatter, true, false);
}

#[test]
fn all_gather_puts_the_inputs_one_after_the_other() {
    check_all(Algorithm::AllGather, false, false);
}

#[test]
fn inputs_may_be_staged() {
    for algorithm in [Algorithm::ReduceScatter, Algorithm::AllGather] {
        check(Case {
            algorithm,
            world: 3,
            elements: 77,
            dtype: DType::F16,
            is_in_place: false,
            is_staged: true,
        });
    }
}

#[test]
fn outputs_that_touch_what_peers_read_are_refused() {
    let mut ranks = World::new(2, Options::default());
    let source = ranks.registered(4096);
    let at = source[1];
    let rank = &mut ranks.ranks[1];
    let apart = rank.device.allocate(4096).unwrap();
    let overlap = |output, bytes| Err(Error::Overlap { input: at, output, bytes });
    let all_reduce = &mut rank.all_reduce;
    // Rank 1's portion begins behind rank 0's.
    assert_eq!(all_reduce.reduce_scatter(at, at, 64, DType::F32, None), overlap(at, 256));
    assert_eq!(all_reduce.reduce_scatter(at, at + 256, 64, DType::F32, None), Ok(()));
    assert_eq!(all_reduce.all_gather(at, at + 128, 64, DType::F32, None), overlap(at + 128, 256));
    assert_eq!(all_reduce.all_gather(at, at, 64, DType::F32, None), overlap(at, 256));
    let misaligned = Err(Error::Misaligned { what: "output", address: apart + 8 });
    assert_eq!(all_reduce.all_gather(at, apart + 8, 64, DType::F32, None), misaligned);
    assert_eq!(all_reduce.reduce_scatter(at, apart, 0, DType::F32, None), Ok(()), "nothing is to be done");
}
