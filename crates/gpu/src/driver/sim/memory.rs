//! What a simulated device of this process reaches: memory that it shares with other processes, and memory that it was lent.
//!
//! Addresses are those of the process, so peers have other ones for the same bytes. The invariant: an access lies within one
//! region that is there, and is made of atomics, since other processes write at the same time: stores release, loads acquire.
//! A read-modify-write is a load and a store: for words of the own rank, as the kernels use them.

#![allow(unsafe_code)]

use std::cell::Cell;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use unisono_os::clock::monotonic_nanoseconds;
use unisono_os::mapping::Mapping;
use unisono_ptx_sim::Memory;

use super::together::Parts;
use crate::packet::HostWords;

/// Whose memory a region is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    /// Allocated here; others open it under this number.
    Here { number: usize },
    /// Another process's.
    Opened,
    /// Allocated here, for the host as well.
    Host,
    /// Of somebody in this process who keeps it.
    Lent,
    /// Words of the host's, which threads of the host read and write, too.
    Words,
    /// The memories of several devices, reached at once.
    Together,
    /// Another region's memory under another address.
    Alias,
}

/// What keeps a region's memory where it is, as long as anybody has it.
trait Keeper: fmt::Debug + Send + Sync {}
impl Keeper for Mapping {}
impl Keeper for HostWords {}

/// Bytes in a row that the device reaches.
#[derive(Debug, Clone)]
pub(super) struct Region {
    pub(super) base: u64,
    pub(super) bytes: usize,
    pub(super) owner: Owner,
    /// Where its first byte is in this process: at `base`, but for an alias.
    at: u64,
    /// Of what several devices have: where it is.
    pub(super) parts: Option<Arc<Parts>>,
    /// Nothing where it was lent.
    _keeper: Option<Arc<dyn Keeper>>,
}

impl Region {
    fn new(base: u64, bytes: usize, owner: Owner, keeper: Option<Arc<dyn Keeper>>) -> Self {
        Self { base, bytes, owner, at: base, parts: None, _keeper: keeper }
    }

    pub(super) fn mapped(mapping: Mapping, owner: Owner) -> Self {
        let (base, bytes) = (mapping.as_ptr().expose_provenance() as u64, mapping.len());
        Self::new(base, bytes, owner, Some(Arc::new(mapping)))
    }

    pub(super) fn lent(base: u64, bytes: usize) -> Self {
        Self::new(base, bytes, Owner::Lent, None)
    }

    pub(super) fn words(words: &Arc<HostWords>) -> Self {
        let (base, bytes) = words.pages();
        let keeper: Arc<HostWords> = Arc::clone(words);
        Self::new(base.expose_provenance() as u64, bytes, Owner::Words, Some(keeper))
    }

    /// Of an object, at the addresses of a mapping that nobody else uses, and nobody reads or writes.
    pub(super) fn together(addresses: Mapping, bytes: usize, parts: Arc<Parts>) -> Self {
        let base = addresses.as_ptr().expose_provenance() as u64;
        Self { parts: Some(parts), ..Self::new(base, bytes, Owner::Together, Some(Arc::new(addresses))) }
    }

    /// The same memory at another address.
    pub(super) fn alias(&self, base: u64, bytes: usize) -> Self {
        Self { base, bytes, owner: Owner::Alias, ..self.clone() }
    }

    /// Where in this process what the device has at an address is.
    pub(super) fn place_of(&self, address: u64) -> u64 {
        self.at + (address - self.base)
    }

    pub(super) fn contains(&self, address: u64, bytes: usize) -> bool {
        let offset = address.checked_sub(self.base);
        let end = offset.and_then(|offset| offset.checked_add(bytes as u64));
        end.is_some_and(|end| end <= self.bytes as u64)
    }

    fn overlaps(&self, base: u64, bytes: usize) -> bool {
        base < self.base + self.bytes as u64 && self.base < base + bytes as u64
    }
}

/// All regions, by address; changed by the host, looked at by the device.
#[derive(Debug, Default)]
pub(super) struct Regions {
    all: Mutex<Arc<Vec<Region>>>,
}

impl Regions {
    /// As they are now. Whoever holds them keeps their mappings.
    pub(super) fn now(&self) -> Arc<Vec<Region>> {
        Arc::clone(&self.all.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What was lent at the same place is forgotten: it cannot be there any more.
    pub(super) fn add(&self, region: Region) {
        self.change(|all| {
            all.retain(|old| old.owner != Owner::Lent || !old.overlaps(region.base, region.bytes));
            let position = all.partition_point(|old| old.base < region.base);
            all.insert(position, region);
        });
    }

    /// Takes out the region that begins at an address, if `is_it`.
    pub(super) fn remove(&self, base: u64, is_it: impl Fn(Owner) -> bool) -> Option<Region> {
        self.change(|all| {
            let position = all.iter().position(|region| region.base == base && is_it(region.owner))?;
            Some(all.remove(position))
        })
    }

    /// The region in which so many bytes lie.
    pub(super) fn find(&self, address: u64, bytes: usize) -> Option<Region> {
        self.now().iter().find(|region| region.contains(address, bytes)).cloned()
    }

    fn change<T>(&self, change: impl FnOnce(&mut Vec<Region>) -> T) -> T {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let mut changed = all.to_vec();
        let result = change(&mut changed);
        *all = Arc::new(changed);
        result
    }
}

/// The memory of a process's machine: a place is an address.
#[derive(Debug)]
pub(super) struct ProcessMemory {
    /// As they were when the present work began: what is taken away meanwhile stays mapped until it has ended.
    pub(super) regions: Arc<Vec<Region>>,
    last: Cell<usize>,
    /// Set when nobody wants to know any more how the present work ends.
    is_over: Arc<AtomicBool>,
}

impl ProcessMemory {
    pub(super) fn new(is_over: Arc<AtomicBool>) -> Self {
        Self { regions: Arc::default(), last: Cell::new(0), is_over }
    }
}

impl Memory for ProcessMemory {
    fn locate(&self, _device: usize, address: u64, bytes: usize) -> Option<u64> {
        let place_in = |index: usize| {
            let region = self.regions.get(index)?;
            (region.parts.is_none() && region.contains(address, bytes)).then(|| region.place_of(address))
        };
        if let Some(place) = place_in(self.last.get()) {
            return Some(place);
        }
        // Regions of the process's memory never overlap, but for a part of one that was lent besides.
        let after = self.regions.partition_point(|region| region.base <= address);
        let (found, place) = (0..after).rev().find_map(|index| Some((index, place_in(index)?)))?;
        self.last.set(found);
        Some(place)
    }

    fn locate_all(&self, _device: usize, address: u64, bytes: usize) -> Option<Vec<u64>> {
        let region = self.regions.iter().find(|region| region.contains(address, bytes))?;
        region.parts.as_ref()?.places(address - region.base)
    }

    fn load(&self, place: u64, into: &mut [u8]) {
        // SAFETY: `locate` gave the place: it lies within a region that `regions` keeps, or that its owner does.
        unsafe { load(place as usize, into) };
    }

    fn store(&mut self, place: u64, from: &[u8]) {
        // SAFETY: as above.
        unsafe { store(place as usize, from) };
    }

    fn time(&self) -> Option<u64> {
        Some(monotonic_nanoseconds())
    }

    fn wait_for_others(&self, looks: u32) -> bool {
        match looks {
            0..8 => std::thread::yield_now(),
            // A machine with fewer processors than ranks: let the others have them.
            _ => std::thread::sleep(Duration::from_micros(u64::from(looks.min(100)) * 5)),
        }
        !self.is_over.load(Ordering::Relaxed)
    }
}

/// The widest piece that begins at an address and is not longer than what is left.
fn width(address: usize, left: usize) -> usize {
    [8, 4, 2].into_iter().find(|width| address.is_multiple_of(*width) && *width <= left).unwrap_or(1)
}

/// # Safety
///
/// So many bytes are readable there, and nobody has a reference to them.
pub(super) unsafe fn load(from: usize, into: &mut [u8]) {
    let mut at = 0;
    while at < into.len() {
        let address = from + at;
        let width = width(address, into.len() - at);
        let to = &mut into[at..at + width];
        // SAFETY: aligned and within by `width`; readable by the caller's promise.
        unsafe {
            match width {
                8 => to.copy_from_slice(&atomic::<AtomicU64>(address).load(Ordering::Acquire).to_ne_bytes()),
                4 => to.copy_from_slice(&atomic::<AtomicU32>(address).load(Ordering::Acquire).to_ne_bytes()),
                2 => to.copy_from_slice(&atomic::<AtomicU16>(address).load(Ordering::Acquire).to_ne_bytes()),
                _ => to[0] = atomic::<AtomicU8>(address).load(Ordering::Acquire),
            }
        }
        at += width;
    }
}

/// # Safety
///
/// So many bytes are writable there, and nobody has a reference to them.
pub(super) unsafe fn store(to: usize, from: &[u8]) {
    let mut at = 0;
    while at < from.len() {
        let address = to + at;
        let width = width(address, from.len() - at);
        let part = &from[at..at + width];
        let mut wide = [0; 8];
        wide[..width].copy_from_slice(part);
        let [a, b, c, d, ..] = wide;
        // SAFETY: aligned and within by `width`; writable by the caller's promise.
        unsafe {
            match width {
                8 => atomic::<AtomicU64>(address).store(u64::from_ne_bytes(wide), Ordering::Release),
                4 => atomic::<AtomicU32>(address).store(u32::from_ne_bytes([a, b, c, d]), Ordering::Release),
                2 => atomic::<AtomicU16>(address).store(u16::from_ne_bytes([a, b]), Ordering::Release),
                _ => atomic::<AtomicU8>(address).store(a, Ordering::Release),
            }
        }
        at += width;
    }
}

/// # Safety
///
/// The address is aligned for the type and leads to memory that lives as long as the reference is used.
unsafe fn atomic<'a, T>(address: usize) -> &'a T {
    // SAFETY: the caller's promise.
    unsafe { &*std::ptr::with_exposed_provenance::<T>(address) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_as_wide_as_their_place_allows() {
        let mut memory = vec![0_u64; 8];
        let base = memory.as_mut_ptr().expose_provenance();
        let bytes: Vec<u8> = (1..=23).collect();
        for offset in [0, 1, 2, 4, 7] {
            // SAFETY: within the 64 bytes above, to which there is no reference.
            unsafe { store(base + offset, &bytes) };
            let mut found = vec![0; 23];
            // SAFETY: as above.
            unsafe { load(base + offset, &mut found) };
            assert_eq!(found, bytes, "{offset}");
        }
        assert_eq!([width(8, 16), width(4, 16), width(8, 7), width(6, 9), width(3, 9)], [8, 4, 4, 2, 1]);
    }

    #[test]
    fn what_is_lent_gives_way_and_other_memory_does_not() {
        let regions = Regions::default();
        regions.add(Region::lent(0x1000, 64));
        regions.add(Region::lent(0x1020, 64));
        assert!(regions.find(0x1000, 1).is_none() && regions.find(0x1020, 64).is_some());
        assert!(regions.find(0x1020, 65).is_none() && regions.find(u64::MAX, 2).is_none());
        assert!(regions.remove(0x1020, |_| false).is_none());
        assert!(regions.remove(0x1020, |owner| owner == Owner::Lent).is_some());
    }
}
