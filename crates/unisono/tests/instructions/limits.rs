//! The formula: how many instructions an operation may execute. docs/performance.md has the same table.
//!
//! A call as such, something for each peer at each step, and something for every 32 bytes (a vector of AVX2) that are moved, of which
//! the test `cost` knows how many there are. More than two ranks pay more for a vector: what two ranks reduce stays in registers.

use unisono::counts::Counts;

use crate::formulas::{Case, Kind};

/// What the pinned compiler makes of the same source differs little; another one's may.
const ALLOWANCE: f64 = 1.05;

/// For 32 bytes of what is copied by the C library.
const COPIED_BY_THE_C_LIBRARY: f64 = 0.76;

/// Where whole blocks are copied and none is reduced, those above 64 KiB are left to the C library (`copy.rs` in the kernels).
fn is_copied_by_the_c_library(case: Case) -> bool {
    matches!(case.kind, Kind::AllGather | Kind::AllToAll | Kind::Broadcast) && case.bytes > 64 << 10
}

/// The prices of one kind.
struct Prices {
    call: f64,
    /// For each peer at each step: a message or a word for it, a look at its word, and its waking, since it sleeps.
    peer: f64,
    /// For 32 bytes moved, of a pair.
    vector: f64,
    /// The same where there are more ranks.
    vector_of_many: f64,
}

/// How many instructions the rank may execute for this, given what it moves.
pub(crate) fn instructions(case: Case, moves: &Counts) -> u64 {
    let prices = prices(case.kind);
    let moved = moves.shared_written + moves.shared_read + moves.own_written + moves.own_read;
    let vector = match case {
        _ if is_copied_by_the_c_library(case) => COPIED_BY_THE_C_LIBRARY,
        Case { world: 2, .. } => prices.vector,
        _ => prices.vector_of_many,
    };
    let peers = (moves.steps * (case.world as u64 - 1)) as f64;
    let asked =
        if case.kind == Kind::Push { asking(case.world as f64, moves.own_written as f64) } else { 0.0 };
    ((prices.call + prices.peer * peers + vector * moved as f64 / 32.0 + asked) * ALLOWANCE) as u64
}

/// What push pays for asking ahead, on machines where that pays: something for each rank's memory at each block of 2 KiB of the own
/// portion and once before, and something for each line.
fn asking(world: f64, portion: f64) -> f64 {
    if !unisono_kernels::asking_ahead_pays() {
        return 0.0;
    }
    let blocks = (portion / 2048.0).ceil() + 1.0;
    world * (60.0 * blocks + 11.0 * portion / 64.0)
}

fn prices(kind: Kind) -> Prices {
    let (call, peer, vector, vector_of_many) = match kind {
        Kind::Packet => (810.0, 315.0, 1.71, 2.41),
        Kind::Swap => (877.0, 273.0, 1.71, 2.40),
        Kind::Migrate => (1204.0, 282.0, 1.54, 2.03),
        Kind::Pipeline => (1419.0, 300.0, 1.54, 2.02),
        Kind::Push => (1471.0, 132.0, 3.37, 4.10),
        Kind::AllGather => (932.0, 570.0, 1.36, 1.56),
        Kind::ReduceScatter => (1257.0, 364.0, 1.71, 2.38),
        Kind::AllToAll => (1016.0, 588.0, 1.36, 1.56),
        Kind::Broadcast => (525.0, 74.0, 2.00, 2.28),
        Kind::Barrier => (362.0, 260.0, 0.0, 0.0),
    };
    Prices { call, peer, vector, vector_of_many }
}
