//! What is needed of a vendor's driver, and who provides it.

#[cfg(feature = "sim")]
pub mod sim;

use std::time::Duration;

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

/// One device and one stream on it, as a rank uses them. Addresses are the device's own.
pub trait Driver {
    /// A kernel that has been loaded.
    type Kernel: Clone;

    /// New zeroed device memory, at a multiple of 256 bytes at least.
    ///
    /// # Errors
    ///
    /// As every function here: [`Error::Driver`] with what the driver said.
    fn allocate(&self, bytes: usize) -> Result<u64, Error>;

    /// Gives back what [`Driver::allocate`] returned.
    fn free(&self, base: u64) -> Result<(), Error>;

    /// The allocation, own or opened, in which an address lies.
    fn allocation_of(&self, address: u64) -> Result<Allocation, Error>;

    /// What another rank opens an allocation by; `base` is its first address.
    fn export(&self, base: u64) -> Result<Handle, Error>;

    /// Maps another rank's allocation; returns its first address here.
    fn open(&self, handle: &Handle) -> Result<u64, Error>;

    /// Takes back what [`Driver::open`] mapped.
    fn close(&self, base: u64) -> Result<(), Error>;

    /// A multicast object over so many devices, by which each of them joins it: each gives so much of its memory, and all of that
    /// is reached at once.
    ///
    /// # Errors
    ///
    /// [`Error::NoMulticast`] where the devices or the driver have none.
    fn create_multicast(&self, devices: usize, bytes: usize) -> Result<Handle, Error> {
        let _ = (devices, bytes);
        Err(Error::NoMulticast)
    }

    /// Joins a multicast object with an own allocation; returns the address under which the memory of all is reached, once all
    /// have joined.
    ///
    /// # Errors
    ///
    /// As [`Driver::create_multicast`].
    fn join_multicast(&self, handle: &Handle, base: u64) -> Result<u64, Error> {
        let _ = (handle, base);
        Err(Error::NoMulticast)
    }

    /// Copies on the stream, within what the device reaches.
    fn copy(&self, from: u64, to: u64, bytes: usize) -> Result<(), Error>;

    /// Writes what the host has, on the stream. Not while capturing.
    fn write(&self, to: u64, bytes: &[u8]) -> Result<(), Error>;

    /// Waits for the stream, then reads.
    fn read(&self, from: u64, into: &mut [u8]) -> Result<(), Error>;

    /// The kernel of a name in a text of PTX; loaded once, however often it is asked for.
    fn kernel(&self, ptx: &'static str, name: &str) -> Result<Self::Kernel, Error>;

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

    /// A duration in the unit of the device's clock; nanoseconds unless the device counts otherwise.
    fn ticks(&self, duration: Duration) -> u64 {
        u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
    }
}
