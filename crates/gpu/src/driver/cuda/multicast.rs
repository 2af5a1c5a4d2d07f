//! Multicast objects: memory of several devices behind a switch that adds, reached at once.
//!
//! Whoever makes an object offers its descriptor to the others under a name, which is in the handle. Each device then gives it a
//! memory of its own, and has two ranges of addresses: its memory, and the object. The invariant: what was made is taken down in the
//! opposite order, as far as it was made.

#![allow(unsafe_code)]

use std::collections::HashMap;
use std::ffi::c_int;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr::null_mut;
use std::sync::{Mutex, MutexGuard};

use super::super::offered::{NAME_BYTES, Offered, take};
use super::super::{Handle, Multicast};
use super::api::{self, Access, Address, AllocationProperties, Location, Memory, ObjectProperties, Switch};
use super::shared::{Shared, load_switch, lock};
use crate::error::Error;
use crate::layout::MAX_RANKS;

/// What handles begin with: behind it a name, how many bytes were asked for, how many that makes, and the granularity.
const TAG: &[u8; 16] = b"unisono-cuda-mc\0";

/// The objects in which a device takes part, by their handles.
#[derive(Debug, Default)]
pub(super) struct Multicasts {
    all: Mutex<HashMap<Handle, Part>>,
}

#[derive(Debug)]
struct Part {
    object: Memory,
    has_joined: bool,
    bound: Bound,
    /// Of whoever made the object.
    _offered: Option<Offered>,
}

/// What was made so far of a device's part.
#[derive(Debug, Default, Clone, Copy)]
struct Bound {
    bytes: usize,
    /// What addresses are multiples of.
    granularity: usize,
    memory: Option<Memory>,
    is_bound: bool,
    own: Option<Range>,
    all: Option<Range>,
}

/// Addresses.
#[derive(Debug, Clone, Copy)]
struct Range {
    base: Address,
    is_mapped: bool,
}

impl Bound {
    /// A thread is asking the driver to bind: nobody else knows what there is to be taken down.
    fn is_under_way(&self) -> bool {
        self.bytes != 0 && self.memory.is_none()
    }
}

/// Asked for, rounded up, and to what.
fn lengths(handle: &Handle) -> (usize, usize, usize) {
    let number =
        |at: usize| handle[at..at + 8].iter().rev().fold(0, |word, byte| word << 8 | usize::from(*byte));
    (number(32), number(40), number(48))
}

fn refused(call: &'static str, reason: impl Into<String>) -> Error {
    Error::Driver { call, reason: reason.into() }
}

impl Shared {
    pub(super) fn create_multicast(&self, devices: usize, bytes: usize) -> Result<Handle, Error> {
        const CALL: &str = "cuMulticastCreate";
        let switch = self.switch()?;
        if !(2..=MAX_RANKS).contains(&devices) || bytes == 0 {
            return Err(refused(CALL, format!("{bytes} bytes of each of {devices} devices")));
        }
        let mut properties = ObjectProperties {
            devices: devices as u32,
            bytes,
            handle_types: api::FILE_DESCRIPTOR as u64,
            flags: 0,
        };
        let (mut of_object, mut of_memory) = (0, 0);
        // SAFETY: the properties as declared; a place for one size.
        self.call_uncaptured("cuMulticastGetGranularity", || unsafe {
            (switch.cuMulticastGetGranularity)(
                &raw mut of_object,
                &raw const properties,
                api::GRANULARITY_MINIMUM,
            )
        })?;
        let of_device = self.memory_properties();
        // SAFETY: as above.
        self.call_uncaptured("cuMemGetAllocationGranularity", || unsafe {
            (switch.cuMemGetAllocationGranularity)(
                &raw mut of_memory,
                &raw const of_device,
                api::GRANULARITY_MINIMUM,
            )
        })?;
        // Both are powers of two.
        let granularity = of_object.max(of_memory).max(1);
        let whole = bytes.checked_next_multiple_of(granularity);
        properties.bytes = whole.ok_or_else(|| refused(CALL, format!("{bytes} bytes of each device")))?;
        let mut object = 0;
        // SAFETY: the properties as declared; a place for one handle.
        self.call_uncaptured(CALL, || unsafe {
            (switch.cuMulticastCreate)(&raw mut object, &raw const properties)
        })?;
        let offered = self.offer(&switch, object, devices - 1);
        let (name, offered) = match offered {
            Ok(offered) => offered,
            Err(problem) => {
                let _ = self.release(&switch, object);
                return Err(problem);
            }
        };
        let mut handle = [0; 64];
        handle[..16].copy_from_slice(TAG);
        handle[16..32].copy_from_slice(&name);
        handle[32..40].copy_from_slice(&(bytes as u64).to_le_bytes());
        handle[40..48].copy_from_slice(&(properties.bytes as u64).to_le_bytes());
        handle[48..56].copy_from_slice(&(granularity as u64).to_le_bytes());
        let part = Part { object, has_joined: false, bound: Bound::default(), _offered: Some(offered) };
        lock(&self.multicasts.all).insert(handle, part);
        Ok(handle)
    }

    /// Offers an object's descriptor to the others.
    fn offer(
        &self,
        switch: &Switch,
        object: Memory,
        takers: usize,
    ) -> Result<([u8; NAME_BYTES], Offered), Error> {
        const CALL: &str = "cuMemExportToShareableHandle";
        let mut descriptor: c_int = -1;
        // SAFETY: of this type of handle, a place for a descriptor.
        self.call_uncaptured(CALL, || unsafe {
            let place = (&raw mut descriptor).cast();
            (switch.cuMemExportToShareableHandle)(place, object, api::FILE_DESCRIPTOR, 0)
        })?;
        if descriptor < 0 {
            return Err(refused(CALL, "the driver gave no descriptor"));
        }
        // SAFETY: the driver has opened it for us, and knows it no more.
        let descriptor = unsafe { OwnedFd::from_raw_fd(descriptor) };
        let name = unisono_os::random::bytes().map_err(|problem| refused(CALL, problem.to_string()))?;
        let offered = Offered::new(descriptor, name, takers).map_err(|problem| refused(CALL, problem))?;
        Ok((name, offered))
    }

    pub(super) fn join_multicast(&self, handle: &Handle) -> Result<(), Error> {
        const CALL: &str = "cuMulticastAddDevice";
        let switch = self.switch()?;
        let mut all = lock(&self.multicasts.all);
        if !all.contains_key(handle) {
            let object = self.import(&switch, handle)?;
            let part = Part { object, has_joined: false, bound: Bound::default(), _offered: None };
            all.insert(*handle, part);
        }
        let part = all.get_mut(handle).filter(|part| !part.has_joined);
        let part = part.ok_or_else(|| refused(CALL, "the device has joined already"))?;
        let (object, device) = (part.object, self.device);
        // SAFETY: an object that is there, and the own device.
        self.call_uncaptured(CALL, || unsafe { (switch.cuMulticastAddDevice)(object, device) })?;
        part.has_joined = true;
        Ok(())
    }

    fn import(&self, switch: &Switch, handle: &Handle) -> Result<Memory, Error> {
        const CALL: &str = "cuMemImportFromShareableHandle";
        let (asked, whole, granularity) = lengths(handle);
        let is_rounded = granularity.is_power_of_two() && asked <= whole && whole.is_multiple_of(granularity);
        if handle[..16] != TAG[..] || handle[56..] != [0; 8] || !is_rounded {
            return Err(refused(CALL, "the handle is of no multicast object"));
        }
        let mut name = [0; NAME_BYTES];
        name.copy_from_slice(&handle[16..32]);
        let descriptor = take(name).map_err(|problem| refused(CALL, problem))?;
        let mut object = 0;
        // SAFETY: of this type of handle, the descriptor's number in place of a pointer, open until the call has returned; a place
        // for one handle.
        self.call_uncaptured(CALL, || unsafe {
            let number = std::ptr::without_provenance_mut(descriptor.as_raw_fd() as usize);
            (switch.cuMemImportFromShareableHandle)(&raw mut object, number, api::FILE_DESCRIPTOR)
        })?;
        Ok(object)
    }

    pub(super) fn bind_multicast(&self, handle: &Handle) -> Result<Multicast, Error> {
        const CALL: &str = "cuMulticastBindMem";
        let switch = self.switch()?;
        let object = {
            let mut all = lock(&self.multicasts.all);
            let part = all.get_mut(handle).filter(|part| part.has_joined);
            let part = part.ok_or_else(|| refused(CALL, "the device has not joined"))?;
            if part.bound.bytes != 0 {
                return Err(refused(CALL, "the device has bound already"));
            }
            // The lock is not held while the driver waits for other devices; nobody else binds meanwhile.
            part.bound.bytes = lengths(handle).1;
            part.object
        };
        let (asked, bytes, granularity) = lengths(handle);
        let mut bound = Bound { bytes, granularity, ..Bound::default() };
        let found = self.bind(&switch, object, &mut bound);
        if found.is_err() {
            let _ = self.take_down(&switch, object, bound);
            bound = Bound::default();
        }
        // It is there: nobody leaves meanwhile.
        if let Some(part) = lock(&self.multicasts.all).get_mut(handle) {
            part.bound = bound;
        }
        let [own, all] = found?;
        Ok(Multicast { own, all, bytes: asked })
    }

    /// Where the own memory is, and all memories at once.
    fn bind(&self, switch: &Switch, object: Memory, bound: &mut Bound) -> Result<[Address; 2], Error> {
        let (bytes, properties) = (bound.bytes, self.memory_properties());
        let mut memory = 0;
        // SAFETY: the properties as declared; a place for one handle.
        self.call_uncaptured("cuMemCreate", || unsafe {
            (switch.cuMemCreate)(&raw mut memory, bytes, &raw const properties, 0)
        })?;
        bound.memory = Some(memory);
        // SAFETY: both are there, and as long.
        self.call_uncaptured("cuMulticastBindMem", || unsafe {
            (switch.cuMulticastBindMem)(object, 0, memory, 0, bytes, 0)
        })?;
        bound.is_bound = true;
        let own = self.map(switch, memory, (bytes, bound.granularity), &mut bound.own)?;
        let all = self.map(switch, object, (bytes, bound.granularity), &mut bound.all)?;
        Ok([own, all])
    }

    /// Gives memory or an object addresses at which the own device reads and writes it.
    fn map(
        &self,
        switch: &Switch,
        memory: Memory,
        (bytes, granularity): (usize, usize),
        range: &mut Option<Range>,
    ) -> Result<Address, Error> {
        let mut base = 0;
        // SAFETY: a place for one address; 0 leaves the address to the driver, but for what it is a multiple of.
        self.call_uncaptured("cuMemAddressReserve", || unsafe {
            (switch.cuMemAddressReserve)(&raw mut base, bytes, granularity, 0, 0)
        })?;
        let reserved = range.insert(Range { base, is_mapped: false });
        // SAFETY: so many addresses were just reserved, and so much is there.
        self.call_uncaptured("cuMemMap", || unsafe { (switch.cuMemMap)(base, bytes, 0, memory, 0) })?;
        reserved.is_mapped = true;
        let access = Access { location: self.location(), flags: api::READ_WRITE };
        // SAFETY: of the range that was just mapped; one description.
        self.call_uncaptured("cuMemSetAccess", || unsafe {
            (switch.cuMemSetAccess)(base, bytes, &raw const access, 1)
        })?;
        Ok(base)
    }

    pub(super) fn leave_multicast(&self, handle: &Handle) -> Result<(), Error> {
        const CALL: &str = "cuMulticastUnbind";
        let switch = self.switch()?;
        let mut all = lock(&self.multicasts.all);
        if all.get(handle).is_some_and(|part| part.bound.is_under_way()) {
            return Err(refused(CALL, "another thread binds memory to it: leave once that has ended"));
        }
        let part = all.remove(handle).ok_or_else(|| refused(CALL, "the device takes no part in it"))?;
        drop(all);
        let done = self.take_down(&switch, part.object, part.bound);
        done.and(self.release(&switch, part.object))
    }

    /// What is left when the device is given up.
    pub(super) fn leave_all(&self) {
        let handles: Vec<Handle> = self.parts().keys().copied().collect();
        // Nothing can be done about an error here.
        handles.iter().for_each(|handle| drop(self.leave_multicast(handle)));
    }

    fn parts(&self) -> MutexGuard<'_, HashMap<Handle, Part>> {
        lock(&self.multicasts.all)
    }

    /// All of it, also where a part cannot be; the first error.
    fn take_down(&self, switch: &Switch, object: Memory, bound: Bound) -> Result<(), Error> {
        let (bytes, device) = (bound.bytes, self.device);
        let mut done = Vec::new();
        for Range { base, is_mapped } in [bound.all, bound.own].into_iter().flatten() {
            if is_mapped {
                // SAFETY: mapped by `map`, so long; no launch uses it any more.
                done.push(self.call_uncaptured("cuMemUnmap", || unsafe { (switch.cuMemUnmap)(base, bytes) }));
            }
            // SAFETY: reserved by `map`, so long.
            done.push(
                self.call_uncaptured("cuMemAddressFree", || unsafe {
                    (switch.cuMemAddressFree)(base, bytes)
                }),
            );
        }
        if bound.is_bound {
            // SAFETY: bound by `bind`, so long.
            done.push(self.call_uncaptured("cuMulticastUnbind", || unsafe {
                (switch.cuMulticastUnbind)(object, device, 0, bytes)
            }));
        }
        done.extend(bound.memory.map(|memory| self.release(switch, memory)));
        done.into_iter().collect()
    }

    fn release(&self, switch: &Switch, memory: Memory) -> Result<(), Error> {
        // SAFETY: a handle of ours, given back once.
        self.call_uncaptured("cuMemRelease", || unsafe { (switch.cuMemRelease)(memory) })
    }

    fn location(&self) -> Location {
        Location { kind: api::ON_DEVICE, device: self.device }
    }

    fn memory_properties(&self) -> AllocationProperties {
        AllocationProperties {
            kind: api::PINNED,
            handle_types: api::FILE_DESCRIPTOR,
            location: self.location(),
            for_windows: null_mut(),
            flags: [0; 8],
        }
    }

    /// The driver's functions, if driver and device have multicast objects.
    fn switch(&self) -> Result<Switch, Error> {
        let switch = load_switch()?;
        let mut can = 0;
        // SAFETY: a place for one number.
        self.call("cuDeviceGetAttribute", || unsafe {
            (switch.cuDeviceGetAttribute)(&raw mut can, api::MULTICAST_SUPPORTED, self.device)
        })?;
        let why = || format!("device {} has no switch that adds (NVSwitch, from Hopper on)", self.device);
        if can == 0 { Err(Error::NoMulticast { why: why() }) } else { Ok(switch) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structs_are_laid_out_as_the_vendor_declares_them() {
        // `cuda.h` on 64-bit machines.
        assert_eq!(size_of::<ObjectProperties>(), 32);
        assert_eq!(size_of::<AllocationProperties>(), 32);
        assert_eq!((size_of::<Location>(), size_of::<Access>()), (8, 12));
    }
}
