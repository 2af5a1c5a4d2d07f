//! NVIDIA's devices, through `libcuda`, which comes with the driver and is loaded at run time.
//!
//! A [`Device`] is a device's primary context, the one that CUDA's runtime and torch use, so that their memory and streams are
//! ours as well. Every call makes the context current and afterwards puts back what was; it may come from any thread.

#![allow(unsafe_code)]

mod api;
mod multicast;
mod nvml;
mod shared;

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use unisono_os::fork_guard::ForkMark;

use self::api::{Address, IpcHandle, Opaque};
use self::shared::{
    HostMemory, Modules, Shared, check, load, lock, no_host_memory, pointer, zero_terminated,
};
use super::{Allocation, Driver, Handle, Link, Multicast};
use crate::artefacts::Code;
use crate::error::Error;
use crate::packet::{HostWords, MapHost};

/// The names under which NVIDIA's driver is looked for, unless `UNISONO_CUDA_LIBRARY` names a file.
pub const LIBRARY_NAMES: [&str; 2] = ["libcuda.so.1", "libcuda.so"];

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

/// A loaded kernel: the driver's pointer to it.
#[derive(Debug, Clone, Copy)]
pub struct Kernel(usize);

impl Device {
    /// A device by its number, as this process counts them.
    ///
    /// # Errors
    ///
    /// [`Error::NoLibrary`] where there is no driver; [`Error::Driver`] where it has no such device.
    pub fn new(index: usize) -> Result<Self, Error> {
        let cuda = load()?;
        let (mut device, mut context) = (0, null_mut());
        let index = c_int::try_from(index).unwrap_or(c_int::MAX);
        // SAFETY: a place for one number.
        check(&cuda, "cuDeviceGet", unsafe { (cuda.cuDeviceGet)(&raw mut device, index) })?;
        // SAFETY: a place for one pointer; released when the last of this device's users is dropped.
        let code = unsafe { (cuda.cuDevicePrimaryCtxRetain)(&raw mut context, device) };
        check(&cuda, "cuDevicePrimaryCtxRetain", code)?;
        let mut shared = Shared {
            cuda,
            device,
            context: context.addr(),
            own_stream: 0,
            modules: Mutex::default(),
            host: Mutex::default(),
            words: Mutex::default(),
            born: ForkMark::now(),
            multicasts: multicast::Multicasts::default(),
        };
        let mut own_stream: Opaque = null_mut();
        // SAFETY: a place for one pointer.
        shared.call("cuStreamCreate", || unsafe {
            (cuda.cuStreamCreate)(&raw mut own_stream, api::NON_BLOCKING)
        })?;
        shared.own_stream = own_stream.addr();
        Ok(Self { shared: Arc::new(shared), stream: AtomicU64::new(0) })
    }

    /// Whether this process's device of another number can be given access to.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`].
    pub fn can_access_peer(&self, peer: &str) -> Result<bool, Error> {
        let bus = zero_terminated(peer)?;
        let cuda = &self.shared.cuda;
        let (mut device, mut can) = (0, 0);
        // SAFETY: the text ends with a zero; a place for one number.
        check(cuda, "cuDeviceGetByPCIBusId", unsafe {
            (cuda.cuDeviceGetByPCIBusId)(&raw mut device, bus.as_ptr())
        })?;
        // SAFETY: a place for one number.
        check(cuda, "cuDeviceCanAccessPeer", unsafe {
            (cuda.cuDeviceCanAccessPeer)(&raw mut can, self.shared.device, device)
        })?;
        Ok(can != 0)
    }

    fn stream(&self) -> Opaque {
        std::ptr::without_provenance_mut(self.stream.load(Ordering::Relaxed) as usize)
    }

    fn bus(&self) -> Result<CString, Error> {
        let shared = &*self.shared;
        let mut name = [0 as c_char; 32];
        // SAFETY: so many bytes may be written there; the driver ends them with a zero.
        check(&shared.cuda, "cuDeviceGetPCIBusId", unsafe {
            (shared.cuda.cuDeviceGetPCIBusId)(name.as_mut_ptr(), name.len() as c_int - 1, shared.device)
        })?;
        // SAFETY: the last byte is a zero in any case.
        Ok(unsafe { CStr::from_ptr(name.as_ptr()) }.to_owned())
    }

    fn module(&self, modules: &mut Modules, ptx: &'static str) -> Result<usize, Error> {
        if let Some(module) = modules.loaded.get(&ptx.as_ptr().addr()) {
            return Ok(*module);
        }
        let image = zero_terminated(ptx)?;
        let mut module: Opaque = null_mut();
        let cuda = &self.shared.cuda;
        // SAFETY: PTX is given as a text that ends with a zero; a place for one pointer.
        self.shared.call_uncaptured("cuModuleLoadData", || unsafe {
            (cuda.cuModuleLoadData)(&raw mut module, image.as_ptr().cast())
        })?;
        modules.loaded.insert(ptx.as_ptr().addr(), module.addr());
        Ok(module.addr())
    }

    fn refuse_capturing(&self, what: &'static str) -> Result<(), Error> {
        if self.is_capturing()? { Err(Error::Capturing { what }) } else { Ok(()) }
    }
}

impl Driver for Device {
    type Kernel = Kernel;

    fn allocate(&self, bytes: usize) -> Result<u64, Error> {
        let (shared, cuda) = (&*self.shared, &self.shared.cuda);
        let mut base: Address = 0;
        // SAFETY: a place for one address.
        shared.call_uncaptured("cuMemAlloc", || unsafe { (cuda.cuMemAlloc_v2)(&raw mut base, bytes) })?;
        let stream = pointer(shared.own_stream);
        // SAFETY: so many bytes were just allocated there.
        let zeroed = shared
            .call_uncaptured("cuMemsetD8Async", || unsafe { (cuda.cuMemsetD8Async)(base, 0, bytes, stream) });
        let zeroed = zeroed.and_then(|()| {
            // SAFETY: the stream is our own.
            shared.call_uncaptured("cuStreamSynchronize", || unsafe { (cuda.cuStreamSynchronize)(stream) })
        });
        match zeroed {
            Ok(()) => Ok(base),
            Err(error) => {
                // What went wrong first is what is told.
                let _ = self.free(base);
                Err(error)
            }
        }
    }

    fn free(&self, base: u64) -> Result<(), Error> {
        // SAFETY: the driver refuses what it has not allocated.
        self.shared.call_uncaptured("cuMemFree", || unsafe { (self.shared.cuda.cuMemFree_v2)(base) })
    }

    fn allocate_host(&self, bytes: usize) -> Result<u64, Error> {
        let (shared, cuda) = (&*self.shared, &self.shared.cuda);
        let (mut memory, mut address): (*mut c_void, Address) = (null_mut(), 0);
        // SAFETY: a place for one pointer.
        shared.call_uncaptured("cuMemHostAlloc", || unsafe {
            (cuda.cuMemHostAlloc)(&raw mut memory, bytes, api::HOST_PORTABLE_MAPPED)
        })?;
        // SAFETY: so many bytes were just allocated there, and no kernel knows of them yet.
        unsafe { std::ptr::write_bytes(memory.cast::<u8>(), 0, bytes) };
        // SAFETY: the pointer is the one that was just allocated; a place for one address.
        let mapped = shared.call("cuMemHostGetDevicePointer", || unsafe {
            (cuda.cuMemHostGetDevicePointer_v2)(&raw mut address, memory, 0)
        });
        if let Err(error) = mapped {
            // SAFETY: allocated above, known to nobody.
            let _ = shared.call("cuMemFreeHost", || unsafe { (cuda.cuMemFreeHost)(memory) });
            return Err(error);
        }
        lock(&shared.host).insert(address, HostMemory { pointer: memory.expose_provenance(), bytes });
        Ok(address)
    }

    fn free_host(&self, address: u64) -> Result<(), Error> {
        let found = lock(&self.shared.host).remove(&address);
        let memory = found.ok_or_else(|| no_host_memory("cuMemFreeHost", address))?;
        // SAFETY: allocated by `allocate_host`, and taken out of the table, so freed once.
        self.shared.call_uncaptured("cuMemFreeHost", || unsafe {
            (self.shared.cuda.cuMemFreeHost)(std::ptr::with_exposed_provenance_mut(memory.pointer))
        })
    }

    fn peek(&self, address: u64, into: &mut [u8]) -> Result<(), Error> {
        // The lock is held while reading, so that nobody frees it meanwhile.
        let host = lock(&self.shared.host);
        let memory = host.get(&address).filter(|memory| into.len() <= memory.bytes);
        let memory = memory.ok_or_else(|| no_host_memory("peek", address))?;
        let pointer: *const u8 = std::ptr::with_exposed_provenance(memory.pointer);
        // SAFETY: inside what `allocate_host` allocated.
        unsafe { super::host::read_shared(pointer, into) };
        Ok(())
    }

    fn allocation_of(&self, address: u64) -> Result<Allocation, Error> {
        let (mut base, mut bytes) = (0, 0);
        // SAFETY: places for an address and a size.
        self.shared.call("cuMemGetAddressRange", || unsafe {
            (self.shared.cuda.cuMemGetAddressRange_v2)(&raw mut base, &raw mut bytes, address)
        })?;
        Ok(Allocation { base, bytes })
    }

    fn export(&self, base: u64) -> Result<Handle, Error> {
        let mut handle = IpcHandle([0; 64]);
        // SAFETY: a place for one handle.
        self.shared.call("cuIpcGetMemHandle", || unsafe {
            (self.shared.cuda.cuIpcGetMemHandle)(&raw mut handle, base)
        })?;
        Ok(handle.0)
    }

    fn open(&self, handle: &Handle) -> Result<u64, Error> {
        let mut base = 0;
        // SAFETY: the driver checks the handle's bytes; a place for one address.
        self.shared.call_uncaptured("cuIpcOpenMemHandle", || unsafe {
            (self.shared.cuda.cuIpcOpenMemHandle_v2)(
                &raw mut base,
                IpcHandle(*handle),
                api::LAZY_ENABLE_PEER_ACCESS,
            )
        })?;
        Ok(base)
    }

    fn close(&self, base: u64) -> Result<(), Error> {
        // SAFETY: the driver refuses what it has not opened.
        self.shared.call_uncaptured("cuIpcCloseMemHandle", || unsafe {
            (self.shared.cuda.cuIpcCloseMemHandle)(base)
        })
    }

    fn create_multicast(&self, devices: usize, bytes: usize) -> Result<Handle, Error> {
        self.shared.create_multicast(devices, bytes)
    }

    fn join_multicast(&self, handle: &Handle) -> Result<(), Error> {
        self.shared.join_multicast(handle)
    }

    fn bind_multicast(&self, handle: &Handle) -> Result<Multicast, Error> {
        self.shared.bind_multicast(handle)
    }

    fn leave_multicast(&self, handle: &Handle) -> Result<(), Error> {
        self.shared.leave_multicast(handle)
    }

    fn copy(&self, from: u64, to: u64, bytes: usize) -> Result<(), Error> {
        // SAFETY: the driver checks that both lie in memory of the device; who launches answers for what lies there.
        self.shared.call("cuMemcpyDtoDAsync", || unsafe {
            (self.shared.cuda.cuMemcpyDtoDAsync_v2)(to, from, bytes, self.stream())
        })
    }

    fn write(&self, to: u64, bytes: &[u8]) -> Result<(), Error> {
        self.refuse_capturing("writing from the host")?;
        // SAFETY: the bytes are there until the stream has been waited for.
        self.shared.call("cuMemcpyHtoDAsync", || unsafe {
            (self.shared.cuda.cuMemcpyHtoDAsync_v2)(to, bytes.as_ptr().cast(), bytes.len(), self.stream())
        })?;
        self.synchronize()
    }

    fn read(&self, from: u64, into: &mut [u8]) -> Result<(), Error> {
        self.refuse_capturing("reading to the host")?;
        // SAFETY: so many bytes may be written there, until the stream has been waited for.
        self.shared.call("cuMemcpyDtoHAsync", || unsafe {
            (self.shared.cuda.cuMemcpyDtoHAsync_v2)(into.as_mut_ptr().cast(), from, into.len(), self.stream())
        })?;
        self.synchronize()
    }

    fn kernel(&self, code: &Code, name: &str) -> Result<Kernel, Error> {
        let mut modules = lock(&self.shared.modules);
        let key = (code.ptx.as_ptr().addr(), name.to_owned());
        if let Some(kernel) = modules.kernels.get(&key) {
            return Ok(*kernel);
        }
        let module = self.module(&mut modules, code.ptx)?;
        let symbol = zero_terminated(name)?;
        let mut function: Opaque = null_mut();
        // SAFETY: the module stays loaded; the name ends with a zero; a place for one pointer.
        self.shared.call_uncaptured("cuModuleGetFunction", || unsafe {
            (self.shared.cuda.cuModuleGetFunction)(&raw mut function, pointer(module), symbol.as_ptr())
        })?;
        let kernel = Kernel(function.addr());
        modules.kernels.insert(key, kernel);
        Ok(kernel)
    }

    fn launch(&self, kernel: &Kernel, blocks: usize, threads: usize, parameters: &[u8]) -> Result<(), Error> {
        let mut bytes = parameters.len();
        let [buffer, size, end] = api::LAUNCH_BUFFER.map(std::ptr::without_provenance_mut::<c_void>);
        let mut extra = [buffer, parameters.as_ptr().cast_mut().cast(), size, (&raw mut bytes).cast(), end];
        let (blocks, threads) =
            (u32::try_from(blocks).unwrap_or(u32::MAX), u32::try_from(threads).unwrap_or(u32::MAX));
        // SAFETY: the kernel's module stays loaded; the parameters are copied before the call returns.
        self.shared.call("cuLaunchKernel", || unsafe {
            (self.shared.cuda.cuLaunchKernel)(
                pointer(kernel.0),
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
        self.shared.call("cuStreamIsCapturing", || unsafe {
            (self.shared.cuda.cuStreamIsCapturing)(self.stream(), &raw mut status)
        })?;
        Ok(status != api::NOT_CAPTURING)
    }

    fn set_stream(&self, stream: u64) {
        self.stream.store(stream, Ordering::Relaxed);
    }

    fn synchronize(&self) -> Result<(), Error> {
        // SAFETY: the stream is the caller's.
        self.shared
            .call("cuStreamSynchronize", || unsafe { (self.shared.cuda.cuStreamSynchronize)(self.stream()) })
    }

    fn identity(&self) -> Result<String, Error> {
        Ok(self.bus()?.to_string_lossy().into_owned())
    }

    fn link(&self, peer: &str) -> Result<Link, Error> {
        nvml::link(&self.bus()?, &zero_terminated(peer)?)
    }
}

impl MapHost for Device {
    fn map_host(&self, words: &Arc<HostWords>) -> Result<u64, Error> {
        let (shared, cuda) = (&*self.shared, &self.shared.cuda);
        let (memory, bytes) = words.pages();
        let memory: *mut c_void = memory.cast();
        // SAFETY: whole pages of a mapping, which the table below keeps until they are taken back.
        shared.call_uncaptured("cuMemHostRegister", || unsafe {
            (cuda.cuMemHostRegister_v2)(memory, bytes, api::REGISTER_PORTABLE_MAPPED)
        })?;
        let mut address = 0;
        // SAFETY: the memory that was just registered; a place for one address.
        let mapped = shared.call("cuMemHostGetDevicePointer", || unsafe {
            (cuda.cuMemHostGetDevicePointer_v2)(&raw mut address, memory, 0)
        });
        if let Err(refused) = mapped {
            // What went wrong first is what is told.
            let _ = shared.unregister(Arc::clone(words));
            return Err(refused);
        }
        lock(&shared.words).insert(address, Arc::clone(words));
        Ok(address)
    }

    fn unmap_host(&self, address: u64) -> Result<(), Error> {
        let words = lock(&self.shared.words).remove(&address);
        let words = words.ok_or_else(|| no_host_memory("cuMemHostUnregister", address))?;
        self.shared.unregister(words)
    }
}
