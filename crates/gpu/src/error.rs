//! What can go wrong, told to the caller: what was asked, what was found, what to do.

use std::time::Duration;

use crate::layout::{MAX_RANKS, META_BYTES, Overdue};

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
