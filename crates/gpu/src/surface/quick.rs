//! Quick all-reduce (`qr_*`): values travel quantised; by upstream's names, arguments in the order of the operators' schemas.

use std::time::Duration;

use super::{Surface, Tensor, handle_from, tensor};
use crate::driver::any::Device;
use crate::driver::{Driver, Handle};
use crate::error::Error;
use crate::quick::{Arithmetic, QuantLevel, QuickAllReduce, QuickHow, QuickOptions};

/// What a handle of these functions is of, in errors.
const QUICK: &str = "quick all-reduce";

impl Surface {
    /// `init_custom_qr(int rank, int world_size, int? qr_max_size=None) -> int`: begins one; `qr_max_size` is the largest
    /// message's bytes.
    ///
    /// # Errors
    ///
    /// As [`QuickAllReduce::new`].
    pub fn init_custom_qr(
        &self,
        device: Device,
        rank: i64,
        world_size: i64,
        qr_max_size: Option<i64>,
    ) -> Result<i64, Error> {
        let world = usize::try_from(world_size).unwrap_or(0);
        let rank = usize::try_from(rank).map_err(|_| Error::Rank { rank: usize::MAX, world })?;
        let mut options = QuickOptions::default();
        if let Some(most) = qr_max_size {
            options.most_bytes = super::offset_from(most)?;
        }
        Ok(self.quicks.add(QuickAllReduce::new(device, rank, world, options)?))
    }

    /// `qr_get_handle(int fa) -> Tensor`: the 64 bytes by which the peers open this rank's memory.
    ///
    /// # Errors
    ///
    /// [`Error::Context`], [`Error::Driver`].
    pub fn qr_get_handle(&self, fa: i64) -> Result<Handle, Error> {
        self.quicks.with(QUICK, fa, |quick| quick.handle())
    }

    /// `qr_open_handles(int fa, Tensor[] handles) -> ()`: of each rank, what its [`Surface::qr_get_handle`] returned.
    ///
    /// # Errors
    ///
    /// [`Error::Context`], and as [`QuickAllReduce::open_handles`].
    pub fn qr_open_handles(&self, fa: i64, handles: &[Vec<u8>]) -> Result<(), Error> {
        let handles: Result<Vec<_>, _> = handles.iter().map(|handle| handle_from(handle)).collect();
        let handles = handles?;
        self.quicks.with(QUICK, fa, |quick| quick.open_handles(&handles))
    }

    /// `qr_all_reduce(int fa, Tensor inp, Tensor! out, int quant_level, bool cast_bf2half=False) -> ()`: puts one on the stream.
    ///
    /// # Errors
    ///
    /// [`Error::Context`], [`Error::Tensor`], [`Error::Level`], and as [`QuickAllReduce::all_reduce`].
    pub fn qr_all_reduce(
        &self,
        fa: i64,
        inp: &Tensor,
        out: &Tensor,
        quant_level: i64,
        cast_bf2half: bool,
        stream: u64,
    ) -> Result<(), Error> {
        let dtype = tensor::check_pair(inp, out)?;
        let level = QuantLevel::from_number(quant_level)?;
        let how = QuickHow { level, as_f16: cast_bf2half, arithmetic: Arithmetic::default() };
        self.quicks.with(QUICK, fa, |quick| {
            let device = quick.driver().clone();
            quick.driver().set_stream(stream);
            let is_lent = inp.lend(&device)? | out.lend(&device)?;
            quick.all_reduce(inp.address, out.address, inp.elements, dtype, how)?;
            super::settle(quick.driver(), is_lent)
        })
    }

    /// Waits for the stream, then tells whether a kernel waited for a peer in vain.
    ///
    /// # Errors
    ///
    /// [`Error::Overdue`], [`Error::Context`].
    pub fn qr_check(&self, fa: i64) -> Result<(), Error> {
        self.quicks.with(QUICK, fa, |quick| quick.check())
    }

    /// From now on kernels wait so long for a peer.
    ///
    /// # Errors
    ///
    /// [`Error::Context`].
    pub fn qr_set_patience(&self, fa: i64, patience: Duration) -> Result<(), Error> {
        self.quicks.with(QUICK, fa, |quick| {
            quick.set_patience(patience);
            Ok(())
        })
    }

    /// `qr_destroy(int fa) -> ()`: gives back what belongs to it. The stream must be empty, on all ranks.
    ///
    /// # Errors
    ///
    /// [`Error::Context`], [`Error::Driver`].
    pub fn qr_destroy(&self, fa: i64) -> Result<(), Error> {
        self.quicks.remove(QUICK, fa)?.map_or(Ok(()), QuickAllReduce::destroy)
    }

    /// `qr_max_size() -> int`: bytes of the largest message unless said otherwise.
    pub fn qr_max_size(&self) -> i64 {
        QuickAllReduce::<Device>::max_size() as i64
    }
}
