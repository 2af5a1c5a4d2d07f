//! Where things lie in a rank's shared memory. All ranks compute the same layout from the agreed parameters.
//!
//! Each rank owns one piece of memory, which all ranks of the group map:
//!
//! ```text
//!  0       header page      identity, arrival line, cause, records of the last calls
//!  4 KiB   death words      one per peer, held on the owner's robust list
//!  8 KiB   heads, tails     cursors of the windows: heads of what the owner sends, tails of what it receives
//!          broadcast        two buffers that the owner, as root, writes and all others read
//!          swap             one region per peer, its tag line first; the pair's other region lies in the peer's memory
//!          migrate          one slot per peer: the inbox of the owner as reducer
//!          windows          one per peer: what the peer sends to the owner
//! ```
//!
//! An allocation of registered memory is a piece of its own per rank: the header page, which says whose it is, and data.
//!
//! The one invariant that matters: every offset comes from here, computed from parameters that were checked, and
//! never from anything read out of shared memory.

use unisono_protocol::{ArrivalLine, Cursor, Tag};

use super::header::Header;
use crate::error::{Error, Result};
pub(crate) use crate::memory::LINE;
use crate::parameters::Parameters;

/// The unit that the owner touches first.
pub(crate) const PAGE: usize = 4096;

/// The offset of the death words.
pub(crate) const DEATH_WORDS: usize = PAGE;
const CURSORS: usize = 2 * PAGE;
/// Bytes that a message may have to stand in the line of its tag.
pub(crate) const BESIDE_TAG: usize = LINE - size_of::<Tag>();
/// The offset of registered data.
const REGISTERED: usize = PAGE;

const _: () = assert!(size_of::<Header>() <= PAGE);
const _: () = assert!(size_of::<ArrivalLine>() == 128 && size_of::<Cursor>() == 128);

/// Offsets and sizes in a rank's memory, in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    world: usize,
    /// A pair's region for swap: the data behind its tag.
    pub(crate) swap_bytes: usize,
    /// A pair's slot for migrate.
    pub(crate) migrate_bytes: usize,
    /// One of the two broadcast buffers.
    pub(crate) broadcast_bytes: usize,
    /// A pair's window.
    pub(crate) window_bytes: usize,
    /// Registered data.
    pub(crate) registered_bytes: usize,
    broadcast: usize,
    swap: usize,
    migrate: usize,
    windows: usize,
    total: usize,
}

impl Layout {
    /// The layout for a world of `world` ranks.
    ///
    /// # Errors
    /// If the parameters are out of bounds or the sum does not fit the address space.
    pub(crate) fn new(world: usize, parameters: &Parameters) -> Result<Self> {
        parameters.check()?;
        let peers = world.saturating_sub(1);
        // A single rank has nobody to stage for.
        let staged = |bytes: usize| if peers == 0 { 0 } else { bytes.next_multiple_of(2 * LINE) };
        let mut layout = Layout {
            world,
            swap_bytes: staged(parameters.swap_bytes.max(parameters.small_bytes)),
            migrate_bytes: staged(parameters.chunk_bytes.div_ceil(world).max(LINE)),
            broadcast_bytes: staged(parameters.broadcast_bytes),
            window_bytes: staged(parameters.window_bytes),
            registered_bytes: 0,
            broadcast: 0,
            swap: 0,
            migrate: 0,
            windows: 0,
            total: 0,
        };
        let mut end = CURSORS;
        let mut place = |count: usize, bytes: usize| -> Option<usize> {
            let start = end.checked_next_multiple_of(PAGE)?;
            end = start.checked_add(count.checked_mul(bytes)?)?;
            Some(start)
        };
        let sizes = layout.clone();
        let placed = (|| {
            place(2 * world, size_of::<Cursor>())?;
            layout.broadcast = place(2, sizes.broadcast_bytes)?;
            layout.swap = place(peers, sizes.swap_stride())?;
            layout.migrate = place(peers, sizes.migrate_bytes)?;
            layout.windows = place(peers, sizes.window_bytes)?;
            layout.total = place(0, 0)?;
            isize::try_from(layout.total).ok()
        })();
        placed.map(|_| layout).ok_or_else(|| Error::Setting {
            name: "parameters".to_string(),
            value: format!("{parameters:?}"),
            problem: format!("the staging for {world} ranks does not fit the address space"),
        })
    }

    /// The layout of an allocation of `bytes` bytes per rank.
    ///
    /// # Errors
    /// If it does not fit the address space.
    pub(crate) fn registered(world: usize, bytes: usize) -> Result<Self> {
        let total = bytes
            .checked_next_multiple_of(PAGE)
            .and_then(|data| data.checked_add(REGISTERED))
            .filter(|total| isize::try_from(*total).is_ok())
            .ok_or_else(|| Error::argument("alloc", format!("{bytes} bytes do not fit the address space")))?;
        Ok(Layout {
            world,
            swap_bytes: 0,
            migrate_bytes: 0,
            broadcast_bytes: 0,
            window_bytes: 0,
            registered_bytes: bytes,
            broadcast: 0,
            swap: 0,
            migrate: 0,
            windows: 0,
            total,
        })
    }

    /// The size of one rank's memory.
    pub(crate) fn total(&self) -> usize {
        self.total
    }

    /// Where `peer` stands among the peers of `owner`.
    #[inline]
    fn slot(&self, owner: usize, peer: usize) -> usize {
        debug_assert!(owner != peer && owner < self.world && peer < self.world);
        if peer < owner { peer } else { peer - 1 }
    }

    /// The cursor that the owner moves as it sends to `peer`.
    #[inline]
    pub(crate) fn head(&self, peer: usize) -> usize {
        CURSORS + peer * size_of::<Cursor>()
    }

    /// The cursor that the owner moves as it receives from `peer`.
    #[inline]
    pub(crate) fn tail(&self, peer: usize) -> usize {
        CURSORS + (self.world + peer) * size_of::<Cursor>()
    }

    /// The owner's broadcast buffer 0 or 1.
    #[inline]
    pub(crate) fn broadcast(&self, buffer: usize) -> usize {
        self.broadcast + (buffer & 1) * self.broadcast_bytes
    }

    /// From one swap region to the next: a line for the tag, the data, and a line to keep neighbours apart.
    fn swap_stride(&self) -> usize {
        if self.swap_bytes == 0 { 0 } else { self.swap_bytes + 2 * LINE }
    }

    /// The swap region in the owner's memory that it shares with `peer`: a line with room for [`BESIDE_TAG`] bytes and the tag,
    /// then the data.
    #[inline]
    pub(crate) fn swap(&self, owner: usize, peer: usize) -> usize {
        self.swap + self.slot(owner, peer) * self.swap_stride()
    }

    /// The slot in which `sender` hands its slice to the owner as reducer.
    #[inline]
    pub(crate) fn migrate(&self, owner: usize, sender: usize) -> usize {
        self.migrate + self.slot(owner, sender) * self.migrate_bytes
    }

    /// The registered data.
    #[inline]
    pub(crate) fn data(&self) -> usize {
        REGISTERED
    }

    /// The window in which `sender` sends to the owner.
    #[inline]
    pub(crate) fn window(&self, owner: usize, sender: usize) -> usize {
        self.windows + self.slot(owner, sender) * self.window_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_regions_overlap_and_all_lie_inside() {
        for world in [1usize, 2, 3, 8, 64] {
            let layout = Layout::new(world, &Parameters::for_world(world)).unwrap();
            for owner in 0..world {
                let mut regions = vec![(0, size_of::<Header>()), (DEATH_WORDS, PAGE)];
                for peer in (0..world).filter(|peer| *peer != owner) {
                    regions.push((layout.swap(owner, peer), LINE + layout.swap_bytes));
                    regions.push((layout.migrate(owner, peer), layout.migrate_bytes));
                    regions.push((layout.window(owner, peer), layout.window_bytes));
                    regions.push((layout.head(peer), 128));
                    regions.push((layout.tail(peer), 128));
                }
                regions.extend([0, 1].map(|buffer| (layout.broadcast(buffer), layout.broadcast_bytes)));
                regions.retain(|(_, bytes)| *bytes > 0);
                regions.sort_unstable();
                for pair in regions.windows(2) {
                    assert!(pair[0].0 + pair[0].1 <= pair[1].0, "{pair:?} overlap at world {world}");
                }
                let (start, bytes) = regions.last().copied().unwrap();
                assert!(start + bytes <= layout.total());
                assert_eq!(layout.total() % PAGE, 0);
            }
        }
    }

    #[test]
    fn eight_ranks_need_less_than_16_mib_each() {
        for world in 1..=8 {
            let layout = Layout::new(world, &Parameters::for_world(world)).unwrap();
            assert!(layout.total() <= 16 << 20, "world {world}: {} bytes", layout.total());
        }
    }
}
