//! All-reduce by a switch that adds, for machines whose devices have one.
//!
//! Never chosen, only asked for: the switch adds in an order of its own, so the bits may differ from those of every other
//! all-reduce here. It takes memory of a multicast object, which a driver makes where the devices can
//! ([`Driver::create_multicast`]: one rank makes it, all join it, all bind memory to it), and compute capability 9.0.

use super::{AllReduce, check_aligned, check_apart};
use crate::artefacts::Code;
use crate::driver::{Driver, Multicast};
use crate::dtype::DType;
use crate::error::Error;
use crate::layout::{BLOCK_THREADS, PACK_BYTES};
use crate::plan;

/// The kernels, as they are shipped: PTX for compute capability 9.0 and newer.
pub static MULTICAST_PTX: &str = MULTICAST.ptx;

/// For a driver. AMD's devices have no such switch.
static MULTICAST: Code = Code {
    ptx: include_str!("../../artefacts/multicast_one_shot-sm_90.ptx"),
    code_objects: [("gfx90a", &[]), ("gfx942", &[])],
};

/// The name of the kernel for a type and a number of ranks.
pub fn multicast_kernel(dtype: DType, world: usize) -> String {
    format!("multicast_one_shot_{}_{world}", dtype.name())
}

impl<D: Driver> AllReduce<D> {
    /// Puts an all-reduce on the stream: `output` becomes the sum of what all ranks have in the multicast object, f16 and bf16
    /// added in f32, in the order of the switch.
    ///
    /// # Errors
    ///
    /// [`Error::Misaligned`], also for a message that is not whole packs of 16 bytes; [`Error::Overlap`] where the output
    /// touches the object's memory; [`Error::TooSmall`].
    pub fn multicast_all_reduce(
        &mut self,
        multicast: Multicast,
        output: u64,
        elements: usize,
        dtype: DType,
    ) -> Result<(), Error> {
        let bytes = elements * dtype.size();
        check_aligned("multicast memory", multicast.own)?;
        check_aligned("multicast memory", multicast.all)?;
        check_aligned("output", output)?;
        if !bytes.is_multiple_of(PACK_BYTES) {
            return Err(Error::Misaligned { what: "end of the message", address: output + bytes as u64 });
        }
        check_apart((multicast.own, multicast.bytes), (output, bytes))?;
        check_apart((multicast.all, multicast.bytes), (output, bytes))?;
        if multicast.bytes < bytes {
            return Err(Error::TooSmall {
                what: "the multicast memory",
                found: multicast.bytes,
                needed: bytes,
            });
        }
        self.check_now()?;
        self.check_own_memory((multicast.own, bytes), (output, bytes), None)?;
        if elements == 0 {
            return Ok(());
        }
        let mut parameters = self.call(0, output, elements).to_bytes();
        parameters.extend_from_slice(&multicast.all.to_le_bytes());
        let kernel = self.driver.kernel(&MULTICAST, &multicast_kernel(dtype, self.world))?;
        let blocks = plan::blocks(bytes, self.most_blocks);
        self.driver.launch(&kernel, blocks, BLOCK_THREADS, &parameters)
    }
}
