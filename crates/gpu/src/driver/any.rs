//! The driver of the machine at hand, chosen when the program runs.

use std::sync::Arc;

use crate::artefacts::Code;
use crate::driver::{Allocation, Driver, Handle, Link, Multicast, cuda, hip};
use crate::error::Error;
use crate::packet::{HostWords, MapHost};

/// Whose devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Platform {
    /// NVIDIA's.
    Cuda,
    /// AMD's.
    Hip,
    /// Simulated ones, a process for each.
    Sim,
}

/// A device of any platform.
#[derive(Debug, Clone)]
pub enum Device {
    /// NVIDIA's.
    Cuda(cuda::Device),
    /// AMD's.
    Hip(hip::Device),
    /// A simulated one.
    #[cfg(feature = "sim")]
    Sim(super::sim::ProcessDevice),
}

/// A kernel of any platform.
#[derive(Debug, Clone)]
pub enum Kernel {
    /// NVIDIA's.
    Cuda(cuda::Kernel),
    /// AMD's.
    Hip(hip::Kernel),
    /// A simulated device's.
    #[cfg(feature = "sim")]
    Sim(<super::sim::ProcessDevice as Driver>::Kernel),
}

/// The environment variable that says whose devices are used: `cuda`, `hip` or `sim`.
pub const VARIABLE: &str = "UNISONO_GPU_DRIVER";

impl Platform {
    /// The one that [`VARIABLE`] names; `None` if it names none.
    ///
    /// # Errors
    ///
    /// [`Error::Platform`] for another word.
    pub fn from_environment() -> Result<Option<Self>, Error> {
        match std::env::var(VARIABLE).ok().as_deref() {
            None | Some("") => Ok(None),
            Some("cuda") => Ok(Some(Self::Cuda)),
            Some("hip") => Ok(Some(Self::Hip)),
            Some("sim") => Ok(Some(Self::Sim)),
            Some(found) => Err(Error::Platform { found: found.to_owned() }),
        }
    }
}

impl Device {
    /// A device by its number: of the platform that the environment names; else NVIDIA's where there is its driver, else AMD's.
    ///
    /// # Errors
    ///
    /// [`Error::NoDevice`] with what was looked for and not found; [`Error::Platform`]; [`Error::Driver`].
    pub fn new(index: usize) -> Result<Self, Error> {
        if let Some(platform) = Platform::from_environment()? {
            return Self::of(platform, index);
        }
        let cuda = match Self::of(Platform::Cuda, index) {
            Err(missing @ Error::NoLibrary { .. }) => missing,
            found => return found,
        };
        match Self::of(Platform::Hip, index) {
            Err(missing @ Error::NoLibrary { .. }) => {
                Err(Error::NoDevice { cuda: cuda.to_string(), hip: missing.to_string() })
            }
            found => found,
        }
    }

    /// A device of a platform by its number.
    ///
    /// # Errors
    ///
    /// [`Error::NoLibrary`], [`Error::Driver`]; [`Error::NotBuilt`] for simulated ones in a build without them.
    pub fn of(platform: Platform, index: usize) -> Result<Self, Error> {
        match platform {
            Platform::Cuda => cuda::Device::new(index).map(Self::Cuda),
            Platform::Hip => hip::Device::new(index).map(Self::Hip),
            #[cfg(feature = "sim")]
            Platform::Sim => super::sim::ProcessDevice::from_environment().map(Self::Sim),
            #[cfg(not(feature = "sim"))]
            Platform::Sim => Err(Error::NotBuilt { what: "the simulated driver (feature `sim`)" }),
        }
    }

    /// Whose it is.
    pub fn platform(&self) -> Platform {
        match self {
            Self::Cuda(_) => Platform::Cuda,
            Self::Hip(_) => Platform::Hip,
            #[cfg(feature = "sim")]
            Self::Sim(_) => Platform::Sim,
        }
    }
}

/// The same call on whichever it is.
macro_rules! each {
    ($self:ident, $device:ident => $call:expr) => {
        match $self {
            Device::Cuda($device) => $call,
            Device::Hip($device) => $call,
            #[cfg(feature = "sim")]
            Device::Sim($device) => $call,
        }
    };
}

impl Driver for Device {
    type Kernel = Kernel;

    fn allocate(&self, bytes: usize) -> Result<u64, Error> {
        each!(self, device => device.allocate(bytes))
    }

    fn allocate_uncached(&self, bytes: usize) -> Result<u64, Error> {
        each!(self, device => device.allocate_uncached(bytes))
    }

    fn free(&self, base: u64) -> Result<(), Error> {
        each!(self, device => device.free(base))
    }

    fn allocate_host(&self, bytes: usize) -> Result<u64, Error> {
        each!(self, device => device.allocate_host(bytes))
    }

    fn free_host(&self, address: u64) -> Result<(), Error> {
        each!(self, device => device.free_host(address))
    }

    fn peek(&self, address: u64, into: &mut [u8]) -> Result<(), Error> {
        each!(self, device => device.peek(address, into))
    }

    fn allocation_of(&self, address: u64) -> Result<Allocation, Error> {
        each!(self, device => device.allocation_of(address))
    }

    fn export(&self, base: u64) -> Result<Handle, Error> {
        each!(self, device => device.export(base))
    }

    fn open(&self, handle: &Handle) -> Result<u64, Error> {
        each!(self, device => device.open(handle))
    }

    fn close(&self, base: u64) -> Result<(), Error> {
        each!(self, device => device.close(base))
    }

    fn create_multicast(&self, devices: usize, bytes: usize) -> Result<Handle, Error> {
        each!(self, device => device.create_multicast(devices, bytes))
    }

    fn join_multicast(&self, handle: &Handle) -> Result<(), Error> {
        each!(self, device => device.join_multicast(handle))
    }

    fn bind_multicast(&self, handle: &Handle) -> Result<Multicast, Error> {
        each!(self, device => device.bind_multicast(handle))
    }

    fn leave_multicast(&self, handle: &Handle) -> Result<(), Error> {
        each!(self, device => device.leave_multicast(handle))
    }

    fn has_fixed_blocks(&self) -> bool {
        each!(self, device => device.has_fixed_blocks())
    }

    fn copy(&self, from: u64, to: u64, bytes: usize) -> Result<(), Error> {
        each!(self, device => device.copy(from, to, bytes))
    }

    fn write(&self, to: u64, bytes: &[u8]) -> Result<(), Error> {
        each!(self, device => device.write(to, bytes))
    }

    fn read(&self, from: u64, into: &mut [u8]) -> Result<(), Error> {
        each!(self, device => device.read(from, into))
    }

    fn kernel(&self, code: &Code, name: &str) -> Result<Kernel, Error> {
        match self {
            Self::Cuda(device) => device.kernel(code, name).map(Kernel::Cuda),
            Self::Hip(device) => device.kernel(code, name).map(Kernel::Hip),
            #[cfg(feature = "sim")]
            Self::Sim(device) => device.kernel(code, name).map(Kernel::Sim),
        }
    }

    fn launch(&self, kernel: &Kernel, blocks: usize, threads: usize, parameters: &[u8]) -> Result<(), Error> {
        match (self, kernel) {
            (Self::Cuda(device), Kernel::Cuda(kernel)) => device.launch(kernel, blocks, threads, parameters),
            (Self::Hip(device), Kernel::Hip(kernel)) => device.launch(kernel, blocks, threads, parameters),
            #[cfg(feature = "sim")]
            (Self::Sim(device), Kernel::Sim(kernel)) => device.launch(kernel, blocks, threads, parameters),
            _ => Err(Error::Driver { call: "launch", reason: "the kernel is another platform's".to_owned() }),
        }
    }

    fn is_capturing(&self) -> Result<bool, Error> {
        each!(self, device => device.is_capturing())
    }

    fn set_stream(&self, stream: u64) {
        each!(self, device => device.set_stream(stream));
    }

    fn synchronize(&self) -> Result<(), Error> {
        each!(self, device => device.synchronize())
    }

    fn identity(&self) -> Result<String, Error> {
        each!(self, device => device.identity())
    }

    fn link(&self, peer: &str) -> Result<Link, Error> {
        each!(self, device => device.link(peer))
    }

    fn ticks(&self, duration: std::time::Duration) -> u64 {
        each!(self, device => device.ticks(duration))
    }

    #[allow(unsafe_code, reason = "the trait's")]
    unsafe fn lend(&self, address: u64, bytes: usize) -> Result<bool, Error> {
        // SAFETY: the caller's promise, handed on.
        unsafe { each!(self, device => device.lend(address, bytes)) }
    }
}

impl MapHost for Device {
    fn map_host(&self, words: &Arc<HostWords>) -> Result<u64, Error> {
        each!(self, device => device.map_host(words))
    }

    fn unmap_host(&self, address: u64) -> Result<(), Error> {
        each!(self, device => device.unmap_host(address))
    }
}
