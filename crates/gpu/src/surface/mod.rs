//! The functions of `sgl_kernel.allreduce`: by their names, with their arguments, in the order of their operators' schemas.
//!
//! A caller has integers and tensors; an all-reduce that was begun is known to it as an integer. [`Surface`] keeps what belongs
//! to each. [`cuda`] has the functions as they are on NVIDIA's platform, [`rocm`] as on AMD's, `packet` and
//! `quick` have `mscclpp_*` and `qr_*`; each works on any driver. What the
//! original passes over in silence is an error here, or works: more than two ranks that are not fully connected, odd worlds, lengths
//! that are no multiple of 16 bytes.
//!
//! The invariant: a call has been checked whole before anything of it is on the stream.

pub mod cuda;
pub mod p2p;
pub mod packet;
mod quick;
pub mod rocm;
mod table;
mod tensor;
pub mod topology;

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use table::Table;
pub use tensor::Tensor;

use crate::all_reduce::{AllReduce, Peers, Staging};
use crate::driver::any::Device;
use crate::driver::{Driver, Handle};
use crate::error::Error;
use crate::layout::META_BYTES;
use crate::packet::PacketContext;
use crate::quick::QuickAllReduce;

/// What was begun in this process and not disposed of, by the integers that callers have.
#[derive(Debug, Default)]
pub struct Surface {
    devices: Mutex<HashMap<usize, Device>>,
    all_reduces: Table<AllReduce<Device>>,
    packets: Table<PacketContext<Device>>,
    quicks: Table<QuickAllReduce<Device>>,
}

impl Surface {
    /// Nothing begun yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// A device by its number, the same one each time.
    ///
    /// # Errors
    ///
    /// As [`Device::new`].
    pub fn device(&self, index: usize) -> Result<Device, Error> {
        let mut devices = lock(&self.devices);
        if let Some(device) = devices.get(&index) {
            return Ok(device.clone());
        }
        let device = Device::new(index)?;
        devices.insert(index, device.clone());
        Ok(device)
    }

    /// Bytes of a rank's signals; behind them its memory has as much as the largest message. [`Surface::meta_size_rocm`] is what it
    /// is on AMD's platform.
    pub fn meta_size(&self) -> i64 {
        META_BYTES as i64
    }

    /// Gives back what belongs to an all-reduce. The stream must be empty, on all ranks.
    ///
    /// # Errors
    ///
    /// [`Error::Context`]; [`Error::Driver`], after what could be given back has been.
    pub fn dispose(&self, fa: i64) -> Result<(), Error> {
        // If another thread is in a call with it, that call gives everything back when it ends.
        self.all_reduces.remove(ALL_REDUCE, fa)?.map_or(Ok(()), AllReduce::dispose)
    }

    /// From now on kernels of this all-reduce wait so long for a peer before they say [`Error::Overdue`].
    ///
    /// # Errors
    ///
    /// [`Error::Context`].
    pub fn set_patience(&self, fa: i64, patience: Duration) -> Result<(), Error> {
        self.with(fa, |all_reduce| {
            all_reduce.set_patience(patience);
            Ok(())
        })
    }

    /// Waits for the stream, then tells whether a kernel waited for a peer in vain. Calls that launch tell of it, too.
    ///
    /// # Errors
    ///
    /// [`Error::Overdue`], [`Error::Context`].
    pub fn check(&self, fa: i64) -> Result<(), Error> {
        self.with(fa, |all_reduce| all_reduce.check())
    }

    /// Puts an all-reduce on a stream; `staging` unless the input is registered or a graph is captured.
    fn reduce(
        &self,
        fa: i64,
        input: &Tensor,
        output: &Tensor,
        staging: Option<Staging>,
        stream: u64,
    ) -> Result<(), Error> {
        let dtype = tensor::check_pair(input, output)?;
        self.with(fa, |all_reduce| {
            let device = all_reduce.driver();
            device.set_stream(stream);
            let is_lent = input.lend(device)? | output.lend(device)?;
            all_reduce.all_reduce(input.address, output.address, input.elements, dtype, staging)?;
            settle(all_reduce.driver(), is_lent)
        })
    }

    fn begin(
        &self,
        device: Device,
        meta: &[u64],
        rank_data: &Tensor,
        rank: i64,
        full_nvlink: bool,
    ) -> Result<AllReduce<Device>, Error> {
        rank_data.lend(&device)?;
        let world = meta.len();
        let rank = usize::try_from(rank).map_err(|_| Error::Rank { rank: usize::MAX, world })?;
        let peers = Peers { meta, rank, are_fully_connected: full_nvlink };
        AllReduce::new(device, &peers, rank_data.address, rank_data.bytes())
    }

    fn keep(&self, all_reduce: AllReduce<Device>) -> i64 {
        self.all_reduces.add(all_reduce)
    }

    fn with<T>(
        &self,
        fa: i64,
        act: impl FnOnce(&mut AllReduce<Device>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.all_reduces.with(ALL_REDUCE, fa, act)
    }
}

/// What a handle of [`Surface::dispose`] is of, in errors.
const ALL_REDUCE: &str = "all-reduce";

/// What is the host's may be gone once the caller has its call back.
fn settle(device: &Device, is_lent: bool) -> Result<(), Error> {
    if is_lent && !device.is_capturing()? { device.synchronize() } else { Ok(()) }
}

/// A handle's bytes, as a caller gives them.
fn handle_from(bytes: &[u8]) -> Result<Handle, Error> {
    Handle::try_from(bytes).map_err(|_| Error::Count {
        what: "bytes of a handle",
        expected: 64,
        found: bytes.len(),
    })
}

/// An offset into an allocation, as a caller gives it.
fn offset_from(offset: i64) -> Result<usize, Error> {
    usize::try_from(offset).map_err(|_| Error::Tensor { problem: format!("an offset of {offset} bytes") })
}

/// As many offsets as handles.
fn check_count(what: &'static str, expected: usize, found: usize) -> Result<(), Error> {
    if expected == found { Ok(()) } else { Err(Error::Count { what, expected, found }) }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
