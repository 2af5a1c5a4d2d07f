//! The memory behind a machine's devices: each has addresses of its own for what may be the same bytes.
//!
//! A *place* tells bytes apart over all devices: two addresses on two devices that lead to the same bytes have the same
//! place. The race detector and those who wait for a word go by places.

use std::cell::Cell;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What a device's loads and stores reach.
pub trait Memory {
    /// The place of `bytes` bytes at `address` of `device`; `None` where the device may not reach all of them.
    fn locate(&self, device: usize, address: u64, bytes: usize) -> Option<u64>;

    /// The places of so many bytes at an address of a multicast object, on all of its devices in their order.
    fn locate_all(&self, device: usize, address: u64, bytes: usize) -> Option<Vec<u64>> {
        let _ = (device, address, bytes);
        None
    }

    /// Reads the bytes at a place.
    fn load(&self, place: u64, into: &mut [u8]);

    /// Changes the bytes at a place.
    fn store(&mut self, place: u64, from: &[u8]);

    /// The time in nanoseconds, where others outside of this machine change the memory, too: then it passes as it does for
    /// them. `None` where nobody does: then it passes only when nothing else can happen.
    fn time(&self) -> Option<u64> {
        None
    }

    /// Nothing can happen until others have changed the memory: waits for them a little. `looks` is how often in a row this
    /// was asked. `false` if it is no use to wait any longer.
    fn wait_for_others(&self, looks: u32) -> bool {
        let _ = looks;
        true
    }
    /// Whether others than the machine's devices may change what is there while it runs.
    fn is_outside(&self, _place: u64) -> bool {
        false
    }
}

/// Words of the host's that devices reach and that threads of the host read and write at the same time.
pub trait Outside: fmt::Debug + Send + Sync {
    /// One of them, as long as there are so many.
    fn word(&self, index: usize) -> Option<&AtomicU64>;
}

/// Allocations in this process's own memory, mapped at any address of any device.
#[derive(Debug, Default)]
pub struct Allocations {
    bytes: Vec<u8>,
    devices: Vec<Mappings>,
    /// What lies outside, by its first place; the bytes there are not used.
    outside: Vec<Shared>,
}

#[derive(Debug)]
struct Shared {
    place: u64,
    bytes: u64,
    words: Arc<dyn Outside>,
}

#[derive(Debug, Default)]
struct Mappings {
    /// By address; they do not overlap.
    all: Vec<Mapping>,
    /// Multicast objects: all have the same bytes' worth on every device.
    multicast: Vec<MulticastMapping>,
    /// Where the last look-up ended: the next one is mostly about the same.
    last: Cell<usize>,
}

#[derive(Debug, Clone)]
struct MulticastMapping {
    address: u64,
    bytes: u64,
    places: Vec<u64>,
}

#[derive(Debug, Clone, Copy)]
struct Mapping {
    address: u64,
    bytes: u64,
    place: u64,
}

impl Mapping {
    fn place_of(&self, address: u64, bytes: u64) -> Option<u64> {
        let offset = address.checked_sub(self.address)?;
        (offset.checked_add(bytes)? <= self.bytes).then_some(self.place + offset)
    }
}

impl Allocations {
    /// For so many devices, with nothing in them.
    pub fn new(devices: usize) -> Self {
        let devices = (0..devices).map(|_| Mappings::default()).collect();
        Self { bytes: Vec::new(), devices, outside: Vec::new() }
    }

    /// New zeroed bytes; returns their place. No device can reach them yet.
    pub fn reserve(&mut self, bytes: usize) -> u64 {
        // Allocations begin at a multiple of 256, and never touch, so that one cannot be reached from another.
        let place = (self.bytes.len() + 256).next_multiple_of(256);
        self.bytes.resize(place + bytes, 0);
        place as u64
    }

    /// So many words of the host's; returns their place. Devices read and write them whole, or read the lower half.
    pub fn reserve_outside(&mut self, words: Arc<dyn Outside>, count: usize) -> u64 {
        let place = self.reserve(8 * count);
        self.outside.push(Shared { place, bytes: 8 * count as u64, words });
        place
    }

    /// The word outside at a place.
    fn outside_word(&self, place: u64) -> Option<&AtomicU64> {
        let at = self.outside.partition_point(|shared| shared.place <= place).checked_sub(1)?;
        let shared = &self.outside[at];
        let offset = place - shared.place;
        (offset < shared.bytes).then(|| shared.words.word(offset as usize / 8))?
    }

    /// Lets a device reach the bytes at a place under an address. `false` where another mapping is in the way, or where
    /// there is no such device or place.
    pub fn map(&mut self, device: usize, address: u64, place: u64, bytes: usize) -> bool {
        let new = Mapping { address, bytes: bytes as u64, place };
        let is_there = place.checked_add(new.bytes).is_some_and(|end| end <= self.bytes.len() as u64);
        let Some(end) = address.checked_add(new.bytes) else { return false };
        let Some(mappings) = self.devices.get_mut(device).filter(|_| is_there) else { return false };
        let position = mappings.all.partition_point(|other| other.address < address);
        let before = position.checked_sub(1).map(|before| mappings.all[before]);
        let is_free = before.is_none_or(|before| before.address + before.bytes <= address)
            && mappings.all.get(position).is_none_or(|after| end <= after.address);
        if is_free {
            mappings.all.insert(position, new);
        }
        is_free
    }

    /// Lets a device reach the bytes at several places, one per device, all at once under an address of a multicast object.
    /// `false` where there is no such device or place, or the address leads to something else.
    pub fn map_multicast(&mut self, device: usize, address: u64, places: &[u64], bytes: usize) -> bool {
        let ends = |start: u64| start.checked_add(bytes as u64);
        let are_there =
            places.iter().all(|place| ends(*place).is_some_and(|end| end <= self.bytes.len() as u64));
        let Some(end) = ends(address) else { return false };
        let Some(mappings) = self.devices.get_mut(device).filter(|_| are_there) else { return false };
        let is_apart = |other: u64, bytes: u64| end <= other || other + bytes <= address;
        let is_free = mappings.all.iter().all(|other| is_apart(other.address, other.bytes))
            && mappings.multicast.iter().all(|other| is_apart(other.address, other.bytes));
        if is_free {
            let mapping = MulticastMapping { address, bytes: bytes as u64, places: places.to_vec() };
            mappings.multicast.push(mapping);
        }
        is_free
    }

    /// Takes a multicast object away; `false` where none begins at the address.
    pub fn unmap_multicast(&mut self, device: usize, address: u64) -> bool {
        let Some(mappings) = self.devices.get_mut(device) else { return false };
        let before = mappings.multicast.len();
        mappings.multicast.retain(|mapping| mapping.address != address);
        mappings.multicast.len() < before
    }

    /// Takes a mapping away; `false` where none begins at the address.
    pub fn unmap(&mut self, device: usize, address: u64) -> bool {
        let Some(mappings) = self.devices.get_mut(device) else { return false };
        let found = mappings.all.iter().position(|mapping| mapping.address == address);
        found.is_some_and(|position| {
            mappings.last.set(0);
            mappings.all.remove(position);
            true
        })
    }
}

impl Memory for Allocations {
    fn locate(&self, device: usize, address: u64, bytes: usize) -> Option<u64> {
        let mappings = self.devices.get(device)?;
        let bytes = bytes as u64;
        let last = mappings.all.get(mappings.last.get()).and_then(|last| last.place_of(address, bytes));
        let found = last.or_else(|| {
            let position =
                mappings.all.partition_point(|mapping| mapping.address <= address).checked_sub(1)?;
            mappings.last.set(position);
            mappings.all[position].place_of(address, bytes)
        })?;
        let is_word = found.is_multiple_of(8) && matches!(bytes, 4 | 8);
        (is_word || !self.is_outside(found)).then_some(found)
    }

    fn locate_all(&self, device: usize, address: u64, bytes: usize) -> Option<Vec<u64>> {
        self.devices.get(device)?.multicast.iter().find_map(|mapping| {
            let offset = address.checked_sub(mapping.address)?;
            let is_within = offset.checked_add(bytes as u64)? <= mapping.bytes;
            is_within.then(|| mapping.places.iter().map(|place| place + offset).collect())
        })
    }

    fn load(&self, place: u64, into: &mut [u8]) {
        if let Some(word) = self.outside_word(place) {
            let length = into.len();
            into.copy_from_slice(&word.load(Ordering::SeqCst).to_le_bytes()[..length]);
            return;
        }
        let place = place as usize;
        into.copy_from_slice(&self.bytes[place..place + into.len()]);
    }

    fn store(&mut self, place: u64, from: &[u8]) {
        if let Some(word) = self.outside_word(place) {
            let mut bytes = word.load(Ordering::SeqCst).to_le_bytes();
            bytes[..from.len()].copy_from_slice(from);
            word.store(u64::from_le_bytes(bytes), Ordering::SeqCst);
            return;
        }
        let place = place as usize;
        self.bytes[place..place + from.len()].copy_from_slice(from);
    }

    fn is_outside(&self, place: u64) -> bool {
        self.outside_word(place).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_devices_reach_the_same_bytes_under_their_own_addresses() {
        let mut memory = Allocations::new(2);
        let place = memory.reserve(16);
        assert!(memory.map(0, 0x1000, place, 16) && memory.map(1, 0x7_0000, place, 16));
        let here = memory.locate(0, 0x1008, 4).unwrap();
        memory.store(here, &[1, 2, 3, 4]);
        let there = memory.locate(1, 0x7_0008, 4).unwrap();
        let mut found = [0; 4];
        memory.load(there, &mut found);
        assert_eq!((here, found), (there, [1, 2, 3, 4]));
    }

    #[derive(Debug)]
    struct Two([AtomicU64; 2]);

    impl Outside for Two {
        fn word(&self, index: usize) -> Option<&AtomicU64> {
            self.0.get(index)
        }
    }

    #[test]
    fn words_of_the_hosts_are_reached_whole_or_by_their_lower_half() {
        let words = Arc::new(Two([AtomicU64::new(0), AtomicU64::new(0)]));
        let mut memory = Allocations::new(1);
        let inside = memory.reserve(16);
        let place = memory.reserve_outside(words.clone(), 2);
        assert!(memory.map(0, 0x1000, place, 16) && memory.map(0, 0x2000, inside, 16));
        let second = memory.locate(0, 0x1008, 8).unwrap();
        memory.store(second, &7_u64.to_le_bytes());
        assert_eq!(words.0[1].load(Ordering::SeqCst), 7);
        words.0[1].store(0x9_0000_0005, Ordering::SeqCst);
        let mut half = [0; 4];
        memory.load(memory.locate(0, 0x1008, 4).unwrap(), &mut half);
        assert_eq!(half, [5, 0, 0, 0]);
        assert_eq!((memory.locate(0, 0x100c, 4), memory.locate(0, 0x1000, 16)), (None, None));
        assert!(memory.is_outside(second) && !memory.is_outside(inside) && !memory.is_outside(place + 16));
    }

    #[test]
    fn what_is_not_mapped_wholly_cannot_be_reached() {
        let mut memory = Allocations::new(1);
        let place = memory.reserve(16);
        assert!(memory.map(0, 0x1000, place, 16));
        assert_eq!(memory.locate(0, 0x100c, 8), None);
        assert_eq!(memory.locate(0, 0xfff, 1), None);
        assert_eq!(memory.locate(1, 0x1000, 1), None);
        assert!(!memory.map(0, 0x100f, place, 1) && !memory.map(0, 0xff8, place, 9));
        assert!(!memory.map(0, 0x2000, place, 17));
        assert!(memory.unmap(0, 0x1000) && !memory.unmap(0, 0x1000));
        assert_eq!(memory.locate(0, 0x1000, 1), None);
    }
}
