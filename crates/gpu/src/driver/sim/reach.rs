//! What a simulated device of a process reaches beside its own memory and that of others: words of the host's, and, for those that stand
//! in for vendors' drivers, what it has at other addresses.

use std::sync::Arc;

use super::memory::{Owner, Region};
use super::process::ProcessDevice;
use super::refused;
use crate::error::Error;
use crate::packet::{HostWords, MapHost};

impl ProcessDevice {
    /// Lets the device reach what it has at `of` at another address, too: what vendors' drivers call mapping. The memory stays
    /// as long as either address.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`] unless so much lies there in one piece.
    pub fn alias(&self, address: u64, of: u64, bytes: usize) -> Result<(), Error> {
        let region = self.inner.regions.find(of, bytes).filter(|region| region.base == of);
        let region = region.ok_or_else(|| refused("alias", format!("no {bytes} bytes begin at {of:#x}")))?;
        self.inner.regions.add(region.alias(address, bytes));
        Ok(())
    }

    /// Takes back what [`ProcessDevice::alias`] did.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`] where there is none.
    pub fn unalias(&self, address: u64) -> Result<(), Error> {
        self.remove("unalias", address, |owner| owner == Owner::Alias).map(|_| ())
    }

    /// Forgets what [`lend`](crate::Driver::lend) told of.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`] where nothing that was lent begins.
    pub fn take_back(&self, address: u64) -> Result<(), Error> {
        self.remove("take_back", address, |owner| owner == Owner::Lent).map(|_| ())
    }
}

impl MapHost for ProcessDevice {
    fn map_host(&self, words: &Arc<HostWords>) -> Result<u64, Error> {
        let region = Region::words(words);
        let base = region.base;
        if self.inner.regions.find(base, 1).is_some_and(|known| known.owner == Owner::Words) {
            return Err(refused("map_host", "the device reaches these words already"));
        }
        self.inner.regions.add(region);
        Ok(base)
    }

    fn unmap_host(&self, address: u64) -> Result<(), Error> {
        self.remove("unmap_host", address, |owner| owner == Owner::Words).map(|_| ())
    }
}
