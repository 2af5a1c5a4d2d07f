//! Cost as work grows: what each rank moves is counted, and compared with the formulas of docs/performance.md.
//!
//! Work is counted and not time, so that the answer is the same on any machine and under any load: steps, tag lines, bytes
//! through shared memory, bytes of the rank's own buffers, and cache lines that cross between two cores. Each algorithm is
//! held to its formula ([`formulas`]) for worlds of 2 to 64 ranks and sizes from 64 B on, as far as all ranks together move no
//! more than 256 MiB in an operation (768 MiB for two): 64 MiB for 2 ranks, 1 to 16 MiB for 3 to 8, 64 KiB to 4 MiB
//! for 16, and 16 KiB to 1 MiB for 64.

mod formulas;
mod work;

use std::time::Duration;

use formulas::{Case, Kind};
use unisono::counts::{Counter, Counts};
use unisono::{Communicator, Parameters};
use work::{Buffers, parameters};

const WORLDS: [usize; 6] = [2, 3, 4, 8, 16, 64];
const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
const SIZES: [usize; 9] = [64, KIB, 4 * KIB, 16 * KIB, 64 * KIB, MIB, 4 * MIB, 16 * MIB, 64 * MIB];

/// What all ranks together may move in one operation, and the room for two ranks, so that they get to the largest size.
const AFFORDABLE: u64 = 256 << 20;
const AFFORDABLE_FOR_TWO: u64 = 768 << 20;

/// No operation takes this long; a rank that would hang fails instead.
const PATIENCE: Duration = Duration::from_secs(60);

/// From this size on every operation goes through its staging more than once.
const LARGE: usize = 4 * MIB;

/// The sizes at which a kind is tried in a world.
fn sizes(kind: Kind, world: usize, parameters: &Parameters) -> Vec<usize> {
    let affordable = if world == 2 { AFFORDABLE_FOR_TWO } else { AFFORDABLE };
    let moved = |bytes| -> u64 {
        let counts = (0..world).map(|rank| Case { kind, world, rank, bytes }.costs(parameters));
        counts.map(|c| c.shared_written + c.shared_read + c.own_written + c.own_read).sum()
    };
    let sizes = if kind == Kind::Barrier { &[0][..] } else { &SIZES[..] };
    sizes.iter().copied().filter(|bytes| moved(*bytes) <= affordable).collect()
}

/// Carry the case out until staging has been used before, then once more, counted.
fn count(comm: &Communicator, case: Case) -> Counts {
    let mut buffers = Buffers::of(comm, case);
    // The counter looks at the memory through a handle of its own.
    let memory = buffers.registered_memory();
    let counter = Counter::start(comm, &memory.iter().collect::<Vec<_>>());
    let before = if case.bytes < LARGE { 2 } else { 1 };
    for _ in 0..before {
        buffers.produce();
        buffers.perform(comm, case.kind);
    }
    buffers.produce();
    counter.take();
    buffers.perform(comm, case.kind);
    counter.take()
}

/// Count an operation of this kind in every world and at every size, on every rank.
fn costs_what_the_formula_says(kind: Kind) {
    for world in WORLDS {
        let parameters = parameters(kind, world);
        let sizes = sizes(kind, world, &parameters);
        assert!(!sizes.is_empty(), "{kind:?} with {world} ranks is tried at no size");
        let ranks = Communicator::in_process_with(world, &parameters).expect("threads always meet");
        let (sizes, parameters) = (&sizes, &parameters);
        std::thread::scope(|scope| {
            for comm in ranks {
                scope.spawn(move || {
                    let comm = comm.with_timeout(Some(PATIENCE));
                    for &bytes in sizes {
                        let case = Case { kind, world, rank: comm.rank(), bytes };
                        let (found, expected) = (count(&comm, case), case.costs(parameters));
                        if found != expected {
                            comm.abort();
                        }
                        assert_eq!(
                            found, expected,
                            "{case:?}: left is what was counted, right is the formula"
                        );
                    }
                });
            }
        });
    }
}

#[test]
fn packet_costs_what_its_formula_says() {
    costs_what_the_formula_says(Kind::Packet);
}

#[test]
fn swap_costs_what_its_formula_says() {
    costs_what_the_formula_says(Kind::Swap);
}

#[test]
fn migrate_costs_what_its_formula_says() {
    costs_what_the_formula_says(Kind::Migrate);
}

#[test]
fn pipeline_costs_what_its_formula_says() {
    costs_what_the_formula_says(Kind::Pipeline);
}

#[test]
fn push_on_registered_memory_costs_what_its_formula_says() {
    costs_what_the_formula_says(Kind::Push);
}

#[test]
fn all_gather_costs_what_its_formula_says() {
    costs_what_the_formula_says(Kind::AllGather);
}

#[test]
fn reduce_scatter_costs_what_its_formula_says() {
    costs_what_the_formula_says(Kind::ReduceScatter);
}

#[test]
fn all_to_all_costs_what_its_formula_says() {
    costs_what_the_formula_says(Kind::AllToAll);
}

#[test]
fn broadcast_costs_what_its_formula_says() {
    costs_what_the_formula_says(Kind::Broadcast);
}

#[test]
fn a_barrier_costs_what_its_formula_says() {
    costs_what_the_formula_says(Kind::Barrier);
}

#[test]
fn the_memory_of_a_rank_is_what_the_formula_says() {
    for world in [1, 2, 3, 4, 8, 16, 32, 64] {
        let parameters = Parameters::for_world(world);
        let ranks = Communicator::in_process(world).expect("threads always meet");
        let expected = formulas::memory_of_a_rank(world, &parameters);
        for comm in &ranks {
            assert_eq!(comm.memory_bytes(), expected, "rank {} of {world}", comm.rank());
        }
        assert!(expected <= 4 * MIB, "{world} ranks: {expected} bytes each");
    }
}
