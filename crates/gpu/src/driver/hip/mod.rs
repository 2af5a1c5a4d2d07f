//! AMD's devices, through `libamdhip64`, the runtime of ROCm, which is loaded at run time.
//!
//! Every call is made with the device current for the calling thread, and what was current before is so again afterwards; it may
//! come from any thread. Which generation a device is of is found out by loading: of the shipped code objects the runtime
//! takes the one that is for it.

#![allow(unsafe_code)]

mod api;
mod shared;

use std::ffi::{CStr, c_char, c_int};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use unisono_os::fork_guard::ForkMark;

use self::api::{IpcHandle, Pointer, SUCCESS};
use self::shared::{Modules, Shared, check, load, lock, no_host_memory, pointer, zero_terminated};
use super::{Allocation, Driver, Handle, Link, Multicast};
use crate::artefacts::Code;
use crate::error::Error;
use crate::packet::{HostWords, MapHost};

/// The names under which ROCm's runtime is looked for, unless `UNISONO_HIP_LIBRARY` names a file. One that torch has loaded
/// already is found by its name, too.
pub const LIBRARY_NAMES: [&str; 5] = [
    "libamdhip64.so.7",
    "libamdhip64.so.6",
    "libamdhip64.so.5",
    "libamdhip64.so",
    "/opt/rocm/lib/libamdhip64.so",
];

/// Why there are no multicast objects.
const NO_MULTICAST: &str = "AMD's devices have no switch that adds";

/// One device and one stream on it: clones have streams of their own from then on.
#[derive(Debug)]
pub struct Device {
    shared: Arc<Shared>,
    stream: AtomicU64,
}

impl Clone for Device {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), stream: AtomicU64::new(self.stream.load(Ordering::Relaxed)) }
    }
}

/// A loaded kernel: the runtime's pointer to it.
#[derive(Debug, Clone, Copy)]
pub struct Kernel(usize);

impl Device {
    /// A device by its number, as this process counts them.
    ///
    /// # Errors
    ///
    /// [`Error::NoLibrary`] where there is no runtime; [`Error::Driver`] where it has no such device.
    pub fn new(index: usize) -> Result<Self, Error> {
        let hip = load()?;
        let mut count = 0;
        // SAFETY: a place for one number.
        check(&hip, "hipGetDeviceCount", unsafe { (hip.hipGetDeviceCount)(&raw mut count) })?;
        let device = c_int::try_from(index).ok().filter(|device| *device < count);
        let device = device.ok_or_else(|| Error::Driver {
            call: "hipSetDevice",
            reason: format!("there is no device {index}; there are {count}"),
        })?;
        let mut shared = Shared {
            hip,
            device,
            own_stream: 0,
            modules: Mutex::default(),
            host: Mutex::default(),
            words: Mutex::default(),
            born: ForkMark::now(),
        };
        let mut own_stream = null_mut();
        // SAFETY: a place for one pointer.
        shared.call("hipStreamCreateWithFlags", || unsafe {
            (hip.hipStreamCreateWithFlags)(&raw mut own_stream, api::NON_BLOCKING)
        })?;
        shared.own_stream = own_stream.addr();
        Ok(Self { shared: Arc::new(shared), stream: AtomicU64::new(0) })
    }

    /// Whether this process's device of another address on the bus can be given access to.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`].
    pub fn can_access_peer(&self, peer: &str) -> Result<bool, Error> {
        let (hip, mut can) = (&self.shared.hip, 0);
        let peer = self.by_bus(peer)?;
        // SAFETY: a place for one number.
        check(hip, "hipDeviceCanAccessPeer", unsafe {
            (hip.hipDeviceCanAccessPeer)(&raw mut can, self.shared.device, peer)
        })?;
        Ok(can != 0)
    }

    fn by_bus(&self, bus: &str) -> Result<c_int, Error> {
        let (hip, mut device) = (&self.shared.hip, 0);
        let bus = zero_terminated(bus)?;
        // SAFETY: the text ends with a zero; a place for one number.
        check(hip, "hipDeviceGetByPCIBusId", unsafe {
            (hip.hipDeviceGetByPCIBusId)(&raw mut device, bus.as_ptr())
        })?;
        Ok(device)
    }

    fn stream(&self) -> Pointer {
        pointer(self.stream.load(Ordering::Relaxed))
    }

    /// Zeroes what was just allocated; gives it back if that fails.
    fn zeroed(&self, base: Pointer, bytes: usize) -> Result<u64, Error> {
        let (shared, hip) = (&*self.shared, &self.shared.hip);
        let stream = pointer(shared.own_stream as u64);
        // SAFETY: so many bytes were just allocated there.
        let done = shared
            .call_uncaptured("hipMemsetAsync", || unsafe { (hip.hipMemsetAsync)(base, 0, bytes, stream) });
        let done = done.and_then(|()| {
            // SAFETY: the stream is our own.
            shared.call_uncaptured("hipStreamSynchronize", || unsafe { (hip.hipStreamSynchronize)(stream) })
        });
        let address = base.expose_provenance() as u64;
        match done {
            Ok(()) => Ok(address),
            Err(error) => {
                // What went wrong first is what is told.
                let _ = self.free(address);
                Err(error)
            }
        }
    }

    /// The first of the code objects that the runtime takes for this device.
    fn module(&self, modules: &mut Modules, code: &Code) -> Result<usize, Error> {
        let key = key_of(code);
        if let Some(module) = modules.loaded.get(&key) {
            return Ok(*module);
        }
        let (hip, mut module) = (&self.shared.hip, null_mut());
        for (_, image) in code.code_objects.into_iter().filter(|(_, image)| !image.is_empty()) {
            let mut said = SUCCESS;
            // SAFETY: a whole code object, whose header says how long it is; a place for one pointer.
            let loaded = self.shared.call_uncaptured("hipModuleLoadData", || unsafe {
                said = (hip.hipModuleLoadData)(&raw mut module, image.as_ptr().cast());
                said
            });
            match loaded {
                Ok(()) => {
                    modules.loaded.insert(key, module.addr());
                    return Ok(module.addr());
                }
                Err(_) if said == api::NO_BINARY_FOR_GPU || api::OTHER_IMAGE.contains(&said) => {}
                Err(error) => return Err(error),
            }
        }
        let generations = code.code_objects.map(|(generation, _)| generation).join(", ");
        Err(Error::Driver {
            call: "hipModuleLoadData",
            reason: format!("the device takes none of the code objects there are, for {generations}"),
        })
    }

    fn copy_as(
        &self,
        to: Pointer,
        from: *const std::ffi::c_void,
        bytes: usize,
        kind: c_int,
    ) -> Result<(), Error> {
        // SAFETY: the runtime checks what is device memory; callers keep the host's until the stream has been waited for.
        self.shared.call("hipMemcpyAsync", || unsafe {
            (self.shared.hip.hipMemcpyAsync)(to, from, bytes, kind, self.stream())
        })
    }

    fn refuse_capturing(&self, what: &'static str) -> Result<(), Error> {
        if self.is_capturing()? { Err(Error::Capturing { what }) } else { Ok(()) }
    }
}

impl Driver for Device {
    type Kernel = Kernel;

    fn allocate(&self, bytes: usize) -> Result<u64, Error> {
        let mut base = null_mut();
        let hip = &self.shared.hip;
        // SAFETY: a place for one pointer.
        self.shared.call_uncaptured("hipMalloc", || unsafe { (hip.hipMalloc)(&raw mut base, bytes) })?;
        self.zeroed(base, bytes)
    }

    fn allocate_uncached(&self, bytes: usize) -> Result<u64, Error> {
        let mut base = null_mut();
        // SAFETY: a place for one pointer.
        self.shared.call_uncaptured("hipExtMallocWithFlags", || unsafe {
            (self.shared.hip.hipExtMallocWithFlags)(&raw mut base, bytes, api::UNCACHED)
        })?;
        self.zeroed(base, bytes)
    }

    fn free(&self, base: u64) -> Result<(), Error> {
        // SAFETY: the runtime refuses what it has not allocated.
        self.shared.call_uncaptured("hipFree", || unsafe { (self.shared.hip.hipFree)(pointer(base)) })
    }

    fn allocate_host(&self, bytes: usize) -> Result<u64, Error> {
        let (shared, hip) = (&*self.shared, &self.shared.hip);
        let (mut memory, mut mapped) = (null_mut(), null_mut());
        // SAFETY: a place for one pointer.
        shared.call_uncaptured("hipHostMalloc", || unsafe {
            (hip.hipHostMalloc)(&raw mut memory, bytes, api::HOST_PORTABLE_MAPPED_COHERENT)
        })?;
        // SAFETY: so many bytes were just allocated there, and no kernel knows of them yet.
        unsafe { std::ptr::write_bytes(memory.cast::<u8>(), 0, bytes) };
        // SAFETY: the pointer is the one that was just allocated; a place for one pointer.
        let found = shared.call("hipHostGetDevicePointer", || unsafe {
            (hip.hipHostGetDevicePointer)(&raw mut mapped, memory, 0)
        });
        if let Err(error) = found {
            // SAFETY: allocated above, known to nobody.
            let _ = shared.call("hipHostFree", || unsafe { (hip.hipHostFree)(memory) });
            return Err(error);
        }
        let address = mapped.addr() as u64;
        lock(&shared.host).insert(address, (memory.expose_provenance(), bytes));
        Ok(address)
    }

    fn free_host(&self, address: u64) -> Result<(), Error> {
        let found = lock(&self.shared.host).remove(&address);
        let (memory, _) = found.ok_or_else(|| no_host_memory("hipHostFree", address))?;
        // SAFETY: allocated by `allocate_host`, and taken out of the table, so freed once.
        self.shared.call_uncaptured("hipHostFree", || unsafe {
            (self.shared.hip.hipHostFree)(pointer(memory as u64))
        })
    }

    fn peek(&self, address: u64, into: &mut [u8]) -> Result<(), Error> {
        // The lock is held while reading, so that nobody frees it meanwhile.
        let host = lock(&self.shared.host);
        let memory = host.get(&address).filter(|(_, bytes)| into.len() <= *bytes);
        let (memory, _) = memory.ok_or_else(|| no_host_memory("peek", address))?;
        // SAFETY: inside what `allocate_host` allocated.
        unsafe { super::host::read_shared(std::ptr::with_exposed_provenance(*memory), into) };
        Ok(())
    }

    fn allocation_of(&self, address: u64) -> Result<Allocation, Error> {
        let (mut base, mut bytes) = (null_mut(), 0);
        // SAFETY: places for a pointer and a size.
        self.shared.call("hipMemGetAddressRange", || unsafe {
            (self.shared.hip.hipMemGetAddressRange)(&raw mut base, &raw mut bytes, pointer(address))
        })?;
        Ok(Allocation { base: base.addr() as u64, bytes })
    }

    fn export(&self, base: u64) -> Result<Handle, Error> {
        let mut handle = IpcHandle([0; 64]);
        // SAFETY: a place for one handle.
        self.shared.call("hipIpcGetMemHandle", || unsafe {
            (self.shared.hip.hipIpcGetMemHandle)(&raw mut handle, pointer(base))
        })?;
        Ok(handle.0)
    }

    fn open(&self, handle: &Handle) -> Result<u64, Error> {
        let mut base = null_mut();
        // SAFETY: the runtime checks the handle's bytes; a place for one pointer.
        self.shared.call_uncaptured("hipIpcOpenMemHandle", || unsafe {
            (self.shared.hip.hipIpcOpenMemHandle)(
                &raw mut base,
                IpcHandle(*handle),
                api::LAZY_ENABLE_PEER_ACCESS,
            )
        })?;
        Ok(base.addr() as u64)
    }

    fn close(&self, base: u64) -> Result<(), Error> {
        // SAFETY: the runtime refuses what it has not opened.
        self.shared.call_uncaptured("hipIpcCloseMemHandle", || unsafe {
            (self.shared.hip.hipIpcCloseMemHandle)(pointer(base))
        })
    }

    fn copy(&self, from: u64, to: u64, bytes: usize) -> Result<(), Error> {
        self.copy_as(pointer(to), pointer(from), bytes, api::DEVICE_TO_DEVICE)
    }

    fn create_multicast(&self, _: usize, _: usize) -> Result<Handle, Error> {
        Err(Error::NoMulticast { why: NO_MULTICAST.to_owned() })
    }

    fn join_multicast(&self, _: &Handle) -> Result<(), Error> {
        Err(Error::NoMulticast { why: NO_MULTICAST.to_owned() })
    }

    fn bind_multicast(&self, _: &Handle) -> Result<Multicast, Error> {
        Err(Error::NoMulticast { why: NO_MULTICAST.to_owned() })
    }

    fn leave_multicast(&self, _: &Handle) -> Result<(), Error> {
        Err(Error::NoMulticast { why: NO_MULTICAST.to_owned() })
    }

    /// As the code objects say of each kernel.
    fn has_fixed_blocks(&self) -> bool {
        true
    }

    fn write(&self, to: u64, bytes: &[u8]) -> Result<(), Error> {
        self.refuse_capturing("writing from the host")?;
        self.copy_as(pointer(to), bytes.as_ptr().cast(), bytes.len(), api::HOST_TO_DEVICE)?;
        self.synchronize()
    }

    fn read(&self, from: u64, into: &mut [u8]) -> Result<(), Error> {
        self.refuse_capturing("reading to the host")?;
        self.copy_as(into.as_mut_ptr().cast(), pointer(from), into.len(), api::DEVICE_TO_HOST)?;
        self.synchronize()
    }

    fn kernel(&self, code: &Code, name: &str) -> Result<Kernel, Error> {
        let mut modules = lock(&self.shared.modules);
        let key = (key_of(code), name.to_owned());
        if let Some(kernel) = modules.kernels.get(&key) {
            return Ok(*kernel);
        }
        let module = self.module(&mut modules, code)?;
        let symbol = zero_terminated(name)?;
        let mut function = null_mut();
        // SAFETY: the module stays loaded; the name ends with a zero; a place for one pointer.
        self.shared.call_uncaptured("hipModuleGetFunction", || unsafe {
            (self.shared.hip.hipModuleGetFunction)(&raw mut function, pointer(module as u64), symbol.as_ptr())
        })?;
        let kernel = Kernel(function.addr());
        modules.kernels.insert(key, kernel);
        Ok(kernel)
    }

    fn launch(&self, kernel: &Kernel, blocks: usize, threads: usize, parameters: &[u8]) -> Result<(), Error> {
        let mut bytes = parameters.len();
        let [buffer, size, end] = api::LAUNCH_BUFFER.map(std::ptr::without_provenance_mut);
        let mut extra = [buffer, parameters.as_ptr().cast_mut().cast(), size, (&raw mut bytes).cast(), end];
        let (blocks, threads) =
            (u32::try_from(blocks).unwrap_or(u32::MAX), u32::try_from(threads).unwrap_or(u32::MAX));
        // SAFETY: the kernel's module stays loaded; the parameters are copied before the call returns.
        self.shared.call("hipModuleLaunchKernel", || unsafe {
            (self.shared.hip.hipModuleLaunchKernel)(
                pointer(kernel.0 as u64),
                blocks,
                1,
                1,
                threads,
                1,
                1,
                0,
                self.stream(),
                null_mut(),
                extra.as_mut_ptr(),
            )
        })
    }

    fn is_capturing(&self) -> Result<bool, Error> {
        let mut status = 0;
        // SAFETY: a place for one number.
        self.shared.call("hipStreamIsCapturing", || unsafe {
            (self.shared.hip.hipStreamIsCapturing)(self.stream(), &raw mut status)
        })?;
        Ok(status != api::NOT_CAPTURING)
    }

    fn set_stream(&self, stream: u64) {
        self.stream.store(stream, Ordering::Relaxed);
    }

    fn synchronize(&self) -> Result<(), Error> {
        // SAFETY: the stream is the caller's.
        self.shared
            .call("hipStreamSynchronize", || unsafe { (self.shared.hip.hipStreamSynchronize)(self.stream()) })
    }

    fn identity(&self) -> Result<String, Error> {
        let (hip, mut name) = (&self.shared.hip, [0 as c_char; 32]);
        // SAFETY: so many bytes may be written there; the runtime ends them with a zero.
        check(hip, "hipDeviceGetPCIBusId", unsafe {
            (hip.hipDeviceGetPCIBusId)(name.as_mut_ptr(), name.len() as c_int - 1, self.shared.device)
        })?;
        // SAFETY: the last byte is a zero in any case.
        Ok(unsafe { CStr::from_ptr(name.as_ptr()) }.to_string_lossy().into_owned())
    }

    fn link(&self, peer: &str) -> Result<Link, Error> {
        let (hip, mut kind, mut hops) = (&self.shared.hip, 0, 0);
        let peer = self.by_bus(peer)?;
        // SAFETY: places for one number each.
        check(hip, "hipExtGetLinkTypeAndHopCount", unsafe {
            (hip.hipExtGetLinkTypeAndHopCount)(self.shared.device, peer, &raw mut kind, &raw mut hops)
        })?;
        Ok(if kind == api::LINK_XGMI && hops == 1 { Link::Direct } else { Link::Bus })
    }

    /// The counter that kernels read runs at 100 MHz.
    fn ticks(&self, duration: Duration) -> u64 {
        u64::try_from(duration.as_nanos() / 10).unwrap_or(u64::MAX)
    }
}

impl MapHost for Device {
    fn map_host(&self, words: &Arc<HostWords>) -> Result<u64, Error> {
        let (shared, hip) = (&*self.shared, &self.shared.hip);
        let (memory, bytes) = words.pages();
        let memory: Pointer = memory.cast();
        // SAFETY: whole pages of a mapping, which the table below keeps until they are taken back.
        shared.call_uncaptured("hipHostRegister", || unsafe {
            (hip.hipHostRegister)(memory, bytes, api::REGISTER_PORTABLE_MAPPED)
        })?;
        let mut mapped = null_mut();
        // SAFETY: the memory that was just registered; a place for one pointer.
        let found = shared.call("hipHostGetDevicePointer", || unsafe {
            (hip.hipHostGetDevicePointer)(&raw mut mapped, memory, 0)
        });
        if let Err(refused) = found {
            // What went wrong first is what is told.
            let _ = shared.unregister(Arc::clone(words));
            return Err(refused);
        }
        let address = mapped.addr() as u64;
        lock(&shared.words).insert(address, Arc::clone(words));
        Ok(address)
    }

    fn unmap_host(&self, address: u64) -> Result<(), Error> {
        let words = lock(&self.shared.words).remove(&address);
        let words = words.ok_or_else(|| no_host_memory("hipHostUnregister", address))?;
        self.shared.unregister(words)
    }
}

fn key_of(code: &Code) -> usize {
    code.ptx.as_ptr().addr()
}
