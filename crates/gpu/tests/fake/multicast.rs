//! `libcuda`'s memory without addresses, and its multicast objects, whose descriptors are files with a simulated object's handle.

use std::collections::HashMap;
use std::ffi::{c_int, c_uint, c_void};
use std::fs::File;
use std::os::fd::{BorrowedFd, IntoRawFd};
use std::os::unix::fs::FileExt;
use std::time::Duration;

use unisono_gpu::Driver;
use unisono_gpu::driver::Handle;
use unisono_os::memfd;

use crate::cuda::{INVALID_VALUE, code, now};
use crate::state::{State, lock};

const NOT_PERMITTED: c_int = 800;
/// `CU_DEVICE_ATTRIBUTE_MULTICAST_SUPPORTED`.
const SUPPORTED: c_int = 132;
/// What memory is in whole multiples of, and what objects are.
const GRANULARITY: usize = 16 << 10;
const OF_OBJECTS: usize = 32 << 10;
/// Where ranges are reserved: nowhere in this process.
const RESERVED: u64 = 1 << 52;
/// The device whose calls these are.
const OWN: c_int = 1;

/// Everything that `cuMemCreate` and `cuMulticastCreate` made, and addresses.
#[derive(Default)]
pub(crate) struct Memories {
    all: HashMap<u64, Memory>,
    last: u64,
    /// By their beginnings: how long, and what is mapped there.
    ranges: HashMap<u64, (usize, Option<u64>)>,
}

#[derive(Clone, Copy)]
enum Memory {
    Own { base: u64, bytes: usize },
    Object { handle: Handle, bytes: usize, has_joined: bool, all: Option<u64> },
}

impl Memories {
    fn add(&mut self, memory: Memory) -> u64 {
        self.last += 1;
        self.all.insert(self.last, memory);
        self.last
    }
}

#[repr(C)]
pub struct ObjectProperties {
    devices: c_uint,
    bytes: usize,
    handle_types: u64,
    flags: u64,
}

#[repr(C)]
pub struct AllocationProperties {
    kind: c_int,
    handle_types: c_int,
    location: [c_int; 2],
    for_windows: *mut c_void,
    flags: [u8; 8],
}

#[repr(C)]
pub struct Access {
    location: [c_int; 2],
    flags: c_int,
}

fn fits(properties: &AllocationProperties) -> bool {
    let AllocationProperties { kind, handle_types, location, for_windows, flags } = properties;
    (*kind, *handle_types, *location, *flags) == (1, 1, [1, OWN], [0; 8]) && for_windows.is_null()
}

fn or_invalid(done: Option<()>) -> c_int {
    done.map_or(INVALID_VALUE, |()| 0)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetAttribute(value: *mut c_int, attribute: c_int, device: c_int) -> c_int {
    if attribute != SUPPORTED || device != OWN {
        return INVALID_VALUE;
    }
    // SAFETY: the caller's place.
    unsafe { value.write(c_int::from(std::env::var_os("UNISONO_FAKE_NO_SWITCH").is_none())) };
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMulticastGetGranularity(
    granularity: *mut usize,
    properties: *const ObjectProperties,
    option: c_int,
) -> c_int {
    // SAFETY: the caller's properties.
    let properties = unsafe { &*properties };
    if option != 0 || !(2..=8).contains(&properties.devices) || properties.handle_types != 1 {
        return INVALID_VALUE;
    }
    // SAFETY: the caller's place.
    unsafe { granularity.write(OF_OBJECTS) };
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemGetAllocationGranularity(
    granularity: *mut usize,
    properties: *const AllocationProperties,
    option: c_int,
) -> c_int {
    // SAFETY: the caller's properties.
    if option != 0 || !fits(unsafe { &*properties }) {
        return INVALID_VALUE;
    }
    // SAFETY: the caller's place.
    unsafe { granularity.write(GRANULARITY) };
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMulticastCreate(object: *mut u64, properties: *const ObjectProperties) -> c_int {
    // SAFETY: the caller's properties.
    let ObjectProperties { devices, bytes, handle_types, flags } = unsafe { properties.read() };
    if handle_types != 1 || flags != 0 || !bytes.is_multiple_of(OF_OBJECTS) {
        return INVALID_VALUE;
    }
    now(|state| match state.device.create_multicast(devices as usize, bytes) {
        Ok(handle) => {
            let made = Memory::Object { handle, bytes, has_joined: false, all: None };
            // SAFETY: the caller's place.
            unsafe { object.write(lock(&state.memories).add(made)) };
            0
        }
        Err(_) => INVALID_VALUE,
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMulticastAddDevice(object: u64, device: c_int) -> c_int {
    now(|state| match lock(&state.memories).all.get_mut(&object) {
        Some(Memory::Object { handle, has_joined, .. }) if device == OWN && !*has_joined => {
            *has_joined = true;
            code(state.device.join_multicast(handle))
        }
        _ => INVALID_VALUE,
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMulticastBindMem(
    object: u64,
    at: usize,
    memory: u64,
    memory_at: usize,
    bytes: usize,
    flags: u64,
) -> c_int {
    if (at, memory_at, flags) != (0, 0, 0) {
        return INVALID_VALUE;
    }
    if std::env::var_os("UNISONO_FAKE_SLOW_BIND").is_some() {
        std::thread::sleep(Duration::from_secs(1));
    }
    now(|state| {
        let mut memories = lock(&state.memories);
        let Some(Memory::Own { base, bytes: found }) = memories.all.get(&memory).copied() else {
            return INVALID_VALUE;
        };
        let Some(Memory::Object { handle, bytes: needed, all, .. }) = memories.all.get_mut(&object) else {
            return INVALID_VALUE;
        };
        if (found, bytes) != (*needed, *needed) {
            return INVALID_VALUE;
        }
        // The real one waits until all devices have been added; here it is refused before.
        match state.device.bind_together(handle, base) {
            Ok(address) => {
                *all = Some(address);
                0
            }
            Err(_) => NOT_PERMITTED,
        }
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMulticastUnbind(object: u64, device: c_int, at: usize, bytes: usize) -> c_int {
    now(|state| match lock(&state.memories).all.get_mut(&object) {
        Some(Memory::Object { handle, bytes: whole, has_joined, all })
            if (device, at, bytes) == (OWN, 0, *whole) && all.is_some() =>
        {
            (*all, *has_joined) = (None, false);
            code(state.device.leave_together(handle).map(|_| ()))
        }
        _ => INVALID_VALUE,
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemCreate(
    memory: *mut u64,
    bytes: usize,
    properties: *const AllocationProperties,
    flags: u64,
) -> c_int {
    // SAFETY: the caller's properties.
    if flags != 0 || !bytes.is_multiple_of(GRANULARITY) || !fits(unsafe { &*properties }) {
        return INVALID_VALUE;
    }
    now(|state| match state.device.allocate(bytes) {
        Ok(base) => {
            // SAFETY: the caller's place.
            unsafe { memory.write(lock(&state.memories).add(Memory::Own { base, bytes })) };
            0
        }
        Err(_) => INVALID_VALUE,
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemRelease(memory: u64) -> c_int {
    now(|state| match lock(&state.memories).all.remove(&memory) {
        Some(Memory::Own { base, .. }) => code(state.device.free(base)),
        Some(Memory::Object { all: Some(_), .. }) | None => INVALID_VALUE,
        Some(Memory::Object { handle, has_joined, .. }) => {
            let left = state.device.leave_together(&handle);
            if has_joined { code(left.map(|_| ())) } else { 0 }
        }
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemAddressReserve(
    address: *mut u64,
    bytes: usize,
    alignment: usize,
    wanted: u64,
    flags: u64,
) -> c_int {
    let is_aligned = alignment.is_power_of_two() && alignment >= OF_OBJECTS;
    if !is_aligned || (wanted, flags) != (0, 0) || !bytes.is_multiple_of(GRANULARITY) {
        return INVALID_VALUE;
    }
    now(|state| {
        let mut memories = lock(&state.memories);
        memories.last += 1;
        let base = RESERVED + (memories.last << 32);
        memories.ranges.insert(base, (bytes, None));
        // SAFETY: the caller's place.
        unsafe { address.write(base) };
        0
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemAddressFree(address: u64, bytes: usize) -> c_int {
    now(|state| {
        let mut memories = lock(&state.memories);
        let is_free = memories.ranges.get(&address) == Some(&(bytes, None));
        or_invalid((is_free && memories.ranges.remove(&address).is_some()).then_some(()))
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemMap(address: u64, bytes: usize, at: usize, memory: u64, flags: u64) -> c_int {
    now(|state| {
        let mut memories = lock(&state.memories);
        let is_there = memories.all.contains_key(&memory) && (at, flags) == (0, 0);
        match memories.ranges.get_mut(&address) {
            Some((reserved, mapped @ None)) if is_there && *reserved == bytes => {
                *mapped = Some(memory);
                0
            }
            _ => INVALID_VALUE,
        }
    })
}

/// Only now does the device reach it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemSetAccess(
    address: u64,
    bytes: usize,
    access: *const Access,
    count: usize,
) -> c_int {
    // SAFETY: the caller's one description.
    let Access { location, flags } = unsafe { access.read() };
    if (count, location, flags) != (1, [1, OWN], 3) {
        return INVALID_VALUE;
    }
    now(|state| or_invalid(reach(state, address, bytes)))
}

fn reach(state: &State, address: u64, bytes: usize) -> Option<()> {
    let memories = lock(&state.memories);
    let (reserved, mapped) = memories.ranges.get(&address)?;
    let of = match memories.all.get(&(*mapped)?)? {
        Memory::Own { base, .. } => *base,
        Memory::Object { all, .. } => (*all)?,
    };
    if *reserved == bytes { state.device.alias(address, of, bytes).ok() } else { None }
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemUnmap(address: u64, bytes: usize) -> c_int {
    now(|state| {
        let mut memories = lock(&state.memories);
        match memories.ranges.get_mut(&address) {
            Some((reserved, mapped @ Some(_))) if *reserved == bytes => {
                *mapped = None;
                code(state.device.unalias(address))
            }
            _ => INVALID_VALUE,
        }
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemExportToShareableHandle(
    place: *mut c_void,
    memory: u64,
    kind: c_int,
    flags: u64,
) -> c_int {
    now(|state| {
        let Some(Memory::Object { handle, .. }) = lock(&state.memories).all.get(&memory).copied() else {
            return INVALID_VALUE;
        };
        let Ok(file) = memfd::create_sealed("unisono-fake", 64).map(File::from) else { return INVALID_VALUE };
        if (kind, flags) != (1, 0) || file.write_all_at(&handle, 0).is_err() {
            return INVALID_VALUE;
        }
        // SAFETY: the caller's place for a descriptor, which is the caller's from now on.
        unsafe { place.cast::<c_int>().write(file.into_raw_fd()) };
        0
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemImportFromShareableHandle(
    memory: *mut u64,
    descriptor: *mut c_void,
    kind: c_int,
) -> c_int {
    // SAFETY: the caller's descriptor, open until this returns.
    let file = unsafe { BorrowedFd::borrow_raw(descriptor.addr() as c_int) }.try_clone_to_owned();
    let mut handle = [0; 64];
    let is_read = file.is_ok_and(|file| File::from(file).read_exact_at(&mut handle, 0).is_ok());
    if kind != 1 || !is_read {
        return INVALID_VALUE;
    }
    now(|state| {
        let Ok(bytes) = state.device.bytes_together(&handle) else { return INVALID_VALUE };
        let found = Memory::Object { handle, bytes, has_joined: false, all: None };
        // SAFETY: the caller's place.
        unsafe { memory.write(lock(&state.memories).add(found)) };
        0
    })
}
