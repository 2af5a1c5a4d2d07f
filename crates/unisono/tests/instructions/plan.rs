//! What is stepped: kinds, worlds and sizes. The parent and the child that is stepped read the same plan.

use crate::formulas::Kind;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// The sizes of which [`budget`] picks.
const SIZES: [usize; 8] = [64, KIB, 16 * KIB, 64 * KIB, 256 * KIB, MIB, 16 * MIB, 64 * MIB];

/// Raises the budget: bytes of a message of two ranks.
const BUDGET: &str = "UNISONO_TEST_STEPPED_BYTES";

/// How often an operation of this size is counted: the least counts, since a rank that had to wait after all counts its looks. What
/// is large would hardly show them, and takes long.
pub(crate) fn repetitions(bytes: usize) -> usize {
    if bytes <= 64 * KIB { 3 } else { 1 }
}

/// The numbers of ranks.
pub(crate) const WORLDS: [usize; 6] = [2, 3, 4, 8, 16, 64];

/// The kinds, by the name that a test has.
pub(crate) const KINDS: [(&str, Kind); 10] = [
    ("packet", Kind::Packet),
    ("swap", Kind::Swap),
    ("migrate", Kind::Migrate),
    ("pipeline", Kind::Pipeline),
    ("push", Kind::Push),
    ("all_gather", Kind::AllGather),
    ("reduce_scatter", Kind::ReduceScatter),
    ("all_to_all", Kind::AllToAll),
    ("broadcast", Kind::Broadcast),
    ("barrier", Kind::Barrier),
];

/// The sizes at which a kind is stepped in a world. An instruction that is stepped takes microseconds, and an operation's grow with
/// the bytes that it moves: those of a message times half the ranks. Up to 64 MiB are for who has minutes
/// ([`BUDGET`]); what moves is counted at every size by the test `cost`.
pub(crate) fn sizes(kind: Kind, world: usize) -> Vec<usize> {
    if kind == Kind::Barrier {
        return vec![0];
    }
    SIZES.into_iter().filter(|bytes| *bytes == SIZES[0] || bytes * world / 2 <= budget()).collect()
}

fn budget() -> usize {
    match std::env::var(BUDGET) {
        Ok(bytes) => {
            bytes.parse().unwrap_or_else(|_| panic!("{BUDGET}: expected a number of bytes, found {bytes:?}"))
        }
        Err(_) => 256 * KIB,
    }
}
