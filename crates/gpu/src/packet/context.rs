//! A rank's side of the all-reduce by packets: its memory, the others', launches, and what became of them.
//!
//! The invariant: **a rank's scratch is zeroed before any peer knows where it is**, so no word there is ever taken for a packet that was
//! not sent.

use std::sync::Arc;
use std::time::Duration;

use unisono_os::fork_guard::ForkMark;

use super::artefacts::PacketKernel;
use super::call::{Call, PROGRESS_BYTES};
use super::carrier::Carrier;
use super::crossing::Shared;
use super::error::PacketError;
use super::host_words::{HostWords, MapHost};
use super::offer::Offer;
use super::shape::{DATA_BYTES, Shape, Sum};
use super::wire::Wire;
use crate::all_reduce::check_buffers;
use crate::driver::Driver;
use crate::dtype::DType;
use crate::error::Error;
use crate::layout::{BLOCK_THREADS, MAX_BLOCKS, MAX_RANKS, OVERDUE_BYTES, Overdue};

/// How much is zeroed at a time.
const ZEROED_AT_ONCE: usize = 1 << 20;

/// What a rank brings to a context.
#[derive(Debug, Clone, Copy)]
pub struct PacketConfig {
    /// Which rank it is, and how ranks are divided among nodes.
    pub shape: Shape,
    /// The device address of its scratch, at a multiple of 8: peers on its node write there, if it has any. See
    /// [`Shape::scratch_bytes`].
    pub scratch: u64,
    /// Bytes of it.
    pub scratch_bytes: usize,
    /// Of two nodes: how many bytes of packets are held for the other node. See [`Shape::put_bytes`].
    pub put_bytes: usize,
    /// How sums are formed.
    pub sum: Sum,
    /// How long a kernel waits for a word before it gives up.
    pub patience: Duration,
    /// The number of the first call: 1, unless the wrap-around is to be seen.
    pub first_call: u32,
}

impl PacketConfig {
    /// With the sums of all other algorithms, and half an hour of patience.
    pub fn new(shape: Shape, scratch: u64, scratch_bytes: usize, put_bytes: usize) -> Self {
        let patience = Duration::from_secs(30 * 60);
        Self { shape, scratch, scratch_bytes, put_bytes, sum: Sum::default(), patience, first_call: 1 }
    }
}

/// A rank whose memory is ready, and that does not know the others' yet. Dropped, it gives back what it has allocated.
#[derive(Debug)]
pub struct Prepared<D: Driver> {
    config: PacketConfig,
    holdings: Holdings<D>,
    slot: usize,
    put: usize,
}

/// A rank's all-reduce by packets. Dropped, it says goodbye and gives back what it has; [`PacketContext::dispose`] also tells what
/// went wrong with that.
#[derive(Debug)]
pub struct PacketContext<D: Driver> {
    config: PacketConfig,
    /// What does not change from launch to launch.
    call: Call,
    failure: Option<Error>,
    far: Option<Far<D>>,
    holdings: Holdings<D>,
}

/// What is there for the other node.
#[derive(Debug)]
struct Far<D: Driver> {
    carrier: Carrier,
    words: Words<D>,
}

/// What was allocated and opened. Given back when it is dropped, at the latest.
#[derive(Debug)]
struct Holdings<D: Driver> {
    driver: D,
    opened: Vec<u64>,
    /// Memory of the device's; 0 once it has been given back, or before there is any.
    progress: u64,
    /// The same of the host's.
    overdue: u64,
    /// A forked child has nothing of it, and calls no driver.
    born: ForkMark,
}

impl<D: Driver> Holdings<D> {
    fn new(driver: D) -> Result<Self, Error> {
        let mut new = Self { driver, opened: Vec::new(), progress: 0, overdue: 0, born: ForkMark::now() };
        new.progress = new.driver.allocate(PROGRESS_BYTES)?;
        new.overdue = new.driver.allocate_host(OVERDUE_BYTES)?;
        Ok(new)
    }

    /// Where a peer's scratch is here; the peer may say anything, so it is held against the allocation.
    fn open_peer(&mut self, offer: &Offer, used: usize) -> Result<u64, Error> {
        let base = self.driver.open(&offer.handle)?;
        self.opened.push(base);
        let found = self.driver.allocation_of(base)?.bytes;
        let needed = usize::try_from(offer.offset).unwrap_or(usize::MAX).saturating_add(used);
        if needed > found {
            let what = "a peer's scratch lies in an allocation that";
            return Err(Error::TooSmall { what, found, needed });
        }
        let address = base + offer.offset;
        if !address.is_multiple_of(8) {
            return Err(Error::Misaligned { what: "scratch of a peer", address });
        }
        Ok(address)
    }

    /// All of it, also where a part cannot be; the first error.
    fn give_back(&mut self) -> Result<(), Error> {
        if self.born.crossed_fork() {
            return Ok(());
        }
        let driver = &self.driver;
        let mut done: Vec<_> = self.opened.drain(..).map(|base| driver.close(base)).collect();
        for (address, free) in [
            (&mut self.progress, D::free as fn(&D, u64) -> Result<(), Error>),
            (&mut self.overdue, D::free_host),
        ] {
            let address = std::mem::take(address);
            if address != 0 {
                done.push(free(driver, address));
            }
        }
        done.into_iter().collect()
    }
}

impl<D: Driver> Drop for Holdings<D> {
    fn drop(&mut self) {
        // Who wants to know what went wrong calls `dispose`.
        let _ = self.give_back();
    }
}

/// Words of the host's that the device reaches.
#[derive(Debug)]
struct Words<D: Driver> {
    driver: D,
    address: u64,
    unmap: fn(&D, u64) -> Result<(), Error>,
    _words: Arc<HostWords>,
    /// As above.
    born: ForkMark,
}

impl<D: Driver> Words<D> {
    /// They stay mapped, as long as the driver has the device: somebody may still reach them.
    fn leave(mut self) {
        self.address = 0;
    }

    fn give_back(&mut self) -> Result<(), Error> {
        let address = std::mem::take(&mut self.address);
        if address == 0 || self.born.crossed_fork() { Ok(()) } else { (self.unmap)(&self.driver, address) }
    }
}

impl<D: Driver> Drop for Words<D> {
    fn drop(&mut self) {
        // As above.
        let _ = self.give_back();
    }
}

impl<D: Driver> Prepared<D> {
    /// Zeroes the scratch, on the stream.
    ///
    /// # Errors
    ///
    /// [`Error::TooSmall`] for scratch that is not there, [`Error::Misaligned`]; [`Error::Driver`].
    pub fn new(driver: D, config: PacketConfig) -> Result<Self, Error> {
        let PacketConfig { shape, scratch, scratch_bytes, put_bytes, first_call, .. } = config;
        if !scratch.is_multiple_of(8) {
            return Err(Error::Misaligned { what: "scratch", address: scratch });
        }
        // Alone on its node a rank needs none.
        let needs_scratch = shape.ranks_per_node() > 1;
        let scratch_bytes = if needs_scratch { scratch_bytes } else { 0 };
        let mut found = 0;
        if needs_scratch {
            let allocation = driver.allocation_of(scratch)?;
            found = allocation.bytes - (scratch - allocation.base) as usize;
        }
        if found < scratch_bytes {
            return Err(Error::TooSmall { what: "the scratch for packets", found, needed: scratch_bytes });
        }
        let zeros = vec![0; scratch_bytes.min(ZEROED_AT_ONCE)];
        for begin in (0..scratch_bytes).step_by(ZEROED_AT_ONCE) {
            driver.write(scratch + begin as u64, &zeros[..zeros.len().min(scratch_bytes - begin)])?;
        }
        let holdings = Holdings::new(driver)?;
        let (slot, put) = (shape.slot_words(scratch_bytes), shape.most_put_words(put_bytes));
        holdings.driver.write(holdings.progress, &first_call.max(1).to_le_bytes())?;
        Ok(Self { config, holdings, slot, put })
    }

    /// What the other ranks have to know, once the stream has come so far: bytes, for [`Prepared::connect`].
    ///
    /// # Errors
    ///
    /// [`Error::Driver`].
    pub fn offer(&self) -> Result<Vec<u8>, Error> {
        // Waits for the stream.
        let driver = &self.holdings.driver;
        driver.synchronize()?;
        let (mut handle, mut offset) = ([0; 64], 0);
        if self.config.shape.ranks_per_node() > 1 {
            let base = driver.allocation_of(self.config.scratch)?.base;
            handle = driver.export(base)?;
            offset = self.config.scratch - base;
        }
        let (slot, put) = (self.slot as u64, self.put as u64);
        Ok(Offer { handle, offset, alike: self.alike(), slot, put }.to_bytes())
    }

    /// What all ranks have to say alike.
    fn alike(&self) -> [u64; 4] {
        let PacketConfig { shape, sum, first_call, .. } = self.config;
        let numbers = [shape.world(), shape.ranks_per_node(), sum.code() as usize, first_call as usize];
        numbers.map(|number| number as u64)
    }

    /// Takes the offers of all ranks, in order of rank; the own is among them. For one node.
    ///
    /// # Errors
    ///
    /// [`Error::Count`], [`PacketError::Differs`]; [`Error::Driver`] for a handle that cannot be opened; [`PacketError::Nodes`] where
    /// there are two nodes.
    pub fn connect(self, offers: &[Vec<u8>]) -> Result<PacketContext<D>, Error> {
        let shape = self.config.shape;
        if shape.nodes() != 1 {
            let (world, ranks_per_node) = (shape.world(), shape.ranks_per_node());
            return Err(PacketError::Nodes { world, ranks_per_node }.into());
        }
        self.connected(offers)
    }

    /// The same for two nodes: `wire` leads to [`Shape::opposite`].
    ///
    /// # Errors
    ///
    /// As [`Prepared::connect`]; [`PacketError::Nodes`] where there is one node.
    pub fn connect_far(self, offers: &[Vec<u8>], wire: Box<dyn Wire>) -> Result<PacketContext<D>, Error>
    where
        D: MapHost + Clone,
    {
        let (shape, config) = (self.config.shape, self.config);
        let (world, ranks_per_node) = (shape.world(), shape.ranks_per_node());
        let opposite = shape.opposite().ok_or(PacketError::Nodes { world, ranks_per_node })?;
        let mut context = self.connected(offers)?;
        let (put, slot) = (context.call.put as usize, context.call.slot as usize);
        let shared = Shared::new(put, slot)?;
        let driver = context.holdings.driver.clone();
        let address = driver.map_host(shared.words())?;
        let (_words, born) = (Arc::clone(shared.words()), ForkMark::now());
        let words = Words { driver, address, unmap: D::unmap_host, _words, born };
        let [outgoing, incoming, doorbell, stop] = shared.addresses(address);
        context.call = Call { outgoing, incoming, doorbell, stop, ..context.call };
        let carrier = Carrier::start(shared, wire, opposite, config.first_call.max(1), config.patience)?;
        context.far = Some(Far { carrier, words });
        Ok(context)
    }

    /// Gives back what was allocated, where nothing comes of it, and tells what went wrong with that.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`]; what can be given back has been.
    pub fn discard(mut self) -> Result<(), Error> {
        self.holdings.give_back()
    }

    fn connected(mut self, offers: &[Vec<u8>]) -> Result<PacketContext<D>, Error> {
        let call = self.open(offers)?;
        let Self { config, holdings, .. } = self;
        Ok(PacketContext { config, call, failure: None, far: None, holdings })
    }

    /// What all launches are told, with the neighbours' scratch opened.
    fn open(&mut self, offers: &[Vec<u8>]) -> Result<Call, Error> {
        let (shape, config) = (self.config.shape, self.config);
        if offers.len() != shape.world() {
            return Err(Error::Count { what: "offers", expected: shape.world(), found: offers.len() });
        }
        let offers = offers.iter().map(|bytes| Offer::from_bytes(bytes)).collect::<Result<Vec<_>, _>>()?;
        for (rank, offer) in offers.iter().enumerate() {
            offer.check_alike(rank, self.alike())?;
        }
        // What all can hold.
        let slot = offers.iter().map(|offer| offer.slot).fold(self.slot as u64, u64::min);
        let put = offers.iter().map(|offer| offer.put).fold(self.put as u64, u64::min);
        let used = shape.scratch_bytes(slot as usize * shape.ranks_per_node() * DATA_BYTES);
        let mut scratch = [0; MAX_RANKS];
        for (local, rank) in shape.neighbours().enumerate() {
            scratch[local] = match rank == shape.rank() {
                true => config.scratch,
                false => self.holdings.open_peer(&offers[rank], used)?,
            };
        }
        Ok(Call {
            input: 0,
            output: 0,
            elements: 0,
            longest: 0,
            patience: self.holdings.driver.ticks(config.patience),
            overdue: self.holdings.overdue,
            progress: self.holdings.progress,
            scratch,
            // Alone on its node a rank has no slots, and what it puts is written anew word by word.
            slot: if shape.ranks_per_node() == 1 { put } else { slot },
            outgoing: 0,
            incoming: 0,
            doorbell: 0,
            stop: 0,
            put,
            ranks: shape.ranks_per_node() as u32,
            local: shape.local() as u32,
            node: shape.node() as u32,
            sum: config.sum.code(),
        })
    }
}

impl<D: Driver> PacketContext<D> {
    /// Puts an all-reduce on the stream: `output` becomes the sum of all ranks' inputs; in place if they are the same. All calls of a
    /// context are on one stream. May be captured into a graph, and replayed.
    ///
    /// `blocks` of `threads` say how many threads work together; launched are blocks of 512. Without them, as many as the message
    /// has use for. Ranks need not say alike.
    ///
    /// # Errors
    ///
    /// Before anything is put on the stream: [`Error::Misaligned`], [`Error::Overlap`], [`PacketError::TooLong`],
    /// [`PacketError::Launch`]; [`PacketError::Link`] once the other node cannot be reached; what [`PacketContext::check`] has
    /// returned, from then on.
    pub fn all_reduce(
        &mut self,
        input: u64,
        output: u64,
        elements: usize,
        dtype: DType,
        launch: Option<(usize, usize)>,
    ) -> Result<(), Error> {
        let (shape, sum) = (self.config.shape, self.config.sum);
        let bytes = elements * dtype.size();
        check_buffers(input, output, bytes)?;
        shape.check_length(bytes, dtype, sum, self.call.slot as usize, self.call.put as usize)?;
        let longest = shape.slice_words(bytes);
        let blocks = match launch {
            Some((threads, blocks)) => blocks_of_512(threads, blocks)?,
            None => longest.div_ceil(BLOCK_THREADS).clamp(1, MAX_BLOCKS),
        };
        self.check_now()?;
        if elements == 0 {
            return Ok(());
        }
        let call = Call { input, output, elements: elements as u64, longest: longest as u64, ..self.call };
        let kernel = if shape.nodes() == 1 { PacketKernel::Near } else { PacketKernel::Far };
        let kernel =
            self.holdings.driver.kernel(&kernel.code(), &kernel.name(dtype, shape.ranks_per_node()))?;
        // Asked before: what is on the stream must be announced.
        let is_captured = self.far.is_some() && self.holdings.driver.is_capturing()?;
        self.holdings.driver.launch(&kernel, blocks, BLOCK_THREADS, &call.to_bytes())?;
        if let Some(far) = &self.far {
            if is_captured { far.carrier.expect_replays() } else { far.carrier.announce() }
        }
        Ok(())
    }

    /// Waits for the stream, and says whether a launch waited in vain, or the other node cannot be reached any more. The results of
    /// such a launch are worth nothing, and the context is of no further use: ranks may have counted differently.
    ///
    /// # Errors
    ///
    /// [`Error::Overdue`]: for whom it waited. [`PacketError::Link`], [`PacketError::NotWritten`].
    pub fn check(&mut self) -> Result<(), Error> {
        self.holdings.driver.synchronize()?;
        self.check_now()
    }

    /// The device, and the stream on it.
    pub fn driver(&self) -> &D {
        &self.holdings.driver
    }

    /// As [`PacketContext::check`], without waiting. Every all-reduce asks first.
    fn check_now(&mut self) -> Result<(), Error> {
        let mut record = [0; OVERDUE_BYTES];
        self.holdings.driver.peek(self.call.overdue, &mut record)?;
        let overdue = Overdue::from_bytes(&record);
        let overdue = overdue.map(|overdue| Error::Overdue { overdue, patience: self.config.patience });
        if self.failure.is_none() {
            self.failure = overdue.or_else(|| self.link_failure());
        }
        self.failure.clone().map_or(Ok(()), Err)
    }

    /// Who this rank is among the others.
    pub fn shape(&self) -> Shape {
        self.config.shape
    }

    /// From now on launches wait so long for a word, and so does what takes words to the other node.
    pub fn set_patience(&mut self, patience: Duration) {
        self.config.patience = patience;
        self.call.patience = self.holdings.driver.ticks(patience);
        if let Some(far) = &self.far {
            far.carrier.set_patience(patience);
        }
    }

    /// Gives back what was opened and allocated; says goodbye to the other node. The stream must be there, and empty, on all ranks;
    /// launches that wait for the other node are ended, and their results are worth nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`], [`Error::Capturing`]; what can be given back has been.
    pub fn dispose(mut self) -> Result<(), Error> {
        let unmapped = self.give_back_far();
        self.holdings.give_back().and(unmapped)
    }

    /// Ends the threads, and with them the launches that wait for what they bring. Once the stream is empty, nobody reaches the words.
    fn give_back_far(&mut self) -> Result<(), Error> {
        let Some(Far { carrier, mut words }) = self.far.take() else { return Ok(()) };
        // Tells the kernels that nothing will come any more.
        drop(carrier);
        if self.holdings.born.crossed_fork() {
            return Ok(());
        }
        let driver = &self.holdings.driver;
        let ended = match driver.is_capturing() {
            Ok(true) => Err(Error::Capturing { what: "disposing of a packet context of two nodes" }),
            Ok(false) => driver.synchronize(),
            Err(refused) => Err(refused),
        };
        match ended {
            Ok(()) => words.give_back(),
            Err(refused) => {
                words.leave();
                Err(refused)
            }
        }
    }

    fn link_failure(&self) -> Option<Error> {
        self.far.as_ref()?.carrier.failure().map(Error::Packet)
    }
}

impl<D: Driver> Drop for PacketContext<D> {
    fn drop(&mut self) {
        // Who wants to know what went wrong calls `dispose`.
        let _ = self.give_back_far();
    }
}

/// As many blocks of 512 threads as there are threads in these.
fn blocks_of_512(threads: usize, blocks: usize) -> Result<usize, PacketError> {
    if !(1..=1024).contains(&threads) || !(1..=65_535).contains(&blocks) {
        return Err(PacketError::Launch { threads, blocks });
    }
    Ok((threads * blocks).div_ceil(BLOCK_THREADS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_threads_are_launched_as_were_asked_for_or_a_part_of_a_block_more() {
        let refused = |threads, blocks| Err(PacketError::Launch { threads, blocks });
        assert_eq!((blocks_of_512(512, 21), blocks_of_512(1024, 3)), (Ok(21), Ok(6)));
        assert_eq!((blocks_of_512(128, 5), blocks_of_512(1, 1)), (Ok(2), Ok(1)));
        assert_eq!((blocks_of_512(0, 1), blocks_of_512(1025, 1)), (refused(0, 1), refused(1025, 1)));
        assert_eq!(blocks_of_512(1, 0), refused(1, 0));
    }
}
