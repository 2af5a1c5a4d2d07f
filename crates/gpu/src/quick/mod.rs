//! Quick all-reduce: two-shot, with what travels between the devices quantised.
//!
//! Each rank has one memory that all ranks have mapped; inputs need no registration, and a captured graph may be replayed. Every
//! rank sends every peer the part that the peer reduces, and every peer sends its result to all, both times quantised; the
//! own part goes the same way. So all ranks get the same bits, which are not those of the exact sum: a value comes back within
//! `m * (2^-(bits-1) + 4.2 u)` of what it was, `m` the largest of its block of 32, `u` half a last place of the type (2^-11 of
//! f16, 2^-8 of bf16), and that happens to each rank's value and to the sum.
//!
//! | here | what others call it |
//! |---|---|
//! | [`QuickAllReduce::new`] | `init_custom_qr` |
//! | [`QuickAllReduce::handle`] | `qr_get_handle` |
//! | [`QuickAllReduce::open_handles`] | `qr_open_handles` |
//! | [`QuickAllReduce::all_reduce`] | `qr_all_reduce` |
//! | [`QuickAllReduce::destroy`] | `qr_destroy` |
//! | [`QuickAllReduce::max_size`] | `qr_max_size` |
//!
//! The invariant: all ranks make the same calls in the same order, so that each block's tile *n* is the same everywhere.

mod artefacts;
mod layout;
mod level;

use std::time::Duration;

pub use artefacts::QuickArtefact;
use layout::QuickCall;
pub use layout::{QUICK_BLOCKS, QUICK_THREADS};
pub use level::{Arithmetic, QuantLevel};

use crate::all_reduce::{AllReduce, check_buffers};
use crate::driver::{Driver, Handle};
use crate::dtype::DType;
use crate::error::Error;
use crate::layout::{MAX_RANKS, OVERDUE_BYTES, Overdue};

/// What all ranks must say alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuickOptions {
    /// Bytes of the largest message: 2 GiB.
    pub most_bytes: usize,
    /// Blocks of a launch at most, all of which must fit on the device at once since they wait for those of other devices: 108,
    /// one for each multiprocessor of an A100. An MI300X has room for [`QUICK_BLOCKS`]. Memory is taken for all of them, 64 KiB
    /// each, a little more for odd numbers of ranks.
    pub most_blocks: usize,
    /// Threads of a block: [`QUICK_THREADS`]. Elsewhere than on AMD's devices also 32, 64 or 128, which takes less time where devices
    /// are simulated.
    pub threads: usize,
}

impl Default for QuickOptions {
    fn default() -> Self {
        Self { most_bytes: 2 << 30, most_blocks: 108, threads: QUICK_THREADS }
    }
}

/// The ranks' quick all-reduce, as one rank has it.
///
/// ```
/// # #[cfg(feature = "sim")] {
/// use unisono_gpu::driver::sim::Simulator;
/// use unisono_gpu::{Arithmetic, DType, Driver, QuantLevel, QuickAllReduce, QuickHow, QuickOptions};
///
/// let simulator = Simulator::new(2, false);
/// let options = QuickOptions { most_bytes: 1 << 20, most_blocks: 1, threads: 32 };
/// let of_rank = |rank| QuickAllReduce::new(simulator.device(rank), rank, 2, options);
/// let mut ranks = [of_rank(0)?, of_rank(1)?];
/// let handles = [ranks[0].handle()?, ranks[1].handle()?];
/// for (rank, quick) in ranks.iter_mut().enumerate() {
///     quick.open_handles(&handles)?;
///     let message = simulator.device(rank).allocate(16)?;
///     simulator.device(rank).write(message, &[0x00, 0x3c].repeat(8))?; // eight ones
///     let how = QuickHow { level: QuantLevel::Int8, as_f16: false, arithmetic: Arithmetic::Narrow };
///     quick.all_reduce(message, message, 8, DType::F16, how)?;
/// }
/// simulator.run(1)?;
/// ranks[0].check()?;
/// # }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct QuickAllReduce<D: Driver> {
    driver: D,
    rank: usize,
    world: usize,
    options: QuickOptions,
    /// The own memory.
    memory: u64,
    /// All ranks' memories as this rank sees them, once their handles have been opened.
    signals: Option<[u64; MAX_RANKS]>,
    overdue: u64,
    patience: Duration,
}

impl<D: Driver> QuickAllReduce<D> {
    /// Bytes of the largest message unless told otherwise.
    pub fn max_size() -> usize {
        QuickOptions::default().most_bytes
    }

    /// For one of so many ranks. The peers cannot be reached before [`QuickAllReduce::open_handles`].
    ///
    /// # Errors
    ///
    /// [`Error::World`], [`Error::Rank`]; [`Error::Options`] for blocks or threads that no kernel has, [`Error::Threads`] for threads
    /// that those of this device do not have; [`Error::Driver`].
    pub fn new(driver: D, rank: usize, world: usize, options: QuickOptions) -> Result<Self, Error> {
        if !(2..=MAX_RANKS).contains(&world) {
            return Err(Error::World { world });
        }
        if rank >= world {
            return Err(Error::Rank { rank, world });
        }
        let QuickOptions { most_blocks, threads, .. } = options;
        if !(1..=QUICK_BLOCKS).contains(&most_blocks) || ![32, 64, 128, QUICK_THREADS].contains(&threads) {
            return Err(Error::Options { blocks: most_blocks, threads });
        }
        if threads != QUICK_THREADS && driver.has_fixed_blocks() {
            return Err(Error::Threads { found: threads, needed: QUICK_THREADS });
        }
        let memory = driver.allocate_uncached(layout::memory_bytes(world, most_blocks, threads))?;
        let patience = AllReduce::<D>::DEFAULT_PATIENCE;
        // From here on it is given back with the rest.
        let mut new = Self { driver, rank, world, options, memory, signals: None, overdue: 0, patience };
        new.overdue = new.driver.allocate_host(OVERDUE_BYTES)?;
        Ok(new)
    }

    /// The device, and the stream on it.
    pub fn driver(&self) -> &D {
        &self.driver
    }

    /// By which the peers open this rank's memory.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`].
    pub fn handle(&self) -> Result<Handle, Error> {
        self.driver.export(self.memory)
    }

    /// Opens the peers' memories: of each rank, what its [`QuickAllReduce::handle`] returned; the own one is not looked at.
    /// Either all are open after it or none is.
    ///
    /// # Errors
    ///
    /// [`Error::Count`] unless there is one per rank, or if they are open already; [`Error::TooSmall`] for the memory of a
    /// rank that was told of fewer blocks; [`Error::Driver`] for a handle that cannot be opened.
    pub fn open_handles(&mut self, handles: &[Handle]) -> Result<(), Error> {
        if handles.len() != self.world {
            return Err(Error::Count { what: "handles", expected: self.world, found: handles.len() });
        }
        if self.signals.is_some() {
            return Err(Error::Count { what: "more handles", expected: 0, found: handles.len() });
        }
        let mut signals = [0; MAX_RANKS];
        signals[self.rank] = self.memory;
        for peer in (0..self.world).filter(|peer| *peer != self.rank) {
            match self.opened(&handles[peer]) {
                Ok(address) => signals[peer] = address,
                Err(problem) => {
                    // What went wrong first is what is told.
                    let _ = self.close(&signals);
                    return Err(problem);
                }
            }
        }
        self.signals = Some(signals);
        Ok(())
    }

    /// From now on kernels wait so long for a peer before they say [`Error::Overdue`].
    pub fn set_patience(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// Puts an all-reduce on the stream: `output` becomes the sum of all ranks' inputs, quantised on the way. In place if they
    /// are the same. With `as_f16`, bf16 values travel and are added as f16; those beyond its range become infinite.
    ///
    /// # Errors
    ///
    /// Before anything is put on the stream: [`Error::Type`] for f32, [`Error::Misaligned`], [`Error::Overlap`],
    /// [`Error::TooSmall`] for a message larger than was said, [`Error::Count`] before the handles are open.
    pub fn all_reduce(
        &self,
        input: u64,
        output: u64,
        elements: usize,
        dtype: DType,
        how: QuickHow,
    ) -> Result<(), Error> {
        if dtype == DType::F32 {
            return Err(Error::Type { what: "quick all-reduce", dtype });
        }
        let bytes = elements * dtype.size();
        check_buffers(input, output, bytes)?;
        if bytes > self.options.most_bytes {
            let what = "the largest message of this quick all-reduce";
            return Err(Error::TooSmall { what, found: self.options.most_bytes, needed: bytes });
        }
        let opened = Error::Count { what: "opened handles", expected: self.world, found: 0 };
        let signals = self.signals.ok_or(opened)?;
        self.check_now()?;
        if elements == 0 {
            return Ok(());
        }
        let threads = self.options.threads;
        let blocks = bytes.div_ceil(layout::tile_bytes(threads)).min(self.options.most_blocks);
        let call = QuickCall {
            input,
            output,
            signals,
            elements: elements as u64,
            patience: self.driver.ticks(self.patience),
            overdue: self.overdue,
            rank: self.rank as u32,
            world: self.world as u32,
        };
        let QuickHow { level, as_f16, arithmetic } = how;
        let kernel =
            self.driver.kernel(&level.artefact().code(), &level.kernel(dtype, as_f16, arithmetic))?;
        self.driver.launch(&kernel, blocks, threads, &call.to_bytes())
    }

    /// Waits for the stream, then tells whether a launch waited for a peer in vain. Nothing that was reduced since is worth
    /// anything, on no rank.
    ///
    /// # Errors
    ///
    /// [`Error::Overdue`]: for whom it waited.
    pub fn check(&self) -> Result<(), Error> {
        self.driver.synchronize()?;
        self.check_now()
    }

    /// As [`QuickAllReduce::check`], without waiting. Every all-reduce asks first.
    ///
    /// # Errors
    ///
    /// As [`QuickAllReduce::check`].
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
    pub fn destroy(mut self) -> Result<(), Error> {
        self.give_back()
    }

    /// All of it, also where a part cannot be; the first error.
    fn give_back(&mut self) -> Result<(), Error> {
        let mut done = vec![self.signals.take().map_or(Ok(()), |signals| self.close(&signals))];
        let (memory, overdue) = (std::mem::take(&mut self.memory), std::mem::take(&mut self.overdue));
        if memory != 0 {
            done.push(self.driver.free(memory));
        }
        if overdue != 0 {
            done.push(self.driver.free_host(overdue));
        }
        done.into_iter().collect()
    }

    fn opened(&self, handle: &Handle) -> Result<u64, Error> {
        let needed = layout::memory_bytes(self.world, self.options.most_blocks, self.options.threads);
        let address = self.driver.open(handle)?;
        let refused = match self.driver.allocation_of(address) {
            Ok(found) if found.bytes >= needed => return Ok(address),
            Ok(found) => {
                let what = "a peer's memory for the quick all-reduce";
                Error::TooSmall { what, found: found.bytes, needed }
            }
            Err(problem) => problem,
        };
        let _ = self.driver.close(address);
        Err(refused)
    }

    /// Closes the peers' memories that are open. To be done before the own memory is forgotten.
    fn close(&self, signals: &[u64; MAX_RANKS]) -> Result<(), Error> {
        let peers = signals.iter().filter(|address| **address != 0 && **address != self.memory);
        let closed = peers.map(|address| self.driver.close(*address)).collect::<Vec<_>>();
        closed.into_iter().collect()
    }
}

impl<D: Driver> Drop for QuickAllReduce<D> {
    fn drop(&mut self) {
        // Who wants to know what went wrong calls `destroy`.
        let _ = self.give_back();
    }
}

/// How a message is reduced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct QuickHow {
    /// In what values travel.
    pub level: QuantLevel,
    /// Whether bf16 travels and is added as f16, which has more places and less range.
    pub as_f16: bool,
    /// In what they are scaled and added.
    pub arithmetic: Arithmetic,
}
