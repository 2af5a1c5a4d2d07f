//! What is needed of a vendor's driver, and who provides it.
//!
//! Nothing of a vendor is needed to build: [`cuda`] and [`hip`] load their libraries when they are first asked for a device, and
//! say what they looked for where there is none.

pub mod any;
pub mod cuda;
pub mod hip;
mod host;
mod library;
mod offered;
#[cfg(feature = "sim")]
pub mod sim;

use std::time::Duration;

use crate::artefacts::Code;
use crate::error::Error;

/// By which another process opens an allocation: opaque bytes, as many as CUDA and ROCm use.
pub type Handle = [u8; 64];

/// An allocation of device memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allocation {
    /// Its first address.
    pub base: u64,
    /// Its length.
    pub bytes: usize,
}

/// How a device reaches another one's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Link {
    /// Over wires of their own, in one step: NVLink, XGMI.
    Direct,
    /// Over the host's bus, or in several steps.
    Bus,
    /// Not at all.
    None,
}

/// Memory that lies in a multicast object, as one rank has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Multicast {
    /// Under which the rank reaches its own part: here its input goes.
    pub own: u64,
    /// Under which it reaches the parts of all at once.
    pub all: u64,
    /// Its length.
    pub bytes: usize,
}

/// Of drivers for devices that know nothing of it.
const NO_MULTICAST: &str = "the driver has none";

/// One device and one stream on it, as a rank uses them. Addresses are the device's own.
pub trait Driver {
    /// A kernel that has been loaded.
    type Kernel: Clone;

    /// New zeroed device memory, at a multiple of 256 bytes at least; also while capturing.
    ///
    /// # Errors
    ///
    /// As every function here: [`Error::Driver`] with what the driver said.
    fn allocate(&self, bytes: usize) -> Result<u64, Error>;

    /// As [`Driver::allocate`], of the kind through which devices see each other's writes while kernels run. Where all memory
    /// is of that kind, it is the same.
    fn allocate_uncached(&self, bytes: usize) -> Result<u64, Error> {
        self.allocate(bytes)
    }

    /// Gives back what [`Driver::allocate`] or [`Driver::allocate_uncached`] returned.
    fn free(&self, base: u64) -> Result<(), Error>;

    /// New zeroed memory of the host that kernels reach, too, and that [`Driver::peek`] reads; the device's address.
    fn allocate_host(&self, bytes: usize) -> Result<u64, Error>;

    /// Gives back what [`Driver::allocate_host`] returned.
    fn free_host(&self, address: u64) -> Result<(), Error>;

    /// Reads memory of [`Driver::allocate_host`] as it is now, whatever the stream is doing.
    fn peek(&self, address: u64, into: &mut [u8]) -> Result<(), Error>;

    /// The allocation, own or opened, in which an address lies.
    fn allocation_of(&self, address: u64) -> Result<Allocation, Error>;

    /// What another rank opens an allocation by; `base` is its first address.
    fn export(&self, base: u64) -> Result<Handle, Error>;

    /// Maps another rank's allocation; returns its first address here.
    fn open(&self, handle: &Handle) -> Result<u64, Error>;

    /// Takes back what [`Driver::open`] mapped.
    fn close(&self, base: u64) -> Result<(), Error>;

    /// A multicast object over so many devices, each of which is to have so much memory in it. One rank makes it, and gives its
    /// handle to all. Then all join, and meet; then all bind, and meet; then launches may reach it.
    ///
    /// # Errors
    ///
    /// [`Error::NoMulticast`] where the devices or the driver have none: why.
    fn create_multicast(&self, devices: usize, bytes: usize) -> Result<Handle, Error> {
        let _ = (devices, bytes);
        Err(Error::NoMulticast { why: NO_MULTICAST.to_owned() })
    }

    /// The device takes part in a multicast object; also that of the rank that made it.
    ///
    /// # Errors
    ///
    /// As [`Driver::create_multicast`].
    fn join_multicast(&self, handle: &Handle) -> Result<(), Error> {
        let _ = handle;
        Err(Error::NoMulticast { why: NO_MULTICAST.to_owned() })
    }

    /// New memory of this device in a multicast object. Only once all devices have joined: before, NVIDIA's driver waits for them,
    /// however long that is. What is in the memory is not said.
    ///
    /// # Errors
    ///
    /// As [`Driver::create_multicast`].
    fn bind_multicast(&self, handle: &Handle) -> Result<Multicast, Error> {
        let _ = handle;
        Err(Error::NoMulticast { why: NO_MULTICAST.to_owned() })
    }

    /// Gives back what [`Driver::create_multicast`], [`Driver::join_multicast`] and [`Driver::bind_multicast`] took. The streams of
    /// all ranks must be empty.
    ///
    /// # Errors
    ///
    /// As [`Driver::create_multicast`].
    fn leave_multicast(&self, handle: &Handle) -> Result<(), Error> {
        let _ = handle;
        Err(Error::NoMulticast { why: NO_MULTICAST.to_owned() })
    }

    /// Whether blocks have as many threads as kernels were compiled for, and no other number. Elsewhere fewer do as well.
    fn has_fixed_blocks(&self) -> bool {
        false
    }

    /// Copies on the stream, within what the device reaches.
    fn copy(&self, from: u64, to: u64, bytes: usize) -> Result<(), Error>;

    /// Writes what the host has, on the stream. Not while capturing.
    fn write(&self, to: u64, bytes: &[u8]) -> Result<(), Error>;

    /// Waits for the stream, then reads. Not while capturing.
    fn read(&self, from: u64, into: &mut [u8]) -> Result<(), Error>;

    /// The kernel of a name, in the form that the device takes; loaded once, however often it is asked for.
    fn kernel(&self, code: &Code, name: &str) -> Result<Self::Kernel, Error>;

    /// Runs a kernel on the stream.
    fn launch(
        &self,
        kernel: &Self::Kernel,
        blocks: usize,
        threads: usize,
        parameters: &[u8],
    ) -> Result<(), Error>;

    /// Whether what is put on the stream is recorded into a graph instead of being run.
    fn is_capturing(&self) -> Result<bool, Error>;

    /// From now on this is the stream, in the vendor's own form; 0 is the default one.
    fn set_stream(&self, stream: u64);

    /// Waits until everything on the stream has ended.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`] also for what went wrong on the device since.
    fn synchronize(&self) -> Result<(), Error>;

    /// By what all processes of the machine know the device: its address on the bus.
    fn identity(&self) -> Result<String, Error>;

    /// How this device reaches that of an [`Driver::identity`].
    fn link(&self, peer: &str) -> Result<Link, Error>;

    /// A duration in the unit of the device's clock; nanoseconds unless the device counts otherwise.
    fn ticks(&self, duration: Duration) -> u64 {
        u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
    }

    /// Tells of memory that somebody else allocated and that launches will be given; whether it is the host's own, which is not
    /// given back in the order of the stream. Devices know their memory without being told; the simulated ones do not.
    ///
    /// # Safety
    ///
    /// The memory is there, and nobody has a reference to it, as long as launches or copies use it.
    #[allow(unsafe_code, reason = "whoever tells has to know")]
    unsafe fn lend(&self, address: u64, bytes: usize) -> Result<bool, Error> {
        let _ = (address, bytes);
        Ok(false)
    }
}
