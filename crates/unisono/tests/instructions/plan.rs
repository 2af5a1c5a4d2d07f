//! What is stepped: kinds, worlds and sizes. The parent and the child that is stepped read the same plan.

use crate::formulas::Kind;

const KIB: usize = 1 << 10;

/// How often each operation is counted: the least counts, since a rank that had to wait after all counts its looks.
pub(crate) const REPETITIONS: usize = 3;

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

/// The sizes at which a kind is stepped in a world. An instruction that is stepped takes microseconds, so that large sizes are
/// for few ranks: what they would show beyond the bytes moved, which the test `cost` counts at every size, shows here.
pub(crate) fn sizes(kind: Kind, world: usize) -> &'static [usize] {
    match (kind, world) {
        (Kind::Barrier, _) => &[0],
        (_, ..=2) => &[64, KIB, 16 * KIB, 64 * KIB],
        (_, ..=8) => &[64, KIB, 16 * KIB],
        _ => &[64, KIB],
    }
}
