//! What can go wrong, told to the caller: what was asked, what was found, what to do.

use std::time::Duration;

use crate::dtype::DType;
use crate::layout::{MAX_RANKS, META_BYTES, Overdue};
use crate::quick::{QUICK_BLOCKS, QUICK_THREADS};

/// Why an all-reduce, or the preparation of one, was refused or failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The number of ranks.
    #[error("{world} ranks were given; from 2 to {MAX_RANKS} can reduce together")]
    World {
        /// How many were given.
        world: usize,
    },
    /// The own rank.
    #[error("rank {rank} is not among the {world} ranks")]
    Rank {
        /// What was given.
        rank: usize,
        /// How many there are.
        world: usize,
    },
    /// More than two ranks not all of which are connected directly.
    #[error(
        "{world} devices that are not all connected directly to one another: their loads would cross the host's bus; use \
         another all-reduce, or say that they are fully connected if they are"
    )]
    NotFullyConnected {
        /// How many ranks.
        world: usize,
    },
    /// A memory for signals that is too small or lies askew.
    #[error(
        "the memory at {address:#x} cannot hold signals: {META_BYTES} bytes at a multiple of 128 are needed"
    )]
    Meta {
        /// Its address.
        address: u64,
    },
    /// An address that is not a multiple of 16.
    #[error("the {what} at {address:#x} does not begin at a multiple of 16 bytes")]
    Misaligned {
        /// Input, output or staging.
        what: &'static str,
        /// Its address.
        address: u64,
    },
    /// Input and output share some bytes but not all.
    #[error("input and output, {bytes} bytes at {input:#x} and {output:#x}, overlap but are not the same")]
    Overlap {
        /// The input's address.
        input: u64,
        /// The output's address.
        output: u64,
        /// The length of the shorter.
        bytes: usize,
    },
    /// An input that no peer knows of.
    #[error(
        "the input at {address:#x} was never registered; register it, give a staging buffer, or capture a graph"
    )]
    NotRegistered {
        /// Its address.
        address: u64,
    },
    /// A staging buffer or scratch that is too small.
    #[error("{what} has {found} bytes, {needed} are needed")]
    TooSmall {
        /// Which buffer.
        what: &'static str,
        /// What it has.
        found: usize,
        /// What is needed.
        needed: usize,
    },
    /// The table of registered buffers is full.
    #[error("the table of registered buffers has {rows} rows and all are taken; give it more memory")]
    TableFull {
        /// How many it has.
        rows: usize,
    },
    /// One pointer, handle or offset per rank and buffer was expected.
    #[error("{expected} {what} were expected, {found} were given")]
    Count {
        /// Of what.
        what: &'static str,
        /// How many there must be.
        expected: usize,
        /// How many were given.
        found: usize,
    },
    /// Not while a graph is captured.
    #[error("{what} cannot be done while a graph is being captured")]
    Capturing {
        /// What was tried.
        what: &'static str,
    },
    /// A rank waited for a peer for longer than it was told to.
    #[error(
        "rank {} waited for rank {} for longer than {patience:?}: block {}, meeting {} (flag {}, which held {})",
        .overdue.rank, .overdue.peer, .overdue.block, .overdue.expected, .overdue.flag, .overdue.found
    )]
    Overdue {
        /// Who waited for whom, and where.
        overdue: Overdue,
        /// How long it was to wait.
        patience: Duration,
    },
    /// A handle of the surface that is not, or no longer, one.
    #[error("{handle} is no {what}; it was never made here, or has been disposed of")]
    Context {
        /// Of what.
        what: &'static str,
        /// What was given.
        handle: i64,
    },
    /// Tensors that do not go together, or of a kind that is not reduced.
    #[error("{problem}")]
    Tensor {
        /// What was found, and what is needed.
        problem: String,
    },
    /// A device that cannot be read or written by another's.
    #[error("rank {rank}'s memory cannot be {what} by rank {by}; use another all-reduce")]
    NoPeerAccess {
        /// Whose memory.
        rank: usize,
        /// By whom.
        by: usize,
        /// Read, or written.
        what: &'static str,
    },
    /// A vendor's library that is not there.
    #[error("{what} was not found; tried: {tried}; {variable} can name the file")]
    NoLibrary {
        /// Whose library.
        what: &'static str,
        /// All that was tried, and what the loader said.
        tried: String,
        /// The environment variable that names another file.
        variable: &'static str,
    },
    /// Neither vendor's library is there.
    #[error(
        "there is no GPU driver. {cuda}. {hip}. UNISONO_GPU_DRIVER can be cuda, hip or (for tests on the CPU) sim"
    )]
    NoDevice {
        /// What was said of NVIDIA's.
        cuda: String,
        /// What was said of AMD's.
        hip: String,
    },
    /// A word in `UNISONO_GPU_DRIVER`.
    #[error("UNISONO_GPU_DRIVER is {found:?}; it can be cuda, hip or sim")]
    Platform {
        /// What it is.
        found: String,
    },
    /// An address in `UNISONO_GPU_ADDRESS`.
    #[error("UNISONO_GPU_ADDRESS is {found:?}; it is to be an address of this machine, such as 10.0.0.5")]
    Address {
        /// What it is.
        found: String,
    },
    /// Something that this build does not have.
    #[error("not available in this build: {what}")]
    NotBuilt {
        /// What.
        what: &'static str,
    },
    /// A type that an operation does not take.
    #[error("{what}: of f16 and bf16, not of {}", .dtype.name())]
    Type {
        /// The operation.
        what: &'static str,
        /// What was given.
        dtype: DType,
    },
    /// A message that is not whole rows, or rows that are not whole packs.
    #[error("{elements} elements in rows of {hidden}: whole rows are needed, each a multiple of 16 bytes")]
    Rows {
        /// Elements of the message.
        elements: usize,
        /// Elements of a row.
        hidden: usize,
    },
    /// Devices that have no switch that adds, or a driver that cannot use it.
    #[error("there are no multicast objects here: {why}; use another all-reduce")]
    NoMulticast {
        /// What is missing.
        why: String,
    },
    /// A quantisation level that there is not.
    #[error("there is no quantisation level {found}; 0 is none, 1 INT8, 2 INT6, 3 INT4")]
    Level {
        /// What was given.
        found: i64,
    },
    /// Blocks and threads of the quick all-reduce.
    #[error(
        "{blocks} blocks of {threads} threads; there can be 1 to {QUICK_BLOCKS} of 32, 64, 128 or {QUICK_THREADS}"
    )]
    Options {
        /// Blocks at most.
        blocks: usize,
        /// Threads of each.
        threads: usize,
    },
    /// Blocks of fewer threads than a device's kernels were compiled for.
    #[error("blocks of {found} threads: the kernels for this device are of blocks of {needed}")]
    Threads {
        /// What was asked for.
        found: usize,
        /// What there is.
        needed: usize,
    },
    /// A buffer where the all-reduce's own memory is.
    #[error(
        "the {what}, {bytes} bytes at {address:#x}, touches {memory}, which the peers read or write meanwhile"
    )]
    InUse {
        /// Input or output.
        what: &'static str,
        /// Its address.
        address: u64,
        /// Its length.
        bytes: usize,
        /// The memory that it touches.
        memory: &'static str,
    },
    /// What only all-reduces by packets can meet with.
    #[error(transparent)]
    Packet(#[from] crate::packet::PacketError),
    /// The driver refused.
    #[error("{call}: {reason}")]
    Driver {
        /// What was asked of it.
        call: &'static str,
        /// What it said.
        reason: String,
    },
}
