//! The formulas: what each algorithm may cost a rank. The same as the table of docs/performance.md.
//!
//! `n` ranks, `s` bytes (of a message, of a block, or of a rank's contribution), `own` the bytes of a rank's slice, about
//! `s / n`. Sizes are powers of two from a cache line on, so that pieces are equal and lines full.

use unisono::Parameters;
use unisono::counts::Counts;

/// The root of a broadcast.
pub(crate) const ROOT: usize = 0;

const LINE: usize = 64;
const PAGE: usize = 4096;

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Packet,
    Swap,
    Migrate,
    Pipeline,
    Push,
    AllGather,
    ReduceScatter,
    AllToAll,
    Broadcast,
    Barrier,
}

/// One operation, as one rank sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    pub(crate) kind: Kind,
    pub(crate) world: usize,
    pub(crate) rank: usize,
    pub(crate) bytes: usize,
}

impl Case {
    /// Bytes of the rank's input and output. What is in place has an output only.
    pub(crate) fn buffers(self) -> (usize, usize) {
        let (block, all) = (self.bytes, self.bytes * self.world);
        match self.kind {
            Kind::AllGather => (block, all),
            Kind::ReduceScatter => (all, block),
            Kind::AllToAll => (all, all),
            Kind::Push | Kind::Barrier => (0, 0),
            _ => (0, block),
        }
    }

    /// What the rank may publish, write and read.
    pub(crate) fn costs(self, parameters: &Parameters) -> Counts {
        let (n, s) = (self.world as u64, self.bytes as u64);
        let others = n - 1;
        let pieces = s.div_ceil(swap_region(parameters) as u64).max(1);
        let says_so_itself = if self.bytes <= parameters.packet_bytes { others } else { 0 };
        // (steps, tags), shared (written, read), own (written, read), lines taken
        let (flags, shared, own, taken) = match self.kind {
            // The message goes to everybody, and everybody's comes.
            Kind::Packet => ((pieces, pieces * others), (others * s, others * s), (s, n * s), 0),
            Kind::Swap => ((pieces, 0), (others * s, others * s), (s, n * s), 0),
            // Of each chunk the other slices go out, and the own one back in n - 1 copies.
            Kind::Migrate => {
                let (chunks, slice) = self.slices(migrate_slot(parameters, self.world));
                ((2 * chunks, 0), (s - slice + others * slice, s - slice + others * slice), (s, s), 0)
            }
            Kind::Pipeline => {
                let half = migrate_slot(parameters, self.world) / 2 / LINE * LINE;
                let (chunks, slice) = self.slices(half.min(parameters.pipeline_bytes / self.world));
                ((chunks + 1, 0), (s - slice + others * slice, s - slice + others * slice), (s, s), 0)
            }
            // The own slice of all memories is read and written, nothing else.
            Kind::Push => {
                let slice = self.pushed();
                ((2, 0), (others * slice, others * slice), (slice, slice), 0)
            }
            // A block per pair: handed out once, read once.
            Kind::AllGather => ((pieces, says_so_itself), (others * s, others * s), (n * s, n * s), 0),
            Kind::ReduceScatter => ((pieces, says_so_itself), (others * s, others * s), (s, n * s), 0),
            Kind::AllToAll => ((pieces, says_so_itself), (others * s, others * s), (n * s, n * s), 0),
            // Written once whatever the number of readers, from whom the root takes its lines back.
            Kind::Broadcast => {
                let steps = (s.div_ceil(parameters.broadcast_bytes as u64).max(1), 0);
                if self.rank == ROOT { (steps, (s, 0), (0, s), lines(s)) } else { (steps, (0, s), (s, 0), 0) }
            }
            // Nothing but a tag line per peer.
            Kind::Barrier => ((1, others), (0, 0), (0, 0), 0),
        };
        Counts {
            steps: flags.0,
            tags: flags.1,
            shared_written: shared.0,
            shared_read: shared.1,
            own_written: own.0,
            own_read: own.1,
            // What is read was written by another rank, and crosses once.
            lines_fetched: lines(shared.1),
            lines_taken: taken,
        }
    }

    /// Chunks whose slices fit `slot` bytes, and the bytes of this rank's slices of all of them.
    fn slices(self, slot: usize) -> (u64, u64) {
        let chunk = (slot * self.world / LINE).saturating_sub(self.world).max(self.world) * LINE;
        let slice = |start| {
            let bytes = chunk.min(self.bytes - start);
            let longest = bytes.div_ceil(self.world).next_multiple_of(LINE);
            bytes.saturating_sub(self.rank * longest).min(longest) as u64
        };
        (self.bytes.div_ceil(chunk) as u64, (0..self.bytes).step_by(chunk).map(slice).sum())
    }

    /// This rank's slice of a registered buffer, from line to line.
    fn pushed(self) -> u64 {
        let longest = self.bytes.div_ceil(self.world);
        let cut = |slices: usize| (longest * slices).next_multiple_of(LINE).min(self.bytes);
        (cut(self.rank + 1) - cut(self.rank)) as u64
    }
}

/// What a rank brings along: two pages of words, two cursors per rank, two broadcast buffers, and for each peer a swap region
/// with a line on either side, a slot for migrate and a window.
pub(crate) fn memory_of_a_rank(world: usize, parameters: &Parameters) -> usize {
    let peers = world - 1;
    let pages = |bytes: usize| bytes.next_multiple_of(PAGE);
    let staged = if peers == 0 { 0 } else { 2 * parameters.broadcast_bytes };
    2 * PAGE
        + pages(2 * world * 2 * LINE)
        + pages(staged)
        + pages(peers * (swap_region(parameters) + 2 * LINE))
        + pages(peers * migrate_slot(parameters, world))
        + pages(peers * parameters.window_bytes)
}

/// A pair's region for swap, in each direction.
fn swap_region(parameters: &Parameters) -> usize {
    parameters.swap_bytes.max(parameters.small_bytes)
}

/// A pair's slot for migrate.
fn migrate_slot(parameters: &Parameters, world: usize) -> usize {
    parameters.chunk_bytes.div_ceil(world).next_multiple_of(2 * LINE)
}

fn lines(bytes: u64) -> u64 {
    bytes.div_ceil(LINE as u64)
}
