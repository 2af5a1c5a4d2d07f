//! A rank's side of the all-reduce: where everybody's memory is, which inputs the peers know, and launching.
//!
//! Peers read a rank's input where it lies. They know it because it was registered: a row of pointers, one per rank, in a
//! table in device memory. A launch is told its row. While a graph is captured, inputs get rows that are filled later, once
//! the capture is over and handles have been exchanged; a replay then reads the filled rows. Without registration the input
//! goes through a staging buffer that is registered.
//!
//! The invariant: all ranks make the same calls in the same order, so row *n* means the same buffer everywhere.

mod buffers;
mod fused;
mod multicast;
mod table;

use std::collections::HashMap;
use std::time::Duration;

pub(crate) use buffers::check_buffers;
use buffers::{bytes_from, check_aligned, check_apart};
pub use fused::{FusedArtefact, RmsNorm};
pub use multicast::{MULTICAST_PTX, multicast_kernel};
use table::Table;

use crate::driver::{Driver, Handle};
use crate::dtype::DType;
use crate::error::Error;
use crate::layout::{
    BLOCK_THREADS, Call, MAX_BLOCKS, MAX_RANKS, META_BYTES, OVERDUE_BYTES, Overdue, ROW_BYTES,
};
use crate::plan::{self, Algorithm, Plan};

/// Who takes part, and where their memories are, as this rank sees them.
#[derive(Debug, Clone)]
pub struct Peers<'a> {
    /// Each rank's memory for signals and scratch: [`META_BYTES`], zeroed, and behind them as much as the largest message.
    pub meta: &'a [u64],
    /// Which of them is the own one.
    pub rank: usize,
    /// Whether every device reaches every other directly.
    pub are_fully_connected: bool,
}

/// A registered buffer through which an input goes that is not registered itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Staging {
    /// Its address, as registered.
    pub address: u64,
    /// Its length.
    pub bytes: usize,
}

/// The ranks' all-reduce, as one rank has it.
#[derive(Debug)]
pub struct AllReduce<D: Driver> {
    driver: D,
    rank: usize,
    world: usize,
    signals: [u64; MAX_RANKS],
    /// What the own memory has behind its signals.
    scratch_bytes: usize,
    /// As much of it as any launch has used: peers may still read what the last one left there.
    scratch_used: usize,
    table: Table,
    /// Where a kernel says for whom it waited in vain: the host's memory. 0 once it has been given back.
    overdue: u64,
    patience: Duration,
    most_blocks: usize,
    /// Own addresses that have a row.
    registered: HashMap<u64, u64>,
    /// Inputs seen while capturing, whose rows are still to be filled.
    captured: Vec<Captured>,
    /// Peers' allocations that were opened: by handle, since several buffers may lie in one.
    opened: HashMap<Handle, u64>,
}

/// An input of a launch that was captured.
#[derive(Debug, Clone, Copy)]
struct Captured {
    input: u64,
    bytes: usize,
    row: u64,
}

impl<D: Driver> AllReduce<D> {
    /// How long a kernel waits for a peer unless told otherwise.
    pub const DEFAULT_PATIENCE: Duration = Duration::from_secs(30 * 60);

    /// Bytes of a rank's signals: its memory is as much and, behind it, as much as the largest message.
    pub fn meta_size() -> usize {
        META_BYTES
    }

    /// For the peers, with a table of registered buffers in `table_bytes` of device memory (64 bytes per buffer).
    ///
    /// # Errors
    ///
    /// [`Error::World`], [`Error::Rank`], [`Error::NotFullyConnected`]; [`Error::Meta`] for a memory that cannot hold signals.
    pub fn new(driver: D, peers: &Peers<'_>, table: u64, table_bytes: usize) -> Result<Self, Error> {
        let (world, rank) = (peers.meta.len(), peers.rank);
        plan::check_topology(world, peers.are_fully_connected)?;
        let own = *peers.meta.get(rank).ok_or(Error::Rank { rank, world })?;
        if let Some(askew) = peers.meta.iter().find(|address| !address.is_multiple_of(128)) {
            return Err(Error::Meta { address: *askew });
        }
        let scratch_bytes =
            bytes_from(&driver, own)?.checked_sub(META_BYTES).ok_or(Error::Meta { address: own })?;
        let found = bytes_from(&driver, table)?;
        if found < table_bytes {
            return Err(Error::TooSmall {
                what: "the table of registered buffers",
                found,
                needed: table_bytes,
            });
        }
        let mut signals = [0; MAX_RANKS];
        signals[..world].copy_from_slice(peers.meta);
        let overdue = driver.allocate_host(OVERDUE_BYTES)?;
        Ok(Self {
            driver,
            rank,
            world,
            signals,
            scratch_bytes,
            scratch_used: 0,
            table: Table::new(table, table_bytes),
            overdue,
            patience: Self::DEFAULT_PATIENCE,
            most_blocks: MAX_BLOCKS,
            registered: HashMap::new(),
            captured: Vec::new(),
            opened: HashMap::new(),
        })
    }

    /// From now on kernels wait so long for a peer before they say [`Error::Overdue`].
    pub fn set_patience(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// From now on launches have so many blocks at most, [`MAX_BLOCKS`] in any case. All ranks must say the same.
    pub fn set_most_blocks(&mut self, most: usize) {
        self.most_blocks = most.clamp(1, MAX_BLOCKS);
    }

    /// Makes a buffer known to all: its address on each rank, as this rank sees it.
    ///
    /// # Errors
    ///
    /// [`Error::Count`] unless there is one per rank; [`Error::TableFull`]; [`Error::Capturing`].
    pub fn register_buffer(&mut self, addresses: &[u64]) -> Result<(), Error> {
        if self.driver.is_capturing()? {
            return Err(Error::Capturing { what: "registering a buffer" });
        }
        if addresses.len() != self.world {
            return Err(Error::Count { what: "addresses", expected: self.world, found: addresses.len() });
        }
        let row = self.table.take_row()?;
        self.fill_row(row, addresses)?;
        self.registered.insert(addresses[self.rank], row);
        Ok(())
    }

    /// Puts an all-reduce on the stream: `output` becomes the sum of all ranks' inputs. In place if they are the same.
    ///
    /// With staging the input is first copied there; without, it must have been registered, or a graph be captured.
    ///
    /// # Errors
    ///
    /// Before anything is put on the stream: [`Error::Misaligned`], [`Error::Overlap`], [`Error::InUse`] for an output where peers
    /// read or write meanwhile, [`Error::NotRegistered`], [`Error::TooSmall`], [`Error::TableFull`].
    pub fn all_reduce(
        &mut self,
        input: u64,
        output: u64,
        elements: usize,
        dtype: DType,
        staging: Option<Staging>,
    ) -> Result<(), Error> {
        let bytes = elements * dtype.size();
        check_buffers(input, output, bytes)?;
        if elements == 0 {
            return Ok(());
        }
        let is_in_place = input == output && staging.is_none();
        let plan = Plan::choose(self.world, elements, dtype, is_in_place, self.most_blocks);
        let needed = plan.scratch_bytes(self.world, elements, dtype);
        if needed > self.scratch_bytes {
            return Err(Error::TooSmall {
                what: "the scratch behind the signals",
                found: self.scratch_bytes,
                needed,
            });
        }
        self.scratch_used = self.scratch_used.max(needed);
        let inputs = self.inputs((input, bytes), (output, bytes), staging)?;
        self.launch(plan, inputs, output, elements, dtype)
    }

    /// Puts a reduce-scatter on the stream: `output` becomes the sum of all ranks' portions of this rank, each of so many
    /// elements. The input has a portion for each rank, one after the other. May be in place, into the own portion.
    ///
    /// # Errors
    ///
    /// As [`AllReduce::all_reduce`].
    pub fn reduce_scatter(
        &mut self,
        input: u64,
        output: u64,
        elements: usize,
        dtype: DType,
        staging: Option<Staging>,
    ) -> Result<(), Error> {
        let portion = elements * dtype.size();
        let is_in_place = output == input + (self.rank * portion) as u64;
        check_aligned("input", input)?;
        // In place the output is aligned where the kernel wants it to be.
        if !is_in_place {
            check_aligned("output", output)?;
            check_apart((input, self.world * portion), (output, portion))?;
        }
        if elements == 0 {
            return Ok(());
        }
        let inputs = self.inputs((input, self.world * portion), (output, portion), staging)?;
        let blocks = plan::blocks(portion, self.most_blocks);
        self.launch(Plan { algorithm: Algorithm::ReduceScatter, blocks }, inputs, output, elements, dtype)
    }

    /// Puts an all-gather on the stream: `output` becomes all ranks' inputs, one after the other, each of so many elements.
    ///
    /// # Errors
    ///
    /// As [`AllReduce::all_reduce`]; the output may not touch the input.
    pub fn all_gather(
        &mut self,
        input: u64,
        output: u64,
        elements: usize,
        dtype: DType,
        staging: Option<Staging>,
    ) -> Result<(), Error> {
        let bytes = elements * dtype.size();
        check_aligned("input", input)?;
        check_aligned("output", output)?;
        check_apart((input, bytes), (output, self.world * bytes))?;
        if elements == 0 {
            return Ok(());
        }
        let inputs = self.inputs((input, bytes), (output, self.world * bytes), staging)?;
        let blocks = plan::blocks(bytes, self.most_blocks);
        self.launch(Plan { algorithm: Algorithm::AllGather, blocks }, inputs, output, bytes, dtype)
    }

    /// Makes a buffer known to all, by handles: of each rank, that of its allocation and where in it the buffer lies. The own
    /// buffer begins at `own` and has so many bytes.
    ///
    /// # Errors
    ///
    /// As [`AllReduce::register_buffer`], and as [`AllReduce::register_graph_buffers`] for handles and offsets.
    pub fn register_buffer_by_handle(
        &mut self,
        own: u64,
        bytes: usize,
        of_ranks: &[(Handle, usize)],
    ) -> Result<(), Error> {
        if of_ranks.len() != self.world {
            return Err(Error::Count { what: "handles", expected: self.world, found: of_ranks.len() });
        }
        let mut addresses = Vec::with_capacity(self.world);
        for (rank, (handle, offset)) in of_ranks.iter().enumerate() {
            addresses.push(match rank == self.rank {
                true => own,
                false => self.opened_at(handle, *offset, bytes)?,
            });
        }
        self.register_buffer(&addresses)
    }

    /// Takes over what was opened for this all-reduce, to be closed with it.
    pub fn take_over(&mut self, handle: Handle, base: u64) {
        self.opened.insert(handle, base);
    }

    /// What peers need to reach the inputs that were captured: for each, in order, the handle of its allocation and where in
    /// it the input lies.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`].
    pub fn graph_buffers(&self) -> Result<Vec<(Handle, usize)>, Error> {
        let one = |captured: &Captured| {
            let base = self.driver.allocation_of(captured.input)?.base;
            Ok((self.driver.export(base)?, (captured.input - base) as usize))
        };
        self.captured.iter().map(one).collect()
    }

    /// Fills the rows of the captured inputs: of each rank, what its [`AllReduce::graph_buffers`] returned.
    ///
    /// # Errors
    ///
    /// [`Error::Count`] unless all ranks captured as many inputs; [`Error::Capturing`]; [`Error::Driver`] for a handle that
    /// cannot be opened; [`Error::TooSmall`] for an offset that leads out of an allocation.
    pub fn register_graph_buffers(&mut self, of_ranks: &[Vec<(Handle, usize)>]) -> Result<(), Error> {
        if self.driver.is_capturing()? {
            return Err(Error::Capturing { what: "registering a graph's buffers" });
        }
        if of_ranks.len() != self.world {
            return Err(Error::Count { what: "ranks", expected: self.world, found: of_ranks.len() });
        }
        let expected = self.captured.len();
        if let Some(other) = of_ranks.iter().find(|buffers| buffers.len() != expected) {
            return Err(Error::Count { what: "captured buffers of each rank", expected, found: other.len() });
        }
        let mut rows = Vec::with_capacity(expected);
        for (index, captured) in self.captured.clone().into_iter().enumerate() {
            let mut addresses = Vec::with_capacity(self.world);
            for (rank, buffers) in of_ranks.iter().enumerate() {
                let (handle, offset) = &buffers[index];
                addresses.push(match rank == self.rank {
                    true => captured.input,
                    false => self.opened_at(handle, *offset, captured.bytes)?,
                });
            }
            rows.push((captured.row, addresses));
        }
        // Only once all handles are open: either all rows are filled or none is.
        rows.iter().try_for_each(|(row, addresses)| self.fill_row(*row, addresses))?;
        self.captured.clear();
        Ok(())
    }

    /// Waits for the stream, then tells whether a launch waited for a peer in vain. The results of such a launch are worth
    /// nothing, on no rank.
    ///
    /// # Errors
    ///
    /// [`Error::Overdue`]: for whom it waited.
    pub fn check(&self) -> Result<(), Error> {
        self.driver.synchronize()?;
        self.check_now()
    }

    /// As [`AllReduce::check`], without waiting: of what has been seen so far. Every call that launches asks first.
    ///
    /// # Errors
    ///
    /// As [`AllReduce::check`].
    pub fn check_now(&self) -> Result<(), Error> {
        let mut record = [0; OVERDUE_BYTES];
        self.driver.peek(self.overdue, &mut record)?;
        match Overdue::from_bytes(&record) {
            Some(overdue) => Err(Error::Overdue { overdue, patience: self.patience }),
            None => Ok(()),
        }
    }

    /// Gives back what was opened and allocated. The stream must be empty, on all ranks.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`]; what can be given back has been.
    pub fn dispose(mut self) -> Result<(), Error> {
        self.give_back()
    }

    /// The device, and the stream on it.
    pub fn driver(&self) -> &D {
        &self.driver
    }

    fn give_back(&mut self) -> Result<(), Error> {
        let overdue = std::mem::take(&mut self.overdue);
        let freed = if overdue == 0 { Ok(()) } else { self.driver.free_host(overdue) };
        let closed: Vec<_> = self.opened.drain().map(|(_, base)| self.driver.close(base)).collect();
        freed?;
        closed.into_iter().collect()
    }

    /// The row by which the peers find this input. What went wrong before is told first. Of input and output, address and length.
    fn inputs(
        &mut self,
        input: (u64, usize),
        output: (u64, usize),
        staging: Option<Staging>,
    ) -> Result<u64, Error> {
        self.check_now()?;
        self.check_own_memory(input, output, staging)?;
        match staging {
            Some(staging) => self.stage(input.0, input.1, staging),
            None => self.row_of(input.0, input.1),
        }
    }

    fn stage(&self, input: u64, bytes: usize, staging: Staging) -> Result<u64, Error> {
        if staging.bytes < bytes {
            return Err(Error::TooSmall { what: "the staging buffer", found: staging.bytes, needed: bytes });
        }
        let address = staging.address;
        let row = self.registered.get(&address).ok_or(Error::NotRegistered { address })?;
        self.driver.copy(input, address, bytes)?;
        Ok(*row)
    }

    fn row_of(&mut self, input: u64, bytes: usize) -> Result<u64, Error> {
        if self.driver.is_capturing()? {
            let row = self.table.take_row()?;
            self.captured.push(Captured { input, bytes, row });
            return Ok(row);
        }
        self.registered.get(&input).copied().ok_or(Error::NotRegistered { address: input })
    }

    fn fill_row(&self, row: u64, addresses: &[u64]) -> Result<(), Error> {
        let mut bytes = [0; ROW_BYTES];
        for (to, address) in bytes.chunks_exact_mut(8).zip(addresses) {
            to.copy_from_slice(&address.to_le_bytes());
        }
        self.driver.write(row, &bytes)
    }

    /// Where a peer's input is here; the peer may say anything, so it is held against the allocation.
    fn opened_at(&mut self, handle: &Handle, offset: usize, bytes: usize) -> Result<u64, Error> {
        let base = self.opened(handle)?;
        let (found, needed) = (self.driver.allocation_of(base)?.bytes, offset.saturating_add(bytes));
        if needed > found {
            let what = "what a peer captured lies in an allocation that";
            return Err(Error::TooSmall { what, found, needed });
        }
        Ok(base + offset as u64)
    }

    fn opened(&mut self, handle: &Handle) -> Result<u64, Error> {
        if let Some(base) = self.opened.get(handle) {
            return Ok(*base);
        }
        let base = self.driver.open(handle)?;
        self.opened.insert(*handle, base);
        Ok(base)
    }

    fn launch(
        &self,
        plan: Plan,
        inputs: u64,
        output: u64,
        elements: usize,
        dtype: DType,
    ) -> Result<(), Error> {
        let Plan { algorithm, blocks } = plan;
        let kernel = self.kernel(algorithm, dtype)?;
        self.driver.launch(&kernel, blocks, BLOCK_THREADS, &self.call(inputs, output, elements).to_bytes())
    }

    fn call(&self, inputs: u64, output: u64, elements: usize) -> Call {
        Call {
            inputs,
            signals: self.signals,
            output,
            elements: elements as u64,
            patience: self.driver.ticks(self.patience),
            overdue: self.overdue,
            rank: self.rank as u32,
        }
    }

    fn kernel(&self, algorithm: Algorithm, dtype: DType) -> Result<D::Kernel, Error> {
        self.driver.kernel(&algorithm.code(), &algorithm.kernel(dtype, self.world))
    }
}

impl<D: Driver> Drop for AllReduce<D> {
    fn drop(&mut self) {
        // Who wants to know what went wrong calls `dispose`.
        let _ = self.give_back();
    }
}
